//! Warnings: what is allowed but unwise.

use super::compiled::CompiledSpace;
use super::fit::{highest, place_of, smallest_seen};
use super::reader::{Log, Section};
use crate::space::{Domain, Parameter, Value};
use crate::spec::rungs;
use crate::spec::{
    DataSource, HeadKind, LossKind, Metric, OptimiserKind, RunnerSpec, SamplerSpec, SchedulerSpec, Setting, StudySpec,
    Views, WeightSource,
};

/// Settings that the strength of augmentation scales.
const RANGES: [&str; 10] =
    ["flip", "rotation", "brightness", "edges", "vertical_flip", "quarter_turns", "zoom", "shift", "contrast", "noise"];

/// As many values of a setting are shared by trials of a study of some dozens.
const FEW: u64 = 32;

/// Warns about unwise choices in a valid study.
pub(super) fn warn(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    search(top, spec, compiled);
    ranges(top.log, compiled);
    if matches!(spec.runner, RunnerSpec::Image { .. }) {
        images(top, spec, compiled);
        without_effect(top, spec, compiled);
        warm_up(top, spec, compiled);
    }
}

fn search(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let log = top.log;
    let trials = top.section("budget").place_of("n_trials");
    let n = spec.budget.n_trials;
    if let (Some(n), Some(size)) = (n, spec.space.cardinality()) {
        let size_of_grid = matches!(spec.sampler, SamplerSpec::Grid { .. });
        if u128::from(n) > size {
            let title = format!("the search space has {size} configurations, fewer than {n} trials");
            log.warn(&trials, title, "more than there are")
                .help("no configuration is trained twice: the study ends when all are done");
        } else if size_of_grid && u128::from(n) < size {
            log.warn(
                &trials,
                format!("the grid has {size} configurations, more than {n} trials"),
                "part of the grid only",
            );
        }
    }
    if let (Some(n), SamplerSpec::Tpe { n_startup, warm_start, .. } | SamplerSpec::Gp { n_startup, warm_start }) =
        (n, &spec.sampler)
        && warm_start.is_empty()
    {
        // A trial is proposed while all virtual workers but one have trials whose results nobody knows.
        let drawn = n_startup.saturating_add(spec.run.virtual_workers.saturating_sub(1));
        if n <= drawn {
            let kind: &str = (&spec.sampler).into();
            let title =
                format!("{n} trials are too few for {kind}: about {drawn} are drawn at random before it learns");
            log.warn(&trials, title, "no more than `n_startup` and `virtual_workers` - 1 together")
                .help("raise `n_trials`, or lower `n_startup` or, in `[run]`, `virtual_workers`");
        }
    }
    let counted = spec.budget.work.is_some() || spec.budget.epochs.is_some();
    if matches!(spec.sampler, SamplerSpec::Tpe { cost_aware: true, .. })
        && spec.budget.wall_seconds.is_some()
        && !counted
    {
        log.warn(
            &top.section("budget").place_of("wall_time"),
            "costs are weighed without an end in sight",
            "not counted",
        )
        .help("a sampler may not look at the clock: write `work` with the same time, it is converted once");
    }
    let (SchedulerSpec::Sha { min_resource, reduction_factor }
    | SchedulerSpec::Asha { min_resource, reduction_factor }
    | SchedulerSpec::Hyperband { min_resource, reduction_factor, .. }) = spec.scheduler
    else {
        return;
    };
    let scheduler = top.section("scheduler");
    if u64::from(min_resource) * u64::from(reduction_factor) > u64::from(spec.runner.epochs()) {
        let title = format!(
            "nothing is stopped early: {min_resource} epochs times {reduction_factor} are more than the {} of a trial",
            spec.runner.epochs()
        );
        log.warn(&scheduler.place_of("min_resource"), title, "a single rung")
            .help("lower `min_resource`, raise the epochs, or write `kind = \"none\"`");
    }
    if let (Some(n), SchedulerSpec::Sha { .. }) = (n, &spec.scheduler)
        && n < reduction_factor
    {
        let title = format!("{n} trials are too few to halve by {reduction_factor}");
        log.warn(&trials, title, "fewer than `reduction_factor`");
    }
    if let Some(parameter) = spec.space.get("small_epochs")
        && parameter.domain.cells() != Some(1)
    {
        log.warn(
            &compiled.place("small_epochs"),
            "trials are compared while some see smaller images than others",
            "searched with rungs",
        )
        .help("fix `small_epochs`, or write `kind = \"none\"` in `[scheduler]`");
    }
    let warmup = highest(spec, "warmup_epochs");
    let epochs = spec.runner.epochs();
    let lowest = rungs::epochs(epochs, reduction_factor, rungs::halvings(min_resource, epochs, reduction_factor))[0];
    if warmup >= f64::from(lowest) && warmup > 0.0 {
        let place = top.section("training").place_of("warmup_epochs");
        let title = format!("the warm-up of {warmup} epochs is not over in the lowest rung of {lowest}");
        log.warn(&place, title, "as long as the lowest rung, or longer")
            .help("configurations would be judged before they learn: shorten it, or raise `min_resource`");
    }
}

