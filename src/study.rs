//! A study: its engine and its store together. The library face: ask, report, tell.
//!
//! ```
//! use hpsearch::engine::EpochReport;
//! use hpsearch::study::{Ask, Study};
//!
//! let text = r#"
//!     runner = { kind = "external", epochs = 9 }
//!     budget = { n_trials = 27 }
//!     [space]
//!     x = { type = "float", low = 0.0, high = 1.0 }
//! "#;
//! let spec = hpsearch::config::from_text(text)?.spec;
//! let mut study = Study::in_memory(&spec);
//! while let Ask::Trial(mut trial) = study.ask()? {
//!     let x = trial.params().float("x").ok_or("every trial has an x")?;
//!     for epoch in trial.remaining() {
//!         let score = (1.0 - (x - 0.3).powi(2)) * (1.0 - 0.5f64.powi(epoch.0 as i32));
//!         if study.report(&mut trial, EpochReport::new(epoch, score))?.is_stop() {
//!             break;
//!         }
//!     }
//!     study.tell(trial, Ok(()))?; // consumes the trial
//! }
//! let best = study.engine().best().ok_or("no trial succeeded")?;
//! assert!(best.value > 0.9 && best.epoch.0 == 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Study::open`] keeps the study in a folder instead. Everything that has returned is durable then, and opening the
//! same study later goes on where it stopped; [`Study::save`] and [`Study::load`] let a promoted trial go on from its
//! state. `hpsearch status`, `report` and `export` read such a study like any other. `examples/own_objective.rs` shows
//! all of it.
//!
//! Telling twice does not compile:
//!
//! ```compile_fail,E0382
//! # use hpsearch::study::{Study, StudyError, Trial};
//! fn twice(study: &mut Study, trial: Trial) -> Result<(), StudyError> {
//!     study.tell(trial, Ok(()))?;
//!     study.tell(trial, Ok(()))
//! }
//! ```

mod files;
mod images;
mod lease;
mod opening;
mod record;
mod warm;

pub use files::{FileFault, Remains, Swept};
pub use images::ImagesError;
pub use lease::{Ask, Ended, Lost, Trial};
pub use opening::{OpeningError, OpeningOptions};
pub use record::{PICTURES, RecordError, illustrate, record, tested};
pub use warm::{WarmStartError, warm_starts};

use crate::crash::{self, Point};
use crate::engine::{Engine, Event, Inconsistent};
use crate::history::{History, Row};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::spec::{Change, Difference, StudySpec};
use crate::store::{Claim, RunEnd, RunStart, Store, StoreError, in_folder, in_memory};
use files::Files;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a study cannot be opened or go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The study file is no longer the one of the stored study.
    #[error("go on with study `{name}`: its file has changed\n{}\nhint: give the changed study another `name`, or run it with another --state; only budgets may be raised, and how it is run may change", list(.differences))]
    Changed { name: String, differences: Vec<Difference> },
    /// Results of an earlier study cannot be used.
    #[error(transparent)]
    WarmStart(#[from] WarmStartError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on record does not follow from the study.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// A folder of the study cannot be made.
    #[error("make `{path}`{}", if crate::fsx::is_disk_full(.source) { ": the disk is full" } else { "" })]
    Folder { path: PathBuf, source: std::io::Error },
    /// A success that is told too early.
    #[error(
        "finish trial {trial}: epoch {to} is not reported\nhint: report every epoch that `Trial::remaining` names, or tell why the trial failed"
    )]
    Unfinished { trial: TrialNumber, to: Epoch },
    /// There is no folder to keep a file in.
    #[error("keep a checkpoint of a study in memory\nhint: open the study in a folder with `Study::open`")]
    NoFolder,
    /// A checkpoint cannot be written or read.
    #[error("use checkpoint `{path}`{}", if crate::fsx::is_disk_full(.source) { ": the disk is full" } else { "" })]
    Checkpoint { path: PathBuf, source: std::io::Error },
    /// An earlier write has failed; what was said since is not on record.
    #[error("go on with a study whose store has failed\nhint: open it again")]
    Broken,
}

/// Whether there is anything on record that somebody waited for, or put there by hand.
fn has_results(store: &dyn Store) -> Result<bool, StudyError> {
    let mut found = false;
    store.events(0, &mut |event| found |= matches!(event, Event::EpochReported { .. } | Event::Enqueued { .. }))?;
    Ok(found)
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().filter(|d| d.change != Change::Allowed).map(|d| format!("  {d}")).collect();
    lines.join("\n")
}

