//! Studies that start warm from the results of earlier ones.

use crate::program::{Bench, signal, text};
use rusqlite::types::Value;
use rustix::process::Signal;

const SPACE: &str = "[space]\nlearning_rate = { type = \"float\", low = 1e-5, high = 0.1, log = true }\n";

/// A study of the synthetic runner that minimises its score.
fn study(name: &str, sampler: &str, rest: &str, dropout: &str) -> String {
    format!(
        "name = \"{name}\"\nseed = 3\nrunner = {{ kind = \"synthetic\", epochs = 3, epoch_ms = 2 }}\n\
         objective = {{ metric = \"score\", direction = \"minimize\" }}\nsampler = {sampler}\n\
         scheduler = {{ kind = \"none\" }}\n{rest}\n{SPACE}dropout = {dropout}\n"
    )
}

/// `s`, which starts warm from `first`, in the part of its space where dropout is at most 0.3.
fn second(warm_start: &str) -> String {
    let sampler = format!("{{ kind = \"tpe\", warm_start = {warm_start} }}");
    let budget = "budget = { n_trials = 12 }";
    study("s", &sampler, budget, "{ type = \"float\", low = 0.0, high = 0.3 }")
}

/// A state folder with the finished study `first`: 30 trials over dropout from 0 to 0.6.
fn after_first() -> Bench {
    let budget = "budget = { n_trials = 30 }";
    let bench =
        Bench::new(&study("first", "{ kind = \"random\" }", budget, "{ type = \"float\", low = 0.0, high = 0.6 }"));
    bench.finish(&["--workers", "2"]);
    bench
}

fn copied(bench: &Bench) -> Vec<Vec<Value>> {
    bench.ask("SELECT study, trial, epoch, value, params FROM earlier_result ORDER BY trial")
}

#[test]
fn a_warm_start_copies_what_fits_and_goes_on_without_the_earlier_study() {
    let bench = after_first();
    let fitting = "SELECT count(*) FROM trial_param WHERE name = 'dropout' AND value <= 0.3";
    let first = bench.dir().with_file_name("first");
    let fits = crate::program::rows(&first.join("study.db"), fitting);
    let Value::Integer(fits) = fits[0][0] else { panic!("{fits:?}") };
    assert!((8..=22).contains(&fits), "{fits}");
    let said = format!("starts warm from study first: {fits} of its 30 trials are used");
    let left_out = format!("{} left out: `dropout` is not within float 0 to 0.3", 30 - fits);

    bench.write(&second("\"first\""));
    for verb in ["check", "plan"] {
        let output = bench.command(&[verb]).arg(bench.study()).output().unwrap();
        let shown = text(&output.stdout);
        assert!(shown.contains(&said) && shown.contains(&left_out), "{verb}: {shown}{}", text(&output.stderr));
    }
    let shown = bench.finish(&["--workers", "1"]);
    assert!(shown.contains(&said) && shown.contains(&left_out), "{shown}");
    let (unbroken, earlier) = (bench.tables(), copied(&bench));
    assert_eq!(earlier.len() as i64, fits);
    assert!(earlier.iter().all(|row| row[0] == Value::Text("first".into()) && row[2] == Value::Integer(3)));
    // It learns from its first trial on: all of them lie nearer to the optimum, at 0.7 of a range, than random ones.
    let near = "SELECT count(*) FROM trial_param WHERE name = 'dropout' AND value BETWEEN 0.1 AND 0.3";
    assert!(bench.count(near) >= 10, "{:?}", bench.ask("SELECT * FROM trial_param"));

    // The same by another number of workers, from the path of the database.
    std::fs::remove_dir_all(bench.dir()).unwrap();
    bench.write(&second("[\"state/first/study.db\"]"));
    bench.finish(&["--workers", "4"]);
    assert_eq!((bench.tables(), copied(&bench)), (unbroken.clone(), earlier.clone()));

    // Killed, and the earlier study deleted: it goes on as if nothing had happened.
    std::fs::remove_dir_all(bench.dir()).unwrap();
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM epoch", 4);
    signal(run.id(), Signal::KILL);
    run.wait().unwrap();
    std::fs::remove_dir_all(first).unwrap();
    bench.finish(&["--workers", "2"]);
    assert_eq!((bench.tables(), copied(&bench)), (unbroken, earlier));
}

#[test]
fn an_abort_between_creating_the_database_and_copying_loses_no_earlier_result() {
    let bench = after_first();
    bench.write(&second("\"first\""));
    bench.finish(&[]);
    let (unbroken, earlier) = (bench.tables(), copied(&bench));
    for point in ["database-made", "events-written", "events-committed", "run-begun"] {
        std::fs::remove_dir_all(bench.dir()).unwrap();
        let first = bench.run_command(&[]).env(hpsearch::crash::VARIABLE, point).output().unwrap();
        assert!(text(&first.stderr).contains("aborting at"), "{point}: {}", text(&first.stderr));
        // A configuration enqueued meanwhile does not prevent the copy.
        if point == "database-made" {
            let mut enqueue = bench.command(&["enqueue", "s", "learning_rate=0.001", "dropout=0.2"]);
            assert!(enqueue.output().unwrap().status.success());
        }
        bench.finish(&[]);
        assert_eq!(copied(&bench), earlier, "{point}");
        if point == "database-made" {
            assert_eq!(
                bench.ask("SELECT value FROM trial_param WHERE trial = 0 AND name = 'dropout'"),
                [[Value::Real(0.2)]]
            );
        } else {
            assert_eq!(bench.tables(), unbroken, "{point}");
        }
    }
}

#[test]
fn an_unusable_warm_start_is_refused_before_anything_is_created() {
    let bench = after_first();
    let refused = |study: &str, code: i32, said: &[&str]| {
        bench.write(study);
        for verb in ["check", "run"] {
            let output = bench.command(&[verb]).arg(bench.study()).output().unwrap();
            let shown = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{verb}: {shown}");
            assert!(said.iter().all(|said| shown.contains(said)) && shown.contains("hint: "), "{verb}: {shown}");
            assert!(!bench.dir().exists(), "nothing is left behind");
        }
    };
    refused(&second("\"fist\""), 6, &["there is no such study", "state/fist/study.db"]);
    let maximize = second("\"first\"").replace("minimize", "maximize");
    refused(&maximize, 2, &["its direction is minimize, here it is maximize"]);
    let metric = second("\"first\"").replace("score", "loss");
    refused(&metric, 2, &["its metric is score, here it is loss"]);
    let renamed = second("\"first\"").replace("dropout", "drop_path");
    refused(&renamed, 2, &["none of its trials can be used", "30 left out: `drop_path` has no value"]);
    let random = second("\"first\"").replace("\"tpe\"", "\"random\"");
    bench.write(&random);
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(2), "only tpe learns");
    let itself = second("\"first\"").replace("name = \"s\"", "name = \"first\"");
    bench.write(&itself);
    let output = bench.command(&["check"]).arg(bench.study()).output().unwrap();
    assert!(text(&output.stderr).contains("that is this very study"), "{}", text(&output.stderr));
}
