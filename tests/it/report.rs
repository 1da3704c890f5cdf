//! Reports: their content, that the same record gives the same bytes, and studies with little in them.

#[path = "../../examples/report_demo/study.rs"]
pub mod study;

use hpsearch::engine::{FailureClass, TrialState};
use hpsearch::history::OutcomeKind;
use hpsearch::ids::TrialNumber;
use hpsearch::metrics::{Prediction, Predictions, evaluate, objective};
use hpsearch::report::model::{FailureRecord, Finalist, StudyRecord, TestMean, TestResult};
use hpsearch::report::{self, Written};
use hpsearch::spec::{Metric, OperatingPoint};
use std::collections::BTreeMap;
use std::path::Path;

struct Report {
    folder: tempfile::TempDir,
    written: Written,
}

impl Report {
    fn of(record: &StudyRecord) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let written = report::write(record, folder.path()).unwrap();
        Self { folder, written }
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn page(&self) -> String {
        self.text("index.html")
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, out);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                    out.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        let mut out = BTreeMap::new();
        walk(self.folder.path(), self.folder.path(), &mut out);
        out
    }
}

/// The contents of an SVG's text elements.
fn words(svg: &str) -> Vec<&str> {
    svg.split("<text").skip(1).filter_map(|t| Some(t.split_once('>')?.1.split_once("</text>")?.0.trim())).collect()
}

#[test]
fn the_same_record_gives_the_same_bytes() {
    let record = study::invented(12, true);
    let (first, second) = (Report::of(&record).files(), Report::of(&record).files());
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "{name} differs");
    }
    assert!(first.len() > 40, "{}", first.len());
}

#[test]
fn charts_show_the_figures_of_the_predictions() {
    let record = study::invented(27, false);
    let report = Report::of(&record);
    let best = &record.finalists[0];
    let auc = evaluate(&best.validation, 0.5).roc_auc.unwrap();
    let roc = report.text("charts/roc-validation.svg");
    assert!(words(&roc).contains(&format!("trial {}  {auc:.3}", best.trial).as_str()), "{:?}", words(&roc));
    assert!(words(&roc).contains(&"false positive rate (1 – specificity)"));
    let confusion = report.text("charts/confusion-validation.svg");
    let counts: u64 = words(&confusion).iter().filter_map(|w| w.parse::<u64>().ok()).sum();
    assert_eq!(counts, best.validation.rows.len() as u64);
    let ladder = report.text("charts/rungs.svg");
    assert!(words(&ladder).contains(&"27 epochs"), "{:?}", words(&ladder));
    assert!(report.text("data/finalists.csv").contains("roc_auc"));
    let png = &report.files()["charts/roc-validation.png"];
    assert_eq!(&png[1..4], b"PNG");
    assert!(report.written.charts >= 15, "{:?}", report.written);
}

#[test]
fn the_page_needs_no_network_and_is_well_formed_where_it_matters() {
    let mut record = study::invented(9, false);
    record.spec.name = "a<b>&\"c".into();
    let page = Report::of(&record).page();
    for outside in ["src=\"http", "href=\"http", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<title>a&lt;b&gt;&amp;&quot;c"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<article").count(), page.matches("</article>").count());
}

#[test]
fn test_figures_appear_only_when_the_test_images_were_opened() {
    let locked = Report::of(&study::invented(12, false));
    assert!(locked.page().contains(">locked<"));
    assert!(!locked.page().contains("On the test images"));
    assert!(!locked.files().contains_key("charts/roc-test.svg"));
    let opened = study::invented(12, true);
    let report = Report::of(&opened);
    assert!(report.page().contains("On the test images") && !report.page().contains(">locked<"));
    // The threshold of the test confusion is the one fixed on validation.
    let threshold = opened.test.as_ref().unwrap().results[0].threshold.unwrap();
    assert!(report.page().contains(&format!("a score of at least {threshold:.4}")));
    assert!(report.text("data/finalists.csv").lines().any(|l| l.starts_with("test,")));
}

