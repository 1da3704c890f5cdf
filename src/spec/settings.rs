//! The settings of an image trial: one table shared by the study file, the search space and the trials.
//!
//! Each row says where a setting stands in a study file, what values it takes and how it is put into
//! [`TrialSettings`]; so a range is checked against the same bounds whether a value is fixed or searched.

use super::{
    BackboneKind, BatchNormMode, FreezeTo, HeadKind, ImbalancePolicy, LossKind, NormStatistics, OptimiserKind,
    ScheduleKind, TrialSettings,
};
use crate::space::Value;
use std::fmt;
use strum::VariantNames;

/// One setting.
pub struct Setting {
    /// The name under which it is searched.
    pub name: &'static str,
    /// The table of the study file in which its fixed value stands.
    pub section: &'static str,
    /// The key there.
    pub key: &'static str,
    /// The values it takes.
    pub kind: SettingKind,
}

/// What values a setting takes, and how one is put into a trial.
pub enum SettingKind {
    /// A number within bounds.
    Real(Bounds, fn(&mut TrialSettings, f64)),
    /// A whole number from the first to the second.
    Whole(u32, u32, fn(&mut TrialSettings, u32)),
    /// One of these names.
    Choice(&'static [&'static str], fn(&mut TrialSettings, &str)),
    /// A stage of the backbone, or one of these further names.
    Stage(&'static [&'static str], fn(&mut TrialSettings, &str)),
}

/// An interval of the real numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The lower end.
    pub low: f64,
    /// The upper end, possibly infinite.
    pub high: f64,
    /// Whether `low` itself belongs to it.
    pub low_included: bool,
    /// Whether `high` itself belongs to it.
    pub high_included: bool,
}

impl Bounds {
    /// `[low, high]`.
    pub const fn closed(low: f64, high: f64) -> Self {
        Self { low, high, low_included: true, high_included: true }
    }

    /// `[low, high)`.
    pub const fn below(low: f64, high: f64) -> Self {
        Self { low, high, low_included: true, high_included: false }
    }

    /// `(low, high]`.
    pub const fn above(low: f64, high: f64) -> Self {
        Self { low, high, low_included: false, high_included: true }
    }

    /// `(0, inf)`.
    pub const POSITIVE: Self = Self { low: 0.0, high: f64::INFINITY, low_included: false, high_included: false };
    /// `[0, inf)`.
    pub const NOT_NEGATIVE: Self = Self::below(0.0, f64::INFINITY);
    /// `[0, 1]`.
    pub const UNIT: Self = Self::closed(0.0, 1.0);

    /// Whether `x` lies inside.
    pub fn contains(&self, x: f64) -> bool {
        let above = if self.low_included { x >= self.low } else { x > self.low };
        let below = if self.high_included { x <= self.high } else { x < self.high };
        above && below
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (Value::Float(self.low), Value::Float(self.high));
        match (self.low_included, self.high_included) {
            (true, _) if self.high.is_infinite() => write!(f, "a number of at least {low}"),
            (false, _) if self.high.is_infinite() => write!(f, "a number above {low}"),
            (true, true) => write!(f, "a number from {low} to {high}"),
            (true, false) => write!(f, "a number from {low} to below {high}"),
            (false, true) => write!(f, "a number above {low}, at most {high}"),
            (false, false) => write!(f, "a number above {low} and below {high}"),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.name)
    }
}

const fn real(name: &'static str, section: &'static str, bounds: Bounds, put: fn(&mut TrialSettings, f64)) -> Setting {
    Setting { name, section, key: name, kind: SettingKind::Real(bounds, put) }
}

const fn whole(
    name: &'static str,
    section: &'static str,
    low: u32,
    high: u32,
    put: fn(&mut TrialSettings, u32),
) -> Setting {
    Setting { name, section, key: name, kind: SettingKind::Whole(low, high, put) }
}

