//! Several studies side by side: what they found, what they spent, and whether their best trials differ.

mod page;

pub use super::figures::Point;
pub use page::write;

use super::figures::{self, Entry, Evidence, Model};
use super::model::{StudyRecord, TrialRecord};
use crate::digest::Digest;
use crate::engine::TrialState;
use crate::ids::TrialNumber;
use crate::stats::{Delong, Interval, holm, percentile_interval};
use serde::Serialize;

/// A study to compare.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called here: its name, or its name and folder where names are equal.
    pub label: String,
    /// Its record, with the best trial as a finalist.
    pub record: StudyRecord,
    /// Digest of its images and their split, if any are on record.
    pub images: Option<Digest>,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The studies, in the order given.
    pub studies: Vec<Summary>,
    /// Why values of the studies cannot be compared: a sentence for each study with another objective than the first.
    pub incomparable: Vec<String>,
    /// Every pair of studies: their best trials on the validation images.
    pub pairs: Vec<Pair>,
}

/// What a study found and spent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub study: String,
    pub metric: String,
    pub direction: crate::spec::Direction,
    pub trials: usize,
    pub complete: usize,
    pub failed: usize,
    /// Epochs on record.
    pub epochs: usize,
    /// Hours of these epochs.
    pub trained_hours: f64,
    /// Hours from the first attempt to the latest report, pauses included.
    pub elapsed_hours: f64,
    /// The first of the ranking.
    pub best: Option<Best>,
    /// How its best value rose.
    pub course: Vec<Point>,
    pub images: Option<Digest>,
    /// Whether its objective is that of the first study.
    pub comparable: bool,
}

/// The first trial of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Best {
    pub trial: TrialNumber,
    pub value: f64,
    pub epochs: u32,
}

/// Two studies' best trials on the same images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The first study.
    pub a: String,
    /// The second study.
    pub b: String,
    /// Images they share; 0 if they cannot be compared.
    pub images: usize,
    /// Figures of `a` minus those of `b`.
    pub differences: Vec<Difference>,
    /// Why they cannot be compared, a sentence without full stop.
    pub refused: Option<String>,
}

/// A figure of one best trial minus that of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub metric: &'static str,
    /// `None` where the figure is undefined for one of them.
    pub difference: Option<f64>,
    /// 95 %, by the paired bootstrap; `None` where no draw differs.
    pub interval: Option<Interval>,
    /// Two-sided p of DeLong's test, Holm-adjusted for all pairs; only for ROC-AUC with two classes and independent
    /// images.
    pub p: Option<f64>,
}

impl Summary {
    fn new(side: &Side, first: &StudyRecord) -> Self {
        let record = &side.record;
        let count = |state| record.trials.iter().filter(|t| t.state == state).count();
        let epochs = || record.trials.iter().flat_map(|t| &t.epochs);
        let objective = &record.spec.objective;
        let attempts = || record.orders.iter().flat_map(|o| &o.attempts);
        let start = attempts().map(|a| a.started_ms).min();
        let end = epochs().map(|e| e.unix_ms).max();
        let elapsed = start.zip(end).map_or(0, |(start, end)| end.saturating_sub(start));
        Self {
            study: side.label.clone(),
            metric: objective.metric.to_string(),
            direction: objective.direction,
            trials: record.trials.len(),
            complete: count(TrialState::Complete),
            failed: count(TrialState::Failed),
            epochs: epochs().count(),
            trained_hours: epochs().map(|e| e.seconds).sum::<f64>() / 3600.0,
            elapsed_hours: elapsed as f64 / 3.6e6,
            best: best(record).map(|(trial, value)| Best { trial: trial.number, value, epochs: trial.latest().0 }),
            course: figures::course(record).unwrap_or_default(),
            images: side.images,
            comparable: objective.metric == first.spec.objective.metric
                && objective.direction == first.spec.objective.direction,
        }
    }

    /// The best value after some effort: of all points for which `within` holds.
    pub fn best_within(&self, within: impl Fn(&Point) -> bool) -> Option<f64> {
        self.course.iter().take_while(|point| within(point)).last().map(|point| point.best)
    }
}

fn best(record: &StudyRecord) -> Option<(&TrialRecord, f64)> {
    record.ranking().first().and_then(|trial| Some((*trial, trial.value?)))
}

