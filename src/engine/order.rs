//! Virtual workers: in which order results become visible to algorithms.
//!
//! V simulated machines count their time in epochs. An issued order fills a slot from the simulated now for as many
//! epochs as it trains. While a slot is free the engine plans; when none is, or nothing can be planned, the order
//! with the earliest simulated finish (ties by number) retires, and only then do algorithms see its outcome; the
//! engine waits for the real result if need be. So what algorithms see depends on what was issued and on outcomes,
//! never on which real worker was faster.

use crate::ids::OrderId;
use std::collections::BTreeMap;

/// The simulated machines.
#[derive(Clone, Debug)]
pub(super) struct VirtualWorkers {
    slots: usize,
    now: u64,
    busy: BTreeMap<OrderId, u64>,
}

/// How long a busy order takes, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duration {
    /// It is finished and took this many epochs.
    Known(u32),
    /// It takes at least this many.
    AtLeast(u32),
}

impl VirtualWorkers {
    /// `slots` machines, all free. `usize::MAX` where no algorithm looks at results.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, now: 0, busy: BTreeMap::new() }
    }

    pub(super) fn is_free(&self) -> bool {
        self.busy.len() < self.slots
    }

    /// Whether results retire as they arrive, because nothing looks at them.
    pub(super) fn is_unbounded(&self) -> bool {
        self.slots == usize::MAX
    }

    pub(super) fn fill(&mut self, order: OrderId) {
        self.busy.insert(order, self.now);
    }

    /// Frees the slot of `order` out of turn; only where nothing looks at results.
    pub(super) fn free(&mut self, order: OrderId) {
        self.busy.remove(&order);
    }

    /// The order that finishes first in simulated time, freed, if its result is known; `Err` with the order that is
    /// waited for, or with `None` when nothing is busy.
    ///
    /// An order that may stop early is known by a lower bound that grows with every epoch it reports, so the choice
    /// never hangs on a result that could still come in earlier.
    pub(super) fn retire(&mut self, duration: impl Fn(OrderId) -> Duration) -> Result<OrderId, Option<OrderId>> {
        let first = self.busy.iter().map(|(&order, &start)| {
            let duration = duration(order);
            let (Duration::Known(epochs) | Duration::AtLeast(epochs)) = duration;
            (start + u64::from(epochs), order, duration)
        });
        match first.min_by_key(|&(finish, order, _)| (finish, order)) {
            None => Err(None),
            Some((_, order, Duration::AtLeast(_))) => Err(Some(order)),
            Some((finish, order, Duration::Known(_))) => {
                self.now = finish;
                self.busy.remove(&order);
                Ok(order)
            }
        }
    }
}