const fn choice(
    name: &'static str,
    section: &'static str,
    key: &'static str,
    names: &'static [&'static str],
    put: fn(&mut TrialSettings, &str),
) -> Setting {
    Setting { name, section, key, kind: SettingKind::Choice(names, put) }
}

/// Puts a name into a field; names were checked against the same list before.
macro_rules! named {
    ($kind:ty, $($field:ident).+) => {
        |settings, name| {
            if let Ok(value) = name.parse::<$kind>() {
                settings.$($field).+ = value;
            }
        }
    };
}

/// Every setting of an image trial, the backbone first: the others are checked against it.
pub static SETTINGS: &[Setting] = &[
    choice("backbone", "network", "backbone", BackboneKind::VARIANTS, |s, name| {
        if let Some(network) = name.parse().ok().and_then(|kind| s.network.with_backbone(kind)) {
            s.network = network;
        }
    }),
    Setting {
        name: "tap",
        section: "network",
        key: "tap",
        kind: SettingKind::Stage(&[], |s, name| s.network.tap = name.to_owned()),
    },
    Setting {
        name: "freeze",
        section: "network",
        key: "freeze",
        kind: SettingKind::Stage(&["none", "all"], |s, name| {
            s.network.freeze = match name {
                "none" => FreezeTo::None,
                "all" => FreezeTo::All,
                stage => FreezeTo::Stage(stage.to_owned()),
            }
        }),
    },
    whole("input_size", "network", 32, 4096, |s, side| s.network.input_size = Some(side)),
    choice("batch_norm", "network", "batch_norm", BatchNormMode::VARIANTS, named!(BatchNormMode, network.batch_norm)),
    choice("head", "head", "kind", HeadKind::VARIANTS, named!(HeadKind, head.kind)),
    real("dropout", "head", Bounds::below(0.0, 1.0), |s, x| s.head.dropout = x),
    whole("hidden_units", "head", 1, 65_536, |s, n| s.head.hidden_units = n),
    // Of a single image the head's batch norm leaves its bias alone: nothing would be learnt.
    whole("batch_size", "training", 2, 4096, |s, n| s.training.batch_size = n),
    choice("optimiser", "training", "optimiser", OptimiserKind::VARIANTS, named!(OptimiserKind, training.optimiser)),
    real("learning_rate", "training", Bounds::POSITIVE, |s, x| s.training.learning_rate = x),
    real("weight_decay", "training", Bounds::NOT_NEGATIVE, |s, x| s.training.weight_decay = x),
    real("momentum", "training", Bounds::below(0.0, 1.0), |s, x| s.training.momentum = x),
    real("backbone_rate", "training", Bounds::NOT_NEGATIVE, |s, x| s.training.backbone_rate = x),
    choice("schedule", "training", "schedule", ScheduleKind::VARIANTS, named!(ScheduleKind, training.schedule)),
    real("warmup_epochs", "training", Bounds::NOT_NEGATIVE, |s, x| s.training.warmup_epochs = x),
    choice("loss", "training", "loss", LossKind::VARIANTS, named!(LossKind, training.loss)),
    real("focal_gamma", "training", Bounds::closed(0.0, 10.0), |s, x| s.training.focal_gamma = x),
    real("label_smoothing", "training", Bounds::below(0.0, 1.0), |s, x| s.training.label_smoothing = x),
    choice(
        "imbalance",
        "training",
        "imbalance",
        ImbalancePolicy::VARIANTS,
        named!(ImbalancePolicy, training.imbalance),
    ),
    real("clip_norm", "training", Bounds::NOT_NEGATIVE, |s, x| s.training.clip_norm = x),
    real("layer_decay", "training", Bounds::above(0.0, 1.0), |s, x| s.training.layer_decay = x),
    real("average_epochs", "training", Bounds::closed(0.0, 1000.0), |s, x| s.training.average_epochs = x),
    whole("probe_epochs", "training", 0, 100_000, |s, n| s.training.probe_epochs = n),
    whole("small_epochs", "training", 0, 100_000, |s, n| s.training.small_epochs = n),
    whole("small_size", "training", 32, 4096, |s, side| s.training.small_size = Some(side)),
    choice(
        "norm_statistics",
        "training",
        "norm_statistics",
        NormStatistics::VARIANTS,
        named!(NormStatistics, training.norm_statistics),
    ),
    real("strength", "augment", Bounds::UNIT, |s, x| s.augment.strength = x),
    real("flip", "augment", Bounds::UNIT, |s, x| s.augment.flip = x),
    real("rotation", "augment", Bounds::closed(0.0, 180.0), |s, x| s.augment.rotation = x),
    real("brightness", "augment", Bounds::below(0.0, 1.0), |s, x| s.augment.brightness = x),
    real("edges", "augment", Bounds::UNIT, |s, x| s.augment.edges = x),
    real("vertical_flip", "augment", Bounds::UNIT, |s, x| s.augment.vertical_flip = x),
    real("quarter_turns", "augment", Bounds::UNIT, |s, x| s.augment.quarter_turns = x),
    real("zoom", "augment", Bounds::below(0.0, 1.0), |s, x| s.augment.zoom = x),
    real("shift", "augment", Bounds::below(0.0, 1.0), |s, x| s.augment.shift = x),
    real("contrast", "augment", Bounds::below(0.0, 1.0), |s, x| s.augment.contrast = x),
    real("noise", "augment", Bounds::UNIT, |s, x| s.augment.noise = x),
];

