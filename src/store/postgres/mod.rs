//! Studies in a PostgreSQL server (feature `postgres`), where readers elsewhere can see them and where a run on another
//! machine can take over from one that died. The files of a study stay in its folder.
//!
//! One schema, `hpsearch`, made by the first run; its tables are those of SQLite with the study's number in front. Events
//! and the rows of a history are written in one transaction, which also checks the claim (see [`session`]).

mod connect;
mod read;
mod reader;
mod session;
mod write;
mod writer;

use super::{Backend, Claim, Reader, Store, StoreError, codec, elsewhere, lock};
use crate::fsx::Holder;
use crate::spec::StudySpec;
use connect::Address;
use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use reader::PostgresReader;
use session::Session;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use write::int;
use writer::PostgresStore;

/// What makes the tables of each format from those of the one before, the first from none.
const SCHEMAS: [&str; 3] = [include_str!("schema.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];
/// The format of the tables that this program writes.
const FORMAT_VERSION: i64 = SCHEMAS.len() as i64;

/// A database of a server, and the state folder whose studies it has.
pub(super) struct Server {
    address: Address,
    state: PathBuf,
    /// For questions, which may be asked several times a second.
    client: Mutex<Option<Client>>,
}

/// The format of the tables there; 0 where there are none.
fn format(client: &mut impl GenericClient) -> Result<i64, Fault> {
    // By the catalogue's rows, not `to_regclass`: a session that has once found no such table remembers that, and would not see
    // what another has made since, while it waited for its turn.
    let known = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = 'hpsearch' AND c.relname = 'format')";
    if !client.query_one(known, &[])?.try_get(0)? {
        return Ok(0);
    }
    let found: i64 = client.query_one("SELECT version FROM hpsearch.format", &[])?.try_get(0)?;
    if found > FORMAT_VERSION {
        return Err(StoreError::Newer { found, known: FORMAT_VERSION }.into());
    }
    Ok(found)
}

impl Server {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If the address cannot be understood.
    pub(super) fn new(address: &str, state: &Path) -> Result<Self, StoreError> {
        Ok(Self { address: Address::new(address)?, state: state.to_owned(), client: Mutex::new(None) })
    }

    /// Connects; `None` where no study was ever written.
    fn reach(&self) -> Result<Option<Client>, Fault> {
        let mut client = self.address.connect()?;
        Ok(if format(&mut client)? == 0 { None } else { Some(client) })
    }

    /// Connects; makes the tables that are missing.
    fn reach_or_make(&self) -> Result<Client, Fault> {
        let mut client = self.address.connect()?;
        if format(&mut client)? == FORMAT_VERSION {
            return Ok(client);
        }
        let mut transaction = client.transaction()?;
        // One at a time: of two that find no tables, the second then finds them.
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&session::key("")])?;
        let found = format(&mut transaction)?;
        for (format, schema) in (1_i64..).zip(SCHEMAS).filter(|(format, _)| *format > found) {
            transaction.batch_execute(schema)?;
            let told = match format {
                1 => "INSERT INTO hpsearch.format (version) VALUES ($1)",
                _ => "UPDATE hpsearch.format SET version = $1",
            };
            transaction.execute(told, &[&format])?;
        }
        transaction.commit()?;
        Ok(client)
    }

    /// Asks the server; `read` gets nothing where no study was ever written.
    fn ask<T>(&self, read: impl Fn(Option<&mut Client>) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut kept = lock(&self.client);
        let at = |fault: Fault| fault.at(&self.address.place);
        if let Some(client) = kept.as_mut() {
            match read(Some(client)) {
                Err(fault) if fault.is_disconnection() => {} // the server was restarted since
                answer => return answer.map_err(at),
            }
        }
        *kept = self.reach().map_err(at)?;
        read(kept.as_mut()).map_err(at)
    }
}

impl Backend for Server {
    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.ask(|client| {
            let Some(client) = client else { return Ok(Vec::new()) };
            let rows = client.query("SELECT name FROM hpsearch.study ORDER BY name COLLATE \"C\"", &[])?;
            rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
        })
    }

    fn exists(&self, name: &str) -> Result<bool, StoreError> {
        self.ask(|client| {
            let Some(client) = client else { return Ok(false) };
            Ok(client.query_opt("SELECT 1 FROM hpsearch.study WHERE name = $1", &[&name])?.is_some())
        })
        .and_then(|found| if found { Ok(true) } else { elsewhere::refuse_folder(&self.state, name).map(|()| false) })
    }

    fn place(&self, name: &str) -> String {
        self.address.study(name)
    }

    fn claim(&self, name: &str) -> Result<Box<dyn Claim>, StoreError> {
        elsewhere::refuse_folder(&self.state, name)?;
        let claimed = || -> Result<(Session, String), Fault> {
            let mut client = self.reach_or_make()?;
            let id: String = client.query_one("SELECT id::text FROM hpsearch.format", &[])?.try_get(0)?;
            // Before the claim is taken, which ends whatever held it.
            elsewhere::refuse_other_server(&self.state, name, &id)?;
            if read::study(&mut client, name)?.is_some() {
                elsewhere::refuse_unmarked(&self.state, name, &self.address.place)?;
            }
            if let Some(session) = Session::claim(&self.address, client, name)? {
                return Ok((session, id));
            }
            let holder = session::holder(&mut self.address.connect()?, name)?;
            Err(StoreError::Locked { name: name.to_owned(), holder }.into())
        };
        let (session, id) = claimed().map_err(|fault| fault.at(&self.address.place))?;
        let mark = Mark { state: self.state.clone(), place: self.address.place.clone(), id };
        Ok(Box::new(ServerClaim { session: Arc::new(Mutex::new(session)), mark }))
    }

    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError> {
        self.ask(|client| client.map_or(Ok(None), |client| session::holder(client, name)))
    }

    fn read(&self, name: &str) -> Result<Box<dyn Reader>, StoreError> {
        if !self.exists(name)? {
            return Err(StoreError::Missing(self.place(name)));
        }
        let client = self.address.connect().map_err(|fault| fault.at(&self.address.place))?;
        Ok(Box::new(PostgresReader::new(&self.address, client, name)))
    }
}

