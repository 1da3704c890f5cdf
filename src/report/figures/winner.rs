//! The section on the leading model's decisions on one set of images.

use super::evidence::{DRAWS, Entry, Evidence, band, classes_of};
use crate::metrics::{Calibration, ConfusionMatrix, Curve, Prediction};
use crate::report::draw::{Chart, Colour, Panel, ReliabilityBand, confusion, curves, reliability, sweep};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::StudyRecord;
use crate::report::table::{Cell, Table};
use crate::spec::OperatingPoint;
use crate::stats::wilson;
use std::collections::{BTreeMap, BTreeSet};

/// How many curves are drawn at most: more cannot be told apart.
const CURVES: usize = 6;
/// How many errors of each kind are shown.
const ERRORS: usize = 12;

pub fn section(record: &StudyRecord, evidence: &Evidence) -> Section {
    let (id, title, intro) = match evidence.set {
        "test" => (
            "winner-test",
            "On the test images",
            "The locked images, opened once, on record. Thresholds were fixed on validation images beforehand.",
        ),
        _ => (
            "winner-validation",
            "On the validation images",
            "The images by which trials were compared: the figures of the best are optimistic.",
        ),
    };
    let unfinished = record.test.as_ref().is_some_and(|t| t.unfinished) && evidence.set == "test";
    let intro = if unfinished {
        format!(
            "{intro} They were opened before the study was over: trials begun later could have been steered by them."
        )
    } else {
        intro.to_owned()
    };
    let exhibits = match evidence.entries.first() {
        None => Vec::new(),
        Some(best) => vec![
            roc(record, evidence),
            precision_recall(record, evidence),
            decisions(record, evidence, best),
            thresholds(evidence, best),
            calibration(evidence, best),
            errors(record, evidence, best),
        ],
    };
    let intro = match evidence.entries.first() {
        None => {
            "No predictions are kept, so there are no curves, no confusion matrix and no calibration to show.".into()
        }
        Some(best) => format!("{intro} Charts of one model show {}.", best.model),
    };
    Section { id, title, intro, exhibits }
}

fn slug(base: &str, evidence: &Evidence) -> String {
    format!("{base}-{}", evidence.set)
}

/// The curves to draw: with two classes one per finalist, else one per class of the best finalist.
fn ranked(evidence: &Evidence) -> Vec<(String, Curve, Option<f64>)> {
    let Some(best) = evidence.entries.first() else { return Vec::new() };
    if best.predictions.classes.len() == 2 {
        let class = best.predictions.positive as usize;
        let of = |e: &Entry| (e.model.to_string(), e.predictions.ranked(class).curve(), e.threshold);
        return evidence.entries.iter().take(CURVES).map(of).collect();
    }
    let of = |c: usize| {
        let name = format!("{} against the rest", best.predictions.classes[c]);
        (name, best.predictions.ranked(c).curve(), None)
    };
    classes_of(&best.predictions).into_iter().take(CURVES).map(of).collect()
}

fn keys(curves: &[(String, Curve, Option<f64>)], figure: impl Fn(&Curve) -> Option<f64>) -> Vec<(String, Colour)> {
    let of = |(i, (name, curve, _)): (usize, &(String, Curve, Option<f64>))| {
        let value = figure(curve).map_or("undefined".to_owned(), |v| format!("{v:.3}"));
        (format!("{name}  {value}"), Colour::series(i))
    };
    curves.iter().enumerate().map(of).collect()
}

const ONE_CLASS: &str = "Undefined: these images are all of one class, or one class is missing.";

