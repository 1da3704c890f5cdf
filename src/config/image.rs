//! Data, network and training of image studies.

use super::reader::{Section, scalar, suggest};
use super::search::SHARE;
use crate::spec::{
    AugmentSpec, BackboneKind, BadFilePolicy, BatchNormMode, Bounds, CachePrecision, ColourMode, DataSource, DataSpec,
    FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling, PoolPadding, RunnerSpec, Setting, SplitSpec,
    SyntheticSpec, TrainingSpec, TrialSettings, ValidationPolicy, Views, WeightSource, Window,
};
use std::path::PathBuf;

/// Patients in the file names of Kermany et al. 2018; the same pattern as `data::KERMANY_PATIENT`, which this
/// module may not import (a test compares them).
const KERMANY: &str = r"^(?:NORMAL2-)?(person\d+|IM-\d+)";

pub(super) fn compile(top: &Section<'_>) -> RunnerSpec {
    let data = data(top);
    let mut settings = TrialSettings {
        network: network(&top.section("network")),
        head: HeadSpec { kind: HeadKind::Linear, dropout: 0.2, hidden_units: 256 },
        training: TrainingSpec {
            epochs: top.section("training").whole("epochs", 1, 100_000).unwrap_or(10) as u32,
            ..TrainingSpec::default()
        },
        augment: AugmentSpec { views: views(&top.section("augment")), ..AugmentSpec::default() },
    };
    for section in ["network", "head", "training", "augment"] {
        fixed_settings(&top.section(section), &mut settings);
    }
    let least = settings.network.backbone.smallest_image();
    if data.size < least {
        let place = top.section("data").place_of("size");
        let backbone = settings.network.backbone;
        top.log.error(&place, format!("{backbone} takes images of {least} pixels at least"), "too small");
    }
    let TrialSettings { network, head, training, augment } = settings;
    RunnerSpec::Image { data, network, head, training, augment }
}

/// Applies the values of a table to the settings, through the same [`Setting`]s as searched values.
fn fixed_settings(section: &Section<'_>, settings: &mut TrialSettings) {
    for key in section.schema.keys {
        let Some(setting) = Setting::at(section.schema.name, key.name) else { continue };
        // The backbone is read first, with its weights.
        let Some(item) = section.get(key.name).filter(|_| setting.name != "backbone") else { continue };
        let backbone = settings.network.backbone;
        let put = scalar(item.value).is_some_and(|value| setting.put(settings, &value).is_ok());
        if !put {
            let report = item.wanted(&setting.expected(backbone));
            suggest(report, item.value.as_str(), setting.names(backbone));
        }
    }
}

fn views(section: &Section<'_>) -> Views {
    let Some(item) = section.get("views") else { return Views::Bank(8) };
    if item.value.as_str() == Some("fresh") {
        return Views::Fresh;
    }
    match super::reader::integer(item.value).filter(|n| (1..=1024).contains(n)) {
        Some(n) => Views::Bank(n as u32),
        None => {
            item.wanted("a whole number from 1 to 1024, or \"fresh\"");
            Views::Bank(8)
        }
    }
}

fn data(top: &Section<'_>) -> DataSpec {
    let section = top.section("data");
    let source = source(&section);
    let patient = section.text("patient").map(|text| if text == "kermany" { KERMANY } else { text });
    if let Some(pattern) = patient
        && let Err(error) = regex::Regex::new(pattern)
    {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        top.log.error(&section.place_of("patient"), "`patient` must be a regular expression", reason);
    }
    DataSpec {
        source,
        positive: section.text("positive").map(str::to_owned),
        patient: patient.map(str::to_owned),
        bad_files: section.one_of("bad_files").unwrap_or(BadFilePolicy::Fail),
        colour: section.one_of("colour").unwrap_or(ColourMode::Grey),
        size: section.whole("size", 1, 4096).unwrap_or(299) as u32,
        window: window(&section),
        split: split(&top.section("split")),
    }
}

fn window(section: &Section<'_>) -> Window {
    let Some(item) = section.get("window") else { return Window::File };
    if item.value.is_table() {
        let table = section.section("window");
        let bounds = Bounds::below(-1e9, 1e9);
        let center = table.real("center", bounds);
        let width = table.real("width", Bounds { low: 1.0, ..bounds });
        for key in ["center", "width"] {
            if table.get(key).is_none() {
                section.log.error(&item.place, format!("the window has no `{key}`"), "write both");
            }
        }
        return Window::Level { center: center.unwrap_or(0.0), width: width.unwrap_or(1.0) };
    }
    match item.value.as_str() {
        Some("file") => Window::File,
        Some("range") => Window::Range,
        other => {
            suggest(item.wanted("`file`, `range` or `{ center = .., width = .. }`"), other, ["file", "range"]);
            Window::File
        }
    }
}

