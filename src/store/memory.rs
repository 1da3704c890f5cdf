//! A store that forgets everything when it is dropped.

use super::{EventStore, RunStart, StoreError};
use crate::engine::{Event, TrialState};
use crate::ids::TrialNumber;
use crate::spec::StudySpec;

/// Keeps events in memory: for trying an objective out, and for tests.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    spec: StudySpec,
    events: Vec<Event>,
    runs: Vec<f64>,
}

impl MemoryStore {
    /// An empty store of a study.
    pub fn new(spec: StudySpec) -> Self {
        Self { spec, events: Vec::new(), runs: Vec::new() }
    }

    /// All events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

impl EventStore for MemoryStore {
    fn spec(&self) -> &StudySpec {
        &self.spec
    }

    fn replace_spec(&mut self, spec: &StudySpec) -> Result<(), StoreError> {
        self.spec = spec.clone();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.events.len() as u64
    }

    fn read(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        self.events.iter().skip(after).cloned().for_each(each);
        Ok(())
    }

    fn append(&mut self, expected: u64, events: &[Event]) -> Result<(), StoreError> {
        if expected != self.len() {
            return Err(StoreError::Conflict { expected, found: self.len() });
        }
        self.events.extend_from_slice(events);
        Ok(())
    }

    fn begin_run(&mut self, _: &RunStart) -> Result<(), StoreError> {
        self.runs.push(0.0);
        Ok(())
    }

    fn note_run(&mut self, seconds: f64, _: Option<&str>) -> Result<(), StoreError> {
        if let Some(last) = self.runs.last_mut() {
            *last = seconds;
        }
        Ok(())
    }

    fn run_seconds(&self) -> Result<f64, StoreError> {
        Ok(self.runs.iter().sum())
    }

    fn note_states(&mut self, _: &[(TrialNumber, TrialState)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn kept_files(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn forget_files(&mut self, _: &[String]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn the_memory_store_keeps_the_contract() {
        conformance::check(&mut |spec| Box::new(MemoryStore::new(spec)));
    }
}
