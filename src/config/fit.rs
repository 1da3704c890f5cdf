//! Whether a search space fits the runner: known settings, values within their bounds, stages that can be combined.

use super::compiled::CompiledSpace;
use super::reader::{Item, Log, Place, Section, nearest, open_brace, scalar, suggest};
use super::schema::PARAMETER;
use crate::space::{Domain, SearchSpace, Value};
use crate::spec::{
    BackboneKind, CommandSpec, FillError, ORDER_FIELDS, RunnerSpec, SETTINGS, Setting, SettingKind, SettingsError,
    StudySpec, TrialSettings,
};
use toml::de::DeValue;

/// Checks a parameter's name: for the image runner it must be a setting, for a command not a field of the order.
pub(super) fn known_name(item: &Item<'_>, runner: &RunnerSpec) {
    if item.key.is_empty() || item.key.chars().any(|c| !(c.is_alphanumeric() || "_-.".contains(c))) {
        item.log.error(
            &item.key_place,
            "a parameter's name is made of letters, digits, `_`, `-` and `.`",
            "not a name",
        );
    } else if matches!(runner, RunnerSpec::Image { .. }) {
        if Setting::named(item.key).is_none() {
            let names = SETTINGS.iter().map(|s| s.name);
            let report = item.log.error(
                &item.key_place,
                format!("`{}` is not a setting of an image trial", item.key),
                "unknown",
            );
            let near = match item.key.to_lowercase().as_str() {
                "lr" => Some("learning_rate"),
                "wd" => Some("weight_decay"),
                "optimizer" => Some("optimiser"),
                "augmentation" | "augment" | "augmentation_strength" => Some("strength"),
                "frozen_depth" | "frozen" | "unfreeze" => Some("freeze"),
                "gamma" => Some("focal_gamma"),
                key => nearest(key, names.clone()),
            };
            match near {
                Some(name) => report.help(format!("did you mean `{name}`?")),
                None => report.help(format!("known are {}", names.collect::<Vec<_>>().join(", "))),
            };
        }
    } else if matches!(runner, RunnerSpec::Command(_)) && ORDER_FIELDS.contains(&item.key) {
        item.log.error(&item.key_place, format!("`{}` is what a command is told of its order", item.key), "taken");
    }
}

/// Checks that every `{name}` in a command's arguments is a field of the order or a parameter of every configuration.
pub(super) fn arguments(section: &Section<'_>, runner: &RunnerSpec, space: &SearchSpace) {
    let (RunnerSpec::Command(_), Some(list)) = (runner, section.get("command")) else { return };
    let parameters = space.parameters.iter().map(|p| p.name.as_str());
    for item in list.elements(true).unwrap_or_default() {
        let Some(argument) = item.value.as_str() else { continue };
        let mut conditional = Vec::new();
        let filled = CommandSpec::fill(argument, |name| {
            let parameter = space.get(name);
            if parameter.is_some_and(|p| p.when.is_some()) {
                conditional.push(name.to_owned());
            }
            (parameter.is_some() || ORDER_FIELDS.contains(&name)).then(String::new)
        });
        match filled {
            Err(FillError::Unknown { name, .. }) => {
                let title = format!("`{{{name}}}` is neither a parameter nor something of the order");
                let report = section.log.error(&item.place, title, "unknown");
                suggest(report, Some(&name), parameters.clone().chain(ORDER_FIELDS));
            }
            Err(FillError::Open(_)) => open_brace(&item),
            Ok(_) => {}
        }
        for name in conditional {
            let title = format!("`{{{name}}}` does not exist in every configuration: those without it would fail");
            let report = section.log.error(&item.place, title, "has a condition");
            report.help("let the program read it from its standard input, or from HPSEARCH_PARAMS");
        }
    }
}

/// Checks that the runner's setting accepts every value of the domain, one parameter at a time. Where the backbone is
/// searched, the valid stages depend on it; [`check_combinations`] checks them.
pub(super) fn fits(item: &Item<'_>, domain: &Domain, runner: &RunnerSpec, backbone_searched: bool) {
    let (Some(setting), Some(base)) = (Setting::named(item.key), runner.fixed()) else { return };
    let backbone = base.network.backbone;
    let expected = setting.expected(backbone);
    let number_wanted = |kind: &str| {
        let title = format!("`{}` is {expected}, which {kind} cannot give", item.key);
        item.log.error(&item.place, title, "wrong type of domain");
    };
    match (&setting.kind, domain) {
        (SettingKind::Whole(..), Domain::Float { .. }) => {
            let title = format!("`{}` is a whole number, but its domain is float", item.key);
            item.log.error(&item.place, title, "wrong type of domain").help("write `type = \"int\"`");
        }
        (SettingKind::Choice(..) | SettingKind::Stage(..), Domain::Float { .. } | Domain::Int { .. }) => {
            number_wanted("a range");
        }
        (SettingKind::Stage(..), _) if backbone_searched => {}
        (_, Domain::Float { low, high, .. }) => each(item, setting, &base, [Value::Float(*low), Value::Float(*high)]),
        (_, Domain::Int { low, high, .. }) => each(item, setting, &base, [Value::Int(*low), Value::Int(*high)]),
        (_, Domain::Categorical { choices } | Domain::Ordinal { choices }) => {
            each(item, setting, &base, choices.clone())
        }
        (_, Domain::Fixed { value }) => each(item, setting, &base, [value.clone()]),
    }
}

