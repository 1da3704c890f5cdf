//! Reading a study from wherever the server can be reached.

use super::connect::Address;
use super::{Fault, read};
use crate::engine::Event;
use crate::history::{FileRow, Tables};
use crate::spec::StudySpec;
use crate::store::{ImagesOnRecord, Opening, Reader, RunRow, StoreError, lock};
use postgres::{Client, IsolationLevel, Transaction};
use std::sync::Mutex;

/// A connection that only reads, opened again when it broke.
pub(super) struct PostgresReader {
    address: Address,
    name: String,
    client: Mutex<Client>,
}

impl PostgresReader {
    pub(super) fn new(address: &Address, client: Client, name: &str) -> Self {
        Self { address: address.clone(), name: name.to_owned(), client: Mutex::new(client) }
    }

    fn missing(&self) -> StoreError {
        StoreError::Missing(self.address.study(&self.name))
    }

    /// Reads in one transaction, so from one snapshot. `read` gets the study's number.
    fn in_snapshot<T>(
        &self,
        mut read: impl FnMut(&mut Transaction<'_>, i64, StudySpec) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut client = lock(&self.client);
        let begin = |client: &mut Client| -> Result<(), Fault> { Ok(client.batch_execute("SELECT 1")?) };
        let mut go = || {
            // A server that was restarted since the last call.
            if begin(&mut client).is_err_and(|fault| fault.is_disconnection()) {
                *client = self.address.connect()?;
            }
            let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
            let mut transaction = snapshot.start()?;
            let (study, spec) = read::study(&mut transaction, &self.name)?.ok_or_else(|| self.missing())?;
            read(&mut transaction, study, spec)
        };
        go().map_err(|e: Fault| e.at(&self.address.place))
    }
}

impl Reader for PostgresReader {
    fn spec(&self) -> Result<StudySpec, StoreError> {
        self.in_snapshot(|_, _, spec| Ok(spec))
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        let mut after = after;
        self.in_snapshot(|t, study, _| read::events(t, study, &mut after, each))
    }

    fn tables(&self) -> Result<Tables, StoreError> {
        self.in_snapshot(|t, study, _| read::tables(t, study, false))
    }

    fn outline(&self) -> Result<Tables, StoreError> {
        self.in_snapshot(|t, study, _| read::tables(t, study, true))
    }

    fn version(&self) -> Result<u64, StoreError> {
        // Asked several times a second.
        let mut client = lock(&self.client);
        let writes = "SELECT writes FROM hpsearch.claim JOIN hpsearch.study USING (name) WHERE name = $1";
        let ask = |client: &mut Client| -> Result<u64, Fault> {
            let row = client.query_opt(writes, &[&self.name])?.ok_or_else(|| self.missing())?;
            Ok(row.try_get::<_, i64>(0)? as u64)
        };
        let answer = match ask(&mut client) {
            Err(fault) if fault.is_disconnection() => self.address.connect().and_then(|again| {
                *client = again;
                ask(&mut client)
            }),
            answer => answer,
        };
        answer.map_err(|fault| fault.at(&self.address.place))
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.in_snapshot(|t, study, _| read::runs(t, study))
    }

    fn files(&self) -> Result<Vec<(FileRow, bool)>, StoreError> {
        self.in_snapshot(|t, study, _| read::files(t, study))
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        self.in_snapshot(|t, study, _| read::images(t, study))
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        self.in_snapshot(|t, study, _| read::opening(t, study))
    }
}