/// Compares studies.
pub fn compare(sides: &[Side]) -> Comparison {
    let Some(first) = sides.first() else {
        return Comparison { studies: Vec::new(), incomparable: Vec::new(), pairs: Vec::new() };
    };
    let studies: Vec<Summary> = sides.iter().map(|side| Summary::new(side, &first.record)).collect();
    let incomparable = studies.iter().filter(|study| !study.comparable).map(|study| {
        format!(
            "Study {} seeks the {} of {}, study {} the {} of {}: their values are not compared.",
            study.study,
            extreme(study.direction),
            study.metric,
            studies[0].study,
            extreme(studies[0].direction),
            studies[0].metric
        )
    });
    let incomparable = incomparable.collect();
    let evidence: Vec<Evidence<'_>> = sides.iter().map(|side| Evidence::validation(&side.record)).collect();
    let mut pairs = Vec::new();
    for a in 0..sides.len() {
        for b in a + 1..sides.len() {
            pairs.push(pair((&sides[a], &evidence[a]), (&sides[b], &evidence[b]), first.record.spec.seed));
        }
    }
    adjust(&mut pairs);
    Comparison { studies, incomparable, pairs }
}

/// What a study seeks of its metric.
pub fn extreme(direction: crate::spec::Direction) -> &'static str {
    match direction {
        crate::spec::Direction::Maximize => "largest value",
        crate::spec::Direction::Minimize => "smallest value",
    }
}

fn pair(a: (&Side, &Evidence<'_>), b: (&Side, &Evidence<'_>), seed: u64) -> Pair {
    let (images, differences, refused) = match same_images(a.0, b.0).and_then(|()| {
        let (ours, theirs) = (finalist(a.0, a.1)?, finalist(b.0, b.1)?);
        if ours.predictions.same_images(&theirs.predictions) {
            Ok((ours, theirs))
        } else {
            Err("the predictions of their best trials are of other images, or in other classes".to_owned())
        }
    }) {
        Ok((ours, theirs)) => (ours.predictions.rows.len(), differences(ours, theirs, seed), None),
        Err(why) => (0, Vec::new(), Some(why)),
    };
    Pair { a: a.0.label.clone(), b: b.0.label.clone(), images, differences, refused }
}

/// Whether two studies have the same images on record, split alike.
fn same_images(a: &Side, b: &Side) -> Result<(), String> {
    let digest = |side: &Side| side.images.ok_or_else(|| format!("study {} has no images on record", side.label));
    let (ours, theirs) = (digest(a)?, digest(b)?);
    if ours == theirs {
        return Ok(());
    }
    Err(format!("their images or splits differ ({} and {})", ours.short(), theirs.short()))
}

/// The best trial with its predictions.
fn finalist<'a>(side: &Side, evidence: &'a Evidence<'a>) -> Result<&'a Entry<'a>, String> {
    let (best, _) = best(&side.record).ok_or(format!("no trial of study {} has a value", side.label))?;
    let own = evidence.of(Model::Trial(best.number));
    own.ok_or(format!("the predictions of trial {}, the best of study {}, are gone", best.number, side.label))
}

fn differences(a: &Entry<'_>, b: &Entry<'_>, seed: u64) -> Vec<Difference> {
    let resampling = figures::resampling(&a.predictions);
    let draws = |e: &Entry<'_>| figures::draws(&e.predictions, e.threshold.unwrap_or(0.5), &resampling, seed);
    let (ours, theirs) = (draws(a), draws(b));
    let of = |metric, place: usize, x: Option<f64>, y: Option<f64>| {
        let column: Vec<Option<f64>> = ours.iter().zip(&theirs).map(|(a, b)| Some(a[place]? - b[place]?)).collect();
        let interval = percentile_interval(&column, 0.95).filter(|i| i.high - i.low > 1e-12);
        let difference = x.zip(y).map(|(x, y)| x - y);
        Difference { metric, difference, interval: interval.filter(|_| difference.is_some()), p: None }
    };
    let (x, y) = (&a.metrics, &b.metrics);
    let mut found = vec![
        of("ROC-AUC", 2, x.roc_auc, y.roc_auc),
        of("recall", 0, x.recall, y.recall),
        of("F1", 1, x.f1, y.f1),
        of("average precision", 3, x.pr_auc, y.pr_auc),
    ];
    if a.predictions.classes.len() == 2 && !resampling.clustered() {
        let class = a.predictions.positive as usize;
        let (scores, positive) = a.predictions.versus_rest(class);
        let delong = Delong::new(&[scores, b.predictions.versus_rest(class).0], &positive);
        found[0].p = delong.ok().and_then(|delong| delong.test(0, 1)).map(|(_, p)| p);
    }
    found
}

/// Adjusts the p-values of all pairs together.
fn adjust(pairs: &mut [Pair]) {
    let mut tested: Vec<&mut f64> =
        pairs.iter_mut().flat_map(|pair| &mut pair.differences).filter_map(|d| d.p.as_mut()).collect();
    let adjusted = holm(&tested.iter().map(|p| **p).collect::<Vec<_>>());
    tested.iter_mut().zip(adjusted).for_each(|(p, adjusted)| **p = adjusted);
}
