//! The files of a study: which are needed, where a trial can resume, which may be deleted.

use super::{Study, StudyError, Trial};
use crate::crash::{self, Point};
use crate::digest::Digest;
use crate::engine::{Engine, FailureClass, FileRef, TrialState, Why};
use crate::fsx;
use crate::history::{FileKind, FileRow, OrderRow, Row};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::runner::{Start, command};
use crate::spec::RunnerSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Files that are kept, by trial and path.
#[derive(Debug, Default)]
pub(super) struct Files {
    checkpoints: BTreeMap<TrialNumber, BTreeMap<String, u64>>,
    predictions: BTreeMap<TrialNumber, String>,
    bytes: u64,
    /// No longer needed, not yet deleted.
    stale: BTreeSet<String>,
    /// Orders finished since unneeded checkpoints were last dropped.
    finished: usize,
}

impl Files {
    /// Takes in the rows of an event that `engine` has just applied.
    pub(super) fn note(&mut self, engine: &Engine, rows: &[Row]) {
        for row in rows {
            match row {
                Row::File(FileRow { kind: FileKind::Predictions, file, trial, .. }) => {
                    // Only a trial's newest predictions are kept; an epoch trained again writes to the same name.
                    let previous = self.predictions.insert(*trial, file.path.clone());
                    self.stale.extend(previous);
                    self.stale.remove(&file.path);
                }
                Row::File(FileRow { kind: FileKind::Checkpoint, file, trial, .. }) => {
                    self.add_checkpoint(engine, *trial, file);
                }
                Row::Order(OrderRow { outcome: Some(_), .. }) => self.finished += 1,
                _ => {}
            }
        }
    }

    /// The engine remembers the newest two checkpoints of a trial; older ones are stale.
    fn add_checkpoint(&mut self, engine: &Engine, trial: TrialNumber, file: &FileRef) {
        self.stale.remove(&file.path);
        let newest: BTreeSet<&str> = engine
            .trial(trial)
            .map(|trial| trial.checkpoints().map(|files| files.checkpoint.path.as_str()).collect())
            .unwrap_or_default();
        let own = self.checkpoints.entry(trial).or_default();
        let replaced = own.insert(file.path.clone(), file.bytes).unwrap_or(0);
        self.bytes = self.bytes + file.bytes - replaced;
        own.retain(|path, bytes| {
            let keep = newest.contains(path.as_str());
            if !keep {
                self.bytes -= *bytes;
                self.stale.insert(path.clone());
            }
            keep
        });
    }

    /// Drops checkpoints that are not among these.
    fn keep_only(&mut self, on_record: &BTreeSet<String>) {
        for own in self.checkpoints.values_mut() {
            own.retain(|path, bytes| {
                let keep = on_record.contains(path);
                if !keep {
                    self.bytes -= *bytes;
                }
                keep
            });
        }
    }

    fn drop_checkpoint(&mut self, trial: TrialNumber, path: &str) {
        if let Some(own) = self.checkpoints.get_mut(&trial)
            && let Some(bytes) = own.remove(path)
        {
            self.bytes -= bytes;
            self.stale.insert(path.to_owned());
        }
    }

    /// Paths of all files that are kept.
    fn kept(&self) -> BTreeSet<String> {
        self.checkpoints.values().flat_map(BTreeMap::keys).chain(self.predictions.values()).cloned().collect()
    }

    /// Drops checkpoints that no trial needs.
    fn drop_unneeded(&mut self, engine: &Engine) {
        self.finished = 0;
        let needed: BTreeSet<&str> =
            engine.needed_checkpoints().into_iter().map(|needed| needed.file.path.as_str()).collect();
        let unneeded: Vec<_> = self
            .checkpoints
            .iter()
            .flat_map(|(trial, own)| own.keys().map(|path| (*trial, path.clone())))
            .filter(|(_, path)| !needed.contains(path.as_str()))
            .collect();
        for (trial, path) in unneeded {
            self.drop_checkpoint(trial, &path);
        }
        self.checkpoints.retain(|_, own| !own.is_empty());
    }

    /// Drops checkpoints until the rest fit the quota: fallbacks first, then those of complete trials, then those of
    /// paused trials, each worst trials first. Those from which trials that are not paused resume stay. Returns how
    /// many paused trials would have to start from the beginning.
    fn enforce_quota(&mut self, engine: &Engine, quota: u64) -> u64 {
        let mut over_quota = 0;
        let mut needed = engine.needed_checkpoints();
        let ledger = engine.ledger();
        needed.sort_by_key(|n| {
            let value = engine.trial(n.trial).and_then(|t| t.value);
            std::cmp::Reverse((n.why, ledger.rank(n.trial, value)))
        });
        let candidates: Vec<_> = needed
            .into_iter()
            .filter(|n| {
                let state = engine.trial(n.trial).map(|t| t.state);
                n.why != Why::Resume || state == Some(TrialState::Paused)
            })
            .map(|n| (n.trial, n.file.path.clone(), n.why))
            .collect();
        for (trial, path, why) in candidates {
            if self.bytes <= quota {
                break;
            }
            self.drop_checkpoint(trial, &path);
            over_quota += u64::from(why == Why::Resume);
        }
        over_quota
    }
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Files deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Checkpoints deleted for the quota although a trial may have to resume from them.
    pub over_quota: u64,
}

