//! Studies that travel to and from Optuna.

use crate::program::{Bench, text};
use hpsearch::engine::{Engine, EpochReport, Event, FailureClass, Outcome, Plan, TrialState};
use hpsearch::exchange::{OptunaState, OptunaStudy, is_export, journal, replay};
use hpsearch::history::Tables;
use hpsearch::ids::Epoch;
use hpsearch::spec::StudySpec;
use rusqlite::types::Value;
use std::collections::BTreeMap;
use std::path::Path;

const JOURNAL: &str = include_str!("../data/optuna.log");
const DATABASE: &str = include_str!("../data/optuna.sql");

/// A study as Optuna itself reads it; see `tests/data/make_optuna.py`.
fn facts() -> Vec<serde_json::Value> {
    let facts: serde_json::Value = serde_json::from_str(include_str!("../data/optuna.json")).unwrap();
    facts["studies"].as_array().unwrap().clone()
}

fn same(study: &OptunaStudy, facts: &serde_json::Value) {
    let directions: Vec<String> = study.directions.iter().map(|d| d.unwrap().to_string()).collect();
    assert_eq!(serde_json::json!([study.name, directions]), serde_json::json!([facts["name"], facts["directions"]]));
    let trials = facts["trials"].as_array().unwrap();
    assert_eq!(study.trials.len(), trials.len());
    for (trial, facts) in study.trials.iter().zip(trials) {
        let state: OptunaState = facts["state"].as_str().unwrap().parse().unwrap();
        assert_eq!(trial.state, state);
        assert_eq!(serde_json::json!(trial.values), facts["values"]);
        assert_eq!(serde_json::json!(trial.params), facts["params"]);
        assert_eq!(serde_json::json!(trial.reports), facts["reports"]);
    }
}

fn database(path: &Path) {
    // The dump's tables stand in the order of their names, not of their references.
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(DATABASE).unwrap();
}

#[test]
fn both_storages_of_optuna_are_read_as_optuna_reads_them() {
    let studies = replay(JOURNAL).unwrap();
    assert_eq!(studies.len(), facts().len());
    studies.iter().zip(&facts()).for_each(|(study, facts)| same(study, facts));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optuna.db");
    database(&path);
    assert_eq!(hpsearch::store::optuna_studies(&path).unwrap(), studies);
}

/// The study of the golden journal, with the space that it was drawn from, but for larger dropout.
fn warm(source: &str) -> String {
    format!(
        "name = \"s\"\nseed = 3\nrunner = {{ kind = \"synthetic\", epochs = 9, epoch_ms = 2 }}\n\
         objective = {{ metric = \"score\", direction = \"maximize\" }}\n\
         sampler = {{ kind = \"tpe\", n_startup = 4, warm_start = \"{source}\" }}\n\
         scheduler = {{ kind = \"none\" }}\nbudget = {{ n_trials = 4 }}\n[space]\n\
         learning_rate = {{ type = \"float\", low = 1e-5, high = 0.1, log = true }}\n\
         dropout = {{ type = \"float\", low = 0.0, high = 0.5, step = 0.1 }}\n\
         head = {{ choices = [\"linear\", \"hidden\"] }}\n\
         hidden_units = {{ type = \"int\", low = 64, high = 1024, log = true, when = {{ parameter = \"head\", is = \"hidden\" }} }}\n\
         batch = {{ type = \"ordinal\", choices = [16, 32, 64] }}\n\
         blocks = {{ type = \"int\", low = 1, high = 7, step = 2 }}\n"
    )
}

