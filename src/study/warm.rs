//! Warm start: results of earlier studies for the sampler of a new one, found, checked and copied into its database.
//!
//! They are copied once, as events, before the first order: later changes to the earlier study do not matter, and a
//! resumed study knows the same results.

mod optuna;

use super::{Study, StudyError};
use crate::clock::unix_ms;
use crate::engine::{Engine, Event, Inconsistent, WarmStart};
use crate::exchange::JournalError;
use crate::ids::Epoch;
use crate::ledger::EarlierResult;
use crate::space::{NotInSpace, Params, SearchSpace};
use crate::spec::StudySpec;
use crate::store::{Backend, Reader, StoreError, read_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a warm start fails.
#[derive(Debug, thiserror::Error)]
pub enum WarmStartError {
    /// No such study.
    #[error(
        "start warm from `{source_name}`: there is no such study\nhint: sought as {}; `sampler.warm_start` takes a study's name in the state folder, or the path of its `study.db` relative to the study file",
        sought.join(" and ")
    )]
    Missing { source_name: String, sought: Vec<String> },
    /// No such file of Optuna.
    #[error(
        "start warm from `{source_name}`: there is no such file\nhint: sought as {}; `optuna:FILE` takes a journal file or a SQLite database of Optuna, relative to the study file",
        list(sought)
    )]
    NoFile { source_name: String, sought: Vec<PathBuf> },
    /// It is not clear which study of a file is meant.
    #[error(
        "start warm from `{}`: {}\nhint: name one as `optuna:FILE#STUDY`",
        path.display(),
        if known.is_empty() { "it holds no study".to_owned() } else { format!("which study? It holds {}", known.join(", ")) }
    )]
    WhichStudy { path: PathBuf, known: Vec<String> },
    /// A study of Optuna with several objectives.
    #[error("start warm from study {study}: it has {n} objectives\nhint: a study here has one")]
    Objectives { study: String, n: usize },
    /// A file cannot be read.
    #[error("read `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A journal cannot be read.
    #[error("read `{}`", path.display())]
    Journal { path: PathBuf, source: JournalError },
    /// A database of Optuna cannot be read.
    #[error(
        "read the studies of Optuna in `{}`\nhint: `optuna storage upgrade` brings a database of an older Optuna up to date; a study of hpsearch is named without `optuna:`",
        path.display()
    )]
    Database { path: PathBuf, source: StoreError },
    /// A study cannot learn from itself.
    #[error(
        "start warm from `{0}`: that is this very study\nhint: name an earlier one, or give this one another `name`"
    )]
    Itself(String),
    /// Its objective is another one.
    #[error(
        "start warm from study {study}: its {what} is {theirs}, here it is {ours}\nhint: values can be compared only where both studies have the same objective"
    )]
    Objective { study: String, what: &'static str, theirs: String, ours: String },
    /// None of its trials can be used.
    #[error("start warm from study {}: none of its trials can be used{}\nhint: its parameters must be those of this study, their values within this study's domains", .0.study, reasons(.0))]
    NothingFits(Box<WarmStart>),
    /// The earlier study cannot be read.
    #[error("read study `{place}`")]
    Store { place: String, source: StoreError },
    /// The earlier study's events are inconsistent with its specification.
    #[error("read study `{place}`")]
    Inconsistent { place: String, source: Inconsistent },
    /// Asked for a trial before the results were copied.
    #[error(
        "start warm\nhint: open the study with `Study::open` or `Study::open_at`, which copies the earlier results"
    )]
    NotOpened,
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(" and ")
}

fn reasons(warm: &WarmStart) -> String {
    warm.left_out.iter().map(|(reason, n)| format!("\n  {n} left out: {reason}")).collect()
}

/// The earlier results a study starts with: those on record if it has begun, else those its earlier studies give now.
/// `base`: the folder of the study file.
///
/// # Errors
/// If an earlier study is missing, cannot be read, has another objective, or holds nothing that fits.
pub fn warm_starts(backend: &dyn Backend, base: &Path, spec: &StudySpec) -> Result<Vec<WarmStart>, WarmStartError> {
    if spec.sampler.warm_start().is_empty() {
        return Ok(Vec::new());
    }
    let recorded = recorded(backend, &spec.name)
        .map_err(|source| WarmStartError::Store { place: backend.place(&spec.name), source })?;
    if !recorded.is_empty() {
        return Ok(recorded);
    }
    let found = |source: &String| {
        let warm = if source.starts_with(optuna::PREFIX) {
            optuna::read(source, base, spec)?
        } else {
            read(source, backend, base, spec)?
        };
        if warm.results.is_empty() { Err(WarmStartError::NothingFits(Box::new(warm))) } else { Ok(warm) }
    };
    spec.sampler.warm_start().iter().map(found).collect()
}

/// The earlier results that a study has on record; none where there is no study.
fn recorded(backend: &dyn Backend, name: &str) -> Result<Vec<WarmStart>, StoreError> {
    let mut recorded = Vec::new();
    if backend.exists(name)? {
        backend.read(name)?.events(0, &mut |event| {
            if let Event::EarlierResults { warm, .. } = event {
                recorded.push(warm);
            }
        })?;
    }
    Ok(recorded)
}

fn read(source_name: &str, backend: &dyn Backend, base: &Path, spec: &StudySpec) -> Result<WarmStart, WarmStartError> {
    let (place, reader) = find(source_name, backend, base, spec)?;
    let store = |source| WarmStartError::Store { place: place.clone(), source };
    let earlier = reader.spec().map_err(store)?;
    same_objective(&earlier, spec)?;
    let mut engine = Engine::new(&earlier);
    let mut fault = None;
    reader
        .events(0, &mut |event| {
            if fault.is_none() {
                fault = engine.apply(&event).err();
            }
        })
        .map_err(store)?;
    if let Some(source) = fault {
        return Err(WarmStartError::Inconsistent { place, source });
    }
    Ok(fitting(source_name, &engine, spec))
}