/// Why a value cannot be a setting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// No setting of an image trial has this name.
    #[error("`{name}` is not a setting of an image trial")]
    Unknown { name: String },
    /// The value is of the wrong type or outside the bounds.
    #[error("{value} is not a value of `{name}`: {expected} is wanted")]
    Value { name: String, value: String, expected: String },
    /// The backbone has no such stage.
    #[error("`{name}` is {value}, but {backbone} has no such stage")]
    Stage { name: String, value: String, backbone: BackboneKind },
    /// The study names weights of one backbone, and the configuration asks for another.
    #[error(
        "the weights of this study belong to {backbone}, not to {asked}\nhint: write `weights = \"pretrained\"` or `\"random\"`, which hold for every backbone"
    )]
    Weights { backbone: BackboneKind, asked: BackboneKind },
    /// The backbone cannot be trained, only the head.
    #[error("{backbone} can only be used frozen\nhint: write `freeze = \"all\"`")]
    Frozen { backbone: BackboneKind },
    /// The network would see more of the images than is kept.
    #[error("`input_size` is {side}, but images are kept with {size} pixels a side\nhint: raise `size` in `[data]`")]
    Side { side: u32, size: u32 },
    /// The images of the first epochs would be no smaller than the others.
    #[error("`small_size` is {small}, which is not below the {side} pixels that the network sees later")]
    Small { small: u32, side: u32 },
    /// A trial would begin with small images and with its head alone.
    #[error(
        "a trial begins with small images or with its head alone, not with both\nhint: leave out `small_epochs` or `probe_epochs`"
    )]
    Beginnings,
    /// The study's trials are not image trials.
    #[error("this study's trials have no image settings")]
    NotImages,
}

