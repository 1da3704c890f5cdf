//! Errors of stores, the same for every backend.

use crate::engine::Inconsistent;
use crate::fsx::Holder;
use std::error::Error;
use std::path::PathBuf;

/// The backend's own error.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why an operation of a store failed. `place` names the study for people, for example by its path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process writes it.
    #[error("open study `{name}`: {}\nhint: wait for it or stop it; `hpsearch status` shows how far it is", held(.holder.as_ref()))]
    Locked { name: String, holder: Option<Holder> },
    /// Another process has taken over what this one was writing.
    #[error(
        "go on with study `{name}`: {}\nhint: nothing on record is lost; the same command goes on when no other has it",
        .holder.as_ref().map_or_else(|| "another `hpsearch` took it over, and has let go of it".to_owned(), |h| format!("it was taken over by {h}"))
    )]
    TakenOver { name: String, holder: Option<Holder> },
    /// Another kind of store has it.
    #[error("open study `{name}`: it is kept in {place}\nhint: {hint}")]
    Elsewhere { name: String, place: String, hint: &'static str },
    /// The address of a database makes no sense.
    #[error(
        "understand the address of the database\nhint: as in `postgresql://user@host:5432/database`; the password is better kept in ~/.pgpass"
    )]
    Address(#[source] Cause),
    /// No PostgreSQL in this program.
    #[error(
        "use a PostgreSQL database: this program was built without it\nhint: build it with `cargo build --release --features postgres`"
    )]
    NotBuilt,
    /// A server refuses this user, or has no such database.
    #[error("use {place}\nhint: check user, password and database; which rights are needed is in docs/cluster.md")]
    Denied { place: String, source: Cause },
    /// A server does not answer.
    #[error("reach {place}\nhint: what is on record is safe; the same command goes on when the server is back")]
    Unreachable { place: String, source: Cause },
    /// Another writer has appended events.
    #[error("append at event {expected}: the store holds {found}")]
    Conflict { expected: u64, found: u64 },
    /// A study of that name exists already.
    #[error("create study database `{0}`: it exists")]
    Exists(String),
    /// No study there.
    #[error(
        "open study database `{0}`: there is none\nhint: `hpsearch run STUDY.toml` makes it; `--state DIR` or `--database URL` says where studies are kept"
    )]
    Missing(String),
    /// The file is not a study database.
    #[error("read `{0}`: it is not a study database")]
    NotAStudy(String),
    /// Written by a later version of this program.
    #[error(
        "read study database of format {found}: this program knows formats up to {known}\nhint: use a newer hpsearch"
    )]
    Newer { found: i64, known: i64 },
    /// What may be recorded only once is on record already.
    #[error("put {what} on record: that is on record already")]
    Recorded { what: &'static str },
    /// The disk is full.
    #[error(
        "write to `{place}`: the disk is full\nhint: nothing on record is lost; free some space (`hpsearch gc` removes what no trial needs) and run again"
    )]
    DiskFull { place: String, source: Cause },
    /// It cannot be written.
    #[error("write to `{place}`: it is read-only\nhint: make the folder writable or choose another with `--state`")]
    ReadOnly { place: String, source: Cause },
    /// A writer was killed in a transaction, and it cannot be undone where the database lies.
    #[error(
        "read `{place}`: a write was cut off, and undoing it needs a folder that can be written\nhint: copy the study's whole folder to one, and give its parent with `--state`"
    )]
    HalfWritten { place: String, source: Cause },
    /// Damaged.
    #[error(
        "read `{place}`: the database is damaged\nhint: restore it from a backup; checkpoints alone cannot rebuild it"
    )]
    Corrupt { place: String, source: Cause },
    /// Another error of the backend.
    #[error("use the study database, {place}")]
    Backend { place: String, source: Cause },
    /// An event or specification cannot be parsed, or cannot be written as text.
    #[error("understand {what} in the study database")]
    Codec { what: String, source: serde_json::Error },
    /// A kind of event that this version does not know.
    #[error("understand event {seq}: unknown kind `{kind}`")]
    UnknownEvent { seq: u64, kind: String },
    /// The events of a database of an older format, whose rows are rebuilt from them, are inconsistent.
    #[error("bring `{place}` to today's format")]
    Inconsistent { place: String, source: Inconsistent },
    /// Folders cannot be made or read.
    #[error("use `{}`{}", path.display(), if crate::fsx::is_disk_full(.source) { ": the disk is full" } else { "" })]
    Io { path: PathBuf, source: std::io::Error },
}

fn held(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another run holds it".to_owned(), |h| format!("it is held by {h}"))
}