/// A study that is open for writing. One at a time: it has the claim to the study.
pub struct Study {
    dir: PathBuf,
    history: History,
    /// Applied, not yet durable: events, and the rows that they change.
    events: Vec<Event>,
    rows: Vec<Row>,
    /// Open orders that somebody here is working on.
    leased: BTreeSet<OrderId>,
    files: Files,
    broken: bool,
    store: Box<dyn Store>,
    _claim: Box<dyn Claim>,
}

impl Study {
    /// A study that is forgotten when dropped. It cannot start warm.
    ///
    /// # Panics
    /// Never: memory neither fails nor is it shared.
    pub fn in_memory(spec: &StudySpec) -> Self {
        let claim = in_memory().claim(&spec.name).expect("nobody else knows this memory");
        let store = claim.create(spec).expect("it is empty");
        Self::assemble(PathBuf::new(), spec, store, claim)
    }

    /// Opens the study in `STATE/<name>`, or makes it. Relative paths in the study start at the working directory.
    ///
    /// # Errors
    /// If another run holds it, if results of an earlier study cannot be used, if the disk fails, or if the stored
    /// study differs in more than a raised budget: one that has no epoch on record is begun anew instead.
    pub fn open(state: &Path, spec: &StudySpec) -> Result<Self, StudyError> {
        Self::open_at(state, spec, Path::new("."))
    }

    /// [`Study::open`] with relative paths in the study starting at `base`: the folder of the study file.
    ///
    /// # Errors
    /// As [`Study::open`].
    pub fn open_at(state: &Path, spec: &StudySpec, base: &Path) -> Result<Self, StudyError> {
        let backend = in_folder(state);
        if !backend.exists(&spec.name) {
            // What cannot start is not begun; read again below, by whoever has the claim.
            warm_starts(state, base, spec)?;
        }
        let dir = state.join(&spec.name);
        for folder in ["checkpoints", "predictions"] {
            let path = dir.join(folder);
            std::fs::create_dir_all(&path).map_err(|source| StudyError::Folder { path, source })?;
        }
        crash::at(Point::FoldersMade);
        let claim = backend.claim(&spec.name)?;
        let mut stored = claim.open()?;
        if let Some(store) = &stored {
            let differences = spec.difference(store.spec());
            if differences.iter().any(|d| d.change != Change::Allowed) {
                if has_results(&**store)? {
                    return Err(StudyError::Changed { name: spec.name.clone(), differences });
                }
                // Nothing is lost, and a mistake in the file is no reason for another name.
                stored = None;
                claim.remove()?;
            }
        }
        let store = match stored {
            Some(store) => store,
            None => claim.create(spec)?,
        };
        let mut study = Self::resume(dir, spec, store, claim)?;
        study.start_warm(state, base)?;
        Ok(study)
    }

    /// Opens a study that exists, as it was last agreed on.
    ///
    /// # Errors
    /// As [`Study::open`]; [`StoreError::Missing`] if there is none.
    pub fn open_existing(state: &Path, name: &str) -> Result<Self, StudyError> {
        let (backend, dir) = (in_folder(state), state.join(name));
        let missing = || StoreError::Missing(dir.display().to_string());
        if !backend.exists(name) {
            return Err(missing().into());
        }
        let claim = backend.claim(name)?;
        let store = claim.open()?.ok_or_else(missing)?;
        let spec = store.spec().clone();
        Self::resume(dir, &spec, store, claim)
    }

