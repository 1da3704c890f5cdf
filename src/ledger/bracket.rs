//! Brackets of successive halving.

/// One bracket of successive halving: seats and epochs of its rungs, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bracket {
    /// Trials that may enter each rung.
    pub seats: Vec<u32>,
    /// Epochs done at each rung, strictly rising; the last is the full number.
    pub epochs: Vec<u32>,
}