fn roc(record: &StudyRecord, evidence: &Evidence) -> Exhibit {
    let slug = slug("roc", evidence);
    let (title, question) = ("ROC curves", "What does more sensitivity cost in false alarms?");
    let ranked = ranked(evidence);
    let points: Vec<Vec<(f64, f64)>> =
        ranked.iter().map(|r| r.1.roc().into_iter().map(|p| (p.fpr, p.tpr)).collect()).collect();
    if points.iter().all(Vec::is_empty) {
        return Exhibit::missing(&slug, title, question, ONE_CLASS);
    }
    let best = &evidence.entries[0];
    let binary = best.predictions.classes.len() == 2;
    let perfect = ranked[0].1.roc_auc() == Some(1.0);
    let grid: Vec<f64> = (0..=200).map(|i| f64::from(i) / 200.0).collect();
    let band = match binary && !perfect {
        true => band(&best.predictions, record.spec.seed, &grid, Curve::tpr_at),
        false => Vec::new(),
    };
    let mark = best.threshold.filter(|_| binary).map(|t| {
        let (scores, positive) = best.predictions.versus_rest(best.predictions.positive as usize);
        let c = crate::metrics::Confusion::at(&scores, &positive, t);
        let (fpr, tpr) = (1.0 - c.specificity().unwrap_or(1.0), c.recall().unwrap_or(0.0));
        (fpr, tpr, format!("threshold {t:.3}"))
    });
    // The zoom begins below the lowest curve at its left, but shows at least the upper half.
    let floor = points.first().and_then(|p| p.iter().find(|p| p.0 > 0.0)).map_or(0.5, |p| p.1);
    let floor = ((floor * 5.0).floor() / 5.0 - 0.2).clamp(0.0, 0.6);
    let panel = |title, end, low| Panel {
        title,
        x: ("false positive rate (1 – specificity)", end),
        y: ("recall (sensitivity)", low, 1.0),
        series: &points,
        band: &band,
        reference: (end == 1.0).then_some(((0.0, 0.0), (1.0, 1.0), "chance")),
        mark: mark.clone(),
    };
    let keys = keys(&ranked, Curve::roc_auc);
    let chart = curves(&[panel("All", 1.0, 0.0), panel("Specificity above 0.8", 0.2, floor)], &keys);
    let mut table = Table::new(["curve", "threshold", "false positive rate", "recall"]);
    for (name, curve, _) in &ranked {
        for p in curve.roc() {
            table.push([
                name.as_str().into(),
                Cell::number(p.threshold, 4),
                Cell::Number(p.fpr, 4),
                Cell::Number(p.tpr, 4),
            ]);
        }
    }
    let unit = if evidence.clustered { "whole patients" } else { "images" };
    Exhibit::new(&slug, title, question, Some(chart), table)
        .note_if(
            !band.is_empty(),
            format!(
                "Band: pointwise 95 % of {DRAWS} bootstrap draws of {unit} for {}, stratified by class; it is not a band \
                 for the curve as a whole. Numbers in the legend are areas under the curves.",
                best.model
            ),
        )
        .note_if(
            perfect,
            "The area is exactly 1: these images are separated without error, so there is no band to draw.",
        )
        .note_if(
            mark.is_some(),
            format!(
                "Ring: the operating point of {} ({}), fixed on validation images.",
                best.model,
                point(&record.spec.objective.operating_point)
            ),
        )
        .note_if(
            evidence.entries.len() > CURVES && binary,
            format!("The first {CURVES} of {} finalists are drawn.", evidence.entries.len()),
        )
}

/// An operating point in words.
pub fn point(p: &OperatingPoint) -> String {
    match p {
        OperatingPoint::Threshold(t) => format!("score at least {t}"),
        OperatingPoint::Recall(r) => format!("recall at least {r}"),
        OperatingPoint::Specificity(s) => format!("specificity at least {s}"),
        OperatingPoint::Youden => "largest recall + specificity – 1 (Youden)".into(),
        OperatingPoint::F1 => "largest F1".into(),
    }
}

/// Precision at the first threshold that reaches a recall: defined for every recall above 0.
fn precision_from(curve: &Curve, recall: f64) -> Option<f64> {
    let p = curve.positives as f64;
    let i = curve.steps.partition_point(|s| (s.tp as f64) < recall * p - 1e-9);
    curve.steps.get(i).map(|s| s.tp as f64 / (s.tp + s.fp) as f64)
}