/// Warns of a warm-up as long as a trial, where there are no rungs that it would outlast before.
fn warm_up(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let (warmup, epochs) = (highest(spec, "warmup_epochs"), spec.runner.epochs());
    if matches!(spec.scheduler, SchedulerSpec::None | SchedulerSpec::Median { .. }) && warmup >= f64::from(epochs) {
        let place = place_of(top, compiled, "warmup_epochs");
        let title = format!("the warm-up of {warmup} epochs is not over in a trial of {epochs}");
        top.log
            .warn(&place, title, "as long as a trial, or longer")
            .help("the learning rate would rise to the very end: shorten it, or raise `epochs`");
    }
}

fn ranges(log: &Log, compiled: &CompiledSpace) {
    for parameter in &compiled.space.parameters {
        match &parameter.domain {
            Domain::Float { low, high, step: None, log: false } if *low > 0.0 && high / low >= 1000.0 => {
                let share = (1.0 - (high / 10.0 - low) / (high - low)) * 100.0;
                let title =
                    format!("`{}` spans {:.0} powers of ten without `log`", parameter.name, (high / low).log10());
                let label = format!("{share:.0} % of the draws are above {}", Value::Float(high / 10.0));
                log.warn(&compiled.place(&parameter.name), title, label).help("add `log = true`");
            }
            domain if domain.cells() == Some(1) && !matches!(domain, Domain::Fixed { .. }) => {
                let title = format!("`{}` has a single value", parameter.name);
                log.warn(&compiled.place(&parameter.name), title, "nothing to search");
            }
            _ => {}
        }
    }
}

