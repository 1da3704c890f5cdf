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
mod lease;
mod record;
mod warm;

pub use files::{FileFault, Swept};
pub use lease::{Ask, Ended, Lost, Trial};
pub use record::{PICTURES, RecordError, illustrate, record, tested};
pub use warm::{WarmStartError, warm_starts};

use crate::crash::{self, Point};
use crate::engine::{Engine, Event, Inconsistent, TrialState};
use crate::fsx::{FileLock, Holder, LockError};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::spec::{Change, Difference, StudySpec};
use crate::store::{EventStore, MemoryStore, RunStart, SqliteStore, StoreError};
use files::Files;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a study cannot be opened or go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// Another run has it.
    #[error("open study `{name}`: {}\nhint: wait for it or stop it; `hpsearch status` shows how far it is", held(.holder.as_ref()))]
    Locked { name: String, holder: Option<Holder> },
    /// The lock file cannot be used.
    #[error("lock study `{name}`")]
    Lock { name: String, source: LockError },
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
fn has_results(store: &SqliteStore) -> Result<bool, StudyError> {
    let mut found = false;
    store.read(0, &mut |event| found |= matches!(event, Event::EpochReported { .. } | Event::Enqueued { .. }))?;
    Ok(found)
}

/// Deletes a database with the files that SQLite keeps beside it.
fn remove_database(database: &Path) -> Result<(), StudyError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { path, source }.into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn held(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another run holds it".to_owned(), |h| format!("it is held by {h}"))
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().filter(|d| d.change != Change::Allowed).map(|d| format!("  {d}")).collect();
    lines.join("\n")
}

/// A study that is open for writing. One at a time: it holds the study's lock.
pub struct Study {
    dir: PathBuf,
    engine: Engine,
    store: Box<dyn EventStore>,
    /// Applied, not yet durable.
    pending: Vec<Event>,
    /// Open orders that somebody here is working on.
    leased: BTreeSet<OrderId>,
    files: Files,
    broken: bool,
    _lock: Option<FileLock>,
}

impl Study {
    /// A study that is forgotten when dropped. It cannot start warm.
    pub fn in_memory(spec: &StudySpec) -> Self {
        Self::assemble(PathBuf::new(), Engine::new(spec), Box::new(MemoryStore::new(spec.clone())), None)
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
        let dir = state.join(&spec.name);
        if !dir.join("study.db").exists() {
            // What cannot start is not begun; read again below, under the lock.
            warm_starts(state, base, spec)?;
        }
        for folder in ["checkpoints", "predictions"] {
            let path = dir.join(folder);
            std::fs::create_dir_all(&path).map_err(|source| StudyError::Folder { path, source })?;
        }
        crash::at(Point::FoldersMade);
        let lock = lock(&dir, &spec.name)?;
        let database = dir.join("study.db");
        let mut stored = if database.exists() { Some(SqliteStore::open(&database)?) } else { None };
        if let Some(store) = &mut stored {
            let differences = spec.difference(store.spec());
            if differences.iter().any(|d| d.change != Change::Allowed) {
                if has_results(store)? {
                    return Err(StudyError::Changed { name: spec.name.clone(), differences });
                }
                // Nothing is lost, and a mistake in the file is no reason for another name.
                stored = None;
                remove_database(&database)?;
            } else if !differences.is_empty() {
                store.replace_spec(spec)?;
            }
        }
        let store = match stored {
            Some(store) => store,
            None => SqliteStore::create(&database, spec)?,
        };
        let mut study = Self::resume(dir, Box::new(store), Some(lock))?;
        study.start_warm(state, base)?;
        Ok(study)
    }

    /// Opens a study that exists, as it was last agreed on.
    ///
    /// # Errors
    /// As [`Study::open`]; [`StoreError::Missing`] if there is none.
    pub fn open_existing(state: &Path, name: &str) -> Result<Self, StudyError> {
        let dir = state.join(name);
        let database = dir.join("study.db");
        if !database.exists() {
            return Err(StoreError::Missing(database).into());
        }
        let lock = lock(&dir, name)?;
        let store = SqliteStore::open(&database)?;
        Self::resume(dir, Box::new(store), Some(lock))
    }

    fn resume(dir: PathBuf, store: Box<dyn EventStore>, lock: Option<FileLock>) -> Result<Self, StudyError> {
        let mut study = Self::assemble(dir, Engine::new(store.spec()), store, lock);
        let (engine, files) = (&mut study.engine, &mut study.files);
        let mut fault = None;
        study.store.read(0, &mut |event| {
            if fault.is_none() {
                fault = engine.apply(&event).err();
                files.note(engine, &event);
            }
        })?;
        match fault {
            Some(fault) => Err(fault.into()),
            None => study.settle().map(|()| study),
        }
    }

    /// Whoever had the study open may have died between an order's last epoch and its outcome.
    fn settle(&mut self) -> Result<(), StudyError> {
        let open: Vec<OrderId> = self.engine.open_orders().map(|open| open.order.order).collect();
        for order in open {
            if let Some(outcome) = self.engine.outcome_due(order) {
                self.apply(Event::OrderFinished { order, outcome, unix_ms: crate::clock::unix_ms() })?;
            }
        }
        self.flush()
    }

    fn assemble(dir: PathBuf, engine: Engine, store: Box<dyn EventStore>, lock: Option<FileLock>) -> Self {
        Self {
            dir,
            engine,
            store,
            pending: Vec::new(),
            leased: BTreeSet::new(),
            files: Files::default(),
            broken: false,
            _lock: lock,
        }
    }

    /// The study as agreed on.
    pub fn spec(&self) -> &StudySpec {
        self.store.spec()
    }

    /// Where the study stands.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The study's folder: `STATE/<name>`; empty for a study in memory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Seconds of all its runs, as far as noted.
    pub fn run_seconds(&self) -> Result<f64, StudyError> {
        Ok(self.store.run_seconds()?)
    }

    /// Notes the beginning of a run.
    pub fn begin_run(&mut self, workers: u32, device: &str) -> Result<(), StudyError> {
        let run = RunStart {
            unix_ms: crate::clock::unix_ms(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            workers,
            device: device.to_owned(),
        };
        Ok(self.store.begin_run(&run)?)
    }

    /// Notes how long the run has lasted and, at its end, how it ended and where trials stand.
    pub fn note_run(&mut self, seconds: f64, ended: Option<&str>) -> Result<(), StudyError> {
        self.flush()?;
        self.store.note_run(seconds, ended)?;
        if ended.is_some() {
            // Trials that are being trained were put back to waiting: nobody trains them any more.
            let settled = |state| matches!(state, TrialState::Complete | TrialState::Stopped | TrialState::Paused);
            let states: Vec<_> =
                self.engine.trials().filter(|t| settled(t.state)).map(|t| (t.number, t.state)).collect();
            self.store.note_states(&states)?;
        }
        Ok(())
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
        self.engine.apply(&event)?;
        self.files.note(&self.engine, &event);
        self.pending.push(event);
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
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.append(self.store.len(), &self.pending) {
            self.broken = true;
            return Err(error.into());
        }
        for event in self.pending.drain(..) {
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

fn lock(dir: &Path, name: &str) -> Result<FileLock, StudyError> {
    FileLock::acquire(&dir.join("study.lock")).map_err(|error| match error {
        LockError::Held(holder) => StudyError::Locked { name: name.to_owned(), holder },
        source @ LockError::Io { .. } => StudyError::Lock { name: name.to_owned(), source },
    })
}

#[cfg(test)]
mod tests;