fn each(item: &Item<'_>, setting: &Setting, base: &TrialSettings, values: impl IntoIterator<Item = Value>) {
    for value in values {
        match setting.put(&mut base.clone(), &value) {
            Ok(()) => {}
            Err(error @ SettingsError::Weights { .. }) => {
                say(item.log, &item.place, &error);
            }
            Err(_) => {
                let place = value_place(item, &value);
                let backbone = base.network.backbone;
                let report =
                    item.log.error(&place, format!("`{}` cannot be {value}", item.key), setting.expected(backbone));
                suggest(report, value.as_str(), setting.names(backbone));
            }
        }
    }
}

/// The place of one value inside a domain, where it can be found.
fn value_place(item: &Item<'_>, value: &Value) -> Place {
    let DeValue::Table(table) = item.value else { return item.place.clone() };
    let section = Section::unchecked(item.log, item.place.clone(), table, &PARAMETER);
    let inside = |i: &Item<'_>| scalar(i.value).is_some_and(|v| v.same(value));
    section
        .items()
        .flat_map(|i| if i.value.is_array() { i.elements(true).unwrap_or_default() } else { vec![i] })
        .find(inside)
        .map_or_else(|| item.place.clone(), |i| i.place)
}

fn say(log: &Log, place: &Place, error: &SettingsError) {
    let text = error.to_string();
    let mut lines = text.lines();
    let mut report = log.error(place, lines.next().unwrap_or_default(), "");
    for line in lines {
        report = report.help(line.trim_start_matches("hint: "));
    }
}

/// Checks backbone, tap and freeze in every combination that a configuration can hold.
pub(super) fn check_combinations(log: &Log, compiled: &CompiledSpace, runner: &RunnerSpec, freeze: &Place) {
    let Some(base) = runner.fixed() else { return };
    let names = ["backbone", "tap", "freeze"];
    let mut seen: Vec<String> = Vec::new();
    for combination in combinations(&compiled.space, &names) {
        let Err(error) = base.with(&combination) else { continue };
        let culprit = match &error {
            SettingsError::Stage { name, .. } => Some(name.clone()),
            SettingsError::Frozen { .. } => {
                ["freeze", "backbone"].map(String::from).into_iter().find(|n| compiled.places.contains_key(n))
            }
            _ => None,
        };
        let culprit = culprit
            .filter(|name| compiled.places.contains_key(name))
            .or_else(|| names.iter().find(|n| compiled.places.contains_key(**n)).map(|n| (*n).to_owned()));
        let place = culprit.map_or_else(|| freeze.clone(), |name| compiled.place(&name));
        let text = error.to_string();
        if !seen.contains(&text) {
            say(log, &place, &error);
            if let SettingsError::Stage { value, backbone, .. } = &error {
                let report = log.last();
                suggest(report, Some(value), backbone.stages().iter().copied());
            }
            seen.push(text);
        }
    }
}

/// Every combination of values of some parameters (choices or fixed; both ends of whole ranges) that their conditions on each
/// other allow. A parameter with a condition on any other parameter is tried both present and absent.
fn combinations(space: &SearchSpace, names: &[&str]) -> Vec<crate::space::Params> {
    let mut all = vec![crate::space::Params::default()];
    for parameter in space.parameters.iter().filter(|p| names.contains(&p.name.as_str())) {
        let values: Vec<Value> = match &parameter.domain {
            Domain::Categorical { choices } | Domain::Ordinal { choices } => choices.clone(),
            Domain::Fixed { value } => vec![value.clone()],
            Domain::Int { low, high, .. } => vec![Value::Int(*low), Value::Int(*high)],
            Domain::Float { .. } => Vec::new(),
        };
        let mut next = Vec::new();
        for params in all {
            let inside = parameter.when.as_ref().is_none_or(|w| names.contains(&w.parameter.as_str()));
            let active = !inside || space.is_active(parameter, &params);
            if !(inside && active) {
                next.push(params.clone());
            }
            if active {
                for value in &values {
                    let mut with = params.clone();
                    with.0.insert(parameter.name.clone(), value.clone());
                    next.push(with);
                }
            }
        }
        all = next;
    }
    all
}

/// The largest value a numeric setting can take in this study.
pub(super) fn highest(spec: &StudySpec, name: &str) -> f64 {
    let fixed = match (&spec.runner, name) {
        (RunnerSpec::Image { training, .. }, "warmup_epochs") => training.warmup_epochs,
        (RunnerSpec::Image { training, .. }, "learning_rate") => training.learning_rate,
        (RunnerSpec::Image { training, .. }, "probe_epochs") => f64::from(training.probe_epochs),
        (RunnerSpec::Image { training, .. }, "small_epochs") => f64::from(training.small_epochs),
        (RunnerSpec::Image { augment, .. }, "strength") => augment.strength,
        _ => 0.0,
    };
    match spec.space.get(name) {
        None => fixed,
        Some(parameter) => {
            let searched = extremes(&parameter.domain).map_or(fixed, |(_, high)| high);
            if parameter.when.is_some() { searched.max(fixed) } else { searched }
        }
    }
}

