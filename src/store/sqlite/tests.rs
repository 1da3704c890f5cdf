use super::*;
use crate::ids::TrialNumber;
use crate::store::conformance;

fn filled(folder: &Path) -> SqliteStore {
    let mut store = SqliteStore::create(&folder.join("study.db"), &conformance::study("filled")).unwrap();
    store.append(0, &conformance::history()).unwrap();
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
fn the_sqlite_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check(&mut |spec| {
        number += 1;
        Box::new(SqliteStore::create(&folder.path().join(format!("{number}.db")), &spec).unwrap())
    });
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).path().to_owned();
    let store = SqliteStore::open(&path).unwrap();
    let mut events = Vec::new();
    store.read(0, &mut |e| events.push(e)).unwrap();
    assert_eq!(events, conformance::history());
    assert_eq!(store.spec(), &conformance::study("filled"));
    assert!(matches!(SqliteStore::create(&path, store.spec()), Err(StoreError::Exists(_))));
}

#[test]
fn people_can_ask_in_plain_sql() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let ask = |sql| text(&store.connection, sql);
    assert_eq!(
        ask("SELECT trial, state, value, epochs FROM trial"),
        ["0 complete 0.875 3", "1 stopped 0.25 1", "2 failed - 1"]
    );
    assert_eq!(
        ask("SELECT p.name, p.value, f.value FROM trial_param p JOIN final_metric f USING (trial) \
             WHERE f.name = 'f1' AND p.trial = 0 AND p.name IN ('nesterov', 'learning_rate') ORDER BY 1"),
        ["learning_rate 0.30000000000000004 0.3333333333333333", "nesterov 1 0.3333333333333333"]
    );
    assert_eq!(
        ask("SELECT epoch, value FROM learning_curve WHERE trial = 0 AND name = 'score' ORDER BY epoch"),
        ["1 0.5", "2 0.75", "3 0.875"]
    );
    assert_eq!(ask("SELECT place, trial FROM ranking"), ["1 0", "2 1", "3 2"]);
    assert_eq!(ask("SELECT work_order, attempt, ended FROM attempt"), ["0 0 lost", "0 1 done", "1 0 done", "2 0 done"]);
    assert_eq!(ask("SELECT trial, class, final FROM failure"), ["0 lost 0", "2 diverged 1"]);
    assert_eq!(ask("SELECT count(*) FROM file WHERE kept"), ["10"]);
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
fn a_reader_sees_one_moment_and_does_not_hold_up_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::create(&folder.path().join("study.db"), &conformance::study("both")).unwrap();
    let history = conformance::history();
    store.append(0, &history[..8]).unwrap();
    let reader = SqliteReader::open(store.path()).unwrap();
    let mut seen = 0;
    reader
        .events(0, &mut |_| {
            if seen == 2 {
                store.append(8, &history[8..]).unwrap();
            }
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 8);
    let trials = reader.trials().unwrap();
    assert_eq!(trials.len(), 3);
    assert_eq!(trials[0].metrics["recall"], 0.3);
    assert_eq!(trials[0].params, conformance::order(0).params);
    assert_eq!(trials[2].failure, Some(("diverged".to_owned(), "loss is NaN".to_owned())));
    assert!(reader.workers().unwrap().is_empty());
}

#[test]
fn what_a_killed_run_left_open_is_closed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::create(&folder.path().join("study.db"), &conformance::study("killed")).unwrap();
    let run = RunStart { unix_ms: 7, program: "0".to_owned(), workers: 1, device: "cpu".to_owned() };
    store.begin_run(&run).unwrap();
    store.append(0, &conformance::history()[..3]).unwrap();
    let reader = SqliteReader::open(store.path()).unwrap();
    assert_eq!(reader.workers().unwrap().len(), 1);
    store.begin_run(&run).unwrap();
    assert!(reader.workers().unwrap().is_empty());
    assert_eq!(reader.trials().unwrap()[0].state, "waiting");
    let ended: Vec<_> = reader.runs().unwrap().into_iter().map(|r| r.ended).collect();
    assert_eq!(ended, [Some("killed".to_owned()), None]);
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
    let events = [conformance::history().remove(0), Event::OrderIssued { order }];
    let Err(error) = store.append(before, &events[1..]) else { panic!("it fitted") };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("hint: nothing on record is lost"), "{error}");
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(store.len(), before);
    store.append(before, &events[1..]).unwrap();
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
    filled(folder.path()).connection.pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Newer { found: 2, known: 1 })));
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
    let path = filled(folder.path()).path().to_owned();
    let mode = |m| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(m)).unwrap();
    mode(0o555);
    let is_root = std::fs::write(folder.path().join("probe"), "").is_ok();
    if !is_root {
        assert_eq!(SqliteReader::open(&path).unwrap().trials().unwrap().len(), 3);
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::ReadOnly { .. })));
    }
    mode(0o755);
}

#[test]
fn a_database_of_version_1_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.db");
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/version1.db");
    if std::env::var_os("HPSEARCH_MAKE_VERSION1").is_some() {
        let store = filled(folder.path());
        store
            .connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE; VACUUM;")
            .unwrap();
        std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
        std::fs::copy(&path, &committed).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::copy(committed, &path).unwrap();
    let mut store = SqliteStore::open(&path).unwrap();
    let mut events = Vec::new();
    store.read(0, &mut |e| events.push(e)).unwrap();
    let mut expected = conformance::history();
    for event in &mut expected {
        // Its program did not measure memory yet.
        if let Event::EpochReported { report, .. } = event {
            (report.memory_bytes, report.at_once) = (None, None);
        }
    }
    assert_eq!(events, expected);
    assert_eq!(store.spec().seed, u64::MAX - 6);
    let order = Event::OrderIssued { order: conformance::order(3) };
    store.append(events.len() as u64, &[order]).unwrap();
    assert_eq!(SqliteReader::open(&path).unwrap().trials().unwrap()[3].trial, TrialNumber(3));
}
