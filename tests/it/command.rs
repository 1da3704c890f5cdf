//! The command runner, through the real binary.

use crate::program::{Bench, text, wait};
use std::time::Duration;

/// A study of a shell script that keeps its sum in the folder of its trial and resumes from it.
fn bench() -> Bench {
    let bench = Bench::new(
        "seed = 4\n[runner]\nkind = \"command\"\ncommand = [\"sh\", \"train.sh\", \"{x}\"]\nepochs = 9\n\
         [objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
         [scheduler]\nkind = \"sha\"\nmin_resource = 1\nreduction_factor = 3\n[budget]\nn_trials = 9\n\
         [space]\nx = { type = \"int\", low = 1, high = 500 }\nword = { choices = [\"a b\", \"c\\\"d\"] }\n",
    );
    std::fs::write(
        bench.study().with_file_name("train.sh"),
        r#"read -r order || exit 7
case "$order" in *'"epochs":9'*) ;; *) echo "$order" >&2; exit 8;; esac
cd "$HPSEARCH_DIR" || exit 9
epoch=$HPSEARCH_FROM sum=0
test "$epoch" = 0 || sum=$(cat "state-$epoch") || exit 10
while [ "$epoch" -lt "$HPSEARCH_TO" ]; do
    epoch=$((epoch + 1))
    sum=$(((sum * 7 + $1 + epoch * $HPSEARCH_PARAM_X) % 100003))
    echo "$sum" > state.part && mv state.part "state-$epoch"
    sleep 0.02
    echo "epoch $epoch is done"
    echo "{\"epoch\": $epoch, \"metrics\": {\"score\": $sum, \"half\": NaN}}"
done
"#,
    )
    .unwrap();
    bench
}

fn folders(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.dir().join("commands")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_program_is_promoted_killed_and_resumed_like_any_other_trial() {
    let bench = bench();
    bench.finish(&["--workers", "1"]);
    let unbroken = bench.tables();
    assert_eq!(bench.count("SELECT count(*) FROM epoch"), 9 + 3 * 2 + 6, "promotion resumes");
    let best = bench.count("SELECT trial FROM trial WHERE state = 'complete'");
    assert_eq!(folders(&bench), [format!("{best:05}")], "folders that no trial needs are gone");
    let log = std::fs::read_to_string(bench.dir().join("logs/trial-00000.log")).unwrap();
    assert!(log.contains("epoch 1 is done"), "{log}");

    bench.forget();
    for kill_after in [150, 250, 350, 450] {
        let mut run = bench.spawn(&["--workers", "2"]);
        if wait(&mut run, Duration::from_millis(kill_after)).is_some() {
            break;
        }
    }
    bench.finish(&["--workers", "3"]);
    assert_eq!(bench.tables(), unbroken);
    assert_eq!(folders(&bench), [format!("{best:05}")]);
}

#[test]
fn a_trial_whose_folder_is_deleted_starts_over() {
    let bench = bench();
    bench.finish(&["--workers", "2"]);
    let unbroken = bench.tables();
    bench.forget();
    let mut run = bench.spawn(&["--workers", "2"]);
    bench.wait_for("SELECT count(*) FROM epoch", 10);
    run.kill().unwrap();
    run.wait().unwrap();
    // What the killed workers were running lives a moment longer, and may still write.
    while let Err(e) = std::fs::remove_dir_all(bench.dir().join("commands")) {
        assert_eq!(e.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{e}");
    }
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), unbroken);
}

#[test]
fn a_program_that_does_not_report_its_objective_gets_a_clear_error() {
    let bench = bench();
    let script = "echo '{\"epoch\": 1, \"accuracy\": 0.5}'; sleep 5";
    std::fs::write(bench.study().with_file_name("train.sh"), script).unwrap();
    let output = bench.run(&["--workers", "3"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    assert!(
        said.contains("it has no `value`") && said.contains("print `value`, or `score` among the `metrics`"),
        "{said}"
    );
}
