//! The locked test images: opened once, on record, with the images and checkpoints that the study was trained with.

use crate::program::{Bench, text};
use hpsearch::ids::{Epoch, TrialNumber};
use hpsearch::store::{Chosen, Opening};
use std::process::Output;

/// Two quick trials on images that are quick to draw; the head is on an early stage of a narrow network.
fn bench() -> Bench {
    Bench::new(
        "seed = 3\n\
         [data]\nsynthetic = { images = 90, prevalence = 0.4, contrast = 0.9, seed = 1 }\nsize = 75\n\
         [split]\nvalidation = 0.3\ntest = 0.3\n\
         [network]\nwidth = 0.1\nweights = \"random\"\nscaling = \"symmetric\"\ntap = \"maxpool1\"\n\
         [training]\nepochs = 2\nbatch_size = 16\n\
         [objective]\noperating_point = \"youden\"\n\
         [scheduler]\nkind = \"none\"\n\
         [budget]\nn_trials = 2\n\
         [space]\nlearning_rate = { type = \"float\", low = 1e-3, high = 1e-1, log = true }\n",
    )
}

fn test(bench: &Bench, arguments: &[&str]) -> Output {
    let mut command = bench.command(&["test"]);
    command.arg(bench.study()).args(arguments);
    command.output().unwrap()
}

fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), text(&output.stderr))
}

#[test]
fn test_images_are_opened_once_and_the_report_shows_them() {
    let bench = bench();
    let (exit, said) = code(&test(&bench, &[]));
    assert_eq!(exit, 6, "{said}");
    assert!(said.contains("has not been run") || said.contains("there is no"), "{said}");
    bench.finish(&["--workers", "1"]);
    let status = text(&bench.command(&["status"]).output().unwrap().stdout);
    assert!(status.contains("test images: locked") && status.contains(" train, "), "{status}");

    let first = test(&bench, &["--finalists", "2"]);
    assert_eq!(code(&first).0, 0, "{}", text(&first.stderr));
    let figures = text(&first.stdout);
    assert_eq!(figures.matches("recall ").count(), 3, "{figures}");
    the_mean_is_that_of_the_finalists(&bench, &figures);
    assert!(figures.contains("from validation (youden)") && figures.contains("95 %"), "{figures}");

    // A second call shows the same, whatever it asks for, and while a run holds the study.
    let held = hpsearch::study::Study::open_existing(bench.dir().parent().unwrap(), "s").unwrap();
    let second = test(&bench, &["--finalists", "1"]);
    drop(held);
    assert_eq!(text(&second.stdout), figures);
    assert!(code(&second).1.contains("were opened on"), "{}", code(&second).1);
    let status = text(&bench.command(&["status"]).output().unwrap().stdout);
    assert!(status.contains("test images: opened on"), "{status}");

    let out = bench.dir().join("report");
    let report = bench.command(&["report", "--out"]).arg(&out).output().unwrap();
    assert!(report.status.success(), "{}", text(&report.stderr));
    assert!(out.join("charts/roc-test.svg").exists());
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("On the test images"));

    // The opening and its results cannot be changed or deleted.
    let database = rusqlite::Connection::open(bench.dir().join("study.db")).unwrap();
    for change in [
        "DELETE FROM test_opening",
        "UPDATE test_result SET threshold = 0",
        "DELETE FROM test_mean",
        "DELETE FROM images",
    ] {
        assert!(database.execute(change, []).unwrap_err().to_string().contains("never changed"), "{change}");
    }

    // Training after the opening is possible, with a warning.
    let study = std::fs::read_to_string(bench.study()).unwrap();
    bench.write(&study.replace("n_trials = 2", "n_trials = 3"));
    let more = bench.run(&["--workers", "1"]);
    assert!(code(&more).1.contains("test images were opened on"), "{}", code(&more).1);
}