/// The smallest and the largest number of a domain; `None`: it has none.
fn extremes(domain: &Domain) -> Option<(f64, f64)> {
    let of = |values: &[Value]| {
        let numbers = || values.iter().filter_map(Value::as_f64);
        numbers().next().map(|first| (numbers().fold(first, f64::min), numbers().fold(first, f64::max)))
    };
    match domain {
        Domain::Float { low, high, .. } => Some((*low, *high)),
        Domain::Int { low, high, .. } => Some((*low as f64, *high as f64)),
        Domain::Categorical { choices } | Domain::Ordinal { choices } => of(choices),
        Domain::Fixed { value } => of(std::slice::from_ref(value)),
    }
}

/// The settings that decide what of an image a network sees.
const SEEN: [&str; 5] = ["backbone", "input_size", "probe_epochs", "small_epochs", "small_size"];

/// Side in pixels of the smallest image that each backbone may be given, in any configuration that can be run.
pub(super) fn smallest_seen(spec: &StudySpec) -> Vec<(BackboneKind, u32)> {
    let RunnerSpec::Image { data, .. } = &spec.runner else { return Vec::new() };
    let mut smallest: Vec<(BackboneKind, u32)> = Vec::new();
    for settings in combinations(&spec.space, &SEEN).iter().filter_map(|c| spec.runner.settings(c).ok()) {
        let (kind, later) = (settings.network.backbone, settings.network.input_size.unwrap_or(data.size));
        let side = settings.training.small_size.map_or(later, |small| small.min(later));
        match smallest.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, least)) => *least = side.min(*least),
            None => smallest.push((kind, side)),
        }
    }
    smallest
}

/// Checks in every combination that a configuration can hold that networks are given no more of the images than is kept, and
/// begin with smaller ones if they are to.
pub(super) fn check_sides(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let (RunnerSpec::Image { data, network, .. }, log) = (&spec.runner, top.log) else { return };
    if let Some(side) = network.input_size.filter(|side| *side > data.size) {
        let place = top.section("network").place_of("input_size");
        return say(log, &place, &SettingsError::Side { side, size: data.size });
    }
    let mut seen: Vec<SettingsError> = Vec::new();
    for combination in combinations(&spec.space, &SEEN) {
        let Err(error) = spec.runner.settings(&combination) else { continue };
        let name = match &error {
            SettingsError::Side { .. } => "input_size",
            SettingsError::Small { .. } if is_said(top, spec, "small_size") => "small_size",
            SettingsError::Small { .. } | SettingsError::Beginnings => "small_epochs",
            _ => continue,
        };
        if !seen.contains(&error) {
            say(log, &place_of(top, compiled, name), &error);
            seen.push(error);
        }
    }
    if log.errors() > 0 || spec.space.get("backbone").is_some() {
        return;
    }
    for (kind, side) in smallest_seen(spec).into_iter().filter(|(kind, side)| *side < kind.smallest_image()) {
        let name = ["small_size", "small_epochs", "input_size"].into_iter().find(|name| is_said(top, spec, name));
        let place = name.map_or_else(|| top.section("data").place_of("size"), |name| place_of(top, compiled, name));
        let title =
            format!("{kind} takes images of {} pixels at least, and may be given {side}", kind.smallest_image());
        log.error(&place, title, "too small");
    }
}

/// Whether a study says what a setting is, at its fixed value or in the search space.
fn is_said(top: &Section<'_>, spec: &StudySpec, name: &str) -> bool {
    let fixed = || Setting::named(name).is_some_and(|s| top.section(s.section).get(s.key).is_some());
    spec.space.get(name).is_some() || fixed()
}

/// Where a study says what a setting is: in the search space, else at its fixed value.
pub(super) fn place_of(top: &Section<'_>, compiled: &CompiledSpace, name: &str) -> Place {
    match Setting::named(name) {
        Some(setting) if !compiled.places.contains_key(name) => top.section(setting.section).place_of(setting.key),
        _ => compiled.place(name),
    }
}

/// Checks that every trial has epochs left after those with which it begins, and one kind of them.
pub(super) fn check_beginnings(top: &Section<'_>, spec: &StudySpec, compiled: &CompiledSpace) {
    let epochs = spec.runner.epochs();
    let kinds = [("probe_epochs", "only the head is trained"), ("small_epochs", "images are small")];
    for (name, what) in kinds {
        let early = highest(spec, name);
        if early >= f64::from(epochs) && early > 0.0 {
            let title = format!("of {epochs} epochs none is left after {early} in which {what}");
            let place = place_of(top, compiled, name);
            top.log.error(&place, title, format!("`{name}` reaches `epochs`")).help("raise `epochs` in `[training]`");
        }
    }
}
