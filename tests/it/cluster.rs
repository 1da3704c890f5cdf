//! Workers that another program starts, as `srun` and `ssh` do.

use crate::program::{Bench, signal, text, wait};
use rustix::process::Signal;
use std::time::Duration;

/// A study of the synthetic runner whose workers `command` starts.
fn study(epoch_ms: u32, trials: u32, cluster: &str) -> String {
    format!(
        "seed = 5\n[runner]\nkind = \"synthetic\"\nepochs = 6\nepoch_ms = {epoch_ms}\n\
         [objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
         [scheduler]\nkind = \"sha\"\nreduction_factor = 2\n[budget]\nn_trials = {trials}\n\
         [space]\nlearning_rate = {{ type = \"float\", low = 1e-4, high = 1e-1, log = true }}\n{cluster}"
    )
}

const SHELL: &str = "[cluster]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", 'exec \"$@\"', \"worker-{worker}\"]\n";

const TRIALS: &str = "SELECT trial, state, value, epochs, rung FROM trial ORDER BY trial";

#[test]
fn workers_of_another_program_give_the_same_table() {
    let here = Bench::new(&study(0, 8, ""));
    here.finish(&[]);
    let there = Bench::new(&study(0, 8, SHELL));
    there.finish(&["--workers", "3"]);
    assert_eq!(there.ask(TRIALS), here.ask(TRIALS));
    // One may have done everything before the others were ready.
    let known = there.count("SELECT count(*) FROM worker WHERE host <> '' AND length(program) = 64");
    assert!((1..=3).contains(&known) && there.count("SELECT count(*) FROM worker") == known, "{known}");
    // The same study may go on here, and the table of workers is no part of what it is.
    there.write(&study(0, 8, ""));
    there.finish(&[]);
}

#[test]
fn a_worker_that_is_told_to_end_leaves_and_no_failure_is_counted() {
    let bench = Bench::new(&study(100, 4, SHELL));
    let expected = Bench::new(&study(0, 4, ""));
    expected.finish(&[]);
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM epoch", 1);
    for told in [Signal::USR2, Signal::TERM, Signal::USR1, Signal::TERM] {
        let before = bench.count("SELECT count(*) FROM epoch");
        bench.wait_for("SELECT count(*) FROM epoch", before + 1);
        workers_of(run.id()).into_iter().take(1).for_each(|pid| signal(pid, told));
    }
    assert_eq!(wait(&mut run, Duration::from_secs(60)).and_then(|status| status.code()), Some(0));
    assert_eq!(bench.ask(TRIALS), expected.ask(TRIALS));
    assert_eq!(bench.count("SELECT count(*) FROM failure"), 0);
    assert!(bench.count("SELECT count(*) FROM attempt WHERE ended = 'interrupted'") >= 2);
}

/// Workers leave after an epoch, as soon as another does not fit: here at once, as no time is left to begin with.
#[test]
fn a_worker_whose_time_is_up_leaves_before_it_is_ended() {
    let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let cluster = format!(
        "[cluster]\nkind = \"command\"\ncommand = [\"env\", \"SLURM_JOB_ID=7\", \"SLURM_JOB_END_TIME={soon}\"]\n"
    );
    let bench = Bench::new(&study(50, 2, &cluster));
    let expected = Bench::new(&study(0, 2, ""));
    expected.finish(&[]);
    let said = bench.finish(&["--workers", "1"]);
    assert_eq!(bench.ask(TRIALS), expected.ask(TRIALS));
    assert_eq!(bench.count("SELECT count(*) FROM failure"), 0);
    assert!(said.contains("s are left to it, and an epoch takes"), "{said}");
    assert_eq!(bench.count("SELECT count(*) FROM worker WHERE job = '7'"), 1);
}

#[test]
fn a_cluster_that_cannot_be_is_refused_with_its_place() {
    let refused = |cluster: &str| {
        let bench = Bench::new(&study(0, 2, cluster));
        let output = bench.run(&[]);
        assert_eq!(output.status.code(), Some(2), "{cluster}");
        text(&output.stderr)
    };
    for (cluster, said) in [
        ("[cluster]\nallocation = \"each\"\n", "it is not said what starts workers"),
        ("[cluster]\nkind = \"ssh\"\n", "no machine is named"),
        ("[cluster]\nkind = \"command\"\n", "the program that starts workers is not named"),
        ("[cluster]\nkind = \"command\"\ncommand = [\"x\", \"{host}\"]\n", "a worker has no `{host}`"),
        ("[cluster]\nkind = \"ssh\"\nhosts = [\"-oProxyCommand=x\"]\n", "this names no machine"),
        ("[cluster]\nkind = \"slurm\"\nhosts = [\"a\"]\n", "`hosts` has no meaning with `kind = \"slurm\"`"),
    ] {
        let error = refused(cluster);
        assert!(error.contains(said), "{cluster}: {error}");
    }
    // What starts workers is not there.
    let bench = Bench::new(&study(0, 2, "[cluster]\nkind = \"command\"\ncommand = [\"/no/such/program\"]\n"));
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/no/such/program"), "{}", text(&output.stderr));
}

/// Processes of which `parent` is the parent.
fn workers_of(parent: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
