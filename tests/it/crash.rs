//! Runs that are interrupted in every way end with the tables of an uninterrupted one.

use crate::program::{Bench, children, is_alive, signal, text, wait};
use hpsearch::crash::Point;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use strum::VariantArray;

const HALVING: &str = "[scheduler]\nkind = \"sha\"\nmin_resource = 1\nreduction_factor = 3\n[budget]\nn_trials = 9\n\
                       [failures]\nlost = 100\n";

/// A small generator for delays: tests need variety, not quality.
struct Delays(u64);

impl Delays {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn an_abort_at_every_named_point_changes_nothing() {
    let bench = Bench::synthetic(9, 0, HALVING);
    bench.finish(&["--workers", "2"]);
    let unbroken = bench.tables();
    let files = bench.files();
    assert_eq!(unbroken["trial"].len(), 9);
    for point in Point::VARIANTS {
        for nth in [1, 4] {
            bench.forget();
            let armed = format!("{}:{nth}", point.into_str());
            let mut command = bench.run_command(&["--workers", "2", "-v"]);
            let first = command.env(hpsearch::crash::VARIABLE, &armed).output().unwrap();
            let said = text(&first.stdout) + &text(&first.stderr);
            let in_worker = matches!(point, Point::FileDrafted | Point::FileNamed | Point::EpochAcknowledged);
            let once =
                [Point::FoldersMade, Point::DatabaseDrafted, Point::DatabaseMade, Point::RunBegun, Point::RunEnding];
            let passed = nth == 1 || !once.contains(point);
            assert_eq!(said.contains("aborting at"), passed, "{armed}: {said}");
            assert_eq!(
                first.status.success(),
                in_worker || !passed,
                "{armed}: a worker's end is not the run's: {said}"
            );
            bench.finish(&["--workers", "2"]);
            assert_eq!(bench.tables(), unbroken, "{armed}");
            assert_eq!(bench.files(), files, "{armed}");
        }
    }
}

#[test]
fn a_hundred_kills_change_nothing() {
    let rest = HALVING.replace("n_trials = 9", "n_trials = 243");
    let bench = Bench::synthetic(27, 10, &rest);
    bench.finish(&["--workers", "4"]);
    let unbroken = bench.tables();
    let files = bench.files();
    bench.forget();
    // The delays are relative to how long a run takes to begin, and to its first epoch, on this machine.
    let mut begun = Duration::MAX;
    let mut training = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let mut run = bench.spawn(&["--workers", "2"]);
        bench.wait_for("SELECT count(*) FROM run", 1);
        begun = begun.min(began.elapsed());
        bench.wait_for("SELECT count(*) FROM epoch", 1);
        training = training.min(began.elapsed());
        signal(run.id(), Signal::TERM);
        assert!(wait(&mut run, Duration::from_secs(30)).is_some());
        bench.forget();
    }
    let slow = (begun.as_secs_f64() / 0.025).max(1.0);
    let mut delays = Delays(7);
    let mut kills = 0;
    while kills < 100 {
        let mut run = bench.spawn(&["--workers", "2"]);
        let mut limit = Duration::from_millis(12 + delays.next(33)).mul_f64(slow);
        if kills % 4 == 3 {
            limit += training.mul_f64(0.9); // in training too
        }
        if kills % 5 == 4 {
            // A worker dies first; the run must go on.
            std::thread::sleep(limit);
            children(run.id()).first().into_iter().for_each(|&worker| signal(worker, Signal::KILL));
        }
        if let Some(status) = wait(&mut run, limit) {
            assert!(status.success(), "{status}");
            break;
        }
        kills += 1;
    }
    assert_eq!(kills, 100, "the study is too short to be killed a hundred times");
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), unbroken);
    assert_eq!(bench.files(), files, "no file is left over");
    assert!(bench.count("SELECT count(*) FROM run") >= 50, "most of the runs had begun");
    let trained = "SELECT count(DISTINCT (SELECT max(started_ms) FROM run WHERE started_ms <= reported_ms)) FROM epoch";
    assert!(bench.count(trained) >= 2, "some were training");
}

