//! Synthetic trials: a formula with a learning curve, for trying out the search and for fault-injection tests.
//!
//! The quality of a configuration is a quadratic function of the searched parameters in unit coordinates, with its
//! optimum at 0.7 in each; a trial approaches its quality exponentially, at a rate set by the first parameter, so that
//! curves cross. Small noise is carried from epoch to epoch in the checkpoint: a trial resumed from a wrong or torn
//! checkpoint ends at another value, which is what crash tests look for.
//!
//! A parameter called `fault` makes every attempt at a trial fail after its first epoch: `error`, `panic`, `nan`,
//! `oom`, `hang`, `garbage` (a line on the worker's standard output that is no message), `abort`; with `_once`
//! appended, only an attempt that did not resume from a checkpoint fails. Any other value does nothing.

use super::{Continue, DeviceSlot, EpochSink, Start, TrialError, TrialRunner};
use crate::digest::Digest;
use crate::engine::{EpochReport, FailureClass, FileRef, WorkOrder};
use crate::fsx;
use crate::ids::Epoch;
use crate::rng::{Purpose, StreamRng};
use crate::space::{Params, SearchSpace};
use crate::spec::{Direction, RunnerSpec, StudySpec};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Width of the uniform noise that each epoch adds.
const NOISE: f64 = 0.01;

/// The runner of [`RunnerSpec::Synthetic`].
#[derive(Clone, Debug)]
pub struct SyntheticRunner {
    seed: u64,
    space: SearchSpace,
    direction: Direction,
    epochs: u32,
    epoch_time: Duration,
}

/// What a trial carries from epoch to epoch.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct State {
    epoch: Epoch,
    noise: f64,
}

impl SyntheticRunner {
    /// The runner of a study. If the study has another kind of runner: trials of the same length whose epochs take no
    /// time.
    pub fn new(spec: &StudySpec) -> Self {
        let epoch_ms = if let RunnerSpec::Synthetic { epoch_ms, .. } = spec.runner { epoch_ms } else { 0 };
        Self {
            seed: spec.seed,
            space: spec.space.clone(),
            direction: spec.objective.direction,
            epochs: spec.runner.epochs(),
            epoch_time: Duration::from_millis(epoch_ms),
        }
    }

    /// The limit of a configuration's learning curve, without noise: at most 1.
    pub fn quality(&self, params: &Params) -> f64 {
        let unit: Vec<f64> = self.space.to_unit(params).into_iter().flatten().collect();
        let bowl: f64 = unit.iter().map(|u| (u - 0.7) * (u - 0.7)).sum();
        1.0 - bowl / (unit.len().max(1) as f64)
    }

    /// The objective after an epoch, without noise; higher is better.
    pub fn curve(&self, params: &Params, epoch: Epoch) -> f64 {
        let pace = 2.0 + 3.0 * self.space.to_unit(params).into_iter().flatten().next().unwrap_or(0.5);
        let done = f64::from(epoch.0) / f64::from(self.epochs.max(1));
        self.quality(params) * (1.0 - (-pace * done).exp())
    }

    fn train(
        &self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), TrialError> {
        let mut state = match &start.checkpoint {
            Some(file) => load(&slot.study_dir.join(&file.path))?,
            None => State { epoch: Epoch(0), noise: 0.0 },
        };
        while state.epoch < order.to {
            let began = Instant::now();
            let Some(()) = self.wait(sink) else { return Ok(()) };
            let epoch = Epoch(state.epoch.0 + 1);
            let counters = [u64::from(order.trial.0), u64::from(epoch.0)];
            let draw = StreamRng::keyed(self.seed, Purpose::SyntheticTrial, &counters).unit() - 0.5;
            state = State { epoch, noise: 0.9 * state.noise + NOISE * draw };
            let quality = self.curve(&order.params, epoch) + state.noise;
            let value = match self.direction {
                Direction::Maximize => quality,
                Direction::Minimize => 1.0 - quality,
            };
            let fault = if epoch.0 == start.epoch.0 + 1 { fault(order, start) } else { None };
            let value = if fault == Some("nan") { f64::NAN } else { value };
            let report = EpochReport {
                epoch,
                value: Some(value),
                metrics: BTreeMap::from([("quality".to_owned(), quality)]),
                train_loss: Some(1.0 - quality),
                seconds: began.elapsed().as_secs_f64(),
                images: 64,
                checkpoint: Some(self.save(order, &state, slot)?),
                ..EpochReport::default()
            };
            if sink.epoch(report)? == Continue::Stop {
                break;
            }
            go_wrong(fault)?;
        }
        Ok(())
    }