fn precision_recall(record: &StudyRecord, evidence: &Evidence) -> Exhibit {
    let slug = slug("precision-recall", evidence);
    let (title, question) = ("Precision and recall", "How does it hold up under imbalance?");
    let ranked = ranked(evidence);
    let points: Vec<Vec<(f64, f64)>> =
        ranked.iter().map(|r| r.1.precision_recall().into_iter().map(|p| (p.recall, p.precision)).collect()).collect();
    if points.iter().all(Vec::is_empty) {
        return Exhibit::missing(&slug, title, question, ONE_CLASS);
    }
    let best = &evidence.entries[0];
    let binary = best.predictions.classes.len() == 2;
    let curve = &ranked[0].1;
    let prevalence = curve.positives as f64 / (curve.positives + curve.negatives) as f64;
    let grid: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
    let band = match binary && curve.roc_auc() != Some(1.0) {
        true => band(&best.predictions, record.spec.seed, &grid, precision_from),
        false => Vec::new(),
    };
    let mark = best.threshold.filter(|_| binary).and_then(|t| {
        let (scores, positive) = best.predictions.versus_rest(best.predictions.positive as usize);
        let c = crate::metrics::Confusion::at(&scores, &positive, t);
        Some((c.recall()?, c.precision()?, format!("threshold {t:.3}")))
    });
    let panel = Panel {
        title: "",
        x: ("recall (sensitivity)", 1.0),
        y: ("precision (positive predictive value)", 0.0, 1.0),
        series: &points,
        band: &band,
        reference: binary.then_some((
            (0.0, prevalence),
            (1.0, prevalence),
            "prevalence: what calling everything gives",
        )),
        mark,
    };
    let chart = curves(&[panel], &keys(&ranked, Curve::average_precision));
    let mut table = Table::new(["curve", "threshold", "recall", "precision"]);
    for (name, curve, _) in &ranked {
        for p in curve.precision_recall() {
            table.push([
                name.as_str().into(),
                Cell::Number(p.threshold, 4),
                Cell::Number(p.recall, 4),
                Cell::Number(p.precision, 4),
            ]);
        }
    }
    Exhibit::new(&slug, title, question, Some(chart), table)
        .note_if(
            binary,
            format!(
                "{:.1} % of these images are positive. Precision holds for this share only: among patients with less \
                 disease it is lower at the same threshold. Numbers in the legend are average precision.",
                100.0 * prevalence
            ),
        )
        .note_if(!band.is_empty(), "Band: pointwise 95 %, by the bootstrap of the ROC curve.")
}

fn decisions(record: &StudyRecord, evidence: &Evidence, best: &Entry) -> Exhibit {
    let slug = slug("confusion", evidence);
    let (title, question) = ("Decisions at the operating point", "What will the clinic see?");
    let binary = best.predictions.classes.len() == 2;
    if binary && best.threshold.is_none() {
        let why = format!(
            "The operating point ({}) cannot be reached on the validation images, so there is no threshold.",
            point(&record.spec.objective.operating_point)
        );
        return Exhibit::missing(&slug, title, question, &why);
    }
    let Ok(matrix) = ConfusionMatrix::new(&best.predictions, best.threshold.unwrap_or(0.5)) else {
        return Exhibit::missing(&slug, title, question, "The predictions do not pass their checks.");
    };
    let mut table = Table::new(["truth", "called", "images", "share of truth", "low", "high"]);
    let mut intervals = Vec::new();
    for (i, row) in matrix.counts.iter().enumerate() {
        let total: u64 = row.iter().sum();
        let rates: Vec<_> = row.iter().map(|&n| wilson(n, total, 0.95)).collect();
        for (j, &n) in row.iter().enumerate() {
            table.push([
                matrix.classes[i].as_str().into(),
                matrix.classes[j].as_str().into(),
                n.into(),
                Cell::number((total > 0).then(|| n as f64 / total as f64), 4),
                Cell::number(rates[j].map(|r| r.low), 4),
                Cell::number(rates[j].map(|r| r.high), 4),
            ]);
        }
        intervals.push(rates);
    }
    let chart = confusion(&matrix.classes, &matrix.counts, &intervals);
    let mut exhibit = Exhibit::new(&slug, title, question, Some(chart), table);
    if binary {
        let c = matrix.versus_rest(best.predictions.positive as usize);
        let words = |name: &str, v: Option<f64>, hits: u64, of: u64| match (v, wilson(hits, of, 0.95)) {
            (Some(v), Some(i)) => format!("{name} {v:.3} ({:.3} to {:.3})", i.low, i.high),
            _ => format!("{name} undefined"),
        };
        exhibit = exhibit.note(format!(
            "{}; {}; {}; {}. Wilson's 95 % intervals{}.",
            words("Recall", c.recall(), c.tp, c.tp + c.fn_),
            words("specificity", c.specificity(), c.tn, c.tn + c.fp),
            words("precision", c.precision(), c.tp, c.tp + c.fp),
            words("negative predictive value", c.npv(), c.tn, c.tn + c.fn_),
            if evidence.clustered { ", which take images of one patient for independent" } else { "" }
        ));
        if let Some(t) = best.threshold {
            exhibit = exhibit.note(format!(
                "Called positive: a score of at least {t:.4}, the threshold for {} on the validation images.",
                point(&record.spec.objective.operating_point)
            ));
        }
    } else {
        exhibit = exhibit
            .note("Called is the class with the largest score; with more than two classes no threshold takes part.");
    }
    exhibit
}

