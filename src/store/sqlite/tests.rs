use super::*;
use crate::history::Tables;
use crate::ids::TrialNumber;
use crate::store::{Reader, conformance, in_folder};

fn filled(folder: &Path) -> SqliteStore {
    let mut store = SqliteStore::create(&folder.join("study.db"), &conformance::study("filled")).unwrap();
    store.append(0, &conformance::history(), &conformance::rows()).unwrap();
    store
}

fn text(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| {
            let cell = |i| -> rusqlite::Result<String> {
                Ok(match row.get::<_, rusqlite::types::Value>(i)? {
                    rusqlite::types::Value::Null => "-".to_owned(),
                    rusqlite::types::Value::Integer(i) => i.to_string(),
                    rusqlite::types::Value::Real(x) => x.to_string(),
                    rusqlite::types::Value::Text(t) => t,
                    rusqlite::types::Value::Blob(_) => "blob".to_owned(),
                })
            };
            Ok((0..columns).map(cell).collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
        })
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_folder_of_databases_meets_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&*in_folder(folder.path()));
}

#[test]
fn people_can_query_in_plain_sql() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let ask = |sql| text(&store.connection, sql);
    assert_eq!(ask("SELECT trial, state, value, epochs, result FROM trial"), ["0 complete - 2 -"]);
    assert_eq!(
        ask("SELECT p.name, p.value, f.value FROM trial_param p JOIN final_metric f USING (trial) \
             WHERE f.name = 'f1' AND p.trial = 0 AND p.name IN ('nesterov', 'learning_rate') ORDER BY 1"),
        ["learning_rate 0.30000000000000004 0.3333333333333333", "nesterov 1 0.3333333333333333"]
    );
    assert_eq!(
        ask("SELECT epoch, value FROM learning_curve WHERE trial = 0 AND name = 'score' ORDER BY epoch"),
        ["1 0.25", "2 0.25"]
    );
    assert_eq!(ask("SELECT place, trial FROM ranking"), ["1 0"]);
    assert_eq!(ask("SELECT work_order, attempt, ended FROM attempt"), ["0 1 bad_input"]);
    assert_eq!(ask("SELECT trial, class, final FROM failure"), ["0 oom 1"]);
    assert_eq!(ask("SELECT count(*) FROM file WHERE kept"), ["2"]);
    assert_eq!(ask("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(ask("PRAGMA foreign_key_check").len(), 0);
}

#[test]
fn events_are_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let refused = |sql| store.connection.execute(sql, []).unwrap_err().to_string();
    assert_eq!(refused("DELETE FROM event WHERE seq = 1"), "events are never deleted");
    assert_eq!(refused("UPDATE event SET body = '' WHERE seq = 1"), "events are never changed");
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = filled(folder.path());
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let before = store.len();
    let mut order = conformance::order(3);
    order.params.0.insert("note".to_owned(), crate::space::Value::Text("x".repeat(100_000)));
    let events = [Event::OrderIssued { order }];
    let Err(error) = store.append(before, &events, &[]) else { panic!("it fitted") };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("hint: nothing on record is lost"), "{error}");
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(store.len(), before);
    store.append(before, &events, &[]).unwrap();
}

#[test]
fn files_that_are_not_ours_or_too_new_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.db");
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Missing(_))));
    std::fs::write(&path, "a text that is long enough to be looked at as a database header, which it is not at all")
        .unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::NotAStudy(_))));
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE event (x)").unwrap();
    assert!(matches!(SqliteReader::open(&path), Err(StoreError::NotAStudy(_))));
    std::fs::remove_file(&path).unwrap();
    filled(folder.path()).connection.pragma_update(None, "user_version", 6).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Newer { found: 6, known: 5 })));
}

#[test]
fn a_draft_left_by_a_crash_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("study.db.draft"), "half").unwrap();
    drop(filled(folder.path()));
    assert!(!folder.path().join("study.db.draft").exists());
}

