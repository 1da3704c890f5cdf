//! A study: its engine and its store together. The library's interface: ask, report, tell.
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
//! [`Study::open`] keeps the study in a folder instead. Every call is then durable once it has returned, and opening
//! the same study later continues where it stopped; [`Study::save`] and [`Study::load`] let a promoted trial resume
//! from its state. `hpsearch status`, `report` and `export` read such a study like any other.
//! `examples/own_objective.rs` shows all of it.
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
pub use lease::{Ask, Ended, Lost, Outlook, Trial};
pub use opening::{FINALISTS, OpeningError, OpeningOptions};
pub use record::{PICTURES, RecordError, illustrate, keep_audit, record, tested};
pub use warm::{WarmStartError, warm_starts};

use crate::crash::{self, Point};
use crate::engine::{Engine, Event, Greeting, Inconsistent};
use crate::history::{History, Row};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::spec::{Change, Difference, StudySpec};
use crate::store::{Backend, Claim, RunEnd, RunStart, Store, StoreError, in_folder, in_memory};
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
    /// The events on record are inconsistent with the study.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// A folder of the study cannot be made.
    #[error("make `{path}`{}", if crate::fsx::is_disk_full(.source) { ": the disk is full" } else { "" })]
    Folder { path: PathBuf, source: std::io::Error },
    /// A success was told before all epochs were reported.
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
    /// An earlier write has failed; what was reported since is not on record.
    #[error("go on with a study whose store has failed\nhint: open it again")]
    Broken,
}

/// Whether any epoch or enqueued configuration is on record.
fn has_results(store: &dyn Store) -> Result<bool, StudyError> {
    let mut found = false;
    store.events(0, &mut |event| found |= matches!(event, Event::EpochReported { .. } | Event::Enqueued { .. }))?;
    Ok(found)
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().filter(|d| d.change != Change::Allowed).map(|d| format!("  {d}")).collect();
    lines.join("\n")
}

/// A study that is open for writing. It holds the claim to the study, so no other process can open it for writing.
pub struct Study {
    dir: PathBuf,
    history: History,
    /// Applied, not yet durable: events, and the rows that they change.
    events: Vec<Event>,
    rows: Vec<Row>,
    /// Open orders that are leased: handed out, and neither told nor released yet.
    leased: BTreeSet<OrderId>,
    /// What [`Study::outlook`] said, until something changes.
    outlook: Option<Outlook>,
    files: Files,
    broken: bool,
    store: Box<dyn Store>,
    claim: Box<dyn Claim>,
}

impl Study {
    /// A study in memory, lost when dropped. It cannot use a warm start.
    ///
    /// # Panics
    /// Never: the store is in memory, so it neither fails nor is shared.
    pub fn in_memory(spec: &StudySpec) -> Self {
        let claim = in_memory().claim(&spec.name).expect("nobody else knows this memory");
        let store = claim.create(spec).expect("it is empty");
        Self::assemble(PathBuf::new(), spec, store, claim)
    }

    /// Opens the study in `STATE/<name>`, or creates it. Relative paths in the study start at the working directory.
    ///
    /// # Errors
    /// If another run holds it, if results of an earlier study cannot be used, if the disk fails, or if the stored
    /// study differs in more than a raised budget or settings of the run. A stored study without an epoch or enqueued
    /// configuration on record is replaced instead.
    pub fn open(state: &Path, spec: &StudySpec) -> Result<Self, StudyError> {
        Self::open_at(state, spec, Path::new("."))
    }

    /// [`Study::open`] with relative paths in the study starting at `base`: the folder of the study file.
    ///
    /// # Errors
    /// As [`Study::open`].
    pub fn open_at(state: &Path, spec: &StudySpec, base: &Path) -> Result<Self, StudyError> {
        Self::open_in(&*in_folder(state), state, spec, base)
    }

    /// [`Study::open_at`] with the study in `backend`; its other files are in `STATE/<name>` still.
    ///
    /// # Errors
    /// As [`Study::open`].
    pub fn open_in(backend: &dyn Backend, state: &Path, spec: &StudySpec, base: &Path) -> Result<Self, StudyError> {
        if !backend.exists(&spec.name)? {
            // Fails before anything is created. The results are read again below, under the claim.
            warm_starts(backend, base, spec)?;
        }
        let dir = state.join(&spec.name);
        let claim = backend.claim(&spec.name)?;
        let mut stored = claim.open()?;
        for folder in ["checkpoints", "predictions"] {
            let path = dir.join(folder);
            std::fs::create_dir_all(&path).map_err(|source| StudyError::Folder { path, source })?;
        }
        crash::at(Point::FoldersMade);
        let mut spec = spec.clone();
        if let Some(store) = &stored {
            let with_earlier = spec.clone().with_defaults_of(store.spec());
            let differences = with_earlier.difference(store.spec());
            if differences.iter().any(|d| d.change != Change::Allowed) {
                if has_results(&**store)? {
                    return Err(StudyError::Changed { name: spec.name.clone(), differences });
                }
                // No result is lost, and a corrected study file can keep its name.
                stored = None;
                claim.remove()?;
                for (file, ..) in PICTURES {
                    let _ = std::fs::remove_file(dir.join(file)); // of what may be other images
                }
            } else {
                spec = with_earlier;
            }
        }
        let store = match stored {
            Some(store) => store,
            None => claim.create(&spec)?,
        };
        let mut study = Self::resume(dir, &spec, store, claim)?;
        study.start_warm(backend, base)?;
        Ok(study)
    }

