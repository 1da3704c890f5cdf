//! A folder of studies: `STATE/<name>/study.db`, and `study.lock` beside it.

use super::{SqliteReader, SqliteStore};
use crate::fsx::{FileLock, Holder, LockError};
use crate::spec::StudySpec;
use crate::store::elsewhere::{self, DATABASE};
use crate::store::{Backend, Claim, Reader, Store, StoreError};
use std::path::{Path, PathBuf};

const LOCK: &str = "study.lock";

/// A state folder.
#[derive(Debug)]
pub(crate) struct Folder {
    state: PathBuf,
}

impl Folder {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    fn database(&self, name: &str) -> PathBuf {
        self.state.join(name).join(DATABASE)
    }
}

impl Backend for Folder {
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = std::fs::read_dir(&self.state).into_iter().flatten().flatten();
        let studies = entries.filter(|entry| entry.path().join(DATABASE).is_file());
        let mut names: Vec<String> = studies.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, name: &str) -> Result<bool, StoreError> {
        elsewhere::refuse_server(&self.state, name)?;
        Ok(self.database(name).exists())
    }

    fn place(&self, name: &str) -> String {
        self.database(name).display().to_string()
    }

    fn claim(&self, name: &str) -> Result<Box<dyn Claim>, StoreError> {
        elsewhere::refuse_server(&self.state, name)?;
        let folder = self.state.join(name);
        std::fs::create_dir_all(&folder).map_err(|source| StoreError::Io { path: folder.clone(), source })?;
        let lock = FileLock::acquire(&folder.join(LOCK)).map_err(|error| match error {
            LockError::Held(holder) => StoreError::Locked { name: name.to_owned(), holder },
            LockError::Io { path, source } => StoreError::Io { path, source },
        })?;
        Ok(Box::new(FolderClaim { database: self.database(name), _lock: lock }))
    }

    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError> {
        Ok(FileLock::holder(&self.state.join(name).join(LOCK)))
    }

    fn read(&self, name: &str) -> Result<Box<dyn Reader>, StoreError> {
        elsewhere::refuse_server(&self.state, name)?;
        Ok(Box::new(SqliteReader::open(&self.database(name))?))
    }
}

/// The lock of a study's folder.
#[derive(Debug)]
struct FolderClaim {
    database: PathBuf,
    _lock: FileLock,
}

impl Claim for FolderClaim {
    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError> {
        match SqliteStore::open(&self.database) {
            Ok(store) => Ok(Some(Box::new(store))),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, spec: &StudySpec) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::create(&self.database, spec)?))
    }

    /// Also removes the files that SQLite keeps beside the database: before it, as they make no sense without it.
    fn remove(&self) -> Result<(), StoreError> {
        super::remove_beside(&self.database)?;
        super::remove(&self.database)
    }

    fn read(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(SqliteReader::open(&self.database)?))
    }
}
