//! A connection that holds the right to write a study, and the transactions that write.
//!
//! The right is an advisory lock, which ends with its session. A session can end without its owner noticing, so no promise
//! rests on the lock alone: whoever takes it raises the claim's `number`, and each transaction states the number that it has
//! taken and how many transactions it has seen. A transaction of a claim that another has taken over since finds no such
//! row, and changes nothing. The same count tells, after a connection broke during a commit, whether that commit happened.

use super::Fault;
use super::connect::Address;
use crate::crash::{self, Point};
use crate::digest::Digest;
use crate::fsx::{self, Holder};
use crate::store::StoreError;
use postgres::types::ToSql;
use postgres::{Client, IsolationLevel, Row, Statement, Transaction};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server that went away may take to come back, and to notice that an earlier session has ended. With the time of
/// a last try it is less than workers wait for a word of their coordinator.
const PATIENCE: Duration = Duration::from_secs(80);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Who has not been heard of for so many seconds, while the server was there, has lost the right: a run writes at least every
/// five.
const SILENCE: f64 = 15.0;

/// A parameter of a statement.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// See the module.
pub(super) struct Session {
    pub(super) address: Address,
    pub(super) name: String,
    key: i64,
    connection: Connection,
    /// Whether the connection holds the lock, for all that is known.
    locked: bool,
    /// The number of this claim.
    number: i64,
    /// Transactions of all claims so far.
    writes: i64,
}

/// A connection and the statements that it has prepared.
struct Connection {
    client: Client,
    prepared: HashMap<String, Statement>,
}

/// A transaction that writes.
pub(super) struct Work<'a> {
    transaction: Transaction<'a>,
    prepared: &'a mut HashMap<String, Statement>,
}

