//! The search space: domains and conditions. Whether they fit the runner is checked in `fit`.

use super::compiled::CompiledSpace;
use super::fit::{fits, known_name};
use super::reader::{self, Item, Place, Section, entries, integer, number, suggest};
use super::schema::{CONDITION, PARAMETER};
use crate::space::{Condition, Domain, Parameter, SearchSpace, Value};
use crate::spec::RunnerSpec;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The text of a search-space file.
pub(super) struct SpaceFile {
    file: usize,
    text: String,
}

/// Reads the file that `space = "..."` names: beside the study file, else in the working directory.
pub(super) fn source(top: &Section<'_>, base: &Path) -> Option<SpaceFile> {
    let item = top.get("space")?;
    let name = item.value.as_str()?;
    let candidates = [base.join(name), PathBuf::from(name)];
    let Some(path) = candidates.iter().find(|p| p.is_file()) else {
        let report = top.log.error(&item.place, format!("there is no search-space file `{name}`"), "not found");
        report.help(format!("sought as {} and {}", candidates[0].display(), candidates[1].display()));
        return None;
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let file = top.log.file(path.display().to_string(), text.clone());
            Some(SpaceFile { file, text })
        }
        Err(error) => {
            top.log.error(&item.place, format!("cannot read the search-space file: {error}"), "");
            None
        }
    }
}

/// Compiles the space of a study.
pub(super) fn compile(top: &Section<'_>, file: Option<&SpaceFile>, runner: &RunnerSpec) -> CompiledSpace {
    let empty = CompiledSpace { space: SearchSpace::default(), places: BTreeMap::new() };
    let Some(item) = top.get("space") else {
        let place = Place { file: top.place.file, span: None };
        let report = top.log.error(&place, "the study has no search space", "");
        report.help("add a table `[space]`, or `space = \"FILE.toml\"` before the first table");
        return empty;
    };
    match file {
        Some(file) => match reader::document(top.log, file.file, &file.text) {
            Some(document) => {
                let place = Place { file: file.file, span: None };
                let table = DeValue::Table(document.into_inner());
                let whole = Item { log: top.log, key: "space", key_place: place.clone(), place, value: &table };
                parameters(&whole, runner)
            }
            None => empty,
        },
        // A file that is named but missing has been reported.
        None if item.value.is_str() => empty,
        None => parameters(&item, runner),
    }
}

fn parameters(table: &Item<'_>, runner: &RunnerSpec) -> CompiledSpace {
    let items = entries(table).unwrap_or_default();
    let mut places = BTreeMap::new();
    let mut read: Vec<(Parameter, Option<(Place, Place)>)> = Vec::new();
    let backbone_searched = items.iter().any(|i| i.key == "backbone");
    for item in &items {
        places.insert(item.key.to_owned(), item.place.clone());
        let domain = domain(item);
        let (when, at) = condition(item).map_or((None, None), |(when, at)| (Some(when), Some(at)));
        known_name(item, runner);
        if let Some(domain) = domain {
            fits(item, &domain, runner, backbone_searched);
            read.push((Parameter { name: item.key.to_owned(), domain, when }, at));
        }
    }
    if items.is_empty() {
        table
            .log
            .error(&table.place, "the search space is empty", "no parameter")
            .help("add parameters such as `learning_rate = { type = \"float\", low = 1e-5, high = 1e-2, log = true }`");
    }
    conditions(table, &mut read);
    CompiledSpace { space: SearchSpace { parameters: ordered(table, read) }, places }
}