fn source(section: &Section<'_>) -> DataSource {
    let given: Vec<_> = ["folder", "manifest", "synthetic"].iter().filter_map(|key| section.get(key)).collect();
    if let [_, others @ ..] = given.as_slice() {
        for item in others {
            let title = "one of `folder`, `manifest` and `synthetic` is wanted, not several";
            section.log.error(&item.key_place, title, "one too many");
        }
    }
    let path = |item: &super::reader::Item<'_>| item.text().map(PathBuf::from);
    match given.first() {
        None => {
            let report = section.log.error(&section.place, "the study does not say where its images are", "");
            report.help("write `folder = \"...\"`, `manifest = \"...\"` or `synthetic = {}` in `[data]`");
            DataSource::Folder(PathBuf::new())
        }
        Some(item) => match item.key {
            "folder" => DataSource::Folder(path(item).unwrap_or_default()),
            "manifest" => DataSource::Manifest(path(item).unwrap_or_default()),
            _ => {
                let table = section.section("synthetic");
                DataSource::Synthetic(SyntheticSpec {
                    images: table.whole("images", 20, 1_000_000).unwrap_or(600) as u32,
                    prevalence: table.real("prevalence", SHARE).unwrap_or(0.5),
                    contrast: table.real("contrast", Bounds::UNIT).unwrap_or(0.5),
                    seed: table.whole("seed", 0, i64::MAX as u64).unwrap_or(0),
                })
            }
        },
    }
}

fn split(section: &Section<'_>) -> SplitSpec {
    let policy = section.one_of("policy");
    let split = SplitSpec {
        validation: section.real("validation", SHARE).unwrap_or(0.2),
        test: section.real("test", Bounds::below(0.0, 1.0)).unwrap_or(0.2),
        policy: policy.unwrap_or(ValidationPolicy::Auto),
        folds: section.whole("folds", 2, 100).map(|n| n as u32),
    };
    if let (Some(_), Some(item)) = (split.folds, section.get("validation")) {
        let report =
            section.log.error(&item.key_place, "`validation` has no meaning with `folds`", "contradicts `folds`");
        report.help("each fold's share is 1 / folds");
    }
    split
}

fn network(section: &Section<'_>) -> NetworkSpec {
    let backbone = section.one_of("backbone");
    let backbone = backbone.unwrap_or(BackboneKind::InceptionV3);
    let width = section.real("width", Bounds { low: 0.0, high: 4.0, low_included: false, high_included: true });
    let width = width.unwrap_or(1.0);
    let weights = weights(section, backbone);
    if width != 1.0 && matches!(weights, WeightSource::Hub { .. }) {
        let report =
            section.log.error(&section.place_of("width"), "published weights are for `width = 1`", "another width");
        report.help("write `weights = \"random\"`, or name a file of this width");
    }
    if width != 1.0 && backbone != BackboneKind::InceptionV3 {
        section.log.error(&section.place_of("width"), format!("{backbone} has one width only"), "not 1");
    }
    let (scaling, pool_padding) = match section.choice("preset", &["torchvision", "timm", "keras"]) {
        Some("keras") => (PixelScaling::Symmetric, PoolPadding::Excluded),
        _ => (PixelScaling::Imagenet, PoolPadding::Counted),
    };
    NetworkSpec {
        backbone,
        width,
        weights,
        scaling: section.one_of("scaling").unwrap_or(scaling),
        pool_padding: section.one_of("pool_padding").unwrap_or(pool_padding),
        tap: backbone.last_stage().to_owned(),
        freeze: FreezeTo::All,
        batch_norm: BatchNormMode::Frozen,
        cache: section.one_of("cache").unwrap_or(CachePrecision::F32),
        input_size: None,
    }
}

fn weights(section: &Section<'_>, backbone: BackboneKind) -> WeightSource {
    let pretrained = || WeightSource::Hub { repo: backbone.pretrained().to_owned(), revision: None };
    let Some(item) = section.get("weights") else { return pretrained() };
    match item.text() {
        None | Some("pretrained") => pretrained(),
        Some("random") => WeightSource::Random,
        Some(text) => match text.strip_prefix("hub:") {
            Some(name) => {
                let (repo, revision) = match name.split_once('@') {
                    Some((repo, revision)) => (repo, Some(revision.to_owned())),
                    None => (name, None),
                };
                let parts: Vec<&str> = repo.split('/').collect();
                if parts.len() != 2 || parts.iter().any(|p| p.is_empty()) || revision.as_deref() == Some("") {
                    item.wanted("a repository like `hub:timm/inception_v3.tv_in1k`, or with `@REVISION`");
                }
                WeightSource::Hub { repo: repo.to_owned(), revision }
            }
            None if text.is_empty() => {
                item.wanted("`pretrained`, `random`, `hub:OWNER/NAME` or the path of a file");
                WeightSource::Random
            }
            None => {
                let file = PathBuf::from(text);
                if file.extension().is_none_or(|e| e != "safetensors") {
                    let report = section.log.error(
                        &item.place,
                        "weights are read from safetensors files",
                        "another kind of file",
                    );
                    suggest(report, Some(text), ["pretrained", "random"])
                        .help("write `pretrained`, `random`, `hub:OWNER/NAME` or the path of a .safetensors file");
                }
                WeightSource::File(file)
            }
        },
    }
}
