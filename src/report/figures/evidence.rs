//! The finalists' predictions and everything computed from them once.

use crate::ids::TrialNumber;
use crate::metrics::{Curve, Metrics, Predictions, Ranked, constrained, evaluate, threshold_at};
use crate::report::model::StudyRecord;
use crate::spec::Metric;
use crate::stats::{Delong, Interval, Resampling, percentile_interval, wilson};
use crate::wording::listed;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Draws of every bootstrap over images.
pub const DRAWS: usize = 2000;

/// Whose scores are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// A finalist's.
    Trial(TrialNumber),
    /// The means of so many finalists' scores: of all that were opened, or are shown.
    Mean(usize),
}

impl Model {
    /// The trial, if it is one.
    pub fn trial(self) -> Option<TrialNumber> {
        match self {
            Self::Trial(trial) => Some(trial),
            Self::Mean(_) => None,
        }
    }

    /// Its name where trials are called by their numbers.
    pub fn short(self) -> String {
        match self {
            Self::Trial(trial) => trial.to_string(),
            Self::Mean(n) => format!("mean of {n}"),
        }
    }
}

/// The model's name in charts and tables.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trial(trial) => write!(f, "trial {trial}"),
            Self::Mean(n) => write!(f, "mean of {n}"),
        }
    }
}

/// A finalist's predictions on a set of images, or the mean of all finalists', with their metrics.
pub struct Entry<'a> {
    /// Whose.
    pub model: Model,
    /// Its predictions.
    pub predictions: Cow<'a, Predictions>,
    /// Its threshold, fixed on validation.
    pub threshold: Option<f64>,
    /// Its metrics at the threshold (at 0.5 where none could be fixed).
    pub metrics: Metrics,
    /// Intervals of recall, F1, ROC-AUC, average precision, specificity and precision.
    pub intervals: [Option<Interval>; 6],
}

impl Entry<'_> {
    /// The metrics with their intervals, by name.
    pub fn figures(&self) -> [(&'static str, Option<f64>, Option<Interval>); 6] {
        let m = &self.metrics;
        let [recall, f1, roc_auc, pr_auc, specificity, precision] = self.intervals;
        [
            ("recall", m.recall, recall),
            ("specificity", m.specificity, specificity),
            ("precision", m.precision, precision),
            ("f1", m.f1, f1),
            ("roc_auc", m.roc_auc, roc_auc),
            ("pr_auc", m.pr_auc, pr_auc),
        ]
    }

    /// The objective on these images: metrics with a threshold at the one fixed on validation images, while constrained
    /// ones choose theirs anew on any images.
    pub fn objective(&self, metric: &Metric) -> Option<f64> {
        self.metrics.get(metric).or_else(|| constrained(&self.predictions, metric))
    }

    /// The 95 % interval of the objective; `None` where it has none.
    pub fn interval(&self, metric: &Metric, seed: u64) -> Option<Interval> {
        match metric {
            Metric::Recall => self.intervals[0],
            Metric::F1 => self.intervals[1],
            Metric::RocAuc => self.intervals[2],
            Metric::PrAuc => self.intervals[3],
            Metric::Specificity => self.intervals[4],
            Metric::Precision => self.intervals[5],
            Metric::RecallAtSpecificity(_) | Metric::SpecificityAtRecall(_) | Metric::PrecisionAtRecall(_) => {
                self.constrained_interval(metric, seed)
            }
            _ => None,
        }
    }

    /// The bootstrap's interval of a constrained metric: every draw chooses its own threshold, so the choice is part of the
    /// spread.
    fn constrained_interval(&self, metric: &Metric, seed: u64) -> Option<Interval> {
        let classes = classes_of(&self.predictions);
        let ranked: Vec<Ranked> = classes.into_iter().map(|c| self.predictions.ranked(c)).collect();
        let draws = resampling(&self.predictions).run(seed, 0, DRAWS, |times| {
            let parts = ranked.iter().map(|r| r.resampled(times).constrained(metric));
            parts.sum::<Option<f64>>().map(|sum| sum / ranked.len() as f64)
        });
        // As with other figures, an interval without width would claim certainty.
        percentile_interval(&draws, 0.95).filter(|interval| interval.high - interval.low > 1e-12)
    }
}

/// The finalists on one set of images.
pub struct Evidence<'a> {
    /// `validation` or `test`.
    pub set: &'static str,
    /// The finalists, best on validation first, then the mean of several.
    pub entries: Vec<Entry<'a>>,
    /// Whether whole patients were resampled.
    pub clustered: bool,
}

impl<'a> Evidence<'a> {
    /// The validation images.
    pub fn validation(record: &'a StudyRecord) -> Self {
        let at = |p: &Predictions| threshold_at(p, &record.spec.objective.operating_point);
        let finalists = record.finalists.iter();
        let mut models: Vec<Judged<'a>> =
            finalists.map(|f| (Model::Trial(f.trial), Cow::Borrowed(&f.validation), at(&f.validation))).collect();
        models
            .extend(mean_on_validation(record).map(|(n, mean)| (Model::Mean(n), Cow::Owned(mean.clone()), at(&mean))));
        Self::new("validation", models, record.spec.seed)
    }