fn domain(item: &Item<'_>) -> Option<Domain> {
    if !item.value.is_table() {
        if item.value.is_array() {
            item.wanted("a table or a fixed value").help("write `{ choices = [..] }`");
            return None;
        }
        return item.scalar().map(|value| Domain::Fixed { value });
    }
    let section = item.table(&PARAMETER)?;
    let kinds = ["float", "int", "categorical", "ordinal", "fixed"];
    let kind = match section.get("type") {
        Some(given) => given.choice(&kinds)?,
        None if section.get("choices").is_some() => "categorical",
        None if section.get("value").is_some() => "fixed",
        None => {
            let report = item.log.error(
                &item.place,
                format!("`{}` has no `type`", item.key),
                "float, int, categorical or ordinal",
            );
            report.help("write `type = \"float\"` with `low` and `high`, or `choices = [..]`");
            return None;
        }
    };
    let numbers: &[&str] = &["float", "int"];
    let chosen: &[&str] = &["categorical", "ordinal"];
    let allowed: &[(&str, &[&str])] = &[
        ("low", numbers),
        ("high", numbers),
        ("step", numbers),
        ("log", numbers),
        ("choices", chosen),
        ("value", &["fixed"]),
    ];
    for (key, kinds) in allowed {
        if let Some(extra) = section.get(key)
            && !kinds.contains(&kind)
        {
            item.log.error(
                &extra.key_place,
                format!("`{key}` has no meaning with type `{kind}`"),
                format!("belongs to {}", kinds.join(" and ")),
            );
        }
    }
    match kind {
        "float" => float(item, &section),
        "int" => int(item, &section),
        "fixed" => required(item, &section, "value")?.scalar().map(|value| Domain::Fixed { value }),
        _ => {
            let choices = choices(&required(item, &section, "choices")?)?;
            Some(if kind == "ordinal" { Domain::Ordinal { choices } } else { Domain::Categorical { choices } })
        }
    }
}

fn required<'a>(item: &Item<'a>, section: &Section<'a>, key: &str) -> Option<Item<'a>> {
    let found = section.get(key);
    if found.is_none() {
        item.log.error(&item.place, format!("`{}` has no `{key}`", item.key), format!("`{key}` is missing"));
    }
    found
}

fn float(item: &Item<'_>, section: &Section<'_>) -> Option<Domain> {
    let end = |key: &str| {
        let end = required(item, section, key)?;
        let x = number(end.value);
        if x.is_none() {
            end.wanted("a finite number");
        }
        x
    };
    let (low, high) = (end("low"), end("high"));
    let log = section.get("log").and_then(|i| i.flag()).unwrap_or(false);
    let step = section.get("step").and_then(|i| i.real(crate::spec::Bounds::POSITIVE));
    let (low, high) = (low?, high?);
    let sound = [order(item, section, low > high), no_log_step(section, log), above_zero(section, log && low <= 0.0)];
    if let Some(step) = step
        && high > low
        && (step > high - low || (high - low) / step > 1e9)
    {
        let title = if step > high - low {
            "`step` is larger than the whole range"
        } else {
            "`step` makes more than a thousand million values"
        };
        item.log.error(&section.place_of("step"), title, "");
        return None;
    }
    sound.iter().all(|s| *s).then_some(Domain::Float { low, high, step, log })
}

fn int(item: &Item<'_>, section: &Section<'_>) -> Option<Domain> {
    let end = |key: &str| {
        let end = required(item, section, key)?;
        let n = integer(end.value);
        if n.is_none() {
            let report = end.wanted("a whole number");
            if number(end.value).is_some() {
                report.help("write `type = \"float\"` for numbers with a fraction");
            }
        }
        n
    };
    let (low, high) = (end("low"), end("high"));
    let log = section.get("log").and_then(|i| i.flag()).unwrap_or(false);
    let step = section.whole("step", 1, i64::MAX as u64).map(|n| n as i64);
    let (low, high) = (low?, high?);
    let sound = [order(item, section, low > high), no_log_step(section, log), above_zero(section, log && low <= 0)];
    sound.iter().all(|s| *s).then_some(Domain::Int { low, high, step: step.unwrap_or(1), log })
}

fn order(item: &Item<'_>, section: &Section<'_>, turned: bool) -> bool {
    if turned {
        item.log.error(&section.place_of("high"), "`high` is below `low`", "smaller than `low`");
    }
    !turned
}