fn thresholds(evidence: &Evidence, best: &Entry) -> Exhibit {
    let slug = slug("threshold", evidence);
    let (title, question) = ("Threshold sweep", "Where should the threshold be?");
    if best.predictions.classes.len() != 2 {
        return Exhibit::missing(
            &slug,
            title,
            question,
            "With more than two classes the largest score decides; there is no threshold.",
        );
    }
    let curve = best.predictions.ranked(best.predictions.positive as usize).curve();
    let (p, n) = (curve.positives, curve.negatives);
    let mut table = Table::new(["threshold", "recall", "specificity", "F1", "precision", "negative predictive value"]);
    let names = ["recall", "specificity", "F1", "precision", "negative predictive value"];
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = names.iter().map(|n| ((*n).to_owned(), Vec::new())).collect();
    // Rates change only at scores: step lines, drawn from each score up to the next higher one.
    let nothing = std::iter::once((f64::INFINITY, 0, 0));
    let steps = nothing.chain(curve.steps.iter().map(|s| (s.threshold, s.tp, s.fp)));
    let mut upper = 1.0;
    for (threshold, tp, fp) in steps {
        let c = crate::metrics::Confusion { tp, fp, tn: n - fp, fn_: p - tp };
        let row = [c.recall(), c.specificity(), c.f1(), c.precision(), c.npv()];
        if threshold.is_finite() {
            let cells = row.iter().map(|v| Cell::number(*v, 4));
            table.push(std::iter::once(Cell::Number(threshold, 4)).chain(cells));
        }
        let lower = if threshold.is_finite() { threshold } else { curve.steps.first().map_or(0.0, |s| s.threshold) };
        for ((_, line), v) in lines.iter_mut().zip(row) {
            if let Some(v) = v {
                line.push((upper, v));
                line.push((lower, v));
            }
        }
        upper = lower;
    }
    // Below the smallest score every image is called positive.
    for ((_, line), v) in lines.iter_mut().zip([(p > 0).then_some(1.0), (n > 0).then_some(0.0)]) {
        if let Some(v) = v {
            line.push((0.0, v));
        }
    }
    let chart = sweep(&lines, best.threshold);
    Exhibit::new(&slug, title, question, Some(chart), table)
        .note(if evidence.set == "test" {
            "For reading only: a threshold chosen on these images would no longer be tested by them."
        } else {
            "A threshold chosen here is chosen on validation images, as it should be; its rates will be a little worse on new ones."
        })
}

fn calibration(evidence: &Evidence, best: &Entry) -> Exhibit {
    let slug = slug("calibration", evidence);
    let (title, question) = ("Reliability", "Can the score be read as a risk?");
    let binary = best.predictions.classes.len() == 2;
    let (scores, truth, what) = if binary {
        let positive = best.predictions.positive as usize;
        let (s, t) = best.predictions.versus_rest(positive);
        (s, t, best.predictions.classes[positive].clone())
    } else {
        let rows = best.predictions.rows.iter();
        let (s, t) = rows
            .map(|r| {
                let c = best.predictions.called(r, 0.5);
                (f64::from(r.scores[c]), r.label as usize == c)
            })
            .unzip();
        (s, t, "called rightly".to_owned())
    };
    let c = Calibration::new(&scores, &truth, 10);
    let bands: Vec<ReliabilityBand> =
        c.bins.iter().map(|&bin| ReliabilityBand { bin, interval: wilson(bin.positives, bin.count, 0.95) }).collect();
    let mut table = Table::new(["from", "to", "images", "positive", "mean score", "observed rate", "low", "high"]);
    for b in &bands {
        let rate = (b.bin.count > 0).then(|| b.bin.positives as f64 / b.bin.count as f64);
        table.push([
            Cell::Number(b.bin.low, 1),
            Cell::Number(b.bin.high, 1),
            b.bin.count.into(),
            b.bin.positives.into(),
            Cell::number(b.bin.mean_score, 4),
            Cell::number(rate, 4),
            Cell::number(b.interval.map(|i| i.low), 4),
            Cell::number(b.interval.map(|i| i.high), 4),
        ]);
    }
    let show = |v: Option<f64>| v.map_or("undefined".to_owned(), |v| format!("{v:.3}"));
    let chart: Chart = reliability(&bands, &what);
    Exhibit::new(&slug, title, question, Some(chart), table)
        .note(format!(
            "Brier score {}; expected calibration error {} (ten bins of equal width); logistic calibration slope {}, \
             intercept {} (ideal: 1 and 0).",
            show(best.metrics.brier),
            show(c.ece),
            show(c.slope),
            show(c.intercept)
        ))
        .note_if(
            c.slope.is_none(),
            "Slope and intercept are undefined where one class is missing or the classes are separated without error.",
        )
        .note_if(!binary, "With more than two classes: the score of the called class against how often the call is right.")
        .note("Class weights, resampling or focal loss in training shift scores away from risks; ranking is not affected.")
}

