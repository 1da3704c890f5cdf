//! Shows a run: lines rewritten in place on a terminal, one line per event elsewhere, JSON for programs.

use super::args::Global;
use crate::clock;
use crate::data::{Task, Watch};
use crate::engine::{EpochReport, Outcome, Price};
use crate::ids::TrialNumber;
use crate::run::{Observer, Progress, Standing};
use crate::runner::Phase;
use crate::space::Value;
use crate::wording::counted;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// The display for this output: JSON, warnings only, a terminal, or plain lines.
pub fn observer(global: &Global) -> Box<dyn Observer> {
    if global.json {
        return Box::new(|progress: &Progress| {
            if let Ok(line) = serde_json::to_string(progress) {
                // Output closed by its reader must not end the run.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        });
    }
    if global.quiet {
        return Box::new(|progress: &Progress| {
            if let Progress::Warning { text } = progress {
                super::args::complain(&format!("warning: {text}\n"));
            }
        });
    }
    let words = Words::new(global.verbose);
    if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
        Box::new(Terminal::new(words, global.color()))
    } else {
        Box::new(Lines { words })
    }
}

/// Progress of reading and decoding images: one line on a terminal, nothing elsewhere.
pub struct Images(Option<ProgressBar>);

impl Images {
    /// A display that is empty until the first image.
    pub fn new(global: &Global) -> Self {
        let shown = !global.quiet && !global.json && std::io::stderr().is_terminal();
        Self(shown.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{msg} images {bar:16} {pos}/{len}, {eta} left");
            style.map(|style| bar.set_style(style.progress_chars("=> "))).unwrap_or_default();
            bar
        }))
    }
}

