//! Virtual workers: the order in which results become visible to samplers and schedulers.
//!
//! V simulated machines measure time in epochs. An issued order occupies a machine from the current simulated time for
//! as many epochs as it trains. While a machine is free the engine plans; when none is, or nothing can be planned, the
//! order with the earliest simulated finish (ties by number) retires. Only then do samplers and schedulers see its
//! outcome; the engine waits for the real result if it is not there yet. So what they see depends on the orders issued
//! and their outcomes, never on which real worker was faster.

use crate::ids::OrderId;
use std::collections::{BTreeMap, BTreeSet};

/// How many machines are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slots {
    /// No algorithm looks at results: orders retire as they finish.
    Blind,
    /// No limit. For synchronous halving: its promotions do not depend on which trial is faster, so results need a
    /// fixed order, but the number of open orders needs no bound.
    Endless,
    /// This many.
    Some(usize),
}

/// The simulated machines.
#[derive(Clone, Debug)]
pub(super) struct VirtualWorkers {
    slots: Slots,
    now: u64,
    /// Orders of a known length, by simulated finish.
    fixed: BTreeSet<(u64, OrderId)>,
    /// Orders that may stop early, with their simulated start.
    open_ended: BTreeMap<OrderId, u64>,
}

/// How long an order that may stop early takes, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It ended after this many epochs.
    Ended(u32),
    /// It takes at least this many epochs.
    AtLeast(u32),
}

impl VirtualWorkers {
    /// `slots` machines, all free.
    pub(super) fn new(slots: Slots) -> Self {
        Self { slots, now: 0, fixed: BTreeSet::new(), open_ended: BTreeMap::new() }
    }

    pub(super) fn is_free(&self) -> bool {
        match self.slots {
            Slots::Blind | Slots::Endless => true,
            Slots::Some(slots) => self.fixed.len() + self.open_ended.len() < slots,
        }
    }

    /// Whether orders retire as they finish.
    pub(super) fn is_blind(&self) -> bool {
        self.slots == Slots::Blind
    }

    /// Puts an order of `length` epochs on a machine.
    pub(super) fn fill(&mut self, order: OrderId, length: u32, may_stop: bool) {
        if self.is_blind() {
        } else if may_stop {
            self.open_ended.insert(order, self.now);
        } else {
            self.fixed.insert((self.now + u64::from(length), order));
        }
    }

    /// Retires the order that finishes first in simulated time and frees its machine; `None` while its result is not
    /// known, or when nothing is under way.
    ///
    /// The finish of an order that may stop early has a lower bound, which grows with every epoch it reports. No order
    /// retires while another one could still finish before it.
    pub(super) fn retire(
        &mut self,
        is_finished: impl Fn(OrderId) -> bool,
        progress: impl Fn(OrderId) -> Progress,
    ) -> Option<OrderId> {
        let ends = self.open_ended.iter().map(|(&order, &start)| match progress(order) {
            Progress::Ended(epochs) => (start + u64::from(epochs), order, true),
            Progress::AtLeast(epochs) => (start + u64::from(epochs), order, false),
        });
        let open_ended = ends.min();
        let fixed = self.fixed.first().map(|&(finish, order)| (finish, order, is_finished(order)));
        let first = match (open_ended, fixed) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let (finish, order, true) = first? else { return None };
        self.now = finish;
        if self.open_ended.remove(&order).is_none() {
            self.fixed.remove(&(finish, order));
        }
        Some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_retire_by_simulated_finish_and_wait_for_the_real_one() {
        let mut workers = VirtualWorkers::new(Slots::Some(3));
        workers.fill(OrderId(0), 9, false);
        workers.fill(OrderId(1), 3, false);
        workers.fill(OrderId(2), 3, false);
        assert!(!workers.is_free());
        let never = |_| -> Progress { unreachable!("no order may stop early") };
        assert_eq!(workers.retire(|order| order == OrderId(2), never), None);
        assert_eq!(workers.retire(|_| true, never), Some(OrderId(1)));
        assert_eq!(workers.retire(|_| true, never), Some(OrderId(2)));
        workers.fill(OrderId(3), 6, false);
        assert_eq!(workers.retire(|_| true, never), Some(OrderId(0)));
        assert_eq!(workers.retire(|_| true, never), Some(OrderId(3)));
        assert_eq!(workers.retire(|_| true, never), None);
    }

    #[test]
    fn an_order_that_could_still_stop_earlier_is_waited_for() {
        let mut workers = VirtualWorkers::new(Slots::Some(2));
        workers.fill(OrderId(0), 10, true);
        workers.fill(OrderId(1), 4, true);
        let at = |first: Progress| move |order| if order == OrderId(0) { first } else { Progress::Ended(4) };
        assert_eq!(workers.clone().retire(|_| false, at(Progress::AtLeast(4))), None);
        assert_eq!(workers.clone().retire(|_| false, at(Progress::AtLeast(5))), Some(OrderId(1)));
        assert_eq!(workers.retire(|_| false, at(Progress::Ended(3))), Some(OrderId(0)));
    }
}