/// The right to write a study.
struct ServerClaim {
    session: Arc<Mutex<Session>>,
    mark: Mark,
}

/// What the study's folder is to remember of the server.
struct Mark {
    state: PathBuf,
    place: String,
    id: String,
}

impl Drop for ServerClaim {
    fn drop(&mut self) {
        lock(&self.session).release();
    }
}

impl Claim for ServerClaim {
    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError> {
        Ok(PostgresStore::open(&self.session)?.map(|store| Box::new(store) as Box<dyn Store>))
    }

    fn create(&self, spec: &StudySpec) -> Result<Box<dyn Store>, StoreError> {
        let text = codec::spec_text(spec)?;
        let (name, place) = {
            let session = lock(&self.session);
            (session.name.clone(), session.address.study(&session.name))
        };
        // Before the study, which would be refused without it.
        elsewhere::mark(&self.mark.state, &name, &self.mark.place, &self.mark.id)?;
        lock(&self.session).transact(&mut |t| {
            let rows = t.execute(
                "INSERT INTO hpsearch.study (name, seed, metric, direction, epochs, spec, program, created_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                &[
                    &name,
                    &spec.seed.to_string(),
                    &spec.objective.metric.to_string(),
                    &spec.objective.direction.to_string(),
                    &i64::from(spec.runner.epochs()),
                    &text,
                    &env!("CARGO_PKG_VERSION"),
                    &int(crate::clock::unix_ms()),
                ],
            )?;
            if rows == 1 { Ok(()) } else { Err(StoreError::Exists(place.clone()).into()) }
        })?;
        self.open()?.ok_or_else(|| StoreError::Missing(place))
    }

    fn remove(&self) -> Result<(), StoreError> {
        let mut session = lock(&self.session);
        let name = session.name.clone();
        session.transact(&mut |t| {
            t.execute("SELECT set_config('hpsearch.removing', 'on', true)", &[])?;
            t.execute("DELETE FROM hpsearch.study WHERE name = $1", &[&name]).map(drop)
        })?;
        elsewhere::unmark(&self.mark.state, &name)
    }

    fn read(&self) -> Result<Box<dyn Reader>, StoreError> {
        let (address, name) = {
            let session = lock(&self.session);
            (session.address.clone(), session.name.clone())
        };
        let client = address.connect().map_err(|fault| fault.at(&address.place))?;
        Ok(Box::new(PostgresReader::new(&address, client, &name)))
    }
}

/// A failure, not yet mapped to a [`StoreError`].
#[derive(Debug)]
enum Fault {
    Postgres(postgres::Error),
    /// A column holds what this program does not understand, or a file of settings does.
    Misfit(super::error::Cause),
    Store(StoreError),
    /// The claim is not as this session left it.
    Behind,
    /// This session has lost its lock.
    Unlocked,
}

impl From<postgres::Error> for Fault {
    fn from(e: postgres::Error) -> Self {
        Self::Postgres(e)
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Fault {
    /// Whether the connection broke, or the server cannot be reached or takes none now.
    fn is_disconnection(&self) -> bool {
        let e = match self {
            Self::Postgres(e) => e,
            Self::Unlocked => return true,
            _ => return false,
        };
        // Classes 08 (connection exception), 57P (the server is ended, ends sessions, or is not ready yet) and 25P (a
        // transaction took too long), too many connections:
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        let gone = |code: &str| ["08", "57P", "25P03", "25P04", "53300"].iter().any(|start| code.starts_with(start));
        // Values that cannot be written and certificates that are not trusted are wrapped in an error of input too.
        let is_input = |e: &std::io::Error| matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData);
        let source = std::error::Error::source(e).and_then(|source| source.downcast_ref::<std::io::Error>());
        e.is_closed() || e.code().is_some_and(|code| gone(code.code())) || source.is_some_and(|e| !is_input(e))
    }

    /// Maps the failure to a [`StoreError`]. `place`: the database, for people.
    fn at(self, place: &str) -> StoreError {
        let place = place.to_owned();
        let unreachable = self.is_disconnection();
        let source = match self {
            Self::Store(e) => return e,
            Self::Misfit(source) => return StoreError::Backend { place, source },
            Self::Behind => return StoreError::Backend { place, source: "the claim was changed".into() },
            Self::Unlocked => return StoreError::Unreachable { place, source: "the connection is lost".into() },
            Self::Postgres(e) => e,
        };
        match source.code() {
            _ if unreachable => StoreError::Unreachable { place, source: source.into() },
            // Authorization, no such database, no right.
            Some(code) if ["28", "3D000", "42501"].iter().any(|start| code.code().starts_with(start)) => {
                StoreError::Denied { place, source: source.into() }
            }
            Some(&SqlState::DISK_FULL) => StoreError::DiskFull { place, source: source.into() },
            _ => StoreError::Backend { place, source: source.into() },
        }
    }
}

#[cfg(test)]
mod tests;