impl Watch for Images {
    fn progress(&self, task: Task, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(task.to_string());
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn warn(&self, message: &str) {
        super::args::complain(&format!("warning: {message}\n"));
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// One line per event.
struct Lines {
    words: Words,
}

impl Observer for Lines {
    fn see(&mut self, progress: &Progress) {
        self.words.follow(progress);
        if let Some(line) = self.words.line(progress) {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

/// A line for each worker and one for the study, rewritten in place; what should stay is printed above them.
struct Terminal {
    words: Words,
    bars: MultiProgress,
    workers: Vec<ProgressBar>,
    study: ProgressBar,
}

impl Terminal {
    fn new(words: Words, color: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        let study = bars.add(ProgressBar::new(0));
        let template = if color { "{bar:16.cyan/dim} {wide_msg}" } else { "{bar:16} {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            study.set_style(style.progress_chars("=> "));
        }
        Self { words, bars, workers: Vec::new(), study }
    }

    fn worker(&mut self, worker: u32) -> &ProgressBar {
        while self.workers.len() <= worker as usize {
            let bar = self.bars.insert_before(&self.study, ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            self.workers.push(bar);
        }
        &self.workers[worker as usize]
    }
}

impl Observer for Terminal {
    fn see(&mut self, progress: &Progress) {
        self.words.follow(progress);
        match progress {
            Progress::OrderStarted { worker, .. }
            | Progress::Working { worker, .. }
            | Progress::Epoch { worker, .. }
            | Progress::Idle { worker } => {
                let text = self.words.worker_line(*worker);
                self.worker(*worker).set_message(text);
            }
            Progress::OrderFinished { .. } if self.words.verbose == 0 => {}
            Progress::Finished { .. } => {
                self.workers.iter().for_each(ProgressBar::finish_and_clear);
                self.study.finish_and_clear();
                return;
            }
            other => {
                if let Some(line) = self.words.line(other) {
                    let _ = self.bars.println(line);
                }
            }
        }
        self.tick();
    }

    fn tick(&mut self) {
        let (done, total) = self.words.epochs();
        self.study.set_length(total.unwrap_or(done).max(1));
        self.study.set_position(done.min(total.unwrap_or(done)));
        self.study.set_message(self.words.study_line());
    }
}

/// A worker's latest progress.
#[derive(Clone, Debug, Default)]
struct Busy {
    trial: Option<TrialNumber>,
    from: u32,
    epoch: u32,
    to: u32,
    value: Option<f64>,
    rate: f64,
    wait: Option<f64>,
    within: Option<(Phase, u64, u64)>,
    price: Price,
}

impl Busy {
    /// The work that its order still takes.
    fn left(&self) -> u64 {
        self.price.of(self.to.saturating_sub(self.from)).saturating_sub(self.done())
    }

    /// The work that its order has taken.
    fn done(&self) -> u64 {
        if self.epoch > self.from { self.price.of(self.epoch - self.from) } else { 0 }
    }
}

/// The price where there is no cost model: an epoch counts one.
const UNPRICED: Price = Price { once: 0, epoch: 1, early_epochs: 0, early: 0 };

/// Work of this run's orders, by the cost model.
#[derive(Debug, Default)]
struct Effort {
    /// Of all orders begun, and the epochs that they train.
    begun: u64,
    epochs: u64,
    /// Of epochs done.
    done: u64,
}

/// Follows a run and words its state and events.
#[derive(Debug)]
struct Words {
    verbose: u8,
    metric: String,
    began: Instant,
    epochs: u64,
    planned_epochs: Option<u64>,
    seconds_left: Option<f64>,
    work_left: Option<u64>,
    finished: u32,
    planned: Option<u32>,
    best: Option<Standing>,
    busy: BTreeMap<u32, Busy>,
    effort: Effort,
}

impl Words {
    fn new(verbose: u8) -> Self {
        Self {
            verbose,
            metric: String::new(),
            began: Instant::now(),
            epochs: 0,
            planned_epochs: None,
            seconds_left: None,
            work_left: None,
            finished: 0,
            planned: None,
            best: None,
            busy: BTreeMap::new(),
            effort: Effort::default(),
        }
    }

    fn follow(&mut self, progress: &Progress) {
        match progress {
            Progress::Started {
                metric,
                finished,
                planned,
                epochs,
                planned_epochs,
                seconds_left,
                work_left,
                best,
                ..
            } => {
                self.metric.clone_from(metric);
                (self.finished, self.planned, self.best) = (*finished, *planned, *best);
                (self.epochs, self.planned_epochs) = (*epochs, *planned_epochs);
                (self.seconds_left, self.work_left) = (*seconds_left, *work_left);
                self.began = Instant::now();
            }
            Progress::OrderStarted { worker, trial, from, to, price, .. } => {
                let price = price.unwrap_or(UNPRICED);
                let (from, to) = (from.0, to.0);
                let busy = Busy { trial: Some(*trial), from, epoch: from, to, price, ..Busy::default() };
                self.effort.epochs += u64::from(to.saturating_sub(from));
                self.effort.begun += busy.left();
                self.busy.insert(*worker, busy);
            }
            Progress::Working { worker, phase, done, total } => {
                self.busy.entry(*worker).or_default().within = Some((*phase, *done, *total));
            }
            Progress::Epoch { worker, trial, to, report } => {
                self.epochs += 1;
                let before = self.busy.get(worker).filter(|busy| busy.trial == Some(*trial));
                let unknown = (UNPRICED, report.epoch.0.saturating_sub(1), 0);
                let (price, from, done) = before.map_or(unknown, |busy| (busy.price, busy.from, busy.done()));
                let busy = Busy {
                    trial: Some(*trial),
                    from,
                    epoch: report.epoch.0,
                    to: to.0,
                    value: report.value,
                    rate: rate(report),
                    wait: wait(report),
                    within: None,
                    price,
                };
                self.effort.done += busy.done() - done;
                self.busy.insert(*worker, busy);
            }
            Progress::OrderFinished { best, finished, .. } => (self.best, self.finished) = (*best, *finished),
            Progress::Idle { worker } => {
                self.busy.remove(worker);
            }
            _ => {}
        }
    }

    fn epochs(&self) -> (u64, Option<u64>) {
        (self.epochs, self.planned_epochs)
    }

    /// Seconds left, at most those of a budget of time.
    fn left(&self) -> Option<f64> {
        self.left_after(self.began.elapsed().as_secs_f64())
    }

    /// The same, so many seconds after the run began.
    fn left_after(&self, elapsed: f64) -> Option<f64> {
        let in_budget = self.seconds_left.map(|left| (left - elapsed).max(0.0));
        match (self.at_pace(elapsed), in_budget) {
            (Some(at_pace), Some(in_budget)) => Some(at_pace.min(in_budget)),
            (at_pace, in_budget) => at_pace.or(in_budget),
        }
    }

    /// Seconds left at the pace of this run, counted in work: what is open, and epochs to come at the mean of those begun, at
    /// most what is left of a budget of work. `None` before the first epoch and where nothing is a bound.
    fn at_pace(&self, elapsed: f64) -> Option<f64> {
        let Effort { begun, epochs, done } = self.effort;
        if done == 0 {
            return None;
        }
        let (open_epochs, open) = self.busy.values().fold((0, 0), |(epochs, work), busy| {
            (epochs + u64::from(busy.to.saturating_sub(busy.epoch)), work + busy.left())
        });
        let planned =
            self.planned_epochs.map(|planned| planned.saturating_sub(self.epochs).saturating_sub(open_epochs));
        let planned = planned.map(|to_come| to_come as f64 * begun as f64 / epochs.max(1) as f64);
        let in_budget = self.work_left.map_or(f64::INFINITY, |left| left.saturating_sub(begun) as f64);
        let left = open as f64 + planned.unwrap_or(f64::INFINITY).min(in_budget);
        Some(elapsed / done as f64 * left).filter(|seconds| seconds.is_finite())
    }

    /// `trials 12/60 | best roc_auc 0.9312 (trial 4) | 3 min 20 s left`
    fn study_line(&self) -> String {
        let planned = self.planned.map_or_else(String::new, |n| format!("/{n}"));
        let best = self
            .best
            .map_or_else(String::new, |b| format!(" | best {} {:.4} (trial {})", self.metric, b.value, b.trial));
        let left = self.left().map_or_else(String::new, |s| format!(" | {} left", clock::span(s)));
        format!("trials {}{planned}{best}{left}", self.finished)
    }

    /// `[0] trial 7 epoch 3/9 roc_auc 0.9123 412 img/s`
    fn worker_line(&self, worker: u32) -> String {
        let Some(busy) = self.busy.get(&worker) else { return format!("[{worker}] idle") };
        let trial = busy.trial.map_or_else(String::new, |t| format!(" trial {t} epoch {}/{}", busy.epoch, busy.to));
        let value = busy.value.map_or_else(String::new, |v| format!(" {} {v:.4}", self.metric));
        let rate = if busy.rate > 0.0 { format!(" {:.0} img/s", busy.rate) } else { String::new() };
        let wait = busy.wait.filter(|_| self.verbose > 0).map_or_else(String::new, |w| format!(" data wait {w:.1} %"));
        let within = busy.within.as_ref().map_or_else(String::new, |(phase, done, total)| {
            format!(" {phase} {}", if *total > 0 { format!("{} %", done * 100 / total) } else { done.to_string() })
        });
        format!("[{worker}]{trial}{value}{rate}{wait}{within}")
    }

    /// The line that a log has for an event; `None`: not worth a line.
    fn line(&self, progress: &Progress) -> Option<String> {
        Some(match progress {
            Progress::Started { study, workers, device, finished, resumed, .. } => {
                let planned = self.planned.map_or_else(String::new, |n| format!(" of {n}"));
                let how = if *resumed {
                    format!("goes on: {finished}{planned} trials are over")
                } else {
                    format!("begins:{} trials", planned.replace(" of", ""))
                };
                format!("study {study} {how}; {} on {device}", counted(*workers, "worker"))
            }
            Progress::OrderStarted { worker, trial, attempt, from, to, params, .. } => {
                let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let params: Vec<String> =
                    params.0.iter().map(|(name, value)| format!("{name}={}", short(value))).collect();
                format!("trial {trial}: epochs {} to {to} on worker {worker}{again}; {}", from.0 + 1, params.join(" "))
            }
            Progress::Epoch { worker, trial, .. } => {
                format!(
                    "trial {trial}:{}",
                    self.worker_line(*worker).split_once(&format!("trial {trial}")).map_or("", |(_, rest)| rest)
                )
            }
            Progress::OrderFinished { trial, outcome, .. } => {
                let how = match outcome {
                    Outcome::Reached { value } => format!("reached {} {value:.4}", self.metric),
                    Outcome::Stopped { at, value } => format!("stopped at epoch {at} with {} {value:.4}", self.metric),
                    Outcome::Failed { class, reason } => format!("failed ({}): {reason}", class),
                };
                format!("trial {trial}: {how} | {}", self.study_line())
            }
            Progress::AttemptLost { trial, class, reason, again, .. } => {
                let then = if *again { "tried again" } else { "given up" };
                format!("trial {trial}: attempt lost ({}), {then}: {reason}", class)
            }
            Progress::Warning { text } => format!("warning: {text}"),
            Progress::Note { text } if self.verbose > 0 => text.clone(),
            Progress::Said { worker, line } if self.verbose > 0 => format!("worker {worker}: {line}"),
            Progress::Stopping { .. } => "stopping; once more to stop at once".to_owned(),
            Progress::Finished { seconds, .. } => format!("run over after {}", clock::span(*seconds)),
            Progress::Working { .. } | Progress::Idle { .. } | Progress::Note { .. } | Progress::Said { .. } => {
                return None;
            }
        })
    }
}

/// A value in four significant digits.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Float(x) if *x != 0.0 && x.is_finite() => {
            let exponent = x.abs().log10().floor();
            if (-3.0..6.0).contains(&exponent) {
                let decimals = (3.0 - exponent).max(0.0) as usize;
                let text = format!("{x:.decimals$}");
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
            } else {
                format!("{x:.3e}")
            }
        }
        other => other.to_string(),
    }
}

fn rate(report: &EpochReport) -> f64 {
    if report.seconds > 0.0 { report.images as f64 / report.seconds } else { 0.0 }
}

fn wait(report: &EpochReport) -> Option<f64> {
    (report.seconds > 0.0).then(|| 100.0 * report.data_wait_seconds / report.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::space::Params;

    #[test]
    fn values_are_shortened() {
        let cases = [
            (0.10000000000000003, "0.1"),
            (12345.678, "12346"),
            (1.23456e-5, "1.235e-5"),
            (-0.25, "-0.25"),
            (100.0, "100"),
        ];
        for (x, text) in cases {
            assert_eq!(short(&Value::Float(x)), text);
        }
        assert_eq!(short(&Value::Text("all".to_owned())), "all");
    }

    #[test]
    fn the_time_left_is_counted_in_work() {
        let mut words = Words::new(0);
        let started = |seconds_left, work_left| Progress::Started {
            study: "s".to_owned(),
            metric: "f1".to_owned(),
            workers: 1,
            device: "cpu".to_owned(),
            finished: 0,
            planned: Some(3),
            epochs: 0,
            planned_epochs: Some(6),
            seconds_left,
            work_left,
            resumed: false,
            best: None,
        };
        let order = |trial, price| Progress::OrderStarted {
            worker: 0,
            trial: TrialNumber(trial),
            attempt: 1,
            from: Epoch(0),
            to: Epoch(2),
            params: Params::default(),
            price: Some(price),
        };
        let epoch = |trial, epoch| Progress::Epoch {
            worker: 0,
            trial: TrialNumber(trial),
            to: Epoch(2),
            report: EpochReport::new(Epoch(epoch), 0.5),
        };
        words.follow(&started(None, None));
        words.follow(&order(0, Price::new(10, 5)));
        assert_eq!(words.left(), None);
        words.follow(&epoch(0, 1));
        // 15 done in 15 s; 5 open, and four epochs to come at the mean of 20 for two.
        assert!((words.left_after(15.0).unwrap() - 45.0).abs() < 0.5, "{:?}", words.left_after(15.0));
        words.follow(&epoch(0, 2));
        words.follow(&order(1, Price::new(0, 100)));
        // 20 done in 20 s; 200 open, two epochs to come at the mean of 220 for four.
        assert!((words.left_after(20.0).unwrap() - 310.0).abs() < 0.5, "{:?}", words.left_after(20.0));

        // A budget ends it before that.
        (words.seconds_left, words.work_left) = (None, Some(250));
        assert!(
            (words.left_after(20.0).unwrap() - 230.0).abs() < 0.5,
            "200 open, 30 to come: {:?}",
            words.left_after(20.0)
        );
        (words.seconds_left, words.work_left) = (Some(60.0), Some(250));
        assert!((words.left_after(20.0).unwrap() - 40.0).abs() < 0.5, "{:?}", words.left_after(20.0));
        words.planned_epochs = None;
        (words.seconds_left, words.work_left) = (None, None);
        assert_eq!(words.left_after(20.0), None);
        let mut fresh = Words::new(0);
        fresh.follow(&started(Some(60.0), None));
        assert!((fresh.left_after(0.0).unwrap() - 60.0).abs() < 0.5, "{:?}", fresh.left_after(0.0));
    }

    #[test]
    fn lines_fit_a_terminal_of_80_columns() {
        let mut words = Words::new(1);
        words.follow(&Progress::Started {
            study: "pneumonia".to_owned(),
            metric: "balanced_accuracy".to_owned(),
            workers: 16,
            device: "cuda".to_owned(),
            finished: 998,
            planned: Some(1000),
            epochs: 20_000,
            planned_epochs: Some(30_000),
            seconds_left: None,
            work_left: None,
            resumed: true,
            best: Some(Standing { trial: TrialNumber(997), value: 0.912_345, epoch: Epoch(30) }),
        });
        let report = EpochReport {
            epoch: Epoch(29),
            value: Some(0.5),
            seconds: 2.0,
            data_wait_seconds: 0.05,
            images: 8000,
            ..EpochReport::default()
        };
        words.follow(&Progress::Epoch { worker: 15, trial: TrialNumber(999), to: Epoch(30), report });
        assert_eq!(
            words.worker_line(15),
            "[15] trial 999 epoch 29/30 balanced_accuracy 0.5000 4000 img/s data wait 2.5 %"
        );
        // The bar before it takes 17 columns.
        let line = words.study_line();
        assert!(line.starts_with("trials 998/1000 | best balanced_accuracy 0.9123 (trial 997) | "), "{line}");
        assert!(words.worker_line(15).len() <= 80);
        assert_eq!(words.worker_line(3), "[3] idle");
    }
}
