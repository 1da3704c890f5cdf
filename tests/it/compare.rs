//! Studies side by side.

use crate::program::{Bench, rows, text};
use crate::report::study;
use hpsearch::digest::Digest;
use hpsearch::ids::TrialNumber;
use hpsearch::metrics::{Predictions, evaluate};
use hpsearch::report::comparison::{Side, compare, write};
use hpsearch::report::model::{Finalist, StudyRecord};
use hpsearch::spec::{Direction, Metric};
use hpsearch::stats::{Delong, quantile};
use rusqlite::types::Value;

fn side(label: &str, record: StudyRecord) -> Side {
    Side { label: label.to_owned(), record, images: Some(Digest::of(b"images")) }
}

/// A study whose best trial has these predictions.
fn with_best(predictions: Predictions) -> StudyRecord {
    let mut record = study::invented(27, false);
    let trial = record.ranking()[0].number;
    record.finalists = vec![Finalist { trial, validation: predictions }];
    record
}

/// Predictions of a model on 600 images, each of a patient of its own and of an unknown one.
fn single(model: u64, gap: f64) -> Predictions {
    let mut predictions = study::predictions(5, model, 600, gap);
    predictions.rows.iter_mut().for_each(|row| row.patient = None);
    predictions
}

#[test]
fn paired_differences_are_those_of_delong_where_images_are_independent() {
    let (ours, theirs) = (single(1, 1.6), single(2, 1.3));
    let pair = compare(&[side("a", with_best(ours.clone())), side("b", with_best(theirs.clone()))]).pairs.remove(0);
    assert_eq!((pair.images, &pair.refused), (600, &None));
    let of = |metric: &str| *pair.differences.iter().find(|d| d.metric == metric).unwrap();
    let auc = of("ROC-AUC");
    // DeLong's variance and the bootstrap are two estimates of the same spread.
    let delong = Delong::new(&[ours.versus_rest(1).0, theirs.versus_rest(1).0], &ours.versus_rest(1).1).unwrap();
    let (difference, se) = delong.difference(0, 1);
    assert!((auc.difference.unwrap() - difference).abs() < 1e-12);
    assert_eq!(auc.p, delong.test(0, 1).map(|(_, p)| p), "one pair needs no adjustment");
    let interval = auc.interval.unwrap();
    let half = quantile(0.975) * se;
    assert!(((interval.high - interval.low) / (2.0 * half) - 1.0).abs() < 0.08, "{interval:?} {se}");
    assert!((interval.low - (difference - half)).abs() < 0.15 * half, "{interval:?} {difference} {half}");
    // Unpaired, the interval would be far wider.
    let alone = (delong.estimate(0).se.powi(2) + delong.estimate(1).se.powi(2)).sqrt();
    assert!(alone > 1.5 * se, "{alone} {se}");
    let recall = |p: &Predictions| {
        let spec = study::spec(27);
        let threshold = hpsearch::metrics::threshold_at(p, &spec.objective.operating_point).unwrap();
        evaluate(p, threshold).recall.unwrap()
    };
    assert!((of("recall").difference.unwrap() - (recall(&ours) - recall(&theirs))).abs() < 1e-12);
    assert_eq!(of("F1").p, None);
}

#[test]
fn patients_are_drawn_whole_and_p_values_of_several_pairs_are_adjusted() {
    let model = |model, gap| side(&format!("{model}"), with_best(study::predictions(5, model, 600, gap)));
    let clustered = compare(&[model(1, 1.6), model(2, 1.3)]).pairs.remove(0);
    assert_eq!(clustered.differences[0].p, None, "DeLong's test takes images of a patient for independent");
    assert!(clustered.differences[0].interval.is_some());

    let sides: Vec<Side> = [(1, 1.6), (2, 1.55), (3, 1.2)]
        .iter()
        .map(|&(model, gap)| side(&format!("{model}"), with_best(single(model, gap))))
        .collect();
    let alone = |a: usize, b: usize| compare(&[sides[a].clone(), sides[b].clone()]).pairs[0].differences[0].p.unwrap();
    let raw = [alone(0, 1), alone(0, 2), alone(1, 2)];
    let pairs = compare(&sides).pairs;
    let adjusted: Vec<f64> = pairs.iter().map(|pair| pair.differences[0].p.unwrap()).collect();
    assert_eq!(adjusted, hpsearch::stats::holm(&raw));
    assert!(adjusted.iter().zip(raw).all(|(adjusted, raw)| *adjusted >= raw) && adjusted[1] > raw[1]);
}

