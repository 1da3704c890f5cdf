//! Compiling a whole study file.

use super::image;
use super::reader::{Item, Log, Place, Section, entries};
use super::schema::Table;
use super::{cluster, fit, notify, reader, search, space, warnings};
use crate::space::Params;
use crate::spec::{ChangedDefaults, CommandSpec, RunnerSpec, StudySpec};
use std::path::{Path, PathBuf};

/// Compiles a study; `None` only if the TOML does not parse. The study is valid if the log has no mistakes.
pub(super) fn compile(log: &Log, shown: &str, text: &str, path: &Path, base: &Path) -> Option<StudySpec> {
    let file = log.file(shown.to_owned(), text.to_owned());
    let document = reader::document(log, file, text)?;
    let whole = Place { file, span: None };
    let top = Section::new(log, whole, Some(document.get_ref()), Table::named("")?);

    top.check();

    let name = name(&top, path);
    let seed = top.whole("seed", 0, i64::MAX as u64).unwrap_or(0);
    let runner = runner(&top);
    let source = space::source(&top, base);
    let space = space::compile(&top, source.as_ref(), &runner);
    let sampler = search::sampler(&top.section("sampler"));
    let scheduler = search::scheduler(&top.section("scheduler"), &runner);
    let spec = StudySpec {
        name,
        seed,
        objective: search::objective(&top.section("objective"), &runner),
        enqueue: enqueue(&top, &space.space),
        budget: search::budget(&top.section("budget"), &sampler, &scheduler),
        limits: search::limits(&top.section("limits")),
        failures: search::failures(&top.section("failures")),
        run: search::run(&top.section("run")),
        cluster: cluster::compile(&top.section("cluster")),
        notify: notify::compile(&top.section("notify")),
        runner,
        space: space.space.clone(),
        sampler,
        scheduler,
        changed_defaults: ChangedDefaults { norm_statistics: top.section("training").get("norm_statistics").is_none() },
    };
    if spec.budget.work.is_some() && !matches!(spec.runner, RunnerSpec::Image { .. }) {
        let place = top.section("budget").place_of("work");
        let report = log.error(&place, "only trials on images have a cost model", "`work` is not known");
        report.help("bound `epochs` or `wall_time` instead");
    }
    if spec.sampler.weighs_costs() && !matches!(spec.runner, RunnerSpec::Image { .. }) {
        let place = top.section("sampler").place_of("cost_aware");
        log.error(&place, "only trials on images have a cost model", "costs are not known");
    }
    fit::arguments(&top.section("runner"), &spec.runner, &spec.space);
    if log.errors() == 0 {
        fit::check_combinations(log, &space, &spec.runner, &top.section("network").place_of("freeze"));
    }
    if log.errors() == 0 {
        fit::check_beginnings(&top, &spec, &space);
        fit::check_sides(&top, &spec, &space);
    }
    if log.errors() == 0 {
        warnings::warn(&top, &spec, &space);
    }
    Some(spec)
}

fn name(top: &Section<'_>, path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let given = top.text("name");
    let name = given.map_or(stem, str::to_owned);
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // `cache` is the folder that studies share inside the state folder.
    let usable =
        !name.is_empty() && name.chars().all(sound) && !name.starts_with('.') && name.len() <= 100 && name != "cache";
    if !usable {
        let place = top.place_of("name");
        let report = top.log.error(&place, format!("`{name}` cannot be a study's name"), "not usable");
        report.help("letters, digits, `-`, `_` and `.` make a name; it may not begin with `.`, nor be `cache`");
    }
    name
}

fn runner(top: &Section<'_>) -> RunnerSpec {
    let section = top.section("runner");
    let kind = section.choice("kind", &["image", "command", "synthetic", "external"]).unwrap_or("image");
    section.only_with(
        kind,
        &[
            ("command", &["command"]),
            ("directory", &["command"]),
            ("epochs", &["command", "synthetic", "external"]),
            ("epoch_ms", &["synthetic"]),
        ],
    );
    if kind == "image" {
        return image::compile(top);
    }
    for key in ["data", "split", "network", "head", "training", "augment"] {
        if let Some(item) = top.get(key) {
            top.log.error(
                &item.key_place,
                format!("`{key}` has no meaning with the {kind} runner"),
                "belongs to images",
            );
        }
    }
    let epochs = section.whole("epochs", 1, 1_000_000).map(|n| n as u32).unwrap_or_else(|| {
        if section.get("epochs").is_none() {
            let place = section.place_of("kind");
            top.log.error(&place, "the number of epochs is missing", "").help("add `epochs = 10` to `[runner]`");
        }
        1
    });
    if kind == "synthetic" {
        return RunnerSpec::Synthetic { epochs, epoch_ms: section.whole("epoch_ms", 0, 86_400_000).unwrap_or(0) };
    }
    if kind == "external" {
        return RunnerSpec::External { epochs };
    }
    let argv: Vec<String> = match section.get("command") {
        Some(item) => {
            item.elements(true).unwrap_or_default().iter().filter_map(Item::text).map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    if argv.is_empty() {
        let place = section.place_of("command");
        top.log.error(&place, "the command is missing", "").help("write `command = [\"python3\", \"train.py\"]`");
    }
    RunnerSpec::Command(CommandSpec { argv, directory: section.text("directory").map(PathBuf::from), epochs })
}

fn enqueue(top: &Section<'_>, space: &crate::space::SearchSpace) -> Vec<Params> {
    let Some(list) = top.get("enqueue") else { return Vec::new() };
    let mut all = Vec::new();
    for table in list.elements(false).unwrap_or_default() {
        let Some(items) = entries(&table) else { continue };
        let given = Params(items.iter().filter_map(|i| Some((i.key.to_owned(), i.scalar()?))).collect());
        if given.0.len() < items.len() {
            continue; // reported already
        }
        match space.complete(&given) {
            Ok(params) => {
                if all.contains(&params) {
                    top.log.warn(&table.place, "this configuration is enqueued twice", "trained once");
                } else {
                    all.push(params);
                }
            }
            Err(wrong) => {
                for fault in wrong {
                    let item = items.iter().find(|i| i.key == fault.name());
                    let place = item.map_or(&table.place, |i| &i.place);
                    let report =
                        top.log.error(place, format!("an enqueued configuration does not fit the space: {fault}"), "");
                    super::reader::suggest(
                        report,
                        item.filter(|i| space.get(i.key).is_none()).map(|i| i.key),
                        space.parameters.iter().map(|p| p.name.as_str()),
                    );
                }
            }
        }
    }
    all
}
