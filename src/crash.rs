//! Named points between durable steps at which a test can make the process abort.
//!
//! `HPSEARCH_CRASH_AT=epoch-recorded:3` aborts the third time that point is reached, as `kill -9` would: no destructor
//! runs. Without the variable a point costs one load of an initialised cell. Always compiled in, so that what is tested
//! is what is shipped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable: `NAME` or `NAME:N`.
pub const VARIABLE: &str = "HPSEARCH_CRASH_AT";

/// Where a process may be made to abort. In the environment variable names are in kebab case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Point {
    /// The study's folders exist, its database does not.
    FoldersMade,
    /// The database is complete under its temporary name.
    DatabaseDrafted,
    /// The database has its final name; nothing has happened in the study.
    DatabaseMade,
    /// The run is on record; no worker exists.
    RunBegun,
    /// Events are in a transaction that is not committed.
    EventsWritten,
    /// Events are committed; the caller does not know yet.
    EventsCommitted,
    /// An order is on record; no worker trains it.
    OrderIssued,
    /// An attempt is on record; its worker does not know.
    AttemptStarted,
    /// A worker's report has arrived; it is not on record.
    EpochReceived,
    /// An epoch is on record; its worker waits for the acknowledgement.
    EpochRecorded,
    /// An order's outcome is on record; nothing follows from it yet.
    OrderFinished,
    /// Files are on record as no longer kept; they still exist.
    FilesForgotten,
    /// Files no longer kept are deleted.
    FilesDeleted,
    /// All trials are done; the run's end is not on record.
    RunEnding,
    /// A file (in a worker: a checkpoint) is complete under its temporary name.
    FileDrafted,
    /// A file is durable under its final name; the caller does not know yet.
    FileNamed,
    /// In a worker: the epoch is acknowledged; the next has not begun.
    EpochAcknowledged,
}

/// Aborts if the environment variable names this point.
pub fn at(point: Point) {
    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?));
    if let Some((name, nth)) = armed
        && name == point.into_str()
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        eprintln!("{VARIABLE}: aborting at {name}");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<(String, u64)> {
    match text.split_once(':') {
        Some((name, n)) => Some((name.to_owned(), n.parse().ok()?)),
        None => Some((text.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_or_without_a_count() {
        assert_eq!(parse("epoch-recorded:3"), Some(("epoch-recorded".to_owned(), 3)));
        assert_eq!(parse("order-issued"), Some(("order-issued".to_owned(), 1)));
        assert_eq!(parse("order-issued:x"), None);
    }
}