#[test]
fn nothing_is_opened_with_a_damaged_checkpoint_or_before_the_end() {
    let bench = bench();
    let study = std::fs::read_to_string(bench.study()).unwrap();
    bench.finish(&["--workers", "1"]);

    bench.write(&study.replace("n_trials = 2", "n_trials = 3"));
    let (exit, said) = code(&test(&bench, &[]));
    assert_eq!(exit, 0, "what was agreed on is over, a raised budget is not run yet: {said}");
    bench.forget();

    bench.write(&study);
    bench.finish(&["--workers", "1"]);
    let mut checkpoints: Vec<_> =
        std::fs::read_dir(bench.dir().join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    checkpoints.sort();
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    for damaged in &checkpoints {
        let good = std::fs::read(damaged).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(damaged, &bad).unwrap();
        let (exit, said) = code(&test(&bench, &["--finalists", "2"]));
        assert_eq!(exit, 6, "{said}");
        assert!(!bench.dir().join("test/00000.csv").exists() && !bench.dir().join("test/00001.csv").exists());
        std::fs::remove_file(damaged).unwrap();
        let (exit, said) = code(&test(&bench, &["--finalists", "2"]));
        assert!(exit == 6 && said.contains(&damaged.file_name().unwrap().to_string_lossy()[..]), "{exit}: {said}");
        std::fs::write(damaged, &good).unwrap();
    }
    // An opening that was interrupted before its results is completed with what it began with, whatever is asked for now.
    let dir = bench.dir();
    let (state, name) = (dir.parent().unwrap(), dir.file_name().unwrap().to_str().unwrap());
    let claim = hpsearch::store::in_folder(state).claim(name).unwrap();
    let fixed = Chosen { trial: TrialNumber(1), epoch: Epoch(2), threshold: Some(0.123) };
    claim
        .open()
        .unwrap()
        .unwrap()
        .begin_opening(&Opening {
            unix_ms: 1_000_000,
            unfinished: false,
            chosen: vec![fixed],
            mean: None,
            results: Vec::new(),
        })
        .unwrap();
    drop(claim);
    let completed = test(&bench, &["--finalists", "2", "--json"]);
    assert_eq!(code(&completed).0, 0);
    let lines: Vec<serde_json::Value> =
        text(&completed.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 1 && lines[0]["trial"] == 1 && lines[0]["threshold"] == 0.123, "{lines:?}");
}

#[test]
fn a_study_whose_budget_of_work_is_spent_is_over() {
    let bench = bench();
    let study = std::fs::read_to_string(bench.study()).unwrap();
    // Enough for one trial and not for a second one.
    let plan = |n: u32| {
        bench.write(&study.replace("n_trials = 2", &format!("n_trials = {n}")));
        let lines = text(&bench.command(&["plan"]).arg(bench.study()).output().unwrap().stdout);
        let line = lines.lines().find(|line| line.contains("giga-operations")).unwrap_or_else(|| panic!("{lines}"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let work = (plan(1) + plan(2)) / 2;
    bench.write(&study.replace("n_trials = 2", &format!("n_trials = 9\nwork = {work}")));
    assert_eq!(bench.run(&["--workers", "1"]).status.code(), Some(3));
    let opened = test(&bench, &[]);
    assert_eq!(code(&opened).0, 0, "{}", code(&opened).1);
    let page = bench.dir().join("page");
    assert!(bench.command(&["report", "--out"]).arg(&page).output().unwrap().status.success());
    let page = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert!(page.contains("test images opened once, on record, after the search"));
}

/// The last block is that of the mean of both finalists' scores, at the threshold that is Youden's for their mean on validation.
fn the_mean_is_that_of_the_finalists(bench: &Bench, figures: &str) {
    use hpsearch::metrics::{Predictions, evaluate, predictions::read_csv, threshold_at};
    use hpsearch::spec::OperatingPoint;
    let json = bench.command(&["--json", "test"]).output().unwrap();
    let lines: Vec<serde_json::Value> = text(&json.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let [first, second, mean] = lines.as_slice() else { panic!("{lines:?}") };
    let members = [first, second].map(|line| line["trial"].as_u64().unwrap());
    assert!(mean["trial"].is_null() && mean["mean_of"] == serde_json::json!(members), "{mean}");
    let of = |pattern: &dyn Fn(u64) -> String| {
        let read = members.map(|trial| read_csv(&bench.dir().join(pattern(trial))).unwrap());
        Predictions::mean(&[&read[0], &read[1]]).unwrap()
    };
    let validation = of(&|trial| format!("predictions/{trial:05}-0002.csv"));
    let test = of(&|trial| format!("test/{trial:05}.csv"));
    let threshold = threshold_at(&validation, &OperatingPoint::Youden).unwrap();
    let wanted = evaluate(&test, threshold);
    assert_eq!(mean["threshold"].as_f64(), Some(threshold));
    assert_eq!(mean["metrics"]["roc_auc"]["value"].as_f64(), wanted.roc_auc);
    assert_eq!(mean["metrics"]["recall"]["value"].as_f64(), wanted.recall);
    assert!(figures.contains("mean of 2: "), "{figures}");
}

#[test]
fn a_study_refuses_changed_images() {
    let bench = bench();
    let images = bench.study().parent().unwrap().join("images");
    let study = std::fs::read_to_string(bench.study()).unwrap();
    for class in ["no", "yes"] {
        std::fs::create_dir_all(images.join(class)).unwrap();
        for i in 0..16u8 {
            // Number and class of the image are in its first pixels: no two are alike.
            let grey = |x: u32, y: u32| match (x, y) {
                (0, 0) => image::Luma([i]),
                (1, 0) => image::Luma([class.len() as u8]),
                _ => image::Luma([(x * 3 + y * u32::from(i)) as u8]),
            };
            image::GrayImage::from_fn(80, 80, grey).save(images.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let line = study.lines().find(|l| l.starts_with("synthetic")).unwrap();
    bench.write(&study.replace(line, "folder = \"images\""));
    bench.finish(&["--workers", "1"]);
    std::fs::remove_file(images.join("yes/3.png")).unwrap();
    for output in [bench.run(&[]), test(&bench, &[])] {
        let (exit, said) = code(&output);
        assert_eq!(exit, 6, "{said}");
        assert!(said.contains("15 yes, before 16"), "{said}");
    }
}

#[test]
fn a_mistake_in_the_study_file_can_be_corrected_before_the_first_epoch() {
    let bench = bench();
    let study = std::fs::read_to_string(bench.study()).unwrap();
    let line = study.lines().find(|l| l.starts_with("synthetic")).unwrap();
    bench.write(&study.replace(line, "folder = \"nowhere\""));
    assert_eq!(code(&bench.run(&[])).0, 6);
    bench.write(
        &study.replace("weights = \"random\"", "weights = \"nothing.safetensors\"").replace("width = 0.1\n", ""),
    );
    let (exit, said) = code(&bench.run(&[]));
    assert!(exit == 6 && said.contains("nothing.safetensors"), "{said}");
    bench.write(&study);
    bench.finish(&["--workers", "1"]);
    bench.write(&study.replace("epochs = 2", "epochs = 3"));
    let (exit, said) = code(&bench.run(&[]));
    assert!(exit == 2 && said.contains("epochs"), "{said}");
}