impl Work<'_> {
    /// Runs a statement; how many rows it changed.
    pub(super) fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, Fault> {
        let statement = self.prepare(sql)?;
        Ok(self.transaction.execute(&statement, params)?)
    }

    /// The first row of an answer.
    pub(super) fn first(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, Fault> {
        let statement = self.prepare(sql)?;
        Ok(self.transaction.query_opt(&statement, params)?)
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.transaction.prepare(sql)?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// The key of a study's lock. Other users of the database are unlikely to have the same.
pub(super) fn key(name: &str) -> i64 {
    let digest = Digest::of(format!("hpsearch study {name}").as_bytes());
    i64::from_be_bytes(std::array::from_fn(|i| digest.as_bytes()[i]))
}

/// Who holds the right to write a study, if anyone does.
pub(super) fn holder(client: &mut Client, name: &str) -> Result<Option<Holder>, Fault> {
    let key = key(name);
    // A key of 64 bits is shown in two halves (https://www.postgresql.org/docs/current/view-pg-locks.html).
    let held = client.query_one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = $1 AND objid::bigint = $2",
        &[&i64::from((key >> 32) as u32), &i64::from(key as u32)],
    )?;
    if held.try_get::<_, i64>(0)? == 0 {
        return Ok(None);
    }
    let row = client.query_opt("SELECT pid, host, since_ms FROM hpsearch.claim WHERE name = $1", &[&name])?;
    row.map(|row| {
        let pid = u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        Ok(Holder { pid, host: row.try_get(1)?, since_ms: row.try_get::<_, i64>(2)? as u64 })
    })
    .transpose()
}

fn try_lock(client: &mut Client, key: i64) -> Result<bool, Fault> {
    Ok(client.query_one("SELECT pg_try_advisory_lock($1)", &[&key])?.try_get(0)?)
}

fn unlock(client: &mut Client, key: i64) -> Result<(), Fault> {
    client.execute("SELECT pg_advisory_unlock($1)", &[&key])?;
    Ok(())
}

/// Whether a run whose connection broke may still be about to take its lock again.
fn may_return(client: &mut Client, name: &str) -> Result<bool, Fault> {
    let row = client.query_opt(
        "SELECT pid, host, extract(epoch FROM now() - greatest(seen, pg_postmaster_start_time()))::float8 < $2 \
         FROM hpsearch.claim WHERE name = $1",
        &[&name, &SILENCE],
    )?;
    let Some(row) = row else { return Ok(false) };
    let (pid, host, recent): (i64, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let is_dead = host == fsx::host() && cfg!(target_os = "linux") && !Path::new(&format!("/proc/{pid}")).exists();
    Ok(recent && pid != 0 && !is_dead)
}

impl Session {
    /// Takes the right to write a study; `None` while another has it.
    pub(super) fn claim(address: &Address, mut client: Client, name: &str) -> Result<Option<Self>, Fault> {
        let key = key(name);
        // Tried a few times: a server takes a moment to notice that the last holder's process has ended.
        let mut tries = 10;
        loop {
            if !try_lock(&mut client, key)? {
                if tries == 0 {
                    return Ok(None);
                }
                tries -= 1;
                std::thread::sleep(Duration::from_millis(50));
            } else if may_return(&mut client, name)? {
                unlock(&mut client, key)?;
                std::thread::sleep(PAUSE);
            } else {
                break;
            }
        }
        let row = client.query_one(
            "INSERT INTO hpsearch.claim AS c (name, number, writes, pid, host, since_ms, seen) VALUES ($1, 1, 0, $2, $3, $4, now()) \
             ON CONFLICT (name) DO UPDATE SET number = c.number + 1, pid = $2, host = $3, since_ms = $4, seen = now() \
             RETURNING number, writes",
            &[&name, &i64::from(std::process::id()), &fsx::host(), &(crate::clock::unix_ms() as i64)],
        )?;
        let (number, writes) = (row.try_get(0)?, row.try_get(1)?);
        let connection = Connection { client, prepared: HashMap::new() };
        let (address, name) = (address.clone(), name.to_owned());
        Ok(Some(Self { address, name, key, connection, locked: true, number, writes }))
    }

    /// Gives the right back.
    pub(super) fn release(&mut self) {
        // Where that fails, the session has ended, and its locks with it.
        let client = &mut self.connection.client;
        let over = "UPDATE hpsearch.claim SET pid = 0 WHERE name = $1 AND number = $2";
        let _ = client.execute(over, &[&self.name, &self.number]);
        let _ = unlock(client, self.key);
        self.locked = false;
    }

    /// Writes in one transaction, exactly once, also where the connection breaks meanwhile. `work` may be called again.
    pub(super) fn transact<T>(
        &mut self,
        work: &mut dyn FnMut(&mut Work<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        // What the commit would have returned whose answer was lost.
        let mut unsure = None;
        loop {
            let fault = match self.attempt(work) {
                Ok(value) => {
                    self.writes += 1;
                    return Ok(value);
                }
                Err((fault, value)) => {
                    unsure = value.or(unsure);
                    fault
                }
            };
            if fault.is_disconnection() {
                self.reconnect(deadline, fault)?;
            } else if !matches!(fault, Fault::Behind) {
                return Err(fault.at(&self.address.place));
            }
            let (number, writes) = self.state(deadline)?;
            if number != self.number {
                return Err(self.superseded());
            }
            if writes == self.writes + 1
                && let Some(value) = unsure
            {
                self.writes = writes;
                return Ok(value);
            }
            if writes != self.writes {
                let source = "the record is not as this run left it".into();
                return Err(StoreError::Backend { place: self.address.place.clone(), source });
            }
        }
    }

    /// One try. If the commit itself failed, the value comes with the fault: it may have happened.
    fn attempt<T>(&mut self, work: &mut dyn FnMut(&mut Work<'_>) -> Result<T, Fault>) -> Result<T, (Fault, Option<T>)> {
        if !self.locked {
            return Err((Fault::Unlocked, None)); // an earlier call gave up
        }
        let Connection { client, prepared } = &mut self.connection;
        // Another level, as a server's or a user's default, would fail where a claim was taken over instead of finding no row.
        let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
        let transaction = begin.start().map_err(|e| (Fault::from(e), None))?;
        let mut open = Work { transaction, prepared };
        let value = open
            .execute(
                "UPDATE hpsearch.claim SET writes = writes + 1, seen = now() WHERE name = $1 AND number = $2 AND writes = $3",
                &[&self.name, &self.number, &self.writes],
            )
            .and_then(|rows| if rows == 1 { work(&mut open) } else { Err(Fault::Behind) })
            .map_err(|fault| (fault, None))?;
        crash::at(Point::EventsWritten);
        match open.transaction.commit() {
            Ok(()) => Ok(value),
            Err(e) => Err((Fault::from(e), Some(value))),
        }
    }

    /// Reads; again if the connection was broken.
    pub(super) fn ask<T>(&mut self, read: &mut dyn FnMut(&mut Client) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.ask_until(Instant::now() + PATIENCE, read)
    }

    fn ask_until<T>(
        &mut self,
        deadline: Instant,
        read: &mut dyn FnMut(&mut Client) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        loop {
            match read(&mut self.connection.client) {
                Err(fault) if fault.is_disconnection() => self.reconnect(deadline, fault)?,
                other => return other.map_err(|fault| fault.at(&self.address.place)),
            }
        }
    }

    /// The claim's number and count as the server has them.
    fn state(&mut self, deadline: Instant) -> Result<(i64, i64), StoreError> {
        let name = self.name.clone();
        self.ask_until(deadline, &mut |client| {
            let row = client.query_one("SELECT number, writes FROM hpsearch.claim WHERE name = $1", &[&name])?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
    }

    /// Connects again and takes the lock again, unless another has taken the claim over. `fault`: what broke.
    fn reconnect(&mut self, deadline: Instant, mut fault: Fault) -> Result<(), StoreError> {
        self.locked = false;
        loop {
            if Instant::now() > deadline {
                return Err(fault.at(&self.address.place));
            }
            match self.connect_again() {
                Ok(()) if self.locked => return Ok(()),
                Ok(()) => {} // the session that broke is not over yet for the server, or another is taking the claim
                Err(again) if again.is_disconnection() => fault = again,
                Err(other) => return Err(other.at(&self.address.place)),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn connect_again(&mut self) -> Result<(), Fault> {
        // The old connection is closed first: if it was still alive, its session would keep the lock.
        self.connection = Connection { client: self.address.connect()?, prepared: HashMap::new() };
        let client = &mut self.connection.client;
        let number = client.query_opt("SELECT number FROM hpsearch.claim WHERE name = $1", &[&self.name])?;
        if number.map(|row| row.try_get::<_, i64>(0)).transpose()? != Some(self.number) {
            return Err(self.superseded().into());
        }
        self.locked = try_lock(client, self.key)?;
        Ok(())
    }

    fn superseded(&mut self) -> StoreError {
        let holder = holder(&mut self.connection.client, &self.name).ok().flatten();
        StoreError::TakenOver { name: self.name.clone(), holder }
    }
}