    /// The test images, if they were opened.
    pub fn test(record: &'a StudyRecord) -> Option<Self> {
        let opening = record.test.as_ref()?;
        let results = &opening.results;
        let mut models: Vec<Judged<'a>> =
            results.iter().map(|r| (Model::Trial(r.trial), Cow::Borrowed(&r.predictions), r.threshold)).collect();
        let sound = results.len() > 1 && results.iter().all(|r| r.predictions.check().is_ok());
        let mean = || Predictions::mean(&results.iter().map(|r| &r.predictions).collect::<Vec<_>>());
        if let (Some(fixed), Some(mean)) = (opening.mean, sound.then(mean).flatten()) {
            models.push((Model::Mean(results.len()), Cow::Owned(mean), fixed.threshold));
        }
        Some(Self::new("test", models, record.spec.seed))
    }

    /// Why there are no figures of a trial on the test images, a sentence; `None` before they are opened.
    pub fn why_not_tested(record: &StudyRecord, trial: TrialNumber) -> Option<String> {
        let results = &record.test.as_ref()?.results;
        Some(match results.as_slice() {
            [] => "The opening of the test images was interrupted: it has no results.".to_owned(),
            _ if results.iter().any(|r| r.trial == trial) => {
                format!("Trial {trial} was tested, but its test predictions are gone or cannot be used.")
            }
            _ => format!(
                "Trial {trial} was not tested: the test images were opened once, for trial{} {}.",
                if results.len() > 1 { "s" } else { "" },
                listed(results.iter().map(|r| r.trial))
            ),
        })
    }

    fn new(set: &'static str, models: Vec<Judged<'a>>, seed: u64) -> Self {
        let mut clustered = false;
        let entries = models
            .into_iter()
            .filter(|(_, p, _)| p.check().is_ok() && !p.rows.is_empty())
            .map(|(model, predictions, threshold)| {
                let at = threshold.unwrap_or(0.5);
                let metrics = evaluate(&predictions, at);
                let resampling = resampling(&predictions);
                clustered = resampling.clustered();
                let intervals = intervals(&predictions, at, &metrics, &resampling, seed);
                Entry { model, predictions, threshold, metrics, intervals }
            })
            .collect();
        Self { set, entries, clustered }
    }

    /// The entry of a trial, or of the mean.
    pub fn of(&self, model: Model) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.model == model)
    }

    /// How the intervals were made, for captions.
    pub fn method(&self) -> String {
        let unit = if self.clustered { "whole patients" } else { "images" };
        format!("Intervals are 95 %, from {DRAWS} bootstrap draws of {unit}, stratified by class.")
    }

    /// The finalists' areas under the ROC curve with their covariance; `None` unless there are two classes and all
    /// finalists have the same images. Patients are ignored.
    pub fn delong(&self) -> Option<Delong> {
        let first = self.entries.first()?;
        if first.predictions.classes.len() != 2
            || self.entries.iter().any(|e| !e.predictions.same_images(&first.predictions))
        {
            return None;
        }
        let class = first.predictions.positive as usize;
        let scores: Vec<Vec<f64>> = self.entries.iter().map(|e| e.predictions.versus_rest(class).0).collect();
        Delong::new(&scores, &first.predictions.versus_rest(class).1).ok()
    }
}

/// A model's predictions on some images, and its threshold.
type Judged<'a> = (Model, Cow<'a, Predictions>, Option<f64>);

/// The mean of the finalists' scores on the validation images, and of how many: of those that were opened on the test images,
/// of all before that. `None` for a single one, or if predictions are gone.
fn mean_on_validation(record: &StudyRecord) -> Option<(usize, Predictions)> {
    let opened: Option<Vec<TrialNumber>> = record.test.as_ref().map(|t| t.results.iter().map(|r| r.trial).collect());
    let finalists = record.finalists.iter();
    let members: Vec<&Predictions> =
        finalists.filter(|f| opened.as_ref().is_none_or(|o| o.contains(&f.trial))).map(|f| &f.validation).collect();
    let whole = opened.is_none_or(|opened| opened.len() == members.len());
    if members.len() < 2 || !whole || members.iter().any(|p| p.check().is_err()) {
        return None;
    }
    Some((members.len(), Predictions::mean(&members)?))
}

/// How some predictions are resampled: by whole patients where any is known, stratified by class.
pub fn resampling(predictions: &Predictions) -> Resampling {
    let labels: Vec<u32> = predictions.rows.iter().map(|r| r.label).collect();
    let patients: Vec<Option<&str>> = predictions.rows.iter().map(|r| r.patient.as_deref()).collect();
    Resampling::by_patient(&labels, &patients)
}