fn images(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let log = top.log;
    let RunnerSpec::Image { data, network, training, .. } = &spec.runner else { return };
    if spec.objective.metric == Metric::Accuracy {
        let equal = matches!(&data.source, DataSource::Synthetic(s) if (0.4..=0.6).contains(&s.prevalence));
        if !equal {
            let place = top.section("objective").place_of("metric");
            log.warn(&place, "accuracy hides unequal classes", "unwise where one class is larger").help(
                "with classes of 3:1, always naming the larger one reaches 0.75: use `balanced_accuracy` or `roc_auc`",
            );
        }
    }
    let rate = highest(spec, "learning_rate");
    if rate > 1.0 {
        let place = place_of(top, compiled, "learning_rate");
        log.warn(
            &place,
            format!("a learning rate of {} is beyond what training survives", Value::Float(rate)),
            "above 1",
        );
    }
    let section = top.section("network");
    let frozen = spec.space.get("freeze").is_none() && network.head_only() && spec.space.get("tap").is_none();
    if network.weights == WeightSource::Random && frozen {
        log.warn(
            &section.place_of("weights"),
            "a head on frozen random features learns little",
            "nothing but the head is trained",
        )
        .help("write `freeze = \"none\"`, or name weights");
    }
    let hub = matches!(network.weights, WeightSource::Hub { .. });
    if hub && spec.space.get("backbone").is_some() && section.get("scaling").is_some() {
        log.warn(
            &section.place_of("scaling"),
            "`scaling` is that of one backbone",
            "others have that of their weights",
        )
        .help("pretrained weights of the other backbones in the space are given pixels as `imagenet` scales them");
    }
    if let DataSource::Synthetic(synthetic) = &data.source
        && f64::from(training.batch_size)
            > f64::from(synthetic.images) * (1.0 - data.split.test) * (1.0 - data.split.validation)
    {
        let place = top.section("training").place_of("batch_size");
        log.warn(&place, "a batch holds more images than there are to train on", "one step an epoch");
    }
    for (kind, side) in smallest_seen(spec).into_iter().filter(|(kind, side)| *side < kind.smallest_image()) {
        let title = format!("{kind} takes images of {} pixels at least; such trials will fail", kind.smallest_image());
        let searched = ["small_size", "small_epochs", "input_size"].into_iter().find(|n| spec.space.get(n).is_some());
        let place = match searched {
            Some(name) if side < data.size => compiled.place(name),
            _ => top.section("data").place_of("size"),
        };
        log.warn(&place, title, "too small");
    }
    let augmented = highest(spec, "strength") > 0.0;
    let section = top.section("augment");
    if let (RunnerSpec::Image { augment, .. }, true) = (&spec.runner, augmented)
        && augment.views == Views::Fresh
    {
        log.warn(
            &section.place_of("views"),
            "fresh views cannot be cached: every epoch of every trial computes the frozen layers anew",
            "costly",
        )
        .help("a bank of 8 views costs eight passes in all: `views = 8`");
    }
    unshared(log, spec, compiled);
    overridden(top, spec, compiled);
}

/// Searched ranges of what decides the input of the frozen layers, of which hardly two trials have a value in common.
fn unshared(log: &Log, spec: &StudySpec, compiled: &CompiledSpace) {
    let RunnerSpec::Image { network, augment, .. } = &spec.runner else { return };
    if spec.space.get("freeze").is_none() && network.cut() == 0 && highest(spec, "probe_epochs") == 0.0 {
        return;
    }
    let banked = augment.views != Views::Fresh && highest(spec, "strength") > 0.0;
    for Parameter { name, domain, .. } in &spec.space.parameters {
        let decides = match name.as_str() {
            "input_size" => true,
            "small_size" => highest(spec, "small_epochs") > 0.0,
            name => banked && (name == "strength" || RANGES.contains(&name)),
        };
        if decides && domain.cells().is_none_or(|cells| cells > FEW) {
            let title = format!("hardly two trials have the same `{name}`, and so frozen features in common");
            log.warn(&compiled.place(name), title, "each computes the frozen layers anew")
                .help("add a `step`, such as a quarter of the range: trials with the same value share the cache");
        }
    }
}

/// Fixed values that no trial uses, because the parameter is always searched.
fn overridden(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    for parameter in spec.space.parameters.iter().filter(|p| p.when.is_none()) {
        let Some(setting) = Setting::named(&parameter.name) else { continue };
        // The fixed backbone decides which weights are meant.
        if let Some(item) = top.section(setting.section).get(setting.key).filter(|_| setting.name != "backbone") {
            let place = compiled.place(&parameter.name);
            let title = format!("`{}` in `[{}]` is never used: it is searched", setting.key, setting.section);
            let label = if item.place.file == place.file {
                "overridden by `[space]`"
            } else {
                "overridden by the search space"
            };
            top.log.warn(&item.place, title, label);
        }
    }
}