#[test]
fn what_cannot_be_compared_is_refused_in_words() {
    let refused = |a: &Side, b: &Side| compare(&[a.clone(), b.clone()]).pairs.remove(0).refused.expect("it is refused");
    let first = side("a", with_best(single(1, 1.6)));
    assert_eq!(compare(&[first.clone(), first.clone()]).pairs[0].refused, None);
    let mut other = side("b", with_best(single(2, 1.3)));
    other.images = Some(Digest::of(b"other images"));
    let why = refused(&first, &other);
    assert!(why.starts_with("their images or splits differ ("), "{why}");
    other.images = None;
    assert_eq!(refused(&first, &other), "study b has no images on record");
    let mut renamed = single(2, 1.3);
    renamed.rows[7].image.push('x');
    let why = refused(&first, &side("b", with_best(renamed)));
    assert!(why.contains("are of other images"), "{why}");
    let mut without = with_best(single(2, 1.3));
    let best = without.ranking()[0].number;
    without.finalists[0].trial = TrialNumber(best.0 + 1);
    let why = refused(&first, &side("b", without));
    assert_eq!(why, format!("the predictions of trial {best}, the best of study b, are gone"));
    let mut empty = study::invented(27, false);
    empty.trials.iter_mut().for_each(|trial| trial.value = None);
    assert_eq!(refused(&first, &side("b", empty)), "no trial of study b has a value");

    let mut loss = study::invented(27, false);
    loss.spec.objective.metric = Metric::LogLoss;
    loss.spec.objective.direction = Direction::Minimize;
    let comparison = compare(&[first, side("b", loss)]);
    assert_eq!(
        comparison.incomparable,
        ["Study b seeks the smallest value of log_loss, study a the largest value of roc_auc: their values are not \
             compared."]
    );
}

#[test]
fn the_page_of_a_comparison_is_whole_and_the_same_every_time() {
    let sides = [
        side("first <b>", with_best(single(1, 1.6))),
        side("second", with_best(single(2, 1.3))),
        Side { images: None, ..side("third", study::invented(12, false)) },
    ];
    let comparison = compare(&sides);
    let write_once = || {
        let folder = tempfile::tempdir().unwrap();
        let written = write(&sides, &comparison, folder.path()).unwrap();
        assert_eq!((written.charts, written.tables), (3, 5));
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let files = ["index.html", "comparison.json", "charts/best-so-far.svg", "charts/differences.svg"];
        (files.map(read), read("data/differences.csv"), read("data/study-files.csv"), read("data/studies.csv"))
    };
    let (files, differences, study_files, studies) = write_once();
    assert_eq!(files, write_once().0);
    let page = &files[0];
    assert!(page.contains("first &lt;b&gt;, second, third") && !page.contains("first <b>"));
    assert!(page.contains("first &lt;b&gt; and third are not compared: study third has no images on record."));
    assert!(!page.contains("http://") && !page.contains("https://") || page.contains("www.w3.org"));
    let exact = comparison.pairs[0].differences[0].difference.unwrap();
    assert!(differences.contains(&format!("first <b>,second,ROC-AUC,{exact},")), "{differences}");
    assert!(study_files.contains("third,budget.n_trials,12,27"), "{study_files}");
    assert_eq!(studies.lines().count(), 4);
}

/// A narrow network on synthetic images; `s` and `t` differ in the sampler only.
fn images(name: &str, sampler: &str, seed: u32) -> String {
    format!(
        "name = \"{name}\"\nseed = {seed}\n[data]\nsynthetic = {{ images = 60, contrast = 0.9 }}\nsize = 75\n\
         [network]\nwidth = 0.125\nweights = \"random\"\nscaling = \"unit\"\ntap = \"Mixed_5b\"\n\
         [training]\nepochs = 2\nbatch_size = 8\n[sampler]\nkind = \"{sampler}\"\n[scheduler]\nkind = \"none\"\n\
         [budget]\nn_trials = 3\n[run]\ndevice = \"cpu\"\nthreads = 1\n\
         [space]\nlearning_rate = {{ type = \"float\", low = 1e-3, high = 1e-1, log = true }}\n"
    )
}

#[test]
fn compare_reads_studies_by_name_and_by_path_and_says_what_it_will_not_compare() {
    let bench = Bench::new("");
    for (name, sampler, seed) in [("s", "random", 1), ("t", "sobol", 1), ("u", "random", 2)] {
        bench.write(&images(name, sampler, seed));
        bench.finish(&[]);
    }
    let out = bench.dir().with_file_name("page");
    let compare = |studies: &[&str]| bench.command(&["compare"]).args(studies).output().unwrap();
    let path = bench.dir().with_file_name("t");
    let output = compare(&["s", path.to_str().unwrap(), "u", "--out", out.to_str().unwrap()]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.lines().all(|line| line.chars().count() <= 80 || line.contains("index.html")), "{shown}");
    for part in ["Best: largest value of roc_auc", "best so far after epochs", "best so far after time"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("s − t: best trials on the same 12 validation images"), "{shown}");
    assert!(shown.contains("s − u: not compared\n  their images or splits differ"), "{shown}");
    assert!(out.join("charts/finalists.png").exists());
    for name in ["s", "t", "u"] {
        let best = "SELECT value, trial, epochs FROM ranking LIMIT 1";
        let best = rows(&bench.dir().with_file_name(name).join("study.db"), best);
        let Value::Real(value) = best[0][0] else { panic!("{best:?}") };
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(&format!("{value:.4}")), "{line}");
    }

    let json = bench.command(&["--json", "compare", "s", "t"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["comparison"]["pairs"][0]["images"], 12);
    assert_eq!(json["comparison"]["studies"][1]["epochs"], 6);

    for (studies, code, said) in [
        (&["s"][..], 2, "2 values required"),
        (&["s", "nowhere"], 2, "there is no study `nowhere`"),
        (&["s", "./nowhere/study.db"], 6, "there is none"),
        (&["s", "t", path.to_str().unwrap()], 2, "is named twice"),
    ] {
        let output = compare(studies);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.contains(said), "{shown}");
    }
}