#[test]
fn a_study_of_optuna_starts_ours_warm_from_either_storage() {
    let bench = Bench::new(&warm("optuna:peer.log#peer"));
    let file = |name: &str| bench.study().with_file_name(name);
    std::fs::write(file("peer.log"), JOURNAL).unwrap();
    let shown = bench.finish(&[]);
    // Trials 2 and 7 have a dropout of 0.6, trial 4 failed, 5 is NaN and 11 infinite, 12 and 13 are not finished.
    assert!(shown.contains("starts warm from study peer: 7 of its 14 trials are used"), "{shown}");
    for reason in ["2 left out: `dropout` is not within", "1 left out: it failed", "2 left out: it is not finished"] {
        assert!(shown.contains(reason), "{shown}");
    }
    assert!(shown.contains("2 left out: it has no finite value"), "{shown}");
    let copied = "SELECT study, trial, epoch, value, params FROM earlier_result ORDER BY trial";
    let (journal, tables) = (bench.ask(copied), bench.tables());
    let trials = facts()[0]["trials"].as_array().unwrap().clone();
    for row in &journal {
        let (Value::Integer(trial), Value::Real(value)) = (&row[1], &row[3]) else { panic!("{row:?}") };
        let theirs = &trials[usize::try_from(*trial).unwrap()];
        assert_eq!(Some(*value), theirs["values"][0].as_f64(), "to the bit");
        // Three reports make a complete trial there, nine epochs here.
        let epochs = if theirs["state"] == "COMPLETE" { 9 } else { 3 * theirs["reports"].as_object().unwrap().len() };
        assert_eq!(row[2], Value::Integer(epochs as i64));
    }
    assert_eq!(journal.len(), 7);

    // What is on record stays, whatever becomes of the file.
    std::fs::remove_file(file("peer.log")).unwrap();
    bench.write(&warm("optuna:peer.log#peer").replace("n_trials = 4", "n_trials = 6"));
    bench.finish(&[]);
    assert_eq!(bench.ask(copied), journal);

    // The database gives the same study.
    bench.forget();
    database(&file("peer.db"));
    bench.write(&warm("optuna:sqlite:///peer.db#peer"));
    bench.finish(&["--workers", "2"]);
    assert_eq!((bench.ask(copied), bench.tables()), (journal, tables));
}

#[test]
fn an_unusable_file_of_optuna_is_refused_in_words() {
    let bench = Bench::new("");
    let file = |name: &str, text: &str| std::fs::write(bench.study().with_file_name(name), text).unwrap();
    let refused = |study: &str, code: i32, said: &[&str]| {
        bench.write(study);
        let output = bench.command(&["check"]).arg(bench.study()).output().unwrap();
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(said.iter().all(|said| shown.contains(said)) && shown.contains("hint: "), "{said:?}: {shown}");
    };
    file("peer.log", JOURNAL);
    let line = JOURNAL.lines().nth(20).unwrap();
    file("broken.log", &JOURNAL.replace(line, &line[..line.len() / 2]));
    file("text.db", "SQLite format 3\0 and nothing else");
    refused(&warm("optuna:nowhere.log"), 6, &["there is no such file", "nowhere.log"]);
    refused(&warm("optuna:peer.log"), 2, &["which study? It holds `peer`, `two objectives`"]);
    refused(&warm("optuna:peer.log#pear"), 2, &["which study?"]);
    refused(&warm("optuna:peer.log#two objectives"), 2, &["it has 2 objectives"]);
    refused(&warm("optuna:broken.log#peer"), 1, &["line 21 of the journal"]);
    refused(&warm("optuna:text.db"), 1, &["read the studies of Optuna in", "text.db"]);
    let minimize = warm("optuna:peer.log#peer").replace("\"maximize\"", "\"minimize\"");
    refused(&minimize, 2, &["its direction is maximize, here it is minimize"]);
    let renamed = warm("optuna:peer.log#peer").replace("blocks =", "layers =");
    refused(&renamed, 2, &["none of its trials can be used", "7 left out: `layers` has no value"]);
}

/// A study whose last order is issued and not begun, and the one before not finished; trial 3 diverges.
fn every_state(stop: u32) -> (StudySpec, Tables) {
    let study = warm("").replace(", n_startup = 4, warm_start = \"\"", "").replace("\"tpe\"", "\"random\"");
    let study = study.replace("\"none\"", "\"asha\", reduction_factor = 3").replace("n_trials = 4", "n_trials = 14");
    let study = study.replace("kind = \"synthetic\", epochs = 9, epoch_ms = 2", "kind = \"external\", epochs = 9");
    let spec = hpsearch::config::from_text(&study).unwrap().spec;
    let (mut engine, mut events, mut now) = (Engine::new(&spec), Vec::new(), 1_800_000_000_000);
    let mut tell = |engine: &mut Engine, event: Event| {
        engine.apply(&event).unwrap();
        events.push(event);
    };
    let mut issued = 0;
    while let Plan::Issue(order) = engine.plan() {
        let (number, from, to) = (order.order, order.from.0, order.to.0);
        let trial = order.trial.0;
        tell(&mut engine, Event::OrderIssued { order });
        issued += 1;
        if issued == stop {
            break;
        }
        now += 1_017;
        tell(&mut engine, Event::AttemptStarted { order: number, attempt: 1, worker: 0, unix_ms: now });
        let mut value = 0.0;
        for epoch in from + 1..=to {
            value = 0.9 - 1.0 / (f64::from(trial) + 3.0) - 0.3 / f64::from(epoch);
            now += 250;
            let metrics = [("recall".to_owned(), value / 3.0), ("state".to_owned(), 0.1 + 0.2)].into();
            let report = EpochReport { metrics, seconds: 0.25, ..EpochReport::new(Epoch(epoch), value) };
            let report = EpochReport { value: (trial != 3 || epoch != 1).then_some(value), ..report };
            tell(&mut engine, Event::EpochReported { order: number, attempt: 1, report, unix_ms: now });
            if issued == stop - 1 {
                break;
            }
        }
        now += 3;
        let reason = "the objective is \"undefined\"".to_owned();
        let outcome = match trial {
            3 => Outcome::Failed { class: FailureClass::Diverged, reason },
            _ => Outcome::Reached { value },
        };
        if issued < stop - 1 {
            tell(&mut engine, Event::OrderFinished { order: number, outcome, unix_ms: now });
        }
    }
    let tables = Tables::replay(&spec, &events).unwrap();
    (spec, tables)
}