/// Searched parameters that change nothing.
fn without_effect(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let RunnerSpec::Image { network, head, training, augment, .. } = &spec.runner else { return };
    let rules: [(&str, &str, &str, bool); 3] = [
        ("hidden_units", "head", "hidden", head.kind == HeadKind::Hidden),
        ("focal_gamma", "loss", "focal", training.loss == LossKind::Focal),
        ("momentum", "optimiser", "sgd", training.optimiser == OptimiserKind::Sgd),
    ];
    for (name, decider, value, fixed) in rules {
        let Some(parameter) = spec.space.get(name) else { continue };
        let place = compiled.place(name);
        let value = Value::Text(value.to_owned());
        match spec.space.get(decider) {
            None if !fixed => {
                let title = format!("`{name}` changes nothing: `{decider}` is never {value}");
                top.log.warn(&place, title, "searched in vain");
            }
            Some(other) if !other.domain.contains(&value) => {
                let title = format!("`{name}` changes nothing: `{decider}` is never {value}");
                top.log.warn(&place, title, "searched in vain");
            }
            Some(other) if parameter.when.is_none() && other.domain.cells() != Some(1) => {
                let title = format!("`{name}` changes nothing unless `{decider}` is {value}");
                top.log
                    .warn(&place, title, "searched in vain in the other trials")
                    .help(format!("add `when = {{ parameter = \"{decider}\", is = \"{value}\" }}`"));
            }
            _ => {}
        }
    }
    if highest(spec, "small_epochs") == 0.0 {
        if spec.space.get("small_size").is_some() || training.small_size.is_some() {
            let place = place_of(top, compiled, "small_size");
            top.log.warn(&place, "`small_size` changes nothing: there are no `small_epochs`", "in vain");
        }
    } else if let Some(parameter) = spec.space.get("small_size")
        && parameter.when.is_none()
        && spec.space.get("small_epochs").is_some_and(|epochs| epochs.domain.contains(&Value::Int(0)))
    {
        let title = "`small_size` changes nothing where `small_epochs` is 0";
        top.log
            .warn(&compiled.place("small_size"), title, "searched in vain in those trials")
            .help("give it a `when` that names the other values of `small_epochs`");
    }
    let head_only = spec.space.get("freeze").is_none() && spec.space.get("tap").is_none() && network.head_only();
    if head_only {
        if training.probe_epochs > 0 && spec.space.get("probe_epochs").is_none() {
            let place = top.section("training").place_of("probe_epochs");
            top.log
                .warn(&place, "`probe_epochs` changes nothing: only the head is trained", "in vain")
                .help("unfreeze stages with `freeze`");
        }
        if highest(spec, "small_epochs") > 0.0 {
            let place = place_of(top, compiled, "small_epochs");
            top.log
                .warn(
                    &place,
                    "`small_epochs` saves nothing: only the head is trained",
                    "frozen layers are computed twice",
                )
                .help("epochs of a head cost next to nothing; a smaller `input_size` makes its features cheaper");
        }
        for name in ["backbone_rate", "batch_norm", "probe_epochs"] {
            if spec.space.get(name).is_some() {
                let title = format!("`{name}` changes nothing: only the head is trained");
                top.log.warn(&compiled.place(name), title, "searched in vain").help("unfreeze stages with `freeze`");
            }
        }
    }
    if highest(spec, "strength") == 0.0 {
        for name in RANGES {
            if spec.space.get(name).is_some() {
                let title = format!("`{name}` changes nothing: the strength of augmentation is 0");
                top.log.warn(&compiled.place(name), title, "searched in vain").help("set or search `strength`");
            }
        }
    }
    let nothing = augment.ranges().iter().all(|range| *range == 0.0);
    let searched = RANGES.iter().any(|n| spec.space.get(n).is_some());
    if spec.space.get("strength").is_some() && nothing && !searched {
        top.log.warn(&compiled.place("strength"), "`strength` changes nothing: every range is 0", "searched in vain");
    }
}