#[test]
fn a_best_trial_that_was_not_tested_is_not_shown_with_the_figures_of_another() {
    let mut record = study::invented(27, true);
    let best = record.ranking()[0].number;
    let opening = record.test.as_mut().unwrap();
    opening.results.retain(|result| result.trial != best);
    opening.mean = None;
    let page = Report::of(&record).page();
    // In the tile, beside the finalists, and where its luck is judged.
    let said = format!("Trial {best} was not tested: the test images were opened once, for trials ");
    assert_eq!(page.matches(&said).count(), 3);
    assert!(page.contains("Recall at the operating point, validation"));
    for wrong in ["Recall at the operating point, test", "Only the locked test images", "have not been opened"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
}

#[test]
fn test_predictions_that_are_gone_are_said_to_be_gone() {
    let mut record = study::invented(27, true);
    let best = record.ranking()[0].number;
    for result in &mut record.test.as_mut().unwrap().results {
        result.predictions = Predictions { classes: Vec::new(), positive: 0, rows: Vec::new() };
    }
    let page = Report::of(&record).page();
    assert!(page.contains("The test images were opened, but their predictions are gone."));
    assert!(page.contains(&format!("Trial {best} was tested, but its test predictions are gone")));
    assert!(!page.contains("still locked") && !page.contains("have not been opened"));
}

#[test]
fn a_constrained_objective_is_evaluated_on_the_test_images() {
    let mut record = study::invented(27, true);
    let metric = Metric::RecallAtSpecificity(0.9);
    record.spec.objective.metric = metric.clone();
    let best = record.ranking()[0].number;
    let results = &record.test.as_ref().unwrap().results;
    let own = results.iter().find(|result| result.trial == best).unwrap();
    let value = objective(&own.predictions, &metric, &record.spec.objective.operating_point).unwrap();
    let report = Report::of(&record);
    let page = report.page();
    assert!(page.contains("Test recall@specificity&gt;=0.9"));
    assert!(page.contains(&format!("{value:.4}")) && page.contains("At a threshold chosen on these images."));
    let selection = report.text("data/selection.csv");
    assert!(selection.contains(&format!("the same trial on test images,{value}")), "{selection}");
    assert!(page.contains("(bootstrap)"), "the standard error is that of the bootstrap");
}

#[test]
fn the_mean_is_compared_however_many_finalists_there_are() {
    let mut record = study::invented(27, true);
    let opening = record.test.as_mut().unwrap();
    // The first two rank the images alike.
    let result = |i: u32| TestResult {
        trial: TrialNumber(i),
        threshold: Some(0.5),
        predictions: study::predictions(2, u64::from(i.max(1)), 420, 1.9),
    };
    opening.results = (0..10).map(result).collect();
    opening.mean = Some(TestMean { threshold: Some(0.5) });
    let report = Report::of(&record);
    let page = report.page();
    for said in ["The first 8 of 10 finalists are compared", "adjustment for 35 comparisons", "1 pair of models that"] {
        assert!(page.contains(said), "{said}");
    }
    let table = report.text("data/differences.csv");
    assert_eq!((table.lines().count(), table.matches("mean of 10").count()), (37, 8), "{table}");
}

#[test]
fn one_image_of_an_unknown_patient_does_not_make_images_independent() {
    let mut record = study::invented(27, true);
    for result in &mut record.test.as_mut().unwrap().results {
        result.predictions.rows[0].patient = None;
    }
    let page = Report::of(&record).page();
    assert!(page.contains("Of 1 of these 420 images the patient is not known"));
    assert!(page.contains("Several images may come from one patient"));
    assert!(!page.contains("bootstrap draws of images"));
}

#[test]
fn the_luck_of_the_best_is_reported() {
    let report = Report::of(&study::invented(27, false));
    let table = report.text("data/selection.csv");
    let value = |name: &str| -> f64 {
        let line =
            table.lines().find(|l| l.trim_start_matches('"').starts_with(name)).unwrap_or_else(|| panic!("{table}"));
        line.rsplit(',').next().unwrap().parse().unwrap()
    };
    let gain = value("gain by luck");
    assert!(
        (gain - value("standard error") * hpsearch::stats::expected_maximum(value("trials measured") as usize)).abs()
            < 1e-12
    );
    assert!((value("best on validation") - gain - value("best, less that luck")).abs() < 1e-12);
}

#[test]
fn every_table_is_rectangular() {
    for (name, bytes) in Report::of(&study::invented(27, true)).files().iter().filter(|f| f.0.ends_with(".csv")) {
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!rows.is_empty(), "{name}");
    }
}

