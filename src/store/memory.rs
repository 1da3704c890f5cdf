//! Studies in memory, lost when the last handle is dropped: for the library, and for tests.

use super::{
    Backend, Claim, ImagesOnRecord, OpenedTrial, Opening, Reader, RunEnd, RunRow, RunStart, Store, StoreError, lock,
};
use crate::engine::Event;
use crate::fsx::Holder;
use crate::history::{FileRow, Row, Tables};
use crate::spec::StudySpec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// A backend in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    studies: BTreeMap<String, Arc<Mutex<Kept>>>,
    claimed: BTreeSet<String>,
}

/// A study.
#[derive(Clone, Debug)]
struct Kept {
    spec: StudySpec,
    events: Vec<Event>,
    tables: Tables,
    forgotten: BTreeSet<String>,
    runs: Vec<RunRow>,
    images: Option<ImagesOnRecord>,
    opening: Option<Opening>,
    /// How often it was locked for writing.
    writes: u64,
}

fn write(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    let mut kept = lock(kept);
    kept.writes += 1;
    kept
}

impl Backend for Memory {
    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(lock(&self.shared).studies.keys().cloned().collect())
    }

    fn exists(&self, name: &str) -> Result<bool, StoreError> {
        Ok(lock(&self.shared).studies.contains_key(name))
    }

    fn place(&self, name: &str) -> String {
        format!("{name} in memory")
    }

    fn claim(&self, name: &str) -> Result<Box<dyn Claim>, StoreError> {
        if !lock(&self.shared).claimed.insert(name.to_owned()) {
            return Err(StoreError::Locked { name: name.to_owned(), holder: None });
        }
        Ok(Box::new(MemoryClaim { memory: self.clone(), name: name.to_owned() }))
    }

    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError> {
        let claimed = lock(&self.shared).claimed.contains(name);
        Ok(claimed.then(|| Holder { pid: std::process::id(), host: crate::fsx::host(), since_ms: 0 }))
    }

    fn read(&self, name: &str) -> Result<Box<dyn Reader>, StoreError> {
        match lock(&self.shared).studies.get(name) {
            Some(kept) => Ok(Box::new(MemoryReader { kept: Arc::clone(kept) })),
            None => Err(StoreError::Missing(name.to_owned())),
        }
    }
}

struct MemoryClaim {
    memory: Memory,
    name: String,
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        lock(&self.memory.shared).claimed.remove(&self.name);
    }
}

impl Claim for MemoryClaim {
    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError> {
        let kept = lock(&self.memory.shared).studies.get(&self.name).cloned();
        Ok(kept.map(|kept| {
            let spec = lock(&kept).spec.clone();
            Box::new(MemoryStore { kept, spec }) as Box<dyn Store>
        }))
    }

    fn create(&self, spec: &StudySpec) -> Result<Box<dyn Store>, StoreError> {
        let mut shared = lock(&self.memory.shared);
        if shared.studies.contains_key(&self.name) {
            return Err(StoreError::Exists(self.name.clone()));
        }
        let kept = Arc::new(Mutex::new(Kept {
            spec: spec.clone(),
            events: Vec::new(),
            tables: Tables::default(),
            forgotten: BTreeSet::new(),
            runs: Vec::new(),
            images: None,
            opening: None,
            writes: 0,
        }));
        shared.studies.insert(self.name.clone(), Arc::clone(&kept));
        Ok(Box::new(MemoryStore { kept, spec: spec.clone() }))
    }

    fn remove(&self) -> Result<(), StoreError> {
        lock(&self.memory.shared).studies.remove(&self.name);
        Ok(())
    }

    fn read(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.memory.read(&self.name)
    }
}

struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
    spec: StudySpec,
}

impl Kept {
    fn put(&mut self, rows: &[Row]) {
        for row in rows {
            if let Row::File(file) = row {
                self.forgotten.remove(&file.file.path);
            }
            self.tables.put(row.clone());
        }
    }
}

impl Store for MemoryStore {
    fn spec(&self) -> &StudySpec {
        &self.spec
    }

