//! The section for whoever writes the study up: which items of the reporting guidelines the record answers.
//!
//! Items of CLAIM, the Checklist for Artificial Intelligence in Medical Imaging, in its 2024 update (Tejani et al. 2024),
//! and of TRIPOD+AI (Collins et al. 2024), in our words.

use super::evidence::{Evidence, Model};
use crate::data::GivenValidation;
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::{DataRecord, StudyRecord, TestOpening, TrialRecord};
use crate::report::table::{Cell, Table};
use crate::report::text::short;
use crate::spec::{
    DataSource, DataSpec, FreezeTo, HeadKind, Metric, RunnerSpec, TrainingSpec, TrialSettings, WeightSource,
};
use crate::wording::counted;

/// What stands where only people know the answer.
const BLANK: &str = "☐ for you to write";

/// An item: what is asked for, its numbers in CLAIM and in TRIPOD+AI, and the answer; `None`: only people know it.
type Item = (&'static str, &'static str, &'static str, Option<String>);

pub fn section(record: &StudyRecord, validation: &Evidence, test: Option<&Evidence>) -> Section {
    let (slug, title) = ("checklist", "What reviewers ask for");
    let question = "Which items of the reporting guidelines does this record answer, and which are left to you?";
    let exhibit = match &record.spec.runner {
        RunnerSpec::Image { data, .. } => {
            let items = items(record, data, validation, test);
            let answered = items.iter().filter(|item| item.3.is_some()).count();
            let mut table = Table::new(["item", "CLAIM 2024", "TRIPOD+AI", "answer"]);
            for (asked, claim, tripod, answer) in &items {
                table.push([
                    (*asked).into(),
                    (*claim).into(),
                    (*tripod).into(),
                    Cell::from(answer.as_deref().unwrap_or(BLANK)),
                ]);
            }
            Exhibit::new(slug, title, question, None, table)
                .note(format!(
                    "{answered} of {} items are answered from what is on record; those marked ☐ no program can know. \
                     The wording is ours: the guidelines themselves are binding (CLAIM 2024 update, Tejani et al., \
                     Radiology: Artificial Intelligence 2024; TRIPOD+AI, Collins et al., BMJ 2024).",
                    items.len()
                ))
                .note("An answer says what was done, not that it was enough.")
        }
        _ => Exhibit::missing(
            slug,
            title,
            question,
            "The trials of this study are not trained on images by this program.",
        ),
    };
    Section {
        id: "reporting",
        title: "For the manuscript",
        intro: "The study in the order of the guidelines for reports on medical imaging models.".into(),
        exhibits: vec![exhibit],
    }
}

fn items(record: &StudyRecord, data: &DataSpec, validation: &Evidence, test: Option<&Evidence>) -> Vec<Item> {
    let none = || None;
    let winner = record.ranking().into_iter().next().map(|trial| trial.number);
    let settings = record.ranking().first().and_then(|t| record.spec.runner.settings(&t.params).ok());
    let settings = settings.or_else(|| record.spec.runner.fixed());
    let of = |words: fn(&TrialSettings) -> String| settings.as_ref().map(words);
    // The model is that of the last epoch, which may be an early one.
    let epoch = record.ranking().first().and_then(|t| t.epochs.last()).map(|e| e.epoch);
    let judged = settings.as_ref().zip(epoch).map(|(s, epoch)| s.in_epoch(epoch));
    let judged = judged.as_ref().or(settings.as_ref());
    let on_record = record.data.as_ref();
    vec![
        ("Title names the kind of model", "1", "1", none()),
        ("Structured summary", "2", "2", none()),
        ("Background, intended use, place in care", "3", "3a, 3b", none()),
        ("Known inequalities between groups of patients", "", "3c", none()),
        ("Aims and hypotheses", "4, 6", "4", none()),
        ("Prospective or retrospective", "5", "5a", none()),
        ("Sources of data, sites and dates", "7", "5a, 5b, 6a", none()),
        ("Who was included and excluded", "8", "6b, 6c", none()),
        ("Preparation of images", "9", "7, 9b", Some(preparation(data, judged))),
        ("Images left out of the data", "10", "7", on_record.map(left_out)),
        ("De-identification", "11", "", none()),
        ("Missing data", "12", "11", none()),
        ("How images were taken", "13", "9b", none()),
        ("Reference standard: what, why, by whom, how sure", "14 to 18", "8a to 8c", none()),
        (
            "Partitions and how images were assigned",
            "19",
            "12a",
            on_record.map(|d| partitions(d, data, record.test.as_ref())),
        ),
        ("Level at which partitions are disjoint", "20", "12a, 12d", on_record.map(|d| disjoint(d, data))),
        ("Intended sample size", "21", "10", none()),
        ("Model", "22", "12c, 22", of(model)),
        ("Software", "23", "18f", Some(format!("{}; networks and gradients by candle", record.program))),
        ("Initial values", "24", "12c", of(initial)),
        ("Training", "25", "12c", of(training)),
        ("Augmentation", "25", "12c", of(augmentation)),
        ("Search for hyperparameters", "25, 26", "12c", Some(search(record))),
        ("Choice of the final model", "26", "12c", Some(choice(record))),
        ("Ensembling", "27", "12c", Some(ensembling(data))),
        ("Imbalance of classes", "25", "13", settings.as_ref().map(|s| imbalance(&s.training))),
        ("Metrics", "28", "12e", Some(metrics(record, validation))),
        ("Uncertainty", "29", "12e", validation.entries.first().map(|_| uncertainty(validation))),
        ("Threshold, and how it was fixed", "28", "15", threshold(record, validation, test)),
        ("Robustness and sensitivity analysis", "30", "", none()),
        (
            "Explanation of decisions",
            "31",
            "",
            Some("heat maps by `hpsearch predict --explain`; their limits are for you to state".to_owned()),
        ),
        ("Evaluation on internal data", "32", "12a, 16", Some(internal(record))),
        ("Evaluation on external data", "33", "16", none()),
        ("Fairness between groups of patients", "30", "14", none()),
        ("Registration and protocol", "34, 42", "18c, 18d", none()),
        ("Ethical approval", "", "17", none()),
        ("Patients and images in each partition", "35", "20a, 21", on_record.map(counts)),
        ("Characteristics of patients in each partition", "36", "20b, 20c", none()),
        ("Performance with intervals", "37, 38", "23a", performance(winner, validation, test)),
        ("Performance in groups of patients and at sites", "37", "23b", none()),
        ("Failures looked at", "39", "", failures(validation, test)),
        ("Limitations", "40", "26", limitations(record, validation)),
        ("Interpretation and use in practice", "41", "25, 27a to 27c", none()),
        ("Patients and public in the research", "", "19", none()),
        ("Code, model and data for others", "43", "18e, 18f", none()),
        ("Funding and conflicts of interest", "44", "18a, 18b", none()),
    ]
}

fn preparation(data: &DataSpec, settings: Option<&TrialSettings>) -> String {
    let scaling = settings.map_or_else(String::new, |s| format!(", scaling `{}`", s.network.scaling));
    let reduced = settings.and_then(|s| s.network.input_size);
    let reduced = reduced.map_or_else(String::new, |n| format!(", reduced to {n} x {n} for the network"));
    format!(
        "whole images resized to {0} x {0} pixels (triangle filter){reduced}, {1}{scaling}; window of images of more than 8 bits: {2}",
        data.size, data.colour, data.window
    )
}

fn left_out(data: &DataRecord) -> String {
    let mut words = match data.skipped.len() {
        0 => "no file was left out as unreadable".to_owned(),
        n => format!("{} could not be decoded and were left out, by name in `report.json`", counted(n, "file")),
    };
    if data.dropped > 0 {
        let images = counted(data.dropped, "image");
        words += &format!("; {images} left out whose patient or bytes are also in a given test or validation set");
    }
    words
}

fn partitions(record: &DataRecord, data: &DataSpec, opening: Option<&TestOpening>) -> String {
    let drawn = "drawn at random from the study's seed, stratified by class";
    let share = short(100.0 * data.split.validation);
    let words = match (record.given_validation, data.split.folds) {
        (GivenValidation::Kept, _) => "the validation set that came with the data was kept".to_owned(),
        (given, folds) => {
            let parts = match folds {
                Some(k) => format!("{k} folds of the development images, {drawn}"),
                None => format!("{share} % of the development images for validation, {drawn}"),
            };
            let merged = "; a validation set that came with the data was merged with them before";
            parts + if given == GivenValidation::Merged { merged } else { "" }
        }
    };
    let test = record.splits.iter().any(|split| split.name == "test");
    let locked = match opening {
        _ if !test => "; no test images",
        Some(opening) if opening.unfinished => {
            "; test images locked until they were opened, before the search was over"
        }
        _ => "; test images locked until the search was over",
    };
    words + locked
}

fn disjoint(record: &DataRecord, data: &DataSpec) -> String {
    let source = match &data.source {
        DataSource::Synthetic(_) => return "synthetic images; there are no patients".to_owned(),
        DataSource::Manifest(_) => "the manifest or DICOM headers",
        DataSource::Folder(_) => "file names or DICOM headers",
    };
    match record.patients {
        Some(n) => format!("patient: {} known from {source}; none is in two partitions", counted(n, "patient")),
        None => "file: files of equal bytes stay together, but patients are not known".to_owned(),
    }
}

fn model(s: &TrialSettings) -> String {
    let head = match s.head.kind {
        HeadKind::Linear => "global average pooling, batch norm, dropout, dense".to_owned(),
        HeadKind::Hidden => format!(
            "global average pooling, batch norm, dropout, {} hidden units with ReLU, dropout, dense",
            s.head.hidden_units
        ),
    };
    let width = if s.network.width == 1.0 { String::new() } else { format!(", width {}", short(s.network.width)) };
    format!("{}{width}, taken at {}; head: {head}", s.network.backbone, s.network.tap)
}

fn initial(s: &TrialSettings) -> String {
    let weights = match &s.network.weights {
        WeightSource::Random => "random weights".to_owned(),
        WeightSource::File(path) => {
            format!("pretrained weights `{}`", path.file_name().unwrap_or_default().to_string_lossy())
        }
        WeightSource::Hub { repo, revision: None } => format!("pretrained weights `{repo}`"),
        WeightSource::Hub { repo, revision: Some(revision) } => format!("pretrained weights `{repo}` at `{revision}`"),
    };
    let frozen = match &s.network.freeze {
        FreezeTo::None => "no layer frozen".to_owned(),
        FreezeTo::All => "all its layers frozen".to_owned(),
        FreezeTo::Stage(stage) => format!("frozen up to {stage}"),
    };
    format!("{weights}, {frozen}; head random, from the study's seed")
}

fn training(s: &TrialSettings) -> String {
    let t = &s.training;
    let early = match (s.probing_epochs(), t.small_size) {
        (0, None) => String::new(),
        (0, Some(side)) => format!(" (the first {} on images reduced to {side} x {side})", s.early_epochs()),
        (probing, _) => format!(" (in the first {probing} the head alone)"),
    };
    format!(
        "{} epochs{early} of batches of {}, {}, learning rate {} ({} for the backbone), weight decay {}, schedule {}, loss {}, \
         dropout {}",
        t.epochs,
        t.batch_size,
        t.optimiser,
        short(t.learning_rate),
        short(t.learning_rate * t.backbone_rate),
        short(t.weight_decay),
        t.schedule,
        t.loss,
        short(s.head.dropout),
    )
}

fn augmentation(s: &TrialSettings) -> String {
    let a = &s.augment;
    if a.strength == 0.0 {
        return "none".to_owned();
    }
    let ranges = [
        ("horizontal flip", a.flip, ""),
        ("rotation", a.rotation, " degrees"),
        ("brightness", a.brightness, ""),
        ("edges", a.edges, ""),
        ("vertical flip", a.vertical_flip, ""),
        ("quarter turns", a.quarter_turns, ""),
        ("zoom", a.zoom, ""),
        ("shift", a.shift, ""),
        ("contrast", a.contrast, ""),
        ("noise", a.noise, ""),
    ];
    let used = ranges.iter().filter(|r| r.1 > 0.0).map(|(name, most, unit)| format!("{name} {}{unit}", short(*most)));
    format!("strength {} of: {}", short(a.strength), used.collect::<Vec<_>>().join(", "))
}

fn search(record: &StudyRecord) -> String {
    let parameters: Vec<&str> = record.spec.space.parameters.iter().map(|p| p.name.as_str()).collect();
    let parameters = if parameters.is_empty() { "no parameter".to_owned() } else { parameters.join(", ") };
    format!(
        "{} over {parameters}; sampler {}, scheduler {}, seed {}",
        counted(record.trials.len(), "configuration"),
        <&str>::from(&record.spec.sampler),
        <&str>::from(&record.spec.scheduler),
        record.spec.seed
    )
}

fn choice(record: &StudyRecord) -> String {
    format!("best {} on the validation images", record.spec.objective.metric)
}

fn ensembling(data: &DataSpec) -> String {
    match data.split.folds {
        Some(k) => format!("mean score of the {k} models of the folds"),
        None => "none".to_owned(),
    }
}

fn imbalance(training: &TrainingSpec) -> String {
    use crate::spec::ImbalancePolicy as P;
    match training.imbalance {
        P::None => "nothing done",
        P::Weights => "loss weighted by class",
        P::Oversample => "rarer classes drawn more often",
        P::Undersample => "commoner classes drawn less often",
    }
    .to_owned()
}

fn metrics(record: &StudyRecord, validation: &Evidence) -> String {
    let many = validation.entries.first().is_some_and(|e| e.predictions.classes.len() > 2);
    let mean = if many { ", each the mean over classes" } else { "" };
    format!(
        "recall, specificity, precision, F1, areas under ROC and precision-recall curves{mean}, calibration; trials \
         ranked by {}",
        record.spec.objective.metric
    )
}

fn uncertainty(evidence: &Evidence) -> String {
    let unit = if evidence.clustered { "whole patients" } else { "images" };
    format!(
        "95 % intervals from bootstrap draws of {unit}; differences of areas by DeLong's test with Holm's adjustment"
    )
}

fn threshold(record: &StudyRecord, validation: &Evidence, test: Option<&Evidence>) -> Option<String> {
    let best = validation.entries.first()?;
    if best.predictions.classes.len() > 2 {
        return Some("none: the class of the largest score is called".to_owned());
    }
    let value = best.threshold.map_or("undefined, .5 used".to_owned(), |t| format!("{t:.4}"));
    let before = if test.is_some() { ", before the test images were opened" } else { "" };
    Some(format!("{value}, for `{}` on the validation images{before}", record.spec.objective.operating_point))
}

fn internal(record: &StudyRecord) -> String {
    match &record.test {
        Some(test) if test.unfinished => {
            "test images opened once, but before the search was over: later trials could have been steered".to_owned()
        }
        Some(test) => {
            let later = |trial: &&TrialRecord| trial.epochs.iter().any(|epoch| epoch.unix_ms > test.unix_ms);
            let opened = "test images opened once, on record, after the search";
            match record.trials.iter().filter(later).count() {
                0 => opened.to_owned(),
                n => format!("{opened}; what {} learnt since then is not tested", counted(n, "trial")),
            }
        }
        None => "validation images only; the test images are still locked".to_owned(),
    }
}

fn counts(data: &DataRecord) -> String {
    let splits = data.splits.iter().map(|split| {
        let classes = data.classes.iter().zip(&split.counts).map(|(class, n)| format!("{n} {class}"));
        format!("{}: {}", split.name, classes.collect::<Vec<_>>().join(", "))
    });
    splits.collect::<Vec<_>>().join("; ")
}

fn performance(
    winner: Option<crate::ids::TrialNumber>,
    validation: &Evidence,
    test: Option<&Evidence>,
) -> Option<String> {
    let main = test.unwrap_or(validation);
    let entry = main.of(Model::Trial(winner?))?;
    let figure = |(name, value, interval): (&str, Option<f64>, Option<crate::stats::Interval>)| {
        let interval = interval.map_or_else(String::new, |i| format!(" ({:.3} to {:.3})", i.low, i.high));
        Some(format!("{name} {:.3}{interval}", value?))
    };
    let figures: Vec<String> = entry.figures().into_iter().filter_map(figure).collect();
    let flattering = if test.is_none() { "; chosen by these images, so flattering" } else { "" };
    Some(format!("{} images: {}{flattering}", main.set, figures.join(", ")))
}

fn failures(validation: &Evidence, test: Option<&Evidence>) -> Option<String> {
    let main = test.unwrap_or(validation);
    main.entries.first()?;
    Some(format!(
        "the most confident errors on the {} images are shown in this report; their causes are for you",
        main.set
    ))
}

fn limitations(record: &StudyRecord, validation: &Evidence) -> Option<String> {
    let data = record.data.as_ref()?;
    let mut known = Vec::new();
    if data.synthetic {
        known.push("the images are synthetic".to_owned());
    } else if data.patients.is_none() {
        known.push("patients are unknown, so one may be in two partitions".to_owned());
    }
    if record.test.is_none() {
        known.push("no test images were opened".to_owned());
    }
    let tried = record.ranking().len();
    if tried > 1 && !matches!(record.spec.objective.metric, Metric::Custom(_)) && !validation.entries.is_empty() {
        known.push(format!("the best of {tried} configurations on validation images is partly luck (see there)"));
    }
    (!known.is_empty()).then(|| format!("known from the record: {}; the rest is for you", known.join("; ")))
}