fn no_log_step(section: &Section<'_>, log: bool) -> bool {
    let both = section.get("step").filter(|_| log);
    if let Some(step) = &both {
        let report = section.log.error(&step.key_place, "`step` and `log` exclude each other", "not with `log`");
        report.help("leave one out, or write the values as `choices` of an ordinal");
    }
    both.is_none()
}

fn above_zero(section: &Section<'_>, wrong: bool) -> bool {
    if wrong {
        let report =
            section.log.error(&section.place_of("low"), "with `log`, `low` must be above 0", "has no logarithm");
        report.help("to search 0 as well, make it a choice, or leave `log` out");
    }
    !wrong
}

fn choices(item: &Item<'_>) -> Option<Vec<Value>> {
    let elements = item.elements(false)?;
    if elements.is_empty() {
        item.log.error(&item.place, "`choices` is empty", "at least one is wanted");
        return None;
    }
    let mut values: Vec<Value> = Vec::new();
    for element in &elements {
        let value = element.scalar()?;
        if values.iter().any(|v| v.same(&value)) {
            item.log.error(&element.place, format!("{value} is among the choices twice"), "again");
            return None;
        }
        values.push(value);
    }
    Some(values)
}

/// The condition with the places of its parameter and of its values.
fn condition(item: &Item<'_>) -> Option<(Condition, (Place, Place))> {
    let DeValue::Table(table) = item.value else { return None };
    let when = Section::unchecked(item.log, item.place.clone(), table, &PARAMETER).get("when")?;
    let section = when.table(&CONDITION)?;
    let parameter = required(&when, &section, "parameter")?;
    let is = required(&when, &section, "is")?;
    let name = parameter.text()?.to_owned();
    let values: Vec<Value> = is.elements(true)?.iter().map(Item::scalar).collect::<Option<_>>()?;
    if values.is_empty() {
        is.wanted("one value at least");
        return None;
    }
    Some((Condition { parameter: name, values }, (parameter.place, is.place)))
}

/// Checks that conditions refer to parameters and values that exist, and converts values to the domains' types.
fn conditions(table: &Item<'_>, read: &mut [(Parameter, Option<(Place, Place)>)]) {
    let domains: BTreeMap<String, Domain> = read.iter().map(|(p, _)| (p.name.clone(), p.domain.clone())).collect();
    for (parameter, at) in read {
        let (Some(when), Some((name_place, value_place))) = (&mut parameter.when, at) else { continue };
        let Some(domain) = domains.get(&when.parameter).filter(|_| when.parameter != parameter.name) else {
            let title = if when.parameter == parameter.name {
                format!("`{}` depends on itself", parameter.name)
            } else {
                format!("`when` names `{}`, which is not a parameter of this space", when.parameter)
            };
            let report = table.log.error(name_place, title, "");
            suggest(report, Some(&when.parameter), domains.keys().map(String::as_str).filter(|n| *n != parameter.name));
            parameter.when = None;
            continue;
        };
        for value in &mut when.values {
            match domain.coerce(value) {
                Some(own) => *value = own,
                None => {
                    let title = format!("`{}` is never {value}", when.parameter);
                    table.log.error(value_place, title, format!("its values: {domain}"));
                }
            }
        }
    }
}

/// Parameters in the order of the file, but each after the one on which it depends.
fn ordered(table: &Item<'_>, read: Vec<(Parameter, Option<(Place, Place)>)>) -> Vec<Parameter> {
    let mut waiting = read;
    let mut done: Vec<Parameter> = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .position(|(p, _)| p.when.as_ref().is_none_or(|w| done.iter().any(|d| d.name == w.parameter)));
        match ready {
            Some(i) => done.push(waiting.remove(i).0),
            None => {
                for (parameter, at) in waiting {
                    let place = at.map_or_else(|| table.place.clone(), |(name, _)| name);
                    table.log.error(&place, format!("`{}` depends on itself in a circle", parameter.name), "");
                }
                break;
            }
        }
    }
    done
}
