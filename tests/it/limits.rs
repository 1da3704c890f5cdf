//! Budgets and limits in the real binary: what ends a study, a trial or an epoch, and how each goes on.

use crate::program::{Bench, children, signal, text, wait};
use hpsearch::engine::DoneReason;
use hpsearch::run::{self, Progress, RunOptions};
use hpsearch::study::Study;
use rustix::process::Signal;
use std::time::Duration;

fn plain(budget: &str, rest: &str) -> String {
    format!("[scheduler]\nkind = \"none\"\n[budget]\n{budget}\n{rest}")
}

/// Replaces a part of the study file.
fn change(bench: &Bench, from: &str, to: &str) {
    let study = std::fs::read_to_string(bench.study()).unwrap();
    assert!(study.contains(from), "{study}");
    bench.write(&study.replace(from, to));
}

fn code(bench: &Bench) -> Option<i32> {
    bench.run(&["--workers", "2"]).status.code()
}

#[test]
fn spent_wall_time_ends_a_run_and_raising_it_continues_to_the_same_end() {
    let bench = Bench::synthetic(5, 100, &plain("n_trials = 20\nwall_time = \"10m\"", ""));
    bench.finish(&["--workers", "4"]);
    let unbroken = bench.tables();
    bench.forget();
    change(&bench, "10m", "3s"); // about 60 of 100 epochs
    let output = bench.run(&["--workers", "2"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("raise `budget.wall_time` to go on"), "{}", text(&output.stdout));
    let done = bench.count("SELECT count(*) FROM epoch");
    assert!(done > 0 && done < 100, "{done}");
    assert_eq!(bench.count("SELECT count(*) FROM failure"), 0, "running out of time is no failure");
    assert_eq!(bench.count("SELECT count(*) FROM run WHERE ended = 'out of time'"), 1);
    // The time of all runs counts, so nothing more is trained.
    assert_eq!(code(&bench), Some(3));
    assert!(bench.count("SELECT count(*) FROM epoch") - done <= 2, "what was under way at most");
    change(&bench, "3s", "10m");
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), unbroken);
}

#[test]
fn raising_the_epoch_or_failure_budget_continues_too() {
    let bench = Bench::synthetic(3, 0, &plain("n_trials = 5\nepochs = 7", ""));
    assert_eq!(code(&bench), Some(3));
    assert_eq!(code(&bench), Some(3), "asked again, the same");
    change(&bench, "epochs = 7", "epochs = 15");
    bench.finish(&[]);
    assert_eq!(bench.count("SELECT count(*) FROM epoch"), 15);

    let bench = Bench::new(
        "[runner]\nkind = \"synthetic\"\nepochs = 3\n[sampler]\nkind = \"grid\"\n[scheduler]\nkind = \"none\"\n\
         [budget]\nmax_failures = 1\n[failures]\ncrashed = 0\n[space]\nfault = { choices = [\"error\", \"nan\", \"none\"] }\n",
    );
    let ended = bench.run(&["--workers", "1"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stdout).contains("too many trials failed"), "{}", text(&ended.stdout));
    assert_eq!(bench.count("SELECT count(*) FROM trial"), 1, "no further trial is begun");
    change(&bench, "max_failures = 1", "max_failures = 3");
    bench.finish(&[]);
    assert_eq!(bench.count("SELECT count(*) FROM trial WHERE state = 'complete'"), 1);
}

#[test]
fn a_trial_that_takes_too_long_over_all_its_epochs_is_ended() {
    let bench = Bench::synthetic(40, 60, &plain("n_trials = 2", "[limits]\ntrial_time = \"1.5s\"\n"));
    let output = bench.run(&["--workers", "2"]);
    assert_eq!(output.status.code(), Some(4), "no trial succeeded");
    assert!(text(&output.stdout).contains("the trial took longer than 1.5 s (`limits.trial_time`)"));
    let classes = bench.ask("SELECT DISTINCT class FROM failure WHERE final");
    assert_eq!(classes, [["timeout".to_owned().into()]]);
    assert!(bench.count("SELECT max(epoch) FROM epoch") < 40);
    assert!(bench.count("SELECT max(epoch) FROM epoch") >= 2, "no single epoch was too long");
}

#[test]
fn a_killed_worker_costs_one_attempt_and_changes_nothing() {
    let bench = Bench::synthetic(9, 20, &plain("n_trials = 4", ""));
    bench.finish(&["--workers", "2"]);
    let unbroken = bench.tables();
    bench.forget();
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM epoch", 3);
    // Both workers have orders: one that has none yet would cost no attempt.
    bench.wait_for("SELECT count(DISTINCT worker) FROM attempt", 2);
    signal(children(run.id())[0], Signal::KILL);
    assert_eq!(wait(&mut run, Duration::from_secs(30)).and_then(|s| s.code()), Some(0));
    assert_eq!(bench.tables(), unbroken);
    let lost = bench.ask("SELECT class, final, reason LIKE '%killed by signal 9%' FROM failure");
    assert_eq!(lost, [["lost".to_owned().into(), 0.into(), 1.into()]]);
}

#[test]
fn a_worker_that_falls_silent_is_taken_for_lost() {
    let bench = Bench::synthetic(3, 1500, &plain("n_trials = 2", ""));
    let loaded = hpsearch::config::load(&bench.study()).unwrap();
    let mut study = Study::open(bench.dir().parent().unwrap(), &loaded.spec).unwrap();
    let options = RunOptions {
        program: env!("CARGO_BIN_EXE_hpsearch").into(),
        base: loaded.base,
        cache_dir: bench.dir().join("cache"),
        workers: 2,
        threads: Some(1),
        devices: vec![hpsearch::spec::Device::Cpu],
        elsewhere: None,
        // Heartbeats come every 2 s.
        silence: Duration::from_secs(3),
        patience: RunOptions::PATIENCE,
    };
    let (mut stopped, mut lost) = (false, Vec::new());
    let verdict = run::run(&mut study, &options, &mut |progress: &Progress| match progress {
        Progress::Epoch { .. } if !stopped => {
            stopped = true;
            let workers = children(std::process::id());
            // Other tests of this process may have children too; ours wait for their second epoch.
            let ours = workers.into_iter().find(|&pid| {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                text(&command).ends_with("\0worker\0")
            });
            signal(ours.unwrap(), Signal::STOP);
        }
        Progress::AttemptLost { reason, again, .. } => lost.push((reason.clone(), *again)),
        _ => {}
    });
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(lost, [("the worker was silent for 3 s".to_owned(), true)]);
    assert_eq!(study.engine().failures(), 0);
}

#[test]
fn a_quota_of_checkpoints_is_respected_and_costs_epochs_only() {
    let halving = "[scheduler]\nkind = \"sha\"\nmin_resource = 1\nreduction_factor = 3\n[budget]\nn_trials = 27\n";
    let bench = Bench::synthetic(27, 0, halving);
    bench.finish(&["--workers", "2"]);
    let mut unbroken = bench.tables();
    bench.forget();
    let study = std::fs::read_to_string(bench.study()).unwrap();
    bench.write(&format!("limits = {{ checkpoint_size = \"200 B\" }}\n{study}"));
    let output = bench.run(&["--workers", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("given up for `limits.checkpoint_size`"), "{said}");
    let kept: u64 = bench.files().iter().map(|file| std::fs::metadata(bench.dir().join(file)).unwrap().len()).sum();
    assert!(kept <= 200, "{kept}");
    let mut tables = bench.tables();
    // Which files were kept on the way depends on the quota.
    for tables in [&mut unbroken, &mut tables] {
        tables.remove("file");
    }
    assert_eq!(tables, unbroken);
}