#[test]
fn a_study_on_a_read_only_medium_can_be_read_and_says_why_it_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).path;
    let mode = |m| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(m)).unwrap();
    mode(0o555);
    let is_root = std::fs::write(folder.path().join("probe"), "").is_ok();
    if !is_root {
        assert_eq!(SqliteReader::open(&path).unwrap().tables().unwrap().trials.len(), 1);
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::ReadOnly { .. })));
    }
    mode(0o755);
}

#[test]
fn what_a_killed_writer_left_half_written_is_undone_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let before = SqliteReader::open(&store.path).unwrap().tables().unwrap();
    // As on a network's file systems; more than the cache holds, so that part of it is in the file already.
    store.connection.pragma_update(None, "journal_mode", "truncate").unwrap();
    store
        .connection
        .execute_batch(
            "PRAGMA cache_size = 1; BEGIN; DELETE FROM epoch; CREATE TABLE more (x); \
             INSERT INTO more WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
             SELECT randomblob(4000) FROM n",
        )
        .unwrap();
    let killed = tempfile::tempdir().unwrap();
    for name in ["study.db", "study.db-journal"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    let path = killed.path().join("study.db");
    let plain = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let refused = plain.query_row("SELECT count(*) FROM epoch", [], |_| Ok(())).unwrap_err();
    assert_eq!(refused.sqlite_error().unwrap().extended_code, rusqlite::ffi::SQLITE_READONLY_ROLLBACK);
    drop(plain);
    assert_eq!(SqliteReader::open(&path).unwrap().tables().unwrap(), before);
    assert_eq!(std::fs::metadata(killed.path().join("study.db-journal")).map_or(0, |m| m.len()), 0);
}

/// A study that the first version of this program began, stopped once by kill -9 and once by Ctrl-C
/// (`tests/data/store/version1.toml`).
#[test]
fn a_database_of_format_1_is_migrated_and_its_rows_rebuilt() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("old");
    std::fs::create_dir(&folder).unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/version1.db");
    std::fs::copy(committed, folder.join("study.db")).unwrap();
    let backend = in_folder(state.path());
    let reader = backend.read("old").unwrap();
    let mut events = Vec::new();
    reader.events(0, &mut |e| events.push(e)).unwrap();
    let expected = Tables::replay(&reader.spec().unwrap(), &events).unwrap();
    let before = (reader.tables().unwrap(), reader.runs().unwrap(), reader.files().unwrap());
    assert_eq!(before.0, expected, "a reader sees today's rows already");
    assert_eq!(
        before.1.iter().map(|run| run.ended).collect::<Vec<_>>(),
        [Some(RunEnd::Killed), Some(RunEnd::Interrupted), None]
    );
    assert_eq!(expected.failures.len(), 2);
    assert!(expected.trials.len() == 18 && expected.enqueued.len() == 1);
    drop(reader);

    let claim = backend.claim("old").unwrap();
    let store = claim.open().unwrap().unwrap();
    let mut kept = Vec::new();
    store.events(0, &mut |e| kept.push(e)).unwrap();
    assert_eq!(kept, events);
    let reader = backend.read("old").unwrap();
    assert_eq!((reader.tables().unwrap(), reader.runs().unwrap(), reader.files().unwrap()), before);
    let connection = Connection::open(folder.join("study.db")).unwrap();
    assert_eq!(text(&connection, "PRAGMA user_version"), ["5"]);
    assert_eq!(text(&connection, "PRAGMA foreign_key_check").len(), 0);
    assert_eq!(expected.trials[&TrialNumber(4)].state.as_ref(), "failed");
}

#[test]
fn the_log_of_a_deleted_database_is_not_taken_for_that_of_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.db");
    let store = filled(folder.path());
    let log = std::fs::read(folder.path().join("study.db-wal")).unwrap();
    assert!(log.len() > 4096, "it holds the history");
    drop(store);
    // As after a kill, and `rm study.db` by a user who wants to begin anew.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(folder.path().join("study.db-wal"), log).unwrap();
    let store = SqliteStore::create(&path, &conformance::study("filled")).unwrap();
    assert_eq!(store.len(), 0);
    assert_eq!(text(&store.connection, "SELECT count(*) FROM epoch"), ["0"]);
    assert_eq!(text(&store.connection, "PRAGMA integrity_check"), ["ok"]);
}
