//! Image studies in the real binary: the same tables from any number of workers, and through kills.

use crate::program::{Bench, text, wait};
use std::time::Duration;

/// A narrow InceptionV3 on synthetic images: heads on cached features, and trials that train a stage.
const STUDY: &str = r#"
name = "s"
seed = 2
[data]
synthetic = { images = 48, prevalence = 0.5, contrast = 0.9, seed = 5 }
size = 75
[network]
width = 0.125
weights = "random"
scaling = "unit"
tap = "Mixed_5b"
[training]
epochs = 4
batch_size = 8
[augment]
views = 2
[space]
learning_rate = { type = "float", low = 1e-3, high = 1e-1, log = true }
dropout = { type = "float", low = 0.0, high = 0.5 }
freeze = { choices = ["maxpool2", "all"] }
strength = { choices = [0.0, 0.6] }
[sampler]
kind = "tpe"
n_startup = 4
[scheduler]
kind = "asha"
min_resource = 1
reduction_factor = 2
[budget]
n_trials = 8
[failures]
lost = 100
[run]
device = "cpu"
threads = 1
virtual_workers = 4
"#;

#[test]
fn workers_and_kills_change_nothing_in_an_image_study() {
    let bench = Bench::new(STUDY);
    bench.finish(&["--workers", "1"]);
    let one = bench.tables();
    assert!(one["epoch"].len() >= 14 && one["metric"].len() > one["epoch"].len(), "{:?}", one["epoch"]);
    let files = bench.files();

    std::fs::remove_dir_all(bench.dir()).unwrap();
    bench.finish(&["--workers", "4"]);
    assert_eq!(bench.tables(), one);

    // The caches are deleted too, so that kills also interrupt their filling. If the study ends before three kills, it
    // is repeated with shorter delays.
    let mut scale = 1.0;
    while kills(&bench, scale) < 3 {
        scale /= 2.0;
    }
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), one);
    assert_eq!(bench.files(), files);
}

/// Starts the study from nothing and kills it after scaled delays; the number of kills before it ended.
fn kills(bench: &Bench, scale: f64) -> usize {
    bench.forget();
    let delays = [60, 250, 420, 170, 600, 330, 510, 90, 700, 280];
    let was_killed = |&delay: &u64| {
        let mut run = bench.spawn(&["--workers", "3"]);
        wait(&mut run, Duration::from_millis(delay).mul_f64(scale)).is_none()
    };
    delays.iter().take_while(|delay| was_killed(delay)).count()
}

/// The mega-operations that an order costs, by its event.
const PRICE: &str = "json_extract(body, '$.price.once') + json_extract(body, '$.price.epoch') * \
                     (json_extract(body, '$.to') - json_extract(body, '$.from'))";

#[test]
fn a_budget_of_work_ends_a_study_at_the_same_trial_for_any_number_of_workers() {
    let with_work = |n: i64| STUDY.replace("n_trials = 8", &format!("n_trials = 8\nwork = {n}"));
    let bench = Bench::new(&with_work(1_000_000));
    bench.finish(&["--workers", "2"]);
    let whole = bench.tables();
    let total = bench.count(&format!("SELECT sum({PRICE}) FROM event WHERE kind = 'order_issued'"));
    let dear = bench.count(&format!("SELECT max({PRICE}) FROM event WHERE kind = 'order_issued'"));
    let cheap = bench.count(&format!("SELECT min({PRICE}) FROM event WHERE kind = 'order_issued'"));
    assert!(0 < cheap && cheap < dear && dear < total, "{cheap} {dear} {total}");

    let half = total / 2000;
    let ended = |workers: &str| {
        bench.forget();
        bench.write(&with_work(half));
        let run = bench.run(&["--workers", workers]);
        assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
        assert!(text(&run.stdout).contains("raise `budget.work`"), "{}", text(&run.stdout));
        let spent = bench.count(&format!("SELECT sum({PRICE}) FROM event WHERE kind = 'order_issued'"));
        assert!(spent <= half * 1000 && half * 1000 < spent + dear, "{spent} of {half} giga-operations");
        bench.tables()
    };
    let one = ended("1");
    assert_eq!(ended("3"), one);
    assert!(one["work_order"].len() < whole["work_order"].len());

    bench.write(&with_work(half / 2));
    assert_eq!(bench.run(&[]).status.code(), Some(2), "a budget may only be raised");
    bench.write(&with_work(1_000_000));
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), whole);
}

#[test]
fn a_budget_of_work_given_as_time_is_converted_once() {
    let bench = Bench::new(&STUDY.replace("n_trials = 8", "n_trials = 8\nwork = \"10d\""));
    let run = bench.finish(&[]);
    assert!(run.contains("giga-operations are spent"), "{run}");
    let whole = bench.tables();
    bench.finish(&[]);
    assert_eq!(bench.count("SELECT count(*) FROM event WHERE kind = 'pace_measured'"), 1);
    assert_eq!(bench.tables(), whole);
    let other = Bench::synthetic(2, 0, "[budget]\nn_trials = 1\nwork = 5\n");
    let refused = other.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("cost model"), "{}", text(&refused.stderr));
}

/// Where folders are on a network, there is no write-ahead log, and features and pictures are copied before they are mapped:
/// a cache that another machine clears takes nothing away.
#[test]
fn files_on_a_network_give_the_same_table() {
    let here = Bench::new(STUDY);
    here.finish(&["--workers", "2"]);
    let there = Bench::new(STUDY);
    let run = |arguments: &[&str]| there.run_command(arguments).env("HPSEARCH_NETWORK_FILES", "1").output().unwrap();
    let output = run(&["--workers", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(there.tables(), here.tables());
    let journal = |bench: &Bench| bench.ask("PRAGMA journal_mode")[0][0].clone();
    assert_eq!(journal(&here), "wal".to_owned().into());
    assert_eq!(journal(&there), "delete".to_owned().into(), "as a reader sees any rollback journal");
    assert!(!there.dir().join("study.db-wal").exists());
    // It may move to a disk of this machine, and back.
    there.finish(&[]);
    assert_eq!(journal(&there), "wal".to_owned().into());
    assert!(run(&[]).status.success());
    assert_eq!(journal(&there), "delete".to_owned().into());
}
