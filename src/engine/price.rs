//! What orders cost, in units that do not depend on the machine, so that a budget of work is spent alike everywhere.

use super::Engine;
use crate::ids::TrialNumber;
use crate::sampler::drawn;
use crate::space::Params;
use crate::spec::FrozenKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The price of an order, in mega-operations (see [`Prices`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Spent once: passes through frozen layers whose output no earlier order has paid for.
    pub once: u64,
    /// Of each epoch.
    pub epoch: u64,
    /// The order's first epochs, if they cost less: those in which only the head is trained, or images are smaller.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub early_epochs: u32,
    /// Of each of these.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub early: u64,
}

impl Price {
    /// The price of an order whose epochs cost the same.
    pub fn new(once: u64, epoch: u64) -> Self {
        Self { once, epoch, ..Self::default() }
    }

    /// The price of the order's first `epochs` epochs.
    pub fn of(self, epochs: u32) -> u64 {
        let early = epochs.min(self.early_epochs);
        let each = |price: u64, epochs: u32| price.saturating_mul(u64::from(epochs));
        self.once.saturating_add(each(self.early, early)).saturating_add(each(self.epoch, epochs - early))
    }
}

/// Epochs for which each set of frozen features was paid: trials with equal keys share them.
pub type Paid = BTreeMap<FrozenKey, u32>;

/// Prices of a study's orders. A mega-operation is a million multiply-adds of a plain convolution; other work is
/// expressed in these by fixed factors.
pub trait Prices: fmt::Debug + Send + Sync {
    /// The frozen features that some epochs of a configuration (`0..3` are the first three) share with others, and for how
    /// many of the epochs.
    fn shared(&self, params: &Params, epochs: Range<u32>) -> Vec<(FrozenKey, u32)>;

    /// The price of some epochs of a configuration, given what earlier orders have paid for.
    fn price(&self, params: &Params, epochs: Range<u32>, paid: &Paid) -> Price;
}

/// Prices and what was paid so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Purse {
    prices: Option<Arc<dyn Prices>>,
    paid: Paid,
    /// Mega-operations of an epoch below which cheaper is no better, where the sampler weighs costs.
    least: u64,
    /// Mega-operations of finished orders as trained, of open ones as issued.
    pub(super) charged: u64,
    /// Mega-operations a second, as measured when the study began.
    pub(super) pace: Option<f64>,
}

impl Purse {
    /// Whether the study has prices.
    pub(super) fn has_prices(&self) -> bool {
        self.prices.is_some()
    }

    /// The price of some epochs; `None` where the study has no prices.
    pub(super) fn price(&self, params: &Params, epochs: Range<u32>) -> Option<Price> {
        Some(self.prices.as_ref()?.price(params, epochs, &self.paid))
    }

    /// What orders of so many epochs count for above their price when costs are weighed: four times the mean price of random
    /// configurations. Without it the cheapest corner of a space is drawn without end, as its trials take next to nothing
    /// from the budget, and the best of thousands of noisy values is a lucky one (docs/cost.md has the figures).
    pub(super) fn least(&self, epochs: u32) -> u64 {
        self.least.saturating_mul(u64::from(epochs))
    }

    /// Notes what an issued order shares with later ones.
    pub(super) fn share(&mut self, params: &Params, epochs: Range<u32>) {
        let shared = self.prices.as_ref().map(|prices| prices.shared(params, epochs));
        for (key, epochs) in shared.into_iter().flatten() {
            *self.paid.entry(key).or_default() += epochs;
        }
    }
}

impl Engine {
    /// Sets the prices of orders: of those still to be issued, and of those that were issued without one. Replays and readers do without, because issued orders have their price on record.
    pub fn set_prices(&mut self, prices: Arc<dyn Prices>) {
        self.purse.prices = Some(prices);
        self.purse.paid.clear();
        let (space, seed) = (&self.spec.space, self.spec.seed);
        let last = self.spec.runner.epochs().max(1);
        let epoch = |i| {
            let price = self.purse.price(&drawn(space, seed, TrialNumber(i), 0), 0..last);
            price.map_or(0, |p| u128::from((p.of(last) - p.once) / u64::from(last)))
        };
        const SAMPLE: u32 = 64;
        self.purse.least = ((0..SAMPLE).map(epoch).sum::<u128>() * 4 / u128::from(SAMPLE)) as u64;
        for i in 0..self.orders.len() {
            let order = &self.orders[i];
            let (params, epochs) = (self.trials[order.trial.0 as usize].params.clone(), order.from.0..order.to.0);
            if order.price.is_none()
                && let Some(price) = self.purse.price(&params, epochs.clone())
            {
                let spent = self.spent(&self.orders[i]);
                self.orders[i].price = Some(price);
                self.purse.charged += price.of(spent);
            }
            self.purse.share(&params, epochs);
        }
    }

