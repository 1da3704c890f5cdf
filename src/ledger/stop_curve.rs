//! Thresholds of early stopping.

use crate::ids::Epoch;
use crate::spec::Direction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Per epoch, the value that a trial must reach (in the study's direction) to continue. Part of the order, so that the
/// decision is on record and the same wherever it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StopCurve(pub BTreeMap<Epoch, f64>);

impl StopCurve {
    /// Whether a trial stops after `epoch`, its best value so far being `best` (`None`: none is finite).
    pub fn stops(&self, direction: Direction, epoch: Epoch, best: Option<f64>) -> bool {
        self.0.get(&epoch).is_some_and(|&threshold| match (best, direction) {
            (None, _) => true,
            (Some(best), Direction::Maximize) => best < threshold,
            (Some(best), Direction::Minimize) => best > threshold,
        })
    }
}