/// A model's wrong decisions, worst first: the called class, by how much its score exceeds the true class's, the image.
fn mistakes<'a>(best: &'a Entry<'_>) -> Vec<(usize, f64, &'a Prediction)> {
    let p = &best.predictions;
    let threshold = best.threshold.unwrap_or(0.5);
    let mut wrong: Vec<(usize, f64, &Prediction)> = p
        .rows
        .iter()
        .filter_map(|r| {
            let called = p.called(r, threshold);
            let truth = r.label as usize;
            (called != truth).then(|| (called, f64::from(r.scores[called]) - f64::from(r.scores[truth]), r))
        })
        .collect();
    wrong.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.2.image.cmp(&b.2.image)));
    wrong
}

/// The paths of the images that the galleries of errors may show.
pub fn pictured(record: &StudyRecord) -> BTreeSet<String> {
    let sets = [Some(Evidence::validation(record)), Evidence::test(record)];
    let mut images = BTreeSet::new();
    for best in sets.iter().flatten().filter_map(|e| e.entries.first()) {
        let mut shown: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, _, row) in mistakes(best) {
            let n = shown.entry(row.label).or_default();
            *n += 1;
            if *n <= ERRORS {
                images.insert(row.image.clone());
            }
        }
    }
    images
}

fn errors(record: &StudyRecord, evidence: &Evidence, best: &Entry) -> Exhibit {
    let slug = slug("errors", evidence);
    let (title, question) = ("The worst errors", "How does it fail?");
    let p = &best.predictions;
    let wrong = mistakes(best);
    let binary = p.classes.len() == 2;
    let kind = |truth: u32| match (binary, truth == p.positive) {
        (true, true) => "miss",
        (true, false) => "false alarm",
        (false, _) => "confusion",
    };
    let mut table = Table::new(["kind", "image", "patient", "truth", "called", "score of truth", "score of called"]);
    let mut exhibit_pictures = Vec::new();
    let mut shown = std::collections::BTreeMap::new();
    for (called, _, r) in &wrong {
        let n = shown.entry(kind(r.label)).or_insert(0usize);
        *n += 1;
        table.push([
            kind(r.label).into(),
            r.image.as_str().into(),
            r.patient.clone().map_or(Cell::Missing, Cell::from),
            p.classes[r.label as usize].as_str().into(),
            p.classes[*called].as_str().into(),
            Cell::Number(f64::from(r.scores[r.label as usize]), 3),
            Cell::Number(f64::from(r.scores[*called]), 3),
        ]);
        if *n <= ERRORS
            && let Some(png) = record.thumbnails.get(&r.image)
        {
            let truth = r.scores[r.label as usize];
            exhibit_pictures
                .push((format!("{}: {} (score of the truth {truth:.2})", kind(r.label), r.image), png.0.clone()));
        }
    }
    let counts: Vec<String> = shown.iter().map(|(kind, n)| format!("{n} × {kind}")).collect();
    let words =
        if wrong.is_empty() { "No image is called wrongly.".into() } else { counts.join(", ") + ", worst first." };
    let mut exhibit = Exhibit::new(&slug, title, question, None, table).note(words);
    exhibit.pictures = exhibit_pictures;
    exhibit
}
