//! Studies that earlier versions of the program left unfinished are continued to the results of the first version.

use crate::program::{Bench, text};
use rusqlite::types::Value;
use std::path::Path;

/// Trial, state, value, epochs and rung, as the first version's own continuation of the study left them.
const END: [(i64, &str, Option<f64>, i64, i64); 18] = [
    (0, "stopped", Some(0.11), 1, 0),
    (1, "stopped", Some(0.48), 1, 0),
    (2, "complete", Some(0.93), 9, 2),
    (3, "stopped", Some(0.42), 1, 0),
    (4, "failed", None, 0, 0),
    (5, "stopped", Some(0.36), 1, 0),
    (6, "stopped", Some(0.75), 3, 1),
    (7, "stopped", Some(0.3), 1, 0),
    (8, "stopped", Some(0.69), 3, 1),
    (9, "stopped", Some(0.24), 1, 0),
    (10, "stopped", Some(0.63), 3, 1),
    (11, "stopped", Some(0.18), 1, 0),
    (12, "stopped", Some(0.55), 1, 0),
    (13, "stopped", Some(0.12), 1, 0),
    (14, "stopped", Some(0.49), 1, 0),
    (15, "complete", Some(0.94), 9, 2),
    (16, "stopped", Some(0.43), 1, 0),
    (17, "stopped", Some(0.82), 3, 1),
];

#[test]
fn studies_of_earlier_versions_go_on_to_the_same_end() {
    for database in ["version1.db", "version3.db"] {
        goes_on(database);
    }
}

fn goes_on(database: &str) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store");
    let file = std::fs::read_to_string(kept.join("version1.toml")).unwrap();
    let bench = Bench::new(&file.replace("name = \"old\"", "name = \"old\" # of the first version"));
    let folder = bench.dir().with_file_name("old");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(kept.join(database), folder.join("study.db")).unwrap();

    let status = bench.command(&["status", "old"]).output().unwrap();
    assert!(text(&status.stdout).contains("the last run was killed"), "{}", text(&status.stdout));
    let run = bench.run(&[]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let rows = crate::program::rows(
        &folder.join("study.db"),
        "SELECT trial, state, value, epochs, rung FROM trial ORDER BY trial",
    );
    let expected: Vec<Vec<Value>> = END
        .iter()
        .map(|(trial, state, value, epochs, rung)| {
            let value = value.map_or(Value::Null, Value::Real);
            vec![(*trial).into(), state.to_string().into(), value, (*epochs).into(), (*rung).into()]
        })
        .collect();
    assert_eq!(rows, expected, "{database}");
}

/// Every verb that reads a study reports an unusable database, with the exit code for missing data.
#[test]
fn every_verb_refuses_a_damaged_or_foreign_database() {
    let bench = Bench::synthetic(2, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 1\n");
    bench.finish(&[]);
    let database = bench.dir().join("study.db");
    let good = std::fs::read(&database).unwrap();
    let mut torn = good.clone();
    torn[4096..].fill(0xA5);
    let alien = {
        let path = bench.dir().join("alien.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
        std::fs::read(&path).unwrap()
    };
    let study = bench.study().to_str().unwrap().to_owned();
    for (what, bytes) in [("torn", torn), ("alien", alien), ("no database", b"hello".repeat(100))] {
        for leftover in ["study.db-wal", "study.db-shm"] {
            let _ = std::fs::remove_file(bench.dir().join(leftover));
        }
        std::fs::write(&database, bytes).unwrap();
        for verb in [
            &["run", study.as_str()][..],
            &["status", "s"],
            &["report", "s"],
            &["test", "s"],
            &["export", "s", "--csv", "-"],
            &["enqueue", "s", "dropout=0.5"],
            &["gc", "s"],
        ] {
            let output = bench.command(verb).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(6), "{what}: {verb:?}: {said}");
            assert!(said.contains("study.db"), "{what}: {verb:?}: {said}");
        }
    }
    std::fs::write(&database, good).unwrap();
    bench.finish(&[]);
}