impl Setting {
    /// The setting searched under this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|s| s.name == name)
    }

    /// The setting whose fixed value stands at this key.
    pub fn at(section: &str, key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|s| s.section == section && s.key == key)
    }

    /// What is wanted, for people: `a number from 0 to below 1`.
    pub fn expected(&self, backbone: BackboneKind) -> String {
        match &self.kind {
            SettingKind::Real(bounds, _) => bounds.to_string(),
            SettingKind::Whole(low, high, _) => format!("a whole number from {low} to {high}"),
            SettingKind::Choice(names, _) => format!("one of {}", names.join(", ")),
            SettingKind::Stage(further, _) if backbone.stages().len() == 1 => {
                format!("one of {}", [*further, backbone.stages()].concat().join(", "))
            }
            SettingKind::Stage(further, _) => {
                let further: String = further.iter().map(|n| format!(" or {n}")).collect();
                let (first, last) = (backbone.stages()[0], backbone.last_stage());
                format!("a stage of {backbone} ({first} ... {last}){further}")
            }
        }
    }

    /// The names it takes with this backbone; empty for numbers.
    pub fn names(&self, backbone: BackboneKind) -> Vec<&'static str> {
        match &self.kind {
            SettingKind::Real(..) | SettingKind::Whole(..) => Vec::new(),
            SettingKind::Choice(names, _) => names.to_vec(),
            SettingKind::Stage(further, _) => [*further, backbone.stages()].concat(),
        }
    }

    /// Puts a value into a trial's settings.
    ///
    /// # Errors
    /// If the value is of the wrong type, out of bounds, not a stage of the backbone, or a backbone that the study's
    /// weights do not fit.
    pub fn put(&self, settings: &mut TrialSettings, value: &Value) -> Result<(), SettingsError> {
        let backbone = settings.network.backbone;
        let wrong = || SettingsError::Value {
            name: self.name.to_owned(),
            value: value.to_string(),
            expected: self.expected(backbone),
        };
        match &self.kind {
            SettingKind::Real(bounds, put) => {
                let x = value.as_f64().filter(|x| bounds.contains(*x)).ok_or_else(wrong)?;
                put(settings, x);
            }
            SettingKind::Whole(low, high, put) => {
                let n = value.as_i64().and_then(|n| u32::try_from(n).ok()).filter(|n| (low..=high).contains(&n));
                put(settings, n.ok_or_else(wrong)?);
            }
            SettingKind::Choice(names, put) => {
                let name = value.as_str().filter(|n| names.contains(n)).ok_or_else(wrong)?;
                if self.name == "backbone" {
                    let asked = name.parse().map_err(|_| wrong())?;
                    if settings.network.with_backbone(asked).is_none() {
                        return Err(SettingsError::Weights { backbone, asked });
                    }
                }
                put(settings, name);
            }
            SettingKind::Stage(further, put) => {
                let name = value.as_str().ok_or_else(wrong)?;
                if !further.contains(&name) && backbone.position(name).is_none() {
                    let (name, value) = (self.name.to_owned(), value.to_string());
                    return Err(SettingsError::Stage { name, value, backbone });
                }
                put(settings, name);
            }
        }
        Ok(())
    }
}

impl TrialSettings {
    /// These settings, overridden by a configuration, the backbone first.
    ///
    /// # Errors
    /// If a name is not a setting, a value is not one of the setting's, or the network cannot be trained as asked.
    pub fn with(&self, params: &crate::space::Params) -> Result<Self, SettingsError> {
        let mut settings = self.clone();
        if let Some(name) = params.0.keys().find(|name| Setting::named(name).is_none()) {
            return Err(SettingsError::Unknown { name: name.clone() });
        }
        for setting in SETTINGS {
            if let Some(value) = params.get(setting.name) {
                setting.put(&mut settings, value)?;
            }
        }
        settings.network.check()?;
        Ok(settings)
    }
}

impl super::NetworkSpec {
    /// Checks that tap and freeze are stages of the backbone, and that what is unfrozen can be trained.
    ///
    /// # Errors
    /// [`SettingsError::Stage`], [`SettingsError::Frozen`].
    pub fn check(&self) -> Result<(), SettingsError> {
        let missing = |name: &str, value: &str| SettingsError::Stage {
            name: name.to_owned(),
            value: value.to_owned(),
            backbone: self.backbone,
        };
        if self.backbone.position(&self.tap).is_none() {
            return Err(missing("tap", &self.tap));
        }
        if let FreezeTo::Stage(stage) = &self.freeze
            && self.backbone.position(stage).is_none()
        {
            return Err(missing("freeze", stage));
        }
        if !self.backbone.trainable() && !self.head_only() {
            return Err(SettingsError::Frozen { backbone: self.backbone });
        }
        Ok(())
    }
}
