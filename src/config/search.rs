//! Objective, sampler, scheduler, budget, limits, failures, run.

use super::reader::{Item, Section, integer, nearest};
use super::units;
use crate::spec::{
    Bounds, Budget, Direction, FailurePolicies, Limits, Metric, Objective, OperatingPoint, RunSpec, RunnerSpec,
    SamplerSpec, SchedulerSpec, UnknownMetric, WorkBudget,
};

pub(super) fn objective(section: &Section<'_>, runner: &RunnerSpec) -> Objective {
    let metric = metric(section, runner).unwrap_or(Metric::RocAuc);
    let given = section.one_of::<Direction>("direction");
    if let (Some(given), Some(own)) = (given, metric.direction())
        && given != own
    {
        section
            .log
            .error(
                &section.place_of("direction"),
                format!("`{metric}` is better when it is {}", better(own)),
                "contradicts the metric",
            )
            .help(format!("leave `direction` out, or write \"{own}\""));
    }
    let direction = given.or(metric.direction()).unwrap_or(Direction::Maximize);
    let operating_point = section.get("operating_point").and_then(|item| {
        if let Some(x) = super::reader::number(item.value) {
            return (0.0..=1.0).contains(&x).then_some(OperatingPoint::Threshold(x)).or_else(|| {
                item.wanted("a threshold from 0 to 1");
                None
            });
        }
        let text = item.text()?;
        let point = text.parse().ok();
        if point.is_none() {
            item.wanted("a threshold from 0 to 1, `youden`, `f1`, `recall>=X` or `specificity>=X`");
        }
        point
    });
    Objective { metric, direction, operating_point: operating_point.unwrap_or(OperatingPoint::Threshold(0.5)) }
}

fn better(direction: Direction) -> &'static str {
    match direction {
        Direction::Maximize => "larger",
        Direction::Minimize => "smaller",
    }
}

fn metric(section: &Section<'_>, runner: &RunnerSpec) -> Option<Metric> {
    let Some(item) = section.get("metric") else {
        // The objective of other runners is called `value` unless the study names it.
        let own = !matches!(runner, RunnerSpec::Image { .. });
        return Some(if own { Metric::Custom(String::from("value")) } else { Metric::RocAuc });
    };
    let text = item.text()?;
    if !matches!(runner, RunnerSpec::Image { .. }) {
        // A program may report anything under any name; a known metric's name also gives the direction.
        if text.is_empty() || text.contains(char::is_whitespace) {
            item.wanted("a name without spaces");
            return None;
        }
        return Some(text.parse().unwrap_or_else(|_| Metric::Custom(text.to_owned())));
    }
    match text.parse() {
        Ok(metric) => Some(metric),
        Err(UnknownMetric::Bound(_)) => {
            item.wanted("a metric whose bound is a number above 0, at most 1");
            None
        }
        Err(UnknownMetric::Name(_)) => {
            let names = Metric::names();
            let known = names.iter().map(String::as_str);
            let near = match text {
                "auc" | "auroc" | "roc" => Some("roc_auc"),
                "auprc" | "average_precision" | "ap" => Some("pr_auc"),
                "sensitivity" | "tpr" => Some("recall"),
                "ppv" => Some("precision"),
                "loss" | "cross_entropy" => Some("log_loss"),
                other => nearest(other, known),
            };
            let report = section.log.error(&item.place, format!("there is no metric `{text}`"), "unknown");
            match near {
                Some(name) => report.help(format!("did you mean `{name}`?")),
                None => report.help(format!("known are {}", names.join(", "))),
            };
            None
        }
    }
}

pub(super) fn sampler(section: &Section<'_>) -> SamplerSpec {
    let kind = section.choice("kind", &["random", "grid", "sobol", "tpe", "gp"]).unwrap_or("random");
    section.only_with(
        kind,
        &[
            ("points", &["grid"]),
            ("n_startup", &["tpe", "gp"]),
            ("n_ei_candidates", &["tpe"]),
            ("cost_aware", &["tpe"]),
            ("warm_start", &["tpe", "gp"]),
        ],
    );
    match kind {
        "grid" => SamplerSpec::Grid { points: section.whole("points", 1, 10_000).unwrap_or(5) as u32 },
        "sobol" => SamplerSpec::Sobol,
        "tpe" => SamplerSpec::Tpe {
            n_startup: section.count("n_startup", 1).unwrap_or(10),
            n_ei_candidates: section.whole("n_ei_candidates", 1, 100_000).unwrap_or(24) as u32,
            cost_aware: section.get("cost_aware").and_then(|item| item.flag()).unwrap_or(false),
            warm_start: warm_start(section),
        },
        "gp" => {
            SamplerSpec::Gp { n_startup: section.count("n_startup", 1).unwrap_or(10), warm_start: warm_start(section) }
        }
        _ => SamplerSpec::Random,
    }
}

/// Earlier studies, by name or path. Whether they exist is checked later: names refer to a state folder.
fn warm_start(section: &Section<'_>) -> Vec<String> {
    let Some(item) = section.get("warm_start") else { return Vec::new() };
    let mut studies: Vec<String> = Vec::new();
    for element in item.elements(true).unwrap_or_default() {
        let Some(text) = element.text() else { continue };
        if text.is_empty() {
            element.wanted("a study's name, or the path of its database");
        } else if studies.iter().any(|study| study == text) {
            let title = format!("`{text}` is named twice");
            section.log.error(&element.place, title, "again").help("its results would count double");
        } else {
            studies.push(text.to_owned());
        }
    }
    studies
}