#[test]
fn a_study_that_has_not_begun_says_so() {
    let mut record = study::invented(3, false);
    record.trials.clear();
    record.orders.clear();
    record.finalists.clear();
    record.data = None;
    let page = Report::of(&record).page();
    for said in
        ["No trial has a value yet", "No epoch is finished yet", "No worker has begun", "its runner brings the data"]
    {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_study_in_which_everything_failed_has_no_best() {
    let mut record = study::invented(4, false);
    record.finalists.clear();
    for t in &mut record.trials {
        t.state = TrialState::Failed;
        t.value = None;
        t.failure = Some(FailureRecord { class: FailureClass::Oom, reason: "3 GiB wanted".into() });
        t.epochs.iter_mut().for_each(|e| e.value = None);
    }
    for o in &mut record.orders {
        o.outcome = Some((OutcomeKind::Failed, o.from));
    }
    let report = Report::of(&record);
    assert!(report.page().contains("No trial has a value yet"));
    assert!(words(&report.text("charts/failures.svg")).contains(&"out of memory"));
}

#[test]
fn a_study_of_one_trial_has_a_report() {
    let page = Report::of(&study::invented(1, false)).page();
    assert!(page.contains("nothing was chosen") && page.contains("1 trial ·"));
}

fn with_predictions(predictions: Predictions) -> StudyRecord {
    let mut record = study::invented(3, false);
    record.finalists = vec![Finalist { trial: record.finalists[0].trial, validation: predictions }];
    record.thumbnails.clear();
    record
}

fn rows(labels: &[u32], scores: impl Fn(usize) -> Vec<f32>) -> Vec<Prediction> {
    let row = |(i, &label)| Prediction { image: format!("{i}.png"), patient: None, label, scores: scores(i) };
    labels.iter().enumerate().map(row).collect()
}

#[test]
fn perfect_separation_has_no_interval_and_says_why() {
    let labels = [0, 0, 0, 1, 1, 1];
    let scores = |i: usize| if i < 3 { vec![0.9, 0.1] } else { vec![0.2, 0.8] };
    let classes = vec!["no".into(), "yes".into()];
    let report = Report::of(&with_predictions(Predictions { classes, positive: 1, rows: rows(&labels, scores) }));
    assert!(report.page().contains("An area of exactly 1 means"));
    let line = report.text("data/finalists.csv").lines().find(|l| l.contains("roc_auc")).unwrap().to_owned();
    assert!(line.contains("roc_auc,1,,"), "{line}");
}

#[test]
fn one_class_and_broken_scores_are_undefined_not_one_half() {
    let classes = || vec!["no".to_owned(), "yes".to_owned()];
    let one = Predictions { classes: classes(), positive: 1, rows: rows(&[1, 1, 1], |_| vec![0.4, 0.6]) };
    let report = Report::of(&with_predictions(one));
    assert!(report.page().contains("Undefined: these images are all of one class"));
    assert!(report.text("data/finalists.csv").contains("roc_auc,,,"));
    let broken = Predictions { classes: classes(), positive: 1, rows: rows(&[0, 1], |_| vec![f32::NAN, 0.5]) };
    assert!(Report::of(&with_predictions(broken)).page().contains("Nothing to compare"));
}

#[test]
fn more_classes_are_shown_one_against_the_rest() {
    let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
    let scores = |i: usize| {
        let mut s = vec![0.2, 0.2, 0.2];
        s[if i.is_multiple_of(7) { (i + 1) % 3 } else { i % 3 }] = 0.6;
        s
    };
    let classes = ["bacterial", "normal", "viral"].map(str::to_owned).to_vec();
    let mut record = with_predictions(Predictions { classes, positive: 0, rows: rows(&labels, scores) });
    record.spec.objective.operating_point = OperatingPoint::Youden;
    let report = Report::of(&record);
    let roc = report.text("charts/roc-validation.svg");
    assert!(words(&roc).iter().any(|w| w.starts_with("viral against the rest")), "{:?}", words(&roc));
    assert!(report.page().contains("there is no threshold"));
    assert!(words(&report.text("charts/confusion-validation.svg")).contains(&"viral"));
}

#[test]
fn a_study_of_another_metric_and_no_predictions_still_shows_its_search() {
    let mut record = study::invented(9, false);
    record.finalists.clear();
    record.spec.objective.metric = Metric::Custom("reward".into());
    let report = Report::of(&record);
    assert!(report.page().contains("No standard error of the objective is known"));
    assert!(words(&report.text("charts/history.svg")).contains(&"reward"));
}

#[test]
fn a_later_report_removes_the_charts_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    report::write(&study::invented(9, true), folder.path()).unwrap();
    std::fs::write(folder.path().join("charts/mine.txt"), "kept").unwrap();
    report::write(&study::invented(9, false), folder.path()).unwrap();
    assert!(!folder.path().join("charts/roc-test.png").exists());
    assert!(folder.path().join("charts/mine.txt").exists());
}

#[test]
fn a_stored_study_is_read_as_it_was_trained() {
    use hpsearch::engine::EpochReport;
    use hpsearch::study::{Ask, Study, record};
    let state = tempfile::tempdir().unwrap();
    let spec = study::spec(9);
    let mut told = Study::open(state.path(), &spec).unwrap();
    let mut epochs = 0;
    while let Ask::Trial(mut trial) = told.ask().unwrap() {
        let known = trial.known();
        for epoch in trial.remaining().filter(|e| *e > known) {
            let value = 0.5 + f64::from(trial.number().0) / 100.0 + f64::from(epoch.0) / 1000.0;
            told.report(&mut trial, EpochReport { epoch, value: Some(value), ..Default::default() }).unwrap();
            epochs += 1;
        }
        told.tell(trial, Ok(())).unwrap();
    }
    // Read beside the open study: no lock is needed.
    let reader = hpsearch::store::in_folder(state.path()).read(&spec.name).unwrap();
    let read = record(&*reader, &state.path().join(&spec.name), 5).unwrap();
    assert_eq!(read.trials.len(), 9);
    assert_eq!(read.trials.iter().map(|t| t.epochs.len()).sum::<usize>(), epochs);
    let best = told.engine().best().unwrap();
    assert_eq!((read.ranking()[0].number, read.ranking()[0].value), (best.trial, Some(best.value)));
    assert!(read.orders.iter().all(|o| o.outcome.is_some() && o.attempts.len() == 1));
    assert!(Report::of(&read).page().contains("rung 2, to epoch 9"));
}