    /// `spec`: the study as it is agreed on now.
    fn resume(
        dir: PathBuf,
        spec: &StudySpec,
        store: Box<dyn Store>,
        claim: Box<dyn Claim>,
    ) -> Result<Self, StudyError> {
        let mut study = Self::assemble(dir, spec, store, claim);
        let (history, files, rows) = (&mut study.history, &mut study.files, &mut study.rows);
        let mut fault = None;
        study.store.events(0, &mut |event| {
            if fault.is_none() {
                fault = history.apply(&event, rows).err();
                files.note(history.engine(), rows);
                rows.clear(); // on record
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        if study.store.spec() != spec {
            study.store.replace_spec(spec, &study.history.trial_rows())?;
        }
        study.settle()?;
        if let Some(run) = study.store.runs()?.last()
            && run.ended.is_some_and(|end| end != RunEnd::Killed)
        {
            study.history.interrupt(run.started_ms, &mut study.rows);
            study.rows.clear(); // on record since that run's end
        }
        Ok(study)
    }

    /// Whoever had the study open may have died between an order's last epoch and its outcome.
    fn settle(&mut self) -> Result<(), StudyError> {
        let open: Vec<OrderId> = self.engine().open_orders().map(|open| open.order.order).collect();
        for order in open {
            if let Some(outcome) = self.engine().outcome_due(order) {
                self.apply(Event::OrderFinished { order, outcome, unix_ms: crate::clock::unix_ms() })?;
            }
        }
        self.flush()
    }

    fn assemble(dir: PathBuf, spec: &StudySpec, store: Box<dyn Store>, claim: Box<dyn Claim>) -> Self {
        Self {
            dir,
            history: History::new(spec),
            events: Vec::new(),
            rows: Vec::new(),
            leased: BTreeSet::new(),
            files: Files::default(),
            broken: false,
            store,
            _claim: claim,
        }
    }

    /// The study as agreed on.
    pub fn spec(&self) -> &StudySpec {
        self.store.spec()
    }

    /// Where the study stands.
    pub fn engine(&self) -> &Engine {
        self.history.engine()
    }

    /// The study's folder: `STATE/<name>`; empty for a study in memory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Seconds of all its runs, as far as noted.
    pub fn run_seconds(&self) -> Result<f64, StudyError> {
        Ok(self.store.runs()?.iter().map(|run| run.seconds).sum())
    }

    /// Notes the beginning of a run. Attempts that an earlier run has left open are over.
    pub fn begin_run(&mut self, workers: u32, device: &str) -> Result<(), StudyError> {
        self.flush()?;
        let run = RunStart {
            unix_ms: crate::clock::unix_ms(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            workers,
            device: device.to_owned(),
        };
        let mut rows = Vec::new();
        self.history.interrupt(run.unix_ms, &mut rows);
        Ok(self.store.begin_run(&run, &rows)?)
    }

    /// Notes how long the run has lasted and, at its end, how it ended: whatever is open then is interrupted.
    pub fn note_run(&mut self, seconds: f64, ended: Option<RunEnd>) -> Result<(), StudyError> {
        self.flush()?;
        let mut rows = Vec::new();
        if ended.is_some() {
            self.history.interrupt(crate::clock::unix_ms(), &mut rows);
        }
        Ok(self.store.note_run(seconds, ended.map(|end| (end, rows.as_slice())))?)
    }

    /// Puts a configuration first: the next new trial takes it. It is brought into the space's form.
    ///
    /// # Errors
    /// If the store fails; the caller has checked the configuration with `SearchSpace::complete`.
    pub fn enqueue(&mut self, params: crate::space::Params) -> Result<(), StudyError> {
        self.apply(Event::Enqueued { params, unix_ms: crate::clock::unix_ms() })?;
        self.flush()
    }

    /// Applies an event now; it is durable after the next [`Study::flush`].
    pub(crate) fn apply(&mut self, event: Event) -> Result<(), StudyError> {
        if self.broken {
            return Err(StudyError::Broken);
        }
        let known = self.rows.len();
        self.history.apply(&event, &mut self.rows)?;
        self.files.note(self.history.engine(), &self.rows[known..]);
        self.events.push(event);
        Ok(())
    }

    /// Makes everything durable that was applied: one transaction.
    ///
    /// # Errors
    /// If the store fails. The study then accepts nothing more: open it again, and what was not durable never was.
    pub fn flush(&mut self) -> Result<(), StudyError> {
        if self.broken {
            return Err(StudyError::Broken);
        }
        if self.events.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.append(self.store.len(), &self.events, &self.rows) {
            self.broken = true;
            return Err(error.into());
        }
        self.rows.clear();
        for event in self.events.drain(..) {
            match event {
                Event::OrderIssued { .. } => crash::at(Point::OrderIssued),
                Event::AttemptStarted { .. } => crash::at(Point::AttemptStarted),
                Event::EpochReported { .. } => crash::at(Point::EpochRecorded),
                Event::OrderFinished { .. } => crash::at(Point::OrderFinished),
                Event::AttemptLost { .. } | Event::Enqueued { .. } | Event::EarlierResults { .. } => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