#[test]
fn an_export_for_optuna_has_every_trial_in_its_state_and_every_value_to_the_bit() {
    let mut states = BTreeMap::new();
    for (golden, stop) in [("optuna_export.log", 24), ("optuna_export_begun.log", 10)] {
        let (spec, tables) = every_state(stop);
        let text = journal(&spec, &tables);
        // HPSEARCH_ACCEPT=1 writes it anew; `scripts/optuna-check` has Optuna itself read it.
        let golden = Path::new("tests/data").join(golden);
        if std::env::var_os("HPSEARCH_ACCEPT").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap());
        assert!(is_export(&text) && !is_export(JOURNAL) && !is_export(""));
        let studies = replay(&text).unwrap();
        let [study] = &studies[..] else { panic!("{studies:?}") };
        assert_eq!((study.metric(), study.trials.len()), (Some("score"), tables.trials.len()));
        for (row, trial) in tables.trials.values().zip(&study.trials) {
            assert!(states.insert((row.state, row.epochs > 0), trial.state).is_none_or(|state| state == trial.state));
            assert_eq!(trial.params, tables.configurations[&row.trial].0, "absent where the condition is not met");
            let reports: BTreeMap<i64, Option<f64>> =
                tables.epochs_of(row.trial).map(|e| (i64::from(e.epoch.0), e.value)).collect();
            assert_eq!(trial.reports, reports);
            let value = row.value.filter(|_| matches!(trial.state, OptunaState::Complete | OptunaState::Pruned));
            assert_eq!(trial.values, Vec::from_iter(value.map(Some)));
        }
    }
    let expected = [
        ((TrialState::Waiting, false), OptunaState::Waiting),
        ((TrialState::Waiting, true), OptunaState::Running),
        ((TrialState::Running, true), OptunaState::Running),
        ((TrialState::Paused, true), OptunaState::Pruned),
        ((TrialState::Stopped, true), OptunaState::Pruned),
        ((TrialState::Complete, true), OptunaState::Complete),
        ((TrialState::Failed, true), OptunaState::Fail),
    ];
    assert_eq!(states, BTreeMap::from(expected));
}

#[test]
fn an_export_for_optuna_comes_back_and_never_replaces_studies_of_optuna() {
    let bench = Bench::new(&warm("").replace(", n_startup = 4, warm_start = \"\"", ""));
    bench.finish(&[]);
    let file = bench.study().with_file_name("s.log");
    let export = || bench.command(&["export", "s", "--optuna"]).arg(&file).output().unwrap();
    assert!(export().status.success() && export().status.success(), "an export is replaced");
    let exported = std::fs::read(&file).unwrap();
    let piped = bench.command(&["export", "s", "--optuna", "-"]).output().unwrap();
    assert_eq!(piped.stdout, exported);

    let back = warm("optuna:s.log").replace("\"s\"", "\"t\"");
    bench.write(&back);
    let shown = bench.finish(&[]);
    assert!(shown.contains("starts warm from study s: 4 of its 4 trials are used"), "{shown}");
    bench.write(&back.replace("\"score\"", "\"loss\"").replace("\"t\"", "\"u\""));
    let shown = text(&bench.run(&[]).stderr);
    assert!(shown.contains("its metric is score, here it is loss"), "{shown}");

    for (name, said) in [("s.db", "that of a database"), ("peer.log", "it may hold studies of Optuna")] {
        let other = bench.study().with_file_name(name);
        if name == "peer.log" {
            std::fs::write(&other, JOURNAL).unwrap();
        }
        let output = bench.command(&["export", "s", "--optuna"]).arg(&other).output().unwrap();
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(said) && shown.contains("hint: "), "{shown}");
        assert!(name == "s.db" || std::fs::read_to_string(&other).unwrap() == JOURNAL);
    }
}
