//! What to do next.

use super::state::Decision;
use super::{Engine, WorkOrder};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::sampler::{Costs, Exhausted};
use crate::scheduler::Next;
use crate::space::Params;

/// What to do next, given the events applied so far.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Record this order as issued; it may then be trained.
    Issue(WorkOrder),
    /// Nothing to issue until an open order reports or finishes.
    Wait,
    /// Nothing left to do, as things stand.
    Done(DoneReason),
}

/// Why a study has nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneReason {
    /// Every planned trial has its outcome.
    Complete,
    /// Fewer trials than planned: every configuration of the space was tried.
    SpaceExhausted,
    /// The next order does not fit into the budget of epochs.
    EpochBudget,
    /// The next order does not fit into the budget of work.
    WorkBudget,
    /// As many trials failed as the study allows. Open orders may remain.
    FailureLimit,
}

impl Engine {
    /// What to do next. Pure: the same answer until another event is applied.
    ///
    /// Ask when a worker is idle and no open order awaits one: where no algorithm uses results, all orders of the study
    /// could otherwise be issued at once.
    pub fn plan(&self) -> Plan {
        if self.has_failed_enough() {
            return Plan::Done(DoneReason::FailureLimit);
        }
        let Some((trial, from, to, bracket, rung, stop)) = self.decision(&self.next) else {
            return self.wait_or(self.why_idle());
        };
        let cost = u64::from(to.0 - from.0);
        if self.spec.budget.epochs.is_some_and(|budget| self.charged + cost > budget) {
            // An open order that stops early frees the rest of its epochs.
            return self.wait_or(DoneReason::EpochBudget);
        }
        let params = match self.trials.get(trial.0 as usize) {
            Some(trial) => (*trial.params).clone(),
            None => match self.queue.front() {
                Some(params) => (**params).clone(),
                None => match self.suggest(trial, to.0) {
                    Ok(params) => params,
                    Err(_) => return self.wait_or(DoneReason::SpaceExhausted),
                },
            },
        };
        let epochs = to.0 - from.0;
        let price = self.purse.price(&params, from.0..to.0);
        if let (Some(budget), Some(price)) = (self.work_budget(), price)
            && self.charged_work().saturating_add(price.of(epochs)) > budget
        {
            return self.wait_or(DoneReason::WorkBudget);
        }
        let (order, planned_trials) = (OrderId(self.orders.len() as u32), self.planned);
        Plan::Issue(WorkOrder { order, trial, params, from, to, stop, bracket, rung, planned_trials, price })
    }

    /// Whether as many trials have failed as the study allows: then open orders are not trained on either.
    pub fn has_failed_enough(&self) -> bool {
        self.spec.budget.max_failures.is_some_and(|limit| self.failures >= limit.max(1))
    }

    /// The sampler's proposal for a new trial that begins with so many epochs.
    fn suggest(&self, trial: TrialNumber, epochs: u32) -> Result<Params, Exhausted> {
        let least = self.purse.least(epochs);
        let cost = |params: &Params| self.purse.price(params, 0..epochs).map_or(0, |price| price.of(epochs) + least);
        let costs = (self.spec.sampler.weighs_costs() && self.purse.has_prices())
            .then(|| Costs { of: &cost, left: self.budget_left() });
        self.sampler.suggest(&self.spec.space, &self.ledger, trial, costs)
    }

    /// The share of the budget that no issued order has taken: of work, epochs or trials, whichever is nearest to its
    /// end. Orders count whole, trained or not: when one ends early must not matter.
    fn budget_left(&self) -> f64 {
        let work = self.work_budget().map(|budget| {
            let issued = self.orders.iter().filter_map(|o| Some(o.price?.of(o.length()))).sum::<u64>();
            issued as f64 / budget.max(1) as f64
        });
        let epochs = self.spec.budget.epochs.map(|budget| {
            let issued = self.orders.iter().map(|o| u64::from(o.length())).sum::<u64>();
            issued as f64 / budget.max(1) as f64
        });
        let trials = self.trials.len() as f64 / f64::from(self.planned.max(1));
        (1.0 - [work, epochs].into_iter().flatten().fold(trials, f64::max)).max(0.0)
    }

    fn wait_or(&self, reason: DoneReason) -> Plan {
        if self.open.is_empty() { Plan::Done(reason) } else { Plan::Wait }
    }

    fn why_idle(&self) -> DoneReason {
        let short = self.wanted.is_some_and(|wanted| (self.trials.len() as u32) < wanted);
        if short { DoneReason::SpaceExhausted } else { DoneReason::Complete }
    }

    pub(super) fn decision(&self, next: &Next) -> Option<Decision> {
        match next {
            Next::Idle => None,
            Next::Start { to, bracket, rung, stop } => {
                Some((TrialNumber(self.trials.len() as u32), Epoch(0), *to, *bracket, *rung, stop.clone()))
            }
            Next::Resume { trial, to, bracket, rung } => {
                Some((*trial, self.trials[trial.0 as usize].epoch, *to, *bracket, Some(*rung), None))
            }
        }
    }

    /// Plans for `total` trials, after the totals under which orders were already issued.
    pub(super) fn plan_for(&mut self, total: u32) {
        let mut totals = self.totals.clone();
        if totals.last().is_none_or(|&last| last < total) {
            totals.push(total);
        }
        self.planned = total;
        self.race.replanned = true;
        self.ledger.set_brackets(self.scheduler.brackets(&totals, self.ledger.max_epochs));
    }

    pub(super) fn refresh_may_start(&mut self) {
        let exhausted = self.queue.is_empty()
            && self.sampler.lattice().is_some_and(|lattice| self.used_of_lattice >= lattice.len());
        self.ledger.set_may_start(!exhausted && (self.trials.len() as u32) < self.planned);
    }
}
