//! Trials as samplers see them.

use crate::ids::{Epoch, TrialNumber};
use crate::space::Params;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A trial as samplers see it.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Its configuration.
    pub params: Arc<Params>,
    /// Epochs done by retired orders; 0: nothing is known yet.
    pub epoch: Epoch,
    /// The objective there; `None` when failed or unknown.
    pub value: Option<f64>,
    /// It failed.
    pub failed: bool,
    /// One of its orders is issued and not retired.
    pub pending: bool,
}

/// The result of a trial of an earlier study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierResult {
    /// Its number in that study.
    pub trial: TrialNumber,
    /// Its configuration, in the form of this study's space.
    pub params: Params,
    /// How long it was trained, in epochs of this study.
    pub epoch: Epoch,
    /// The objective there.
    pub value: f64,
}
