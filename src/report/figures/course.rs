//! How a search's best value rose with the effort spent.

use crate::engine::TrialState;
use crate::ids::TrialNumber;
use crate::ledger::Score;
use crate::report::model::StudyRecord;
use crate::spec::Direction;
use serde::Serialize;

/// What counts in [`course`], for captions.
pub const HOW_COUNTED: &str = "A trial counts when its latest epoch was on record, with the value of that epoch. Hours \
                               include pauses between runs.";

/// A measured trial, when its latest epoch was on record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Trials measured so far.
    pub trials: u64,
    /// Epochs trained so far, by all trials that did not fail.
    pub epochs: u64,
    /// Hours since the first attempt.
    pub hours: f64,
    /// Which trial.
    pub trial: TrialNumber,
    /// Its value.
    pub value: f64,
    /// The best value so far.
    pub best: f64,
}

/// A finished epoch.
struct Moment {
    trial: TrialNumber,
    unix_ms: u64,
    last: bool,
    value: Option<f64>,
}

/// The trials of a study in the order in which they were measured, failed ones left out.
///
/// # Errors
/// In words, if there is none.
pub fn course(record: &StudyRecord) -> Result<Vec<Point>, &'static str> {
    let trials = record.trials.iter().filter(|t| t.state != TrialState::Failed);
    let epochs = trials.map(|t| (t.number, t.epochs.iter().map(|e| (e.unix_ms, e.value))));
    let started = record.orders.iter().flat_map(|o| &o.attempts).map(|a| a.started_ms).min();
    course_of(epochs, started, record.spec.objective.direction)
}

/// As `course`, of the epochs of trials that did not fail: when each was on record, in milliseconds since 1970, and its
/// value. `started`: the beginning of the first attempt.
///
/// # Errors
/// In words, if there is none.
pub fn course_of<E: ExactSizeIterator<Item = (u64, Option<f64>)>>(
    trials: impl Iterator<Item = (TrialNumber, E)>,
    started: Option<u64>,
    direction: Direction,
) -> Result<Vec<Point>, &'static str> {
    let mut moments: Vec<Moment> = Vec::new();
    for (trial, epochs) in trials {
        let n = epochs.len();
        moments.extend(epochs.enumerate().map(|(i, (unix_ms, value))| Moment {
            trial,
            unix_ms,
            last: i + 1 == n,
            value: value.filter(|v| v.is_finite()),
        }));
    }
    moments.sort_by_key(|m| (m.unix_ms, m.trial));
    let first = moments.first().ok_or("No epoch is finished yet.")?.unix_ms;
    let start = started.unwrap_or(first).min(first);
    let mut points: Vec<Point> = Vec::new();
    for (epochs, m) in (1..).zip(&moments).filter(|(_, m)| m.last) {
        let Some(value) = m.value else { continue };
        let better = |a: f64, b: f64| Score::new(direction, Some(a)) < Score::new(direction, Some(b));
        let best = points.last().map_or(value, |p| if better(value, p.best) { value } else { p.best });
        let hours = m.unix_ms.saturating_sub(start) as f64 / 3.6e6;
        points.push(Point { trials: points.len() as u64 + 1, epochs, hours, trial: m.trial, value, best });
    }
    if points.is_empty() { Err("No epoch has a defined value yet.") } else { Ok(points) }
}