    /// Waits for an epoch's duration; `None` when interrupted.
    fn wait(&self, sink: &dyn EpochSink) -> Option<()> {
        let until = Instant::now() + self.epoch_time;
        loop {
            if sink.interrupted() {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(());
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    fn save(&self, order: &WorkOrder, state: &State, slot: &DeviceSlot) -> Result<FileRef, TrialError> {
        let path = format!("checkpoints/{:05}-{:04}.json", order.trial.0, state.epoch.0);
        let bytes = serde_json::to_vec(state).map_err(|e| crashed(format!("write a checkpoint: {e}")))?;
        let target = slot.study_dir.join(&path);
        fsx::write_atomic(&target, &bytes).map_err(|e| crashed(format!("write checkpoint `{path}`: {e}")))?;
        Ok(FileRef { path, digest: Digest::of(&bytes), bytes: bytes.len() as u64 })
    }
}

impl TrialRunner for SyntheticRunner {
    fn run(
        &mut self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), TrialError> {
        self.train(order, start, slot, sink)
    }
}

fn load(path: &Path) -> Result<State, TrialError> {
    let bytes = std::fs::read(path).map_err(|e| crashed(format!("read checkpoint `{}`: {e}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| crashed(format!("understand checkpoint `{}`: {e}", path.display())))
}

fn crashed(reason: String) -> TrialError {
    TrialError::new(FailureClass::Crashed, reason)
}

fn fault<'a>(order: &'a WorkOrder, start: &Start) -> Option<&'a str> {
    let name = order.params.get("fault")?.as_str()?;
    match name.strip_suffix("_once") {
        Some(name) => start.checkpoint.is_none().then_some(name),
        None => Some(name),
    }
}

fn go_wrong(fault: Option<&str>) -> Result<(), TrialError> {
    match fault {
        Some("error") => Err(crashed("the fault that was asked for".to_owned())),
        Some("oom") => {
            let reason = "out of memory, as was asked for".to_owned();
            Err(TrialError::new(FailureClass::Oom, reason))
        }
        #[allow(clippy::panic)] // the requested fault
        Some("panic") => panic!("the panic that was asked for"),
        Some("abort") => std::process::abort(),
        Some("garbage") => {
            println!("epoch 1 of 10: loss 0.3");
            // The coordinator kills the worker for this line.
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Some("hang") => {
            // Ignores interrupts, like a worker stuck in a driver call.
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrderId, TrialNumber};
    use crate::runner::SinkClosed;
    use crate::space::Value;
    use crate::store::conformance;

    #[derive(Default)]
    struct Collect {
        reports: Vec<EpochReport>,
        stop_after: Option<u32>,
    }

    impl EpochSink for Collect {
        fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed> {
            let stop = self.stop_after == Some(report.epoch.0);
            self.reports.push(report);
            Ok(if stop { Continue::Stop } else { Continue::Go })
        }
    }

    fn order(learning_rate: f64) -> WorkOrder {
        let params = [("learning_rate", learning_rate), ("dropout", 0.42)];
        WorkOrder {
            order: OrderId(0),
            trial: TrialNumber(0),
            params: Params(params.map(|(k, v)| (k.to_owned(), Value::Float(v))).into()),
            ..conformance::order(0)
        }
    }

    fn slot(folder: &Path) -> DeviceSlot {
        std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
        DeviceSlot {
            device: crate::spec::Device::Cpu,
            threads: 1,
            study_dir: folder.to_owned(),
            cache_dir: folder.to_owned(),
            worker: 0,
        }
    }

    #[test]
    fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(folder.path());
        let mut runner = SyntheticRunner::new(&conformance::study("synthetic"));
        let order = order(1e-3);
        let mut straight = Collect::default();
        runner.run(&order, &Start::default(), &slot, &mut straight).unwrap();
        assert_eq!(straight.reports.len(), 3);

        let mut first = Collect { stop_after: Some(2), ..Collect::default() };
        runner.run(&order, &Start::default(), &slot, &mut first).unwrap();
        let start = Start { checkpoint: first.reports[1].checkpoint.clone(), epoch: Epoch(2), ..Start::default() };
        let mut second = Collect::default();
        runner.run(&order, &start, &slot, &mut second).unwrap();
        assert_eq!(second.reports[0].value, straight.reports[2].value);
        assert_eq!(second.reports[0].checkpoint, straight.reports[2].checkpoint);

        let wrong = Start { checkpoint: first.reports[0].checkpoint.clone(), epoch: Epoch(2), ..Start::default() };
        let mut third = Collect::default();
        runner.run(&order, &wrong, &slot, &mut third).unwrap();
        assert_eq!(third.reports[0].epoch, Epoch(2), "the checkpoint says where it stands");
    }

    #[test]
    fn the_best_configuration_lies_at_seven_tenths() {
        let runner = SyntheticRunner::new(&conformance::study("synthetic"));
        // Unit coordinate .7 of [1e-5, 1e-1] in the logarithm is 10^-2.2; of [0, 0.6] it is 0.42.
        let best = runner.quality(&order(10f64.powf(-2.2)).params);
        assert!((best - 1.0).abs() < 1e-12, "{best}");
        assert!(runner.quality(&order(1e-5).params) < 0.8);
    }
}
