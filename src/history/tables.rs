//! The rows of a history, held in memory.

use super::History;
use super::row::{
    AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileKind, FileRow, OrderRow, Row,
    TrialRow, WorkerRow,
};
use crate::engine::{Event, FileRef, Inconsistent, TrialState};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::Place;
use crate::space::Params;
use crate::spec::{Direction, StudySpec};
use std::collections::BTreeMap;

/// All rows, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    pub configurations: BTreeMap<TrialNumber, Params>,
    pub trials: BTreeMap<TrialNumber, TrialRow>,
    pub orders: BTreeMap<OrderId, OrderRow>,
    pub attempts: BTreeMap<(OrderId, u32), AttemptRow>,
    pub epochs: BTreeMap<(TrialNumber, Epoch), EpochRow>,
    pub failures: BTreeMap<u64, FailureRow>,
    pub files: BTreeMap<String, FileRow>,
    pub earlier: BTreeMap<(u64, TrialNumber), EarlierRow>,
    pub enqueued: BTreeMap<u64, EnqueuedRow>,
    pub workers: BTreeMap<u32, WorkerRow>,
}

impl Tables {
    /// The tables that result from a log of events.
    ///
    /// # Errors
    /// If an event does not follow from those before it.
    pub fn replay<'a>(spec: &StudySpec, events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Inconsistent> {
        let (mut history, mut tables, mut rows) = (History::new(spec), Self::default(), Vec::new());
        for event in events {
            history.apply(event, &mut rows)?;
            rows.drain(..).for_each(|row| tables.put(row));
        }
        Ok(tables)
    }

    /// Applies a change: stores a row in place of the one with the same key, or removes epochs that are trained again.
    pub fn put(&mut self, row: Row) {
        match row {
            Row::Configuration(ConfigurationRow { trial, params }) => drop(self.configurations.insert(trial, params)),
            Row::Trial(row) => drop(self.trials.insert(row.trial, row)),
            Row::Order(row) => drop(self.orders.insert(row.order, row)),
            Row::Attempt(row) => drop(self.attempts.insert((row.order, row.attempt), row)),
            Row::Retrained { trial, from } => {
                let gone: Vec<_> =
                    self.epochs.range((trial, from)..=(trial, Epoch(u32::MAX))).map(|(key, _)| *key).collect();
                gone.iter().for_each(|key| drop(self.epochs.remove(key)));
            }
            Row::Epoch(row) => drop(self.epochs.insert((row.trial, row.epoch), row)),
            Row::Failure(row) => drop(self.failures.insert(row.seq, row)),
            Row::File(row) => drop(self.files.insert(row.file.path.clone(), row)),
            Row::Earlier(row) => drop(self.earlier.insert((row.seq, row.trial), row)),
            Row::Enqueued(row) => drop(self.enqueued.insert(row.seq, row)),
            Row::Worker(row) => drop(self.workers.insert(row.worker, row)),
        }
    }

    /// The epochs of a trial, in order.
    pub fn epochs_of(&self, trial: TrialNumber) -> impl DoubleEndedIterator<Item = &EpochRow> {
        self.epochs.range((trial, Epoch(0))..=(trial, Epoch(u32::MAX))).map(|(_, row)| row)
    }

    /// A trial's checkpoint after an epoch, if it is kept.
    pub fn checkpoint_of(&self, trial: TrialNumber, epoch: Epoch) -> Option<&FileRef> {
        let own = |row: &&FileRow| row.trial == trial && row.kind == FileKind::Checkpoint && row.epoch == epoch;
        self.files.values().find(own).map(|row| &row.file)
    }

    /// The newest predictions among each trial's epochs on record.
    pub fn predictions(&self) -> BTreeMap<TrialNumber, &FileRef> {
        let mut newest: BTreeMap<TrialNumber, &FileRow> = BTreeMap::new();
        for row in self.files.values().filter(|row| row.kind == FileKind::Predictions) {
            let on_record = self.trials.get(&row.trial).is_some_and(|trial| row.epoch.0 <= trial.epochs);
            if on_record && newest.get(&row.trial).is_none_or(|known| known.epoch <= row.epoch) {
                newest.insert(row.trial, row);
            }
        }
        newest.into_iter().map(|(trial, row)| (trial, &row.file)).collect()
    }

    /// Why a trial failed for good, if it did.
    pub fn failure_of(&self, trial: TrialNumber) -> Option<&FailureRow> {
        // Most have not: only for the others are all failures looked at.
        self.trials.get(&trial).filter(|row| row.state == TrialState::Failed)?;
        self.failures.values().rev().find(|row| row.trial == trial && row.is_final)
    }

    /// Trials with a result, best first, failed ones left out.
    pub fn ranking(&self, direction: Direction) -> Vec<&TrialRow> {
        let mut ranked: Vec<(Place, &TrialRow)> =
            self.trials.values().filter_map(|row| Some((row.place(direction)?, row))).collect();
        ranked.sort_by_key(|(place, _)| *place);
        ranked.into_iter().map(|(_, row)| row).collect()
    }
}
