//! Members of a rung.

use super::score::Ranked;
use std::collections::BTreeSet;

/// The members of one rung of one bracket.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    /// Number of orders issued to reach it.
    pub entered: u32,
    /// Number of trials that failed on the way.
    pub failed: u32,
    /// Trials that arrived, best first.
    finished: Vec<Ranked>,
    /// Trials that arrived and were not promoted.
    pub(super) waiting: BTreeSet<Ranked>,
}

impl Rung {
    /// The number of members whose result is known, including failed ones.
    pub fn known(&self) -> u32 {
        self.finished.len() as u32 + self.failed
    }

    /// Trials that arrived, best first.
    pub fn finished(&self) -> &[Ranked] {
        &self.finished
    }

    /// The best member that was not promoted, with its place among all (0 is best).
    pub fn best_waiting(&self) -> Option<(Ranked, u32)> {
        self.waiting.first().map(|&r| (r, self.place(&r)))
    }

    /// How many arrived members are better.
    pub fn place(&self, ranked: &Ranked) -> u32 {
        self.finished.partition_point(|other| other < ranked) as u32
    }

    pub(super) fn arrive(&mut self, ranked: Ranked) {
        let at = self.finished.partition_point(|other| *other < ranked);
        self.finished.insert(at, ranked);
        self.waiting.insert(ranked);
    }
}