    /// Mega-operations charged to the budget: those of finished orders as far as they were trained, all of open ones.
    pub fn charged_work(&self) -> u64 {
        self.purse.charged
    }

    /// Mega-operations a second on the machine that began the study, if a budget given as time had it measured.
    pub fn pace(&self) -> Option<f64> {
        self.purse.pace
    }

    /// The budget in mega-operations; `None` if work has no bound, or if the pace of a budget given as time is not on
    /// record yet.
    pub fn work_budget(&self) -> Option<u64> {
        self.spec.budget.work.and_then(|budget| budget.operations(self.purse.pace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{DoneReason, EpochReport, Event, FailureClass, Outcome, Plan};
    use crate::ids::Epoch;
    use crate::sampler::{self, Costs};
    use crate::space::{Domain, Parameter, SearchSpace, Value};
    use crate::spec::{SamplerSpec, SchedulerSpec, StudySpec, WorkBudget};

    /// An epoch costs as many giga-operations as the parameter says; what is once costs 10 for the first trial.
    #[derive(Debug)]
    struct ByParameter(FrozenKey);

    impl Prices for ByParameter {
        fn shared(&self, _: &Params, epochs: Range<u32>) -> Vec<(FrozenKey, u32)> {
            vec![(self.0.clone(), epochs.len() as u32)]
        }

        fn price(&self, params: &Params, _: Range<u32>, paid: &Paid) -> Price {
            let once = if paid.contains_key(&self.0) { 0 } else { 10_000 };
            Price::new(once, params.int("x").unwrap() as u64 * 1000)
        }
    }

    fn study(work: WorkBudget) -> StudySpec {
        let domain = Domain::Fixed { value: Value::Int(3) };
        let draw = Domain::Float { low: 0.0, high: 1.0, step: None, log: false };
        let parameter = |name: &str, domain| Parameter { name: name.to_owned(), domain, when: None };
        let space = SearchSpace { parameters: vec![parameter("x", domain), parameter("y", draw)] };
        let mut spec = StudySpec::external("priced", space, 4, 100);
        (spec.scheduler, spec.budget.work) = (SchedulerSpec::None, Some(work));
        spec
    }

    fn prices() -> Arc<dyn Prices> {
        const FILE: &str = "[data]\nsynthetic = {}\n[network]\nweights = \"random\"\n[budget]\nn_trials = 1\n\
                            [space]\ndropout = { type = \"float\", low = 0.0, high = 0.5 }\n";
        let settings = crate::config::from_text(FILE).unwrap().spec.runner.fixed().unwrap();
        Arc::new(ByParameter(settings.network.frozen_key(&settings.augment)))
    }

    /// Plays the study: trial 1 fails after an epoch, the others train to the end. All events.
    fn played(engine: &mut Engine) -> (Vec<Event>, DoneReason) {
        let mut events = Vec::new();
        let mut tell = |engine: &mut Engine, event: Event| {
            engine.apply(&event).unwrap();
            events.push(event);
        };
        loop {
            let order = match engine.plan() {
                Plan::Issue(order) => order,
                Plan::Wait => panic!("nothing is open"),
                Plan::Done(reason) => return (events, reason),
            };
            let (id, last) = (order.order, if order.trial.0 == 1 { 1 } else { order.to.0 });
            tell(engine, Event::OrderIssued { order: order.clone() });
            tell(engine, Event::AttemptStarted { order: id, attempt: 1, worker: 0, unix_ms: 0 });
            for epoch in order.from.0 + 1..=last {
                let report = EpochReport::new(Epoch(epoch), 0.5);
                tell(engine, Event::EpochReported { order: id, attempt: 1, report, unix_ms: 0 });
            }
            let outcome = if last == order.to.0 {
                Outcome::Reached { value: 0.5 }
            } else {
                Outcome::Failed { class: FailureClass::Crashed, reason: "test".to_owned() }
            };
            tell(engine, Event::OrderFinished { order: id, outcome, unix_ms: 0 });
        }
    }

    #[test]
    fn costs_weigh_less_as_the_budget_is_spent_and_nothing_at_its_end() {
        let tpe =
            |cost_aware| SamplerSpec::Tpe { n_startup: 5, n_ei_candidates: 24, cost_aware, warm_start: Vec::new() };
        let mut spec = study(WorkBudget::GigaOperations(100_000));
        spec.space.parameters[0].domain = Domain::Int { low: 1, high: 9, step: 1, log: false };
        spec.budget.n_trials = Some(20);
        let mut engine = Engine::new(&spec);
        engine.set_prices(prices());
        played(&mut engine);
        let of = |params: &Params| params.int("x").unwrap() as u64 * 1000;
        let trial = TrialNumber(20);
        let mut sums = [0; 3];
        for seed in 0..40 {
            let chosen = |cost_aware, costs| {
                sampler::build(&tpe(cost_aware), &spec.space, seed).suggest(&spec.space, &engine.ledger, trial, costs)
            };
            let plain = chosen(false, None).unwrap();
            assert_eq!(plain, chosen(true, Some(Costs { of: &of, left: 0.0 })).unwrap());
            for (sum, left) in sums.iter_mut().zip([1.0, 0.5, 0.0]) {
                *sum += chosen(true, Some(Costs { of: &of, left })).unwrap().int("x").unwrap();
            }
        }
        assert!(sums[0] < sums[1] && sums[1] < sums[2], "{sums:?}");
    }

    #[test]
    fn an_orders_first_epochs_may_cost_less() {
        let price = Price { early_epochs: 2, early: 3, ..Price::new(10, 100) };
        assert_eq!([0, 1, 2, 3, 5].map(|n| price.of(n)), [10, 13, 16, 116, 316]);
        let text = serde_json::to_string(&Price::new(1, 2)).unwrap();
        assert_eq!(text, r#"{"once":1,"epoch":2}"#, "as before there were early epochs");
        assert_eq!(serde_json::from_str::<Price>(&text).unwrap(), Price::new(1, 2));
    }

    #[test]
    fn a_study_ends_before_the_order_that_does_not_fit() {
        // 10 once, 12 for each trial but the failed one, which spends 3: 10 + 12 + 3 + 12 + 12, and the next would make 61.
        let mut engine = Engine::new(&study(WorkBudget::GigaOperations(60)));
        engine.set_prices(prices());
        let (events, reason) = played(&mut engine);
        assert_eq!((reason, engine.trials().len(), engine.charged_work()), (DoneReason::WorkBudget, 4, 49_000));
        let mut more = Engine::new(&study(WorkBudget::GigaOperations(61)));
        more.set_prices(prices());
        played(&mut more);
        assert_eq!((more.trials().len(), more.charged_work()), (5, 61_000));

        // A replay without prices comes to the same, and goes on alike.
        let mut replayed = Engine::new(&study(WorkBudget::GigaOperations(60)));
        events.iter().for_each(|event| replayed.apply(event).unwrap());
        assert_eq!(replayed.charged_work(), engine.charged_work());
        replayed.set_prices(prices());
        assert_eq!((replayed.plan(), replayed.charged_work()), (engine.plan(), engine.charged_work()));
    }

    #[test]
    fn orders_issued_before_the_budget_counted_work_are_charged_too() {
        let mut unpriced = Engine::new(&study(WorkBudget::GigaOperations(1)));
        let (mut events, _) = played(&mut unpriced);
        events.truncate(20);
        let mut engine = Engine::new(&study(WorkBudget::GigaOperations(1)));
        events.iter().for_each(|event| engine.apply(event).unwrap());
        assert_eq!(engine.charged_work(), 0);
        engine.set_prices(prices());
        let epochs = engine.charged_epochs();
        assert_eq!(engine.charged_work(), 10_000 + 3000 * epochs);
        assert!(matches!(engine.plan(), Plan::Done(DoneReason::WorkBudget) | Plan::Wait));
    }

    #[test]
    fn a_budget_of_time_is_converted_by_the_pace_on_record() {
        let mut engine = Engine::new(&study(WorkBudget::Seconds(2.0)));
        engine.set_prices(prices());
        assert_eq!(engine.work_budget(), None);
        engine.apply(&Event::PaceMeasured { pace: 12_500.0, unix_ms: 0 }).unwrap();
        assert_eq!(engine.work_budget(), Some(25_000));
        assert!(engine.apply(&Event::PaceMeasured { pace: 1.0, unix_ms: 0 }).is_err());
        played(&mut engine);
        assert_eq!(engine.charged_work(), 22_000);
        for wrong in [0.0, f64::NAN, f64::INFINITY] {
            let event = Event::PaceMeasured { pace: wrong, unix_ms: 0 };
            assert!(Engine::new(&study(WorkBudget::Seconds(2.0))).apply(&event).is_err());
        }
    }
}