/// The study that a name or path refers to, and where it is: one of the backend, or else a database file.
fn find(
    source: &str,
    backend: &dyn Backend,
    base: &Path,
    spec: &StudySpec,
) -> Result<(String, Box<dyn Reader>), WarmStartError> {
    let itself = || WarmStartError::Itself(source.to_owned());
    let is_name = !source.contains('/') && !Path::new(source).is_absolute();
    if is_name {
        let place = backend.place(source);
        let store = |source| WarmStartError::Store { place: place.clone(), source };
        if backend.exists(source).map_err(store)? {
            if source == spec.name {
                return Err(itself());
            }
            let reader = backend.read(source).map_err(store)?;
            return Ok((place, reader));
        }
    }
    let given = base.join(source);
    let given = if given.is_dir() { given.join("study.db") } else { given };
    let place = given.display().to_string();
    if !given.is_file() {
        let named = is_name.then(|| backend.place(source));
        let sought = named.into_iter().chain([place]).map(|place| format!("`{place}`")).collect();
        return Err(WarmStartError::Missing { source_name: source.to_owned(), sought });
    }
    let own = std::fs::canonicalize(backend.place(&spec.name));
    if own.is_ok_and(|own| std::fs::canonicalize(&given).is_ok_and(|given| given == own)) {
        return Err(itself());
    }
    let reader = read_file(&given).map_err(|source| WarmStartError::Store { place: place.clone(), source })?;
    Ok((place, reader))
}

fn same_objective(earlier: &StudySpec, spec: &StudySpec) -> Result<(), WarmStartError> {
    let differs = |what, theirs: String, ours: String| {
        if theirs == ours {
            return Ok(());
        }
        Err(WarmStartError::Objective { study: earlier.name.clone(), what, theirs, ours })
    };
    let (theirs, ours) = (&earlier.objective, &spec.objective);
    differs("metric", theirs.metric.to_string(), ours.metric.to_string())?;
    differs("direction", theirs.direction.to_string(), ours.direction.to_string())
}

/// The trials that have a value and whose configuration is in this study's space; the others are counted by reason.
fn fitting(source: &str, engine: &Engine, spec: &StudySpec) -> WarmStart {
    let mut left_out = BTreeMap::new();
    let mut results = Vec::new();
    let (theirs, ours) = (engine.spec().runner.epochs(), spec.runner.epochs());
    for trial in engine.trials() {
        let fitted = match (&trial.failure, trial.value) {
            (Some(_), _) => Err("it failed".to_owned()),
            (None, None) => Err("it has no result yet".to_owned()),
            (None, Some(value)) => fit(&spec.space, &trial.params).map(|params| (params, value)),
        };
        match fitted {
            Ok((params, value)) => {
                let epoch = scaled(trial.epoch, theirs, ours);
                results.push(EarlierResult { trial: trial.number, params, epoch, value });
            }
            Err(reason) => *left_out.entry(reason).or_insert(0) += 1,
        }
    }
    WarmStart { source: source.to_owned(), study: engine.spec().name.clone(), results, left_out }
}

/// A configuration completed for this space, or the first reason why it is not in it.
fn fit(space: &SearchSpace, params: &Params) -> Result<Params, String> {
    space.complete(params).map_err(|wrong| match wrong.into_iter().next() {
        // Without the value, which differs between trials, so that they are counted as one reason.
        Some(NotInSpace::Outside { name, domain, .. }) => format!("`{name}` is not within {domain}"),
        Some(other) => other.to_string(),
        None => "it does not fit".to_owned(),
    })
}

/// Scales an epoch of a study with `theirs` epochs per trial to one with `ours`: only a complete trial becomes a
/// complete one, unless one epoch is all that there is.
fn scaled(epoch: Epoch, theirs: u32, ours: u32) -> Epoch {
    if theirs == ours {
        return epoch;
    }
    if epoch.0 >= theirs {
        return Epoch(ours);
    }
    let share = u64::from(epoch.0) * u64::from(ours) / u64::from(theirs.max(1));
    Epoch((share as u32).clamp(1, ours.saturating_sub(1).max(1)))
}

impl Study {
    /// Copies the results of earlier studies, unless they are on record.
    pub(super) fn start_warm(&mut self, backend: &dyn Backend, base: &Path) -> Result<(), StudyError> {
        if !self.is_cold() {
            return Ok(());
        }
        for warm in warm_starts(backend, base, self.spec())? {
            self.apply(Event::EarlierResults { warm, unix_ms: unix_ms() })?;
        }
        self.flush() // all of them in one transaction
    }

    /// Whether results of earlier studies are wanted and not on record yet.
    pub(super) fn is_cold(&self) -> bool {
        !self.spec().sampler.warm_start().is_empty()
            && self.engine().warm_starts().is_empty()
            && self.engine().orders().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_earlier_studies_are_scaled_and_only_complete_trials_stay_complete() {
        let scaled = |epoch, theirs, ours| scaled(Epoch(epoch), theirs, ours).0;
        assert_eq!((scaled(1, 27, 27), scaled(27, 27, 27)), (1, 27));
        assert_eq!((scaled(1, 27, 9), scaled(9, 27, 9), scaled(26, 27, 9), scaled(27, 27, 9)), (1, 3, 8, 9));
        assert_eq!((scaled(3, 9, 27), scaled(9, 9, 27)), (9, 27));
        assert_eq!((scaled(1, 2, 1), scaled(2, 2, 1)), (1, 1));
    }
}