    fn replace_spec(&mut self, spec: &StudySpec, rows: &[Row]) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        kept.spec = spec.clone();
        kept.put(rows);
        self.spec = spec.clone();
        Ok(())
    }

    fn len(&self) -> u64 {
        lock(&self.kept).events.len() as u64
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        events(&self.kept, after, each);
        Ok(())
    }

    fn append(&mut self, expected: u64, events: &[Event], rows: &[Row]) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        let found = kept.events.len() as u64;
        if expected != found {
            return Err(StoreError::Conflict { expected, found });
        }
        kept.events.extend_from_slice(events);
        kept.put(rows);
        Ok(())
    }

    fn begin_run(&mut self, run: &RunStart, rows: &[Row]) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        kept.runs.iter_mut().filter(|run| run.ended.is_none()).for_each(|run| run.ended = Some(RunEnd::Killed));
        kept.runs.push(RunRow {
            started_ms: run.unix_ms,
            seconds: 0.0,
            ended: None,
            pid: std::process::id(),
            host: crate::fsx::host(),
            workers: run.workers,
            device: run.device.clone(),
        });
        kept.put(rows);
        Ok(())
    }

    fn note_run(&mut self, seconds: f64, end: Option<(RunEnd, &[Row])>) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        let Some(run) = kept.runs.last_mut() else { return Ok(()) };
        run.seconds = seconds;
        if let Some((end, rows)) = end {
            run.ended = Some(end);
            kept.put(rows);
        }
        Ok(())
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        Ok(lock(&self.kept).runs.clone())
    }

    fn kept_files(&self) -> Result<Vec<String>, StoreError> {
        let kept = lock(&self.kept);
        Ok(kept.tables.files.keys().filter(|path| !kept.forgotten.contains(*path)).cloned().collect())
    }

    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        let known: Vec<String> = paths.iter().filter(|path| kept.tables.files.contains_key(*path)).cloned().collect();
        kept.forgotten.extend(known);
        Ok(())
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        Ok(lock(&self.kept).images.clone())
    }

    fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        if kept.images.is_some() {
            return Err(StoreError::Recorded { what: "what the images are" });
        }
        kept.images = Some(images.clone());
        Ok(())
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        Ok(lock(&self.kept).opening.clone())
    }

    fn begin_opening(&mut self, opening: &Opening) -> Result<(), StoreError> {
        let mut kept = write(&self.kept);
        if kept.opening.is_some() {
            return Err(StoreError::Recorded { what: "the opening of the test images" });
        }
        kept.opening = Some(Opening { results: Vec::new(), ..opening.clone() });
        Ok(())
    }

    fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError> {
        match &mut write(&self.kept).opening {
            Some(opening) if opening.results.is_empty() => {
                opening.results = results.to_vec();
                Ok(())
            }
            _ => Err(StoreError::Recorded { what: "results of the test images" }),
        }
    }
}

fn events(kept: &Mutex<Kept>, after: u64, each: &mut dyn FnMut(Event)) {
    // Copied first: `each` may write to the study.
    let after = usize::try_from(after).unwrap_or(usize::MAX);
    let events: Vec<Event> = lock(kept).events.iter().skip(after).cloned().collect();
    events.into_iter().for_each(each);
}

struct MemoryReader {
    kept: Arc<Mutex<Kept>>,
}

impl Reader for MemoryReader {
    fn spec(&self) -> Result<StudySpec, StoreError> {
        Ok(lock(&self.kept).spec.clone())
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        events(&self.kept, after, each);
        Ok(())
    }

    fn tables(&self) -> Result<Tables, StoreError> {
        Ok(lock(&self.kept).tables.clone())
    }

    fn outline(&self) -> Result<Tables, StoreError> {
        let mut tables = self.tables()?;
        tables.files.clear();
        tables.epochs.values_mut().for_each(|epoch| epoch.metrics.clear());
        Ok(tables)
    }

    fn version(&self) -> Result<u64, StoreError> {
        Ok(lock(&self.kept).writes)
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        Ok(lock(&self.kept).runs.clone())
    }

    fn files(&self) -> Result<Vec<(FileRow, bool)>, StoreError> {
        let kept = lock(&self.kept);
        let files = kept.tables.files.iter();
        Ok(files.map(|(path, row)| (row.clone(), !kept.forgotten.contains(path))).collect())
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        Ok(lock(&self.kept).images.clone())
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        Ok(lock(&self.kept).opening.clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{conformance, in_memory};

    #[test]
    fn the_store_in_memory_meets_the_contract() {
        conformance::check(&*in_memory());
    }
}