    /// Opens an existing study with its stored specification.
    ///
    /// # Errors
    /// As [`Study::open`]; [`StoreError::Missing`] if there is none.
    pub fn open_existing(state: &Path, name: &str) -> Result<Self, StudyError> {
        Self::open_existing_in(&*in_folder(state), state, name)
    }

    /// [`Study::open_existing`] with the study in `backend`; its other files are in `STATE/<name>` still.
    ///
    /// # Errors
    /// As [`Study::open_existing`].
    pub fn open_existing_in(backend: &dyn Backend, state: &Path, name: &str) -> Result<Self, StudyError> {
        let dir = state.join(name);
        let missing = || StoreError::Missing(backend.place(name));
        if !backend.exists(name)? {
            return Err(missing().into());
        }
        let claim = backend.claim(name)?;
        let store = claim.open()?.ok_or_else(missing)?;
        let spec = store.spec().clone();
        Self::resume(dir, &spec, store, claim)
    }

    /// Replays a stored study. `spec`: its specification from now on.
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
                rows.clear(); // stored already
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        if study.store.spec() != spec {
            study.store.replace_spec(spec, &study.history.trial_rows())?;
        }
        study.finish_due_orders()?;
        if let Some(run) = study.store.runs()?.last()
            && run.ended.is_some_and(|end| end != RunEnd::Killed)
        {
            study.history.interrupt(run.started_ms, &mut study.rows);
            study.rows.clear(); // stored when that run ended
        }
        Ok(study)
    }

    /// Finishes orders whose outcome is due: the last process may have died between an order's last epoch and its
    /// outcome.
    fn finish_due_orders(&mut self) -> Result<(), StudyError> {
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
            outlook: None,
            files: Files::default(),
            broken: false,
            store,
            claim,
        }
    }

    /// The stored specification.
    pub fn spec(&self) -> &StudySpec {
        self.store.spec()
    }

    /// The current state of the study.
    pub fn engine(&self) -> &Engine {
        self.history.engine()
    }

    /// The study's folder: `STATE/<name>`; empty for a study in memory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Seconds of all its runs, as far as recorded.
    pub fn run_seconds(&self) -> Result<f64, StudyError> {
        Ok(self.store.runs()?.iter().map(|run| run.seconds).sum())
    }

    /// Records the start of a run. Attempts that an earlier run left open are marked as interrupted.
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

    /// Records that a worker can take orders, if it is another than the last of its number, or elsewhere. Durable only after
    /// the next flush.
    ///
    /// # Errors
    /// If the study can no longer go on.
    pub fn greet(&mut self, worker: u32, greeting: Greeting) -> Result<(), StudyError> {
        if self.engine().greeting(worker) == Some(&greeting) {
            return Ok(());
        }
        self.apply(Event::WorkerReady { worker, greeting, unix_ms: crate::clock::unix_ms() })
    }

    /// Records how long the run has lasted and, at its end, how it ended: attempts open then are marked as interrupted.
    pub fn note_run(&mut self, seconds: f64, ended: Option<RunEnd>) -> Result<(), StudyError> {
        self.flush()?;
        let mut rows = Vec::new();
        if ended.is_some() {
            self.history.interrupt(crate::clock::unix_ms(), &mut rows);
        }
        Ok(self.store.note_run(seconds, ended.map(|end| (end, rows.as_slice())))?)
    }

    /// Enqueues a configuration, complete for this space: the next new trial takes it.
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
        self.outlook = None;
        let known = self.rows.len();
        self.history.apply(&event, &mut self.rows)?;
        self.files.note(self.history.engine(), &self.rows[known..]);
        self.events.push(event);
        Ok(())
    }

    /// Makes everything that was applied durable, in one transaction.
    ///
    /// # Errors
    /// If the store fails. The study then accepts nothing more; opened again, it is as of the last successful flush.
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
                Event::AttemptLost { .. }
                | Event::Enqueued { .. }
                | Event::EarlierResults { .. }
                | Event::PaceMeasured { .. }
                | Event::WeightsIdentified { .. }
                | Event::WorkerReady { .. } => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