/// The files of a study on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Remains {
    /// Checkpoints, predictions, and the states of commands.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A file on record that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// Relative to the study's folder.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "checkpoint `{}` {}", self.path, self.what)
    }
}

impl Study {
    /// Where an attempt begins: at the newest checkpoint whose digest is right, else at the one before, else at the
    /// beginning. Also returns the faults of the checkpoints that were skipped.
    ///
    /// Commands keep their own state in the folder of their trial, so they begin after the last epoch on record, or at
    /// the beginning if that folder is missing or empty.
    pub fn start(&self, trial: &Trial) -> (Start, Vec<FileFault>) {
        let halvings = self.halvings(trial.number());
        if matches!(self.spec().runner, RunnerSpec::Command(_)) {
            let folder = self.dir.join(command::folder(trial.number()));
            let kept = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
            let epoch = if kept { trial.known() } else { Epoch(0) };
            return (Start { epoch, halvings, ..Start::default() }, Vec::new());
        }
        let mut faults = Vec::new();
        for files in trial.checkpoints() {
            match verify(&self.dir, &files.checkpoint) {
                Ok(()) => {
                    let checkpoint = Some(files.checkpoint.clone());
                    return (Start { checkpoint, epoch: files.epoch, halvings }, faults);
                }
                Err(what) => faults.push(FileFault { path: files.checkpoint.path.clone(), what }),
            }
        }
        (Start { halvings, ..Start::default() }, faults)
    }

    /// Attempts at the trial that ran out of memory: each halves the micro-batch of the next one.
    fn halvings(&self, trial: TrialNumber) -> u32 {
        let orders = self.engine().trial(trial).map(|t| t.orders.clone()).unwrap_or_default();
        let record = |order: &OrderId| self.engine().orders().get(order.0 as usize);
        orders.iter().filter_map(record).filter_map(|record| record.losses.get(&FailureClass::Oom)).sum()
    }

    /// Saves a trial's state after an epoch, durably, as a checkpoint: put what this returns into the `checkpoint` of
    /// the epoch's report. The file is deleted when no trial needs it any more.
    ///
    /// # Errors
    /// If the study is in memory, or the file cannot be written.
    pub fn save(&self, trial: &Trial, epoch: Epoch, state: &[u8]) -> Result<FileRef, StudyError> {
        if self.dir.as_os_str().is_empty() {
            return Err(StudyError::NoFolder);
        }
        let path = format!("checkpoints/{:05}-{:04}.bin", trial.number().0, epoch.0);
        let target = self.dir.join(&path);
        fsx::write_atomic(&target, state).map_err(|source| StudyError::Checkpoint { path: target, source })?;
        Ok(FileRef { path, digest: Digest::of(state), bytes: state.len() as u64 })
    }

    /// The newest undamaged state of a trial saved by [`Study::save`], with its epoch: train the epochs
    /// [`Trial::after`] it. `None`: start from the beginning.
    ///
    /// # Errors
    /// If the file cannot be read although its digest was right.
    pub fn load(&self, trial: &Trial) -> Result<Option<(Epoch, Vec<u8>)>, StudyError> {
        let (start, _) = self.start(trial);
        let Some(file) = start.checkpoint else { return Ok(None) };
        let path = self.dir.join(&file.path);
        match std::fs::read(&path) {
            Ok(state) => Ok(Some((start.epoch, state))),
            Err(source) => Err(StudyError::Checkpoint { path, source }),
        }
    }

    /// Deletes files that have become unneeded since the last time. Everything applied must be durable: the caller
    /// has flushed.
    ///
    /// # Errors
    /// If the store fails. A file that cannot be deleted is left to the next [`Study::tidy`].
    pub fn sweep(&mut self) -> Result<Swept, StudyError> {
        debug_assert!(self.events.is_empty(), "sweep follows flush");
        // Looking at every trial after every order would be quadratic in long studies.
        if self.files.finished > self.engine().trials().len() / 64 {
            self.files.drop_unneeded(self.history.engine());
        }
        let mut over_quota = 0;
        if let Some(quota) = self.spec().limits.checkpoint_bytes
            && self.files.bytes > quota
        {
            self.files.drop_unneeded(self.history.engine());
            over_quota = self.files.enforce_quota(self.history.engine(), quota);
        }
        let stale: Vec<String> = std::mem::take(&mut self.files.stale).into_iter().collect();
        let mut swept = Swept { over_quota, ..Swept::default() };
        if stale.is_empty() {
            return Ok(swept);
        }
        self.store.forget_files(&stale)?;
        crash::at(Point::FilesForgotten);
        for path in stale {
            delete(&self.dir.join(path), &mut swept);
        }
        crash::at(Point::FilesDeleted);
        Ok(swept)
    }

