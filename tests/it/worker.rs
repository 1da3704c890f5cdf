//! Workers that fail in every way, limits, budgets, and the verbs that look at a study.

use crate::program::{Bench, signal, text, wait};
use hpsearch::engine::EpochReport;
use hpsearch::study::{Ask, Study};
use rusqlite::types::Value;
use rustix::process::Signal;
use std::time::Duration;

/// A study with one trial for each of some faults of the synthetic runner.
fn faults(kinds: &[&str], rest: &str) -> Bench {
    let list: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
    Bench::new(&format!(
        "seed = 5\n[runner]\nkind = \"synthetic\"\nepochs = 3\n\
         [objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
         [sampler]\nkind = \"grid\"\n[scheduler]\nkind = \"none\"\n{rest}\n\
         [space]\nfault = {{ type = \"categorical\", choices = [{}] }}\n",
        list.join(", ")
    ))
}

fn state_of(bench: &Bench, fault: &str) -> String {
    let sql = format!(
        "SELECT t.state || coalesce(' ' || (SELECT class FROM failure f WHERE f.trial = t.trial AND final), '') \
         FROM trial t JOIN trial_param p USING (trial) WHERE p.value = '{fault}'"
    );
    match bench.ask(&sql).first().and_then(|row| row.first()) {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn every_way_to_fail_costs_an_attempt_and_has_its_class() {
    let kinds = [
        ("none", "complete"),
        ("error_once", "complete"),
        ("error", "failed crashed"),
        ("panic_once", "complete"),
        ("nan", "failed diverged"),
        ("oom_once", "complete"),
        ("oom", "failed oom"),
        ("abort_once", "complete"),
        ("abort", "failed lost"),
        ("garbage_once", "complete"),
        ("hang_once", "complete"),
        ("hang", "failed timeout"),
    ];
    let names: Vec<&str> = kinds.iter().map(|k| k.0).collect();
    let bench =
        faults(&names, "[limits]\nepoch_time = \"1 s\"\n[failures]\ntimeout = 1\nlost = 1\ncrashed = 1\noom = 1\n");
    let output = bench.finish(&["--workers", "3"]);
    for (fault, state) in kinds {
        assert_eq!(state_of(&bench, fault), state, "{fault}\n{output}");
    }
    assert!(output.contains("printed what is no message: `epoch 1 of 10"), "{output}");
    assert!(output.contains("the panic that was asked for"), "{output}");
    assert_eq!(bench.count("SELECT count(*) FROM failure WHERE class = 'lost'"), 3, "once; a retry and the end");
    assert_eq!(bench.count("SELECT count(*) FROM trial WHERE state IN ('running', 'waiting')"), 0);
}

#[test]
fn an_interrupt_does_not_wait_for_a_hanging_worker() {
    let bench = faults(&["hang"], "");
    let mut run = bench.spawn(&[]);
    bench.wait_for("SELECT count(*) FROM epoch", 1);
    signal(run.id(), Signal::INT);
    assert_eq!(wait(&mut run, Duration::from_secs(20)).and_then(|s| s.code()), Some(130));
    assert_eq!(bench.count("SELECT count(*) FROM failure"), 0);
}

#[test]
fn exit_codes_say_how_it_ended() {
    let code = |bench: &Bench, arguments: &[&str]| bench.run(arguments).status.code();
    let none = faults(&["error", "nan"], "[failures]\ncrashed = 0\n");
    assert_eq!(code(&none, &[]), Some(4), "no trial succeeded");
    let limit = faults(&["error", "nan", "none"], "[budget]\nmax_failures = 1\n[failures]\ncrashed = 0\n");
    assert_eq!(code(&limit, &["--workers", "1"]), Some(1), "too many failures");
    let epochs = Bench::synthetic(3, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 5\nepochs = 7\n");
    assert_eq!(code(&epochs, &[]), Some(3), "the epochs are spent");
    assert_eq!(epochs.count("SELECT count(*) FROM epoch"), 6);
    let missing = none.command(&["status", "nothing"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
}

#[test]
fn a_raised_budget_goes_on_and_a_changed_study_is_refused() {
    let bench = Bench::synthetic(3, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 2\n");
    bench.finish(&[]);
    let study = std::fs::read_to_string(bench.study()).unwrap();
    bench.write(&study.replace("n_trials = 2", "n_trials = 3"));
    bench.finish(&[]);
    bench.finish(&[]);
    assert_eq!(bench.count("SELECT count(*) FROM trial"), 3);
    for (from, to, said) in
        [("epochs = 3", "epochs = 4", "runner.epochs: 3 -> 4"), ("high = 0.6", "high = 0.5", "0.6 -> 0.5")]
    {
        bench.write(&study.replace("n_trials = 2", "n_trials = 3").replace(from, to));
        let refused = bench.run(&[]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
    bench.write(&study.replace("n_trials = 2", "n_trials = 3"));
    let refused = bench.run(&["--seed", "6"]);
    assert!(text(&refused.stderr).contains("seed: 5 -> 6"), "{}", text(&refused.stderr));
}

#[test]
fn a_study_can_be_looked_at_while_it_runs() {
    let bench = Bench::synthetic(9, 20_000, "[budget]\nn_trials = 4\n");
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM attempt", 2);
    let status = text(&bench.command(&["status"]).output().unwrap().stdout);
    assert!(status.contains(&format!("running: process {}", run.id())), "{status}");
    assert!(status.contains("worker 1: trial ") && status.contains("trial 1 epoch 0/"), "{status}");
    let json = bench.command(&["status", "--json"]).output().unwrap().stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["running"]["pid"], run.id());
    assert_eq!(json["states"]["running"], 2);
    // Without a terminal, the live view is printed once.
    let watch = text(&bench.command(&["watch"]).env("COLUMNS", "100").output().unwrap().stdout);
    assert!(watch.contains(&format!("running: 2 workers on auto, process {} on ", run.id())), "{watch}");
    assert!(watch.contains("worker 1  trial ") && watch.contains("trial 1  epoch 0/"), "{watch}");
    let refused = bench.command(&["watch", "--json"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("status --json"), "{}", text(&refused.stderr));
    run.kill().unwrap();
    run.wait().unwrap();
    let status = text(&bench.command(&["status", "s"]).output().unwrap().stdout);
    assert!(status.contains("the last run was killed"), "{status}");
    let watch = text(&bench.command(&["watch", "--once", "s"]).output().unwrap().stdout);
    assert!(watch.starts_with("s  not running; the last run was killed"), "{watch}");
    assert!(watch.contains("2 of 4 trials"), "{watch}");
    assert!(watch.lines().all(|line| line.chars().count() <= 80), "{watch}");
}

#[test]
fn trials_are_exported_as_csv_and_events_printed_as_json() {
    let bench = Bench::synthetic(3, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 3\n");
    let events = bench.finish(&["--json"]);
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "epoch").count(), 9, "{kinds:?}");
    assert_eq!((kinds[0].as_str(), kinds[kinds.len() - 1].as_str()), ("started", "finished"));
    let csv = text(&bench.command(&["export", "--csv", "-"]).output().unwrap().stdout);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "number,state,value,epochs,seconds,failure,reason,dropout,learning_rate,quality");
    assert!(lines.len() == 4 && lines[1].starts_with("0,complete,0."), "{csv}");
    std::fs::write(bench.dir().join("checkpoints/.tmp-1-1-x"), "left over").unwrap();
    let gc = text(&bench.command(&["gc"]).output().unwrap().stdout);
    assert!(gc.contains("study s: 1 file (9 B) deleted, 3 files ("), "{gc}");
}

#[test]
fn an_enqueued_configuration_is_tried_next() {
    let bench = Bench::synthetic(3, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 2\n");
    bench.finish(&[]);
    let enqueue = |values: &[&str]| {
        let mut command = bench.command(&["enqueue", "s"]);
        command.args(values).output().unwrap()
    };
    assert_eq!(enqueue(&["learning_rate=7", "dropout=0.5"]).status.code(), Some(2), "outside the space");
    assert!(enqueue(&["learning_rate=0.01", "dropout=0.25"]).status.success());
    let study = std::fs::read_to_string(bench.study()).unwrap();
    bench.write(&study.replace("n_trials = 2", "n_trials = 3"));
    bench.finish(&[]);
    let row = bench.ask("SELECT value FROM trial_param WHERE trial = 2 ORDER BY name");
    assert_eq!(row, [[Value::Real(0.25)], [Value::Real(0.01)]]);
}

#[test]
fn a_study_that_a_library_user_trains_can_be_looked_at_but_not_run() {
    let bench = Bench::new(
        "runner = { kind = \"external\", epochs = 3 }\nscheduler = { kind = \"none\" }\n\
         budget = { n_trials = 1 }\n[space]\n\
         x = { type = \"float\", low = 0.0, high = 1.0 }\n",
    );
    let refused = bench.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("hint: the program that uses hpsearch as a library"), "{refused:?}");
    assert!(!bench.dir().exists(), "nothing is left behind");
    let spec = hpsearch::config::load(&bench.study()).unwrap().spec;
    let mut study = Study::open(bench.dir().parent().unwrap(), &spec).unwrap();
    let Ask::Trial(mut trial) = study.ask().unwrap() else { panic!("nothing to do") };
    for epoch in trial.remaining() {
        study.report(&mut trial, EpochReport::new(epoch, 0.25)).unwrap();
    }
    study.tell(trial, Ok(())).unwrap();
    let csv = text(&bench.command(&["export", "--csv", "-"]).output().unwrap().stdout);
    assert!(csv.lines().nth(1).is_some_and(|line| line.starts_with("0,complete,0.25,3,")), "{csv}");
}

#[test]
fn the_best_configuration_becomes_a_study_of_its_own() {
    let bench = Bench::synthetic(3, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 4\n");
    let best = |arguments: &[&str]| bench.command(&[&["best"], arguments].concat()).output().unwrap();
    bench.finish(&[]);
    let (first, value) = match &bench.ask("SELECT trial, value FROM ranking LIMIT 1")[0][..] {
        [rusqlite::types::Value::Integer(trial), rusqlite::types::Value::Real(value)] => (*trial, *value),
        other => panic!("{other:?}"),
    };
    let people = text(&best(&[]).stdout);
    assert!(people.starts_with(&format!("trial {first} of study s: score {value:.4} after 3 of 3 epochs")), "{people}");
    assert!(people.contains("  dropout        0."), "{people}");
    let json: serde_json::Value = serde_json::from_slice(&best(&["--json"]).stdout).unwrap();
    assert_eq!((json["trial"].as_i64(), json["params"].as_object().map(|p| p.len())), (Some(first), Some(2)));
    assert_eq!(best(&["--trial", "9"]).status.code(), Some(2));

    let alone = Bench::new(&text(&best(&["--toml"]).stdout));
    alone.finish(&[]);
    let params = |bench: &Bench, name: &str, trial: i64| {
        let database = bench.dir().with_file_name(name).join("study.db");
        crate::program::rows(&database, &format!("SELECT params FROM trial WHERE trial = {trial}"))
    };
    assert_eq!(params(&alone, &format!("s-{first}"), 0), params(&bench, "s", first));
    let none = Bench::synthetic(3, 0, "[budget]\nn_trials = 1\n");
    assert_eq!(none.command(&["best"]).output().unwrap().status.code(), Some(2));

    // A command starts where it did, wherever the new study file is.
    for (directory, folder) in [("", "."), ("directory = \"work\"\n", "work")] {
        let bench = Bench::new(&format!(
            "[runner]\nkind = \"command\"\ncommand = [\"cat\", \"epoch\"]\nepochs = 1\n{directory}\
             [objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
             [scheduler]\nkind = \"none\"\n[budget]\nn_trials = 1\n\
             [space]\nx = {{ type = \"float\", low = 0.0, high = 1.0 }}\n"
        ));
        let folder = bench.study().with_file_name(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("epoch"), "{\"epoch\": 1, \"value\": 0.5}\n").unwrap();
        bench.finish(&[]);
        let by_file = bench.command(&["best", "--toml"]).arg(bench.study()).output().unwrap();
        assert!(!text(&by_file.stderr).contains("name the study file"), "{}", text(&by_file.stderr));
        Bench::new(&text(&by_file.stdout)).finish(&[]);
        // Where it was is known by the file only.
        let by_name = bench.command(&["best", "--toml", "s"]).output().unwrap();
        assert!(text(&by_name.stderr).contains("name the study file"), "{}", text(&by_name.stderr));
    }
}