pub(super) fn scheduler(section: &Section<'_>, runner: &RunnerSpec) -> SchedulerSpec {
    let kind = section.choice("kind", &["none", "sha", "asha", "hyperband", "median"]).unwrap_or("sha");
    let halving: &[&str] = &["sha", "asha", "hyperband"];
    section.only_with(
        kind,
        &[
            ("min_resource", halving),
            ("reduction_factor", halving),
            ("brackets", &["hyperband"]),
            ("warmup_epochs", &["median"]),
            ("min_trials", &["median"]),
        ],
    );
    let min_resource = section.count("min_resource", 1).unwrap_or(1);
    let reduction_factor = section.whole("reduction_factor", 2, 1000).unwrap_or(3) as u32;
    if halving.contains(&kind) && min_resource > runner.epochs() {
        section.log.error(
            &section.place_of("min_resource"),
            format!("`min_resource` is {min_resource}, but a trial has {} epochs in all", runner.epochs()),
            "more than a whole trial",
        );
    }
    match kind {
        "none" => SchedulerSpec::None,
        "asha" => SchedulerSpec::Asha { min_resource, reduction_factor },
        "hyperband" => SchedulerSpec::Hyperband {
            min_resource,
            reduction_factor,
            algorithm1: section.choice("brackets", &["table1", "algorithm1"]) == Some("algorithm1"),
        },
        "median" => SchedulerSpec::Median {
            warmup_epochs: section.count("warmup_epochs", 0).unwrap_or(1),
            min_trials: section.count("min_trials", 1).unwrap_or(5),
        },
        _ => SchedulerSpec::Sha { min_resource, reduction_factor },
    }
}

pub(super) fn budget(section: &Section<'_>, sampler: &SamplerSpec, scheduler: &SchedulerSpec) -> Budget {
    let n_trials = section.whole("n_trials", 1, 1_000_000).map(|n| n as u32);
    let natural = matches!(sampler, SamplerSpec::Grid { .. }) || matches!(scheduler, SchedulerSpec::Hyperband { .. });
    if section.get("n_trials").is_none() && !natural {
        section
            .log
            .error(&section.place, "the number of trials is missing", "")
            .help("add `n_trials = 20` to `[budget]`");
    }
    Budget {
        n_trials,
        wall_seconds: section.get("wall_time").and_then(|i| i.seconds()),
        epochs: section.whole("epochs", 1, 1_000_000_000),
        work: section.get("work").and_then(|item| work(&item)),
        max_failures: section.count("max_failures", 1),
    }
}

fn work(item: &Item<'_>) -> Option<WorkBudget> {
    if let Some(n) = integer(item.value).filter(|n| (1..=1_000_000_000_000_000).contains(n)) {
        return Some(WorkBudget::GigaOperations(n as u64));
    }
    let seconds = item.value.as_str().and_then(units::seconds);
    if seconds.is_none() {
        let help = "write a whole number of giga-operations, as `hpsearch plan` shows them, or a duration like \"8h\"";
        item.wanted("an amount of work").help(help);
    }
    seconds.map(WorkBudget::Seconds)
}

pub(super) fn limits(section: &Section<'_>) -> Limits {
    Limits {
        trial_seconds: section.get("trial_time").and_then(|i| i.seconds()),
        epoch_seconds: section.get("epoch_time").and_then(|i| i.seconds()),
        checkpoint_bytes: section.get("checkpoint_size").and_then(|i| i.bytes()),
        cache_bytes: section.get("cache_size").and_then(|i| i.bytes()),
    }
}

pub(super) fn failures(section: &Section<'_>) -> FailurePolicies {
    let default = FailurePolicies::default();
    let again = |key, otherwise| section.whole(key, 0, 100).map_or(otherwise, |n| n as u32);
    FailurePolicies {
        oom: again("oom", default.oom),
        diverged: again("diverged", default.diverged),
        timeout: again("timeout", default.timeout),
        crashed: again("crashed", default.crashed),
        lost: again("lost", default.lost),
    }
}

pub(super) fn run(section: &Section<'_>) -> RunSpec {
    let device = section.get("device").and_then(|item| {
        let device = item.text()?.parse().ok();
        if device.is_none() {
            item.wanted("`cpu`, `cuda`, `cuda:N`, `cuda:N,M` or `auto`");
        }
        device
    });
    RunSpec {
        workers: section.whole("workers", 1, 1024).unwrap_or(1) as u32,
        threads: section.whole("threads", 1, 1024).map(|n| n as u32),
        workers_per_device: section.whole("workers_per_device", 1, 64).map(|n| n as u32),
        device: device.unwrap_or_default(),
        precision: section.one_of("precision").unwrap_or_default(),
        virtual_workers: section.whole("virtual_workers", 1, 4096).unwrap_or(8) as u32,
    }
}

/// Bounds of a proportion: above 0 and below 1.
pub(super) const SHARE: Bounds = Bounds { low: 0.0, high: 1.0, low_included: false, high_included: false };