    /// Deletes everything in the study's folders of checkpoints and predictions that nothing needs: leftovers of a
    /// crash, unfinished files, checkpoints of trials that are over.
    ///
    /// # Errors
    /// If the store fails or a folder cannot be read.
    pub fn tidy(&mut self) -> Result<Swept, StudyError> {
        self.flush()?;
        self.files.drop_unneeded(self.history.engine());
        // What was given up for the quota in earlier runs is in the log, but on record no more.
        let on_record: BTreeSet<String> = self.store.kept_files()?.into_iter().collect();
        self.files.keep_only(&on_record);
        self.files.stale.clear(); // found below, with everything else
        let kept = self.files.kept();
        let forgotten: Vec<String> = on_record.into_iter().filter(|path| !kept.contains(path)).collect();
        self.store.forget_files(&forgotten)?;
        let mut swept = self.sweep()?;
        if self.dir.as_os_str().is_empty() {
            return Ok(swept);
        }
        for folder in ["checkpoints", "predictions"] {
            self.tidy_folder(Path::new(folder), &kept, &mut swept)?;
        }
        let commands = self.tidy_commands()?;
        swept.files += commands.files;
        swept.bytes += commands.bytes;
        Ok(swept)
    }

    /// Deletes the folders in which commands kept the state of trials that nothing needs any more. No program may still
    /// be running for a trial that is over.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn tidy_commands(&self) -> Result<Swept, StudyError> {
        let mut swept = Swept::default();
        if self.dir.as_os_str().is_empty() || !matches!(self.spec().runner, RunnerSpec::Command(_)) {
            return Ok(swept);
        }
        let all = self.dir.join(command::FOLDERS);
        let fault = |source| StudyError::Folder { path: all.clone(), source };
        let entries = match std::fs::read_dir(&all) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(swept),
            entries => entries.map_err(fault)?,
        };
        let needed = self.engine().needed_trials();
        for entry in entries {
            let entry = entry.map_err(fault)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if number.is_none_or(|number| !needed.contains(&TrialNumber(number))) {
                delete_folder(&entry.path(), &mut swept);
            }
        }
        Ok(swept)
    }

    /// Checkpoints, predictions and the states of commands that are on disk now.
    pub fn remains(&self) -> Remains {
        let mut remains = Remains::default();
        if !self.dir.as_os_str().is_empty() {
            for folder in ["checkpoints", "predictions", command::FOLDERS] {
                add_up(&self.dir.join(folder), &mut remains);
            }
        }
        remains
    }

    fn tidy_folder(&self, relative: &Path, kept: &BTreeSet<String>, swept: &mut Swept) -> Result<(), StudyError> {
        let path = self.dir.join(relative);
        let fault = |source| StudyError::Folder { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let relative = relative.join(entry.file_name());
            if entry.file_type().map_err(fault)?.is_dir() {
                self.tidy_folder(&relative, kept, swept)?;
            } else if !kept.contains(&*relative.to_string_lossy()) {
                delete(&entry.path(), swept);
            }
        }
        Ok(())
    }
}

fn add_up(folder: &Path, remains: &mut Remains) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => add_up(&entry.path(), remains),
            Ok(meta) => (remains.files, remains.bytes) = (remains.files + 1, remains.bytes + meta.len()),
            Err(_) => {} // deleted meanwhile
        }
    }
}

/// Deletes a folder and its contents; links are deleted, not followed.
fn delete_folder(path: &Path, swept: &mut Swept) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            delete_folder(&entry.path(), swept);
        } else {
            delete(&entry.path(), swept);
        }
    }
    let _ = std::fs::remove_dir(path); // what could not be emptied is left to the next time
}

fn delete(path: &Path, swept: &mut Swept) {
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    if std::fs::remove_file(path).is_ok() {
        swept.files += 1;
        swept.bytes += bytes;
    }
}

fn verify(dir: &Path, file: &FileRef) -> Result<(), String> {
    let path = dir.join(&file.path);
    let bytes = std::fs::metadata(&path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if bytes != file.bytes {
        return Err(format!("has {bytes} bytes, not {}", file.bytes));
    }
    match Digest::of_file(&path) {
        Ok(digest) if digest == file.digest => Ok(()),
        Ok(_) => Err("is damaged: its digest is not the one on record".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