#[test]
fn workers_do_not_outlive_their_coordinator() {
    let bench = Bench::synthetic(9, 20_000, HALVING);
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM attempt", 2);
    let workers = children(run.id());
    assert_eq!(workers.len(), 2);
    run.kill().unwrap();
    run.wait().unwrap();
    for _ in 0..400 {
        if workers.iter().all(|&worker| !is_alive(worker)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("workers live on: {workers:?}");
}

#[test]
fn the_number_of_workers_does_not_change_the_table() {
    let learning = "[sampler]\nkind = \"tpe\"\n[scheduler]\nkind = \"asha\"\nmin_resource = 1\nreduction_factor = 3\n\
                    [budget]\nn_trials = 30\n";
    let bench = Bench::synthetic(9, 1, learning);
    bench.finish(&["--workers", "1"]);
    let one = bench.tables();
    bench.forget();
    bench.finish(&["--workers", "4"]);
    assert_eq!(bench.tables(), one);
}

#[test]
fn a_signal_ends_a_run_cleanly_and_the_same_command_goes_on() {
    let bench = Bench::synthetic(9, 20, HALVING);
    bench.finish(&["--workers", "4"]);
    let unbroken = bench.tables();
    bench.forget();
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut run = bench.spawn(&["--workers", "2"]);
        let begun = bench.dir().join("study.db").exists();
        let before = if begun { bench.count("SELECT count(*) FROM epoch") } else { 0 };
        bench.wait_for("SELECT count(*) FROM epoch", before + 3);
        signal(run.id(), number);
        assert_eq!(wait(&mut run, Duration::from_secs(20)).and_then(|s| s.code()), Some(code));
        assert_eq!(bench.count("SELECT count(*) FROM trial WHERE state = 'running'"), 0);
        assert_eq!(bench.count("SELECT count(*) FROM failure"), 0, "an interrupt is no failure");
    }
    assert_eq!(bench.count("SELECT count(*) FROM run WHERE ended = 'interrupted'"), 2);
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), unbroken);
}

#[test]
fn a_hangup_that_nohup_ignores_does_not_end_a_run() {
    let bench = Bench::synthetic(9, 20, HALVING);
    let mut command = std::process::Command::new("nohup");
    let plain = bench.command(&["run"]);
    command.arg(plain.get_program()).args(plain.get_args()).arg(bench.study());
    let null = std::process::Stdio::null;
    let mut run = command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
    bench.wait_for("SELECT count(*) FROM epoch", 3);
    signal(run.id(), Signal::HUP);
    assert_eq!(wait(&mut run, Duration::from_secs(60)).and_then(|s| s.code()), Some(0));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let bench = Bench::synthetic(9, 40, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 2\n");
    bench.finish(&["--workers", "1"]);
    let unbroken = bench.tables();
    for damage in [&b"torn"[..], &[0; 200][..]] {
        bench.forget();
        let mut run = bench.spawn(&["--workers", "1"]);
        bench.wait_for("SELECT count(*) FROM epoch", 4);
        run.kill().unwrap();
        run.wait().unwrap();
        let newest = bench.ask("SELECT path, epoch FROM file WHERE kept ORDER BY trial DESC, epoch DESC LIMIT 1");
        let [rusqlite::types::Value::Text(path), rusqlite::types::Value::Integer(epoch)] = newest[0].as_slice() else {
            panic!("{newest:?}")
        };
        assert!(*epoch >= 4, "a kill long after the fourth epoch");
        std::fs::write(bench.dir().join(path), damage).unwrap();
        let output = bench.finish(&["--workers", "1"]);
        assert!(output.contains("warning: trial") && output.contains(path.as_str()), "{output}");
        let goes_on = format!("training goes on from epoch {}", epoch - 1);
        assert!(output.contains(&goes_on), "the one before is good: {output}");
        assert_eq!(bench.tables(), unbroken);
    }
}

#[test]
fn a_second_run_on_a_study_is_told_who_holds_it() {
    let bench = Bench::synthetic(9, 20_000, HALVING);
    let mut run = bench.spawn(&["--workers", "1"]);
    bench.wait_for("SELECT count(*) FROM attempt", 1);
    let second = bench.run(&[]);
    assert_eq!(second.status.code(), Some(5), "{}", text(&second.stderr));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("held by process {}", run.id())), "{said}");
    run.kill().unwrap();
    run.wait().unwrap();
}