/// The classes over which metrics are averaged: the positive one of two, else all.
pub fn classes_of(predictions: &Predictions) -> Vec<usize> {
    match predictions.classes.len() {
        2 => vec![predictions.positive as usize],
        k => (0..k).collect(),
    }
}

/// The pointwise 95 % band (x, low, high) of a curve's height over a grid, by the bootstrap.
pub fn band(
    predictions: &Predictions,
    seed: u64,
    grid: &[f64],
    height: impl Fn(&Curve, f64) -> Option<f64> + Sync,
) -> Vec<(f64, f64, f64)> {
    let ranked = predictions.ranked(predictions.positive as usize);
    let draws: Vec<Vec<Option<f64>>> = resampling(predictions).run(seed, 0, DRAWS, |times| {
        let curve = ranked.resampled(times);
        grid.iter().map(|&x| height(&curve, x)).collect()
    });
    grid.iter()
        .enumerate()
        .filter_map(|(i, &x)| {
            let column: Vec<Option<f64>> = draws.iter().map(|d| d[i]).collect();
            percentile_interval(&column, 0.95).map(|i| (x, i.low, i.high))
        })
        .collect()
}

/// Bootstrap draws of recall, F1, ROC-AUC, average precision, specificity and precision. Draws of models on the same
/// images with the same `resampling` and seed are paired: their differences are draws of the difference.
pub fn draws(p: &Predictions, threshold: f64, resampling: &Resampling, seed: u64) -> Vec<[Option<f64>; 6]> {
    let classes = classes_of(p);
    let ranked: Vec<Ranked> = classes.iter().map(|&c| p.ranked(c)).collect();
    let (called, labels) = decisions(p, threshold);
    let k = p.classes.len();
    let mean = |parts: Vec<Option<f64>>| -> Option<f64> {
        let n = parts.len() as f64;
        parts.into_iter().sum::<Option<f64>>().map(|s| s / n)
    };
    resampling.run(seed, 0, DRAWS, |times| {
        // For each class: true positives, images of the class, images called so.
        let (mut hit, mut truth, mut call) = (vec![0u64; k], vec![0u64; k], vec![0u64; k]);
        for ((&t, &c), &l) in times.iter().zip(&called).zip(&labels) {
            let t = u64::from(t);
            truth[l] += t;
            call[c] += t;
            if c == l {
                hit[l] += t;
            }
        }
        let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
        let all: u64 = truth.iter().sum();
        let curves: Vec<Curve> = ranked.iter().map(|r| r.resampled(times)).collect();
        [
            mean(classes.iter().map(|&c| ratio(hit[c], truth[c])).collect()),
            mean(classes.iter().map(|&c| ratio(2 * hit[c], truth[c] + call[c])).collect()),
            mean(curves.iter().map(Curve::roc_auc).collect()),
            mean(curves.iter().map(Curve::average_precision).collect()),
            mean(classes.iter().map(|&c| ratio(all + hit[c] - truth[c] - call[c], all - truth[c])).collect()),
            mean(classes.iter().map(|&c| ratio(hit[c], call[c])).collect()),
        ]
    })
}

/// The called class of every image, and the true one.
fn decisions(p: &Predictions, threshold: f64) -> (Vec<usize>, Vec<usize>) {
    p.rows.iter().map(|r| (p.called(r, threshold), r.label as usize)).unzip()
}

fn intervals(
    p: &Predictions,
    threshold: f64,
    metrics: &Metrics,
    resampling: &Resampling,
    seed: u64,
) -> [Option<Interval>; 6] {
    let classes = classes_of(p);
    let (called, labels) = decisions(p, threshold);
    let k = p.classes.len();
    let draws = draws(p, threshold, resampling, seed);
    let estimates =
        [metrics.recall, metrics.f1, metrics.roc_auc, metrics.pr_auc, metrics.specificity, metrics.precision];
    let mut out = [None; 6];
    for (i, slot) in out.iter_mut().enumerate() {
        let column: Vec<Option<f64>> = draws.iter().map(|d| d[i]).collect();
        // A metric of exactly 0 or 1 never varies under resampling; an interval without width would claim certainty.
        *slot = estimates[i]
            .and_then(|_| percentile_interval(&column, 0.95))
            .filter(|interval| interval.high - interval.low > 1e-12);
    }
    if k == 2 {
        let c = classes[0];
        let count = |of: &dyn Fn(usize, usize) -> bool| {
            labels.iter().zip(&called).filter(|(l, called)| of(**l, **called)).count() as u64
        };
        let (hits, rejections) = (count(&|l, called| l == c && called == c), count(&|l, called| l != c && called != c));
        let shares = [
            (0, metrics.recall, hits, count(&|l, _| l == c)),
            (4, metrics.specificity, rejections, count(&|l, _| l != c)),
            (5, metrics.precision, hits, count(&|_, called| called == c)),
        ];
        for (slot, value, hits, n) in shares {
            if out[slot].is_none() && value.is_some() {
                out[slot] = wilson(hits, n, 0.95);
            }
        }
    }
    out
}
