//! The card of an exported model: what it is, how images are prepared for it, and how good it was.

use super::inputs::{Inputs, Unlikeness};
use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::space::Params;
use crate::spec::{
    BackboneKind, BatchNormMode, CachePrecision, ColourMode, FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling,
    PoolPadding, WeightSource, Window,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The version of the format.
const FORMAT: u32 = 1;

/// Why a card cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The file cannot be read.
    #[error("read the card `{}`\nhint: name a folder that `hpsearch export --out` wrote, or a study", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// It is not a card.
    #[error("read the card `{}`", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// Its format is another version's.
    #[error("read the card `{}`: its format is {found}, this program reads {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    /// A value contradicts the others.
    #[error("read the card `{}`: {what}", path.display())]
    Content { path: PathBuf, what: &'static str },
}

/// How an image file becomes the network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Side of the square in pixels to which the whole image is resized, whatever its aspect ratio.
    pub size: usize,
    /// Grey (Rec. 601 luminance, Pillow's `convert("L")`, repeated for the network's three channels) or RGB.
    pub colour: ColourMode,
    /// Which values of DICOM files and grey PNG files of 16 bits become black and white, before resizing.
    #[serde(default)]
    pub window: Window,
    /// How resizing interpolates.
    pub resize: String,
    /// How pixel values are scaled: see [`PixelScaling`].
    pub scaling: PixelScaling,
}

/// The backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Which architecture.
    pub backbone: BackboneKind,
    /// Factor on the published numbers of channels.
    pub width: f64,
    /// Whether average pooling counts padding.
    pub pool_padding: PoolPadding,
    /// The stage whose output the head takes.
    pub tap: String,
}

/// The head: global average pooling, batch norm, dense, or with a hidden layer and ReLU between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which head.
    pub kind: HeadKind,
    /// Units of the hidden layer, if there is one.
    pub hidden_units: u32,
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// `None`: undefined.
    pub value: Option<f64>,
    /// The 95 % interval.
    pub interval: Option<[f64; 2]>,
}

/// A model's card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The version of the format.
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// What it may be used for: for people to fill in.
    pub intended_use: Option<String>,
    /// The study.
    pub study: String,
    /// Its trial.
    pub trial: TrialNumber,
    /// Epochs that it was trained for.
    pub epochs: Epoch,
    /// Its configuration.
    pub params: Params,
    /// Classes, in the order of scores.
    pub classes: Vec<String>,
    /// Index of the positive class.
    pub positive: u32,
    /// How images are prepared.
    pub preprocessing: Preprocessing,
    /// The backbone.
    pub network: Network,
    /// The head.
    pub head: Head,
    /// How the threshold was fixed, on validation images.
    pub operating_point: String,
    /// From this score on, an image is called positive; `None`: undefined, .5 is used.
    pub threshold: Option<f64>,
    /// Metrics on the validation images, by which the trial was chosen: the best of many, so flattering.
    pub validation: BTreeMap<String, Figure>,
    /// Metrics on the test images; `None` while they are locked, or if this trial was not tested.
    pub test: Option<BTreeMap<String, Figure>>,
    /// Distances of the validation images in feature space: the mean over the head's channels of the squared distance from
    /// the training mean in units of the training variance.
    pub unlikeness: Unlikeness,
    /// What the images looked like; `None`: on cards from before it was noted.
    #[serde(default)]
    pub inputs: Option<Inputs>,
    /// Digests of the model files: one, or one for each fold, whose mean score counts.
    pub models: Vec<Digest>,
    /// Digest of `model.onnx`, which has all models in one; `None`: there is no such file.
    #[serde(default)]
    pub onnx: Option<Digest>,
    /// Digest of the weights that training began with.
    pub pretrained: Digest,
    /// Digest of the study's images and their split.
    pub images: Digest,
    /// The largest difference between a score on record and the same score by the exported file; `None` for the models of
    /// several folds, each of which judged images of its own.
    pub largest_difference: Option<f64>,
}

impl Card {
    /// The version of new cards.
    pub const FORMAT: u32 = FORMAT;

    /// Reads a card.
    ///
    /// # Errors
    /// If the file cannot be read, is no card, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, CardError> {
        let text = std::fs::read_to_string(path).map_err(|source| CardError::Io { path: path.to_owned(), source })?;
        let json = |source| CardError::Json { path: path.to_owned(), source };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(json)?;
        let found = value["format"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        if found != FORMAT {
            return Err(CardError::Format { path: path.to_owned(), found });
        }
        let card: Self = serde_json::from_value(value).map_err(json)?;
        let what = match &card {
            Self { classes, .. } if classes.len() < 2 => "it has fewer than two classes",
            Self { classes, positive, .. } if *positive as usize >= classes.len() => {
                "its positive class is none of them"
            }
            Self { models, .. } if models.is_empty() => "it names no model",
            Self { preprocessing, .. } if !(1..=4096).contains(&preprocessing.size) => "its image size is impossible",
            Self { network, .. } if network.backbone.position(&network.tap).is_none() => {
                "its network has no such stage"
            }
            Self { network, .. } if !(network.width > 0.0 && network.width <= 4.0) => "its width is impossible",
            Self { head, .. } if head.hidden_units > 1 << 20 => "its head is impossibly large",
            _ => return Ok(card),
        };
        Err(CardError::Content { path: path.to_owned(), what })
    }

    /// The network as a study would have it, without weights.
    pub(super) fn network_spec(&self) -> NetworkSpec {
        let Network { backbone, width, pool_padding, tap } = self.network.clone();
        NetworkSpec {
            backbone,
            width,
            weights: WeightSource::Random,
            scaling: self.preprocessing.scaling,
            pool_padding,
            tap,
            freeze: FreezeTo::All,
            batch_norm: BatchNormMode::Frozen,
            cache: CachePrecision::F32,
        }
    }

    /// The head as a study would have it.
    pub(super) fn head_spec(&self) -> HeadSpec {
        HeadSpec { kind: self.head.kind, dropout: 0.0, hidden_units: self.head.hidden_units }
    }

    /// The card for people, as Markdown.
    pub fn page(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{args}");
        };
        let Self { study, trial, epochs, classes, positive, preprocessing, network, head, .. } = self;
        line(format_args!("# Model of study {study}, trial {trial}\n"));
        line(format_args!("Written by {}. No medical device.\n", self.program));
        line(format_args!("**Intended use:** {}\n", self.intended_use.as_deref().unwrap_or("_to be filled in_")));
        line(format_args!("**Not for:** _to be filled in_\n"));
        line(format_args!("## What it is\n"));
        match classes.len() {
            2 => line(format_args!("- Classes: {}; positive: {}", classes.join(", "), classes[*positive as usize])),
            _ => line(format_args!("- Classes: {}; the one with the highest score is decided for", classes.join(", "))),
        }
        let width = if network.width == 1.0 { String::new() } else { format!(" of width {}", network.width) };
        line(format_args!(
            "- {}{width}, global average pooling after {}, head `{}`; trained for {epochs} epochs",
            network.backbone, network.tap, head.kind
        ));
        line(format_args!(
            "- Input: the whole image resized to {0} x {0} ({1}), {2}, window of DICOM and 16-bit files `{3}`, \
             pixel scaling `{4}`",
            preprocessing.size, preprocessing.resize, preprocessing.colour, preprocessing.window, preprocessing.scaling
        ));
        let threshold = self.threshold.map_or_else(|| "undefined, 0.5".to_owned(), |t| format!("{t:.4}"));
        if let Some(i) = &self.inputs {
            let colour = if i.colour < 0.005 { "grey".to_owned() } else { format!("colour up to {:.2}", i.colour) };
            line(format_args!(
                "- Its images had sides of {} to {} pixels, width over height of {:.2} to {:.2}, {colour} ({} looked at)",
                i.sides[0], i.sides[1], i.aspect[0], i.aspect[1], i.images
            ));
        }
        if classes.len() == 2 {
            line(format_args!("- Threshold: {threshold}, fixed on validation images (`{}`)", self.operating_point));
        }
        line(format_args!("\n## How good it was\n"));
        if classes.len() > 2 {
            line(format_args!("Means over classes.\n"));
        }
        line(format_args!("| metric | validation | 95 % | test | 95 % |\n|---|---:|---:|---:|---:|"));
        let value = |figure: Option<&Figure>| match figure {
            None => "-".to_owned(),
            Some(figure) => figure.value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.3}")),
        };
        let interval = |figure: Option<&Figure>| {
            let ends = figure.and_then(|f| f.interval);
            ends.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"))
        };
        for (name, figure) in &self.validation {
            let test = self.test.as_ref().and_then(|test| test.get(name));
            let (on_validation, on_test) = (Some(figure), test);
            line(format_args!(
                "| {name} | {} | {} | {} | {} |",
                value(on_validation),
                interval(on_validation),
                value(on_test),
                interval(on_test)
            ));
        }
        line(format_args!("\nThe trial was chosen by its validation figures among others, so they flatter it."));
        if self.test.is_none() {
            line(format_args!("The test images are locked, or this trial was not tested."));
        }
        line(format_args!("\n## Configuration\n\n| parameter | value |\n|---|---|"));
        for (name, value) in &self.params.0 {
            line(format_args!("| {name} | {value} |"));
        }
        line(format_args!("\n## Digests (BLAKE3)\n"));
        self.models.iter().for_each(|digest| line(format_args!("- model: {digest}")));
        self.onnx.iter().for_each(|digest| line(format_args!("- ONNX: {digest}")));
        line(format_args!("- weights before training: {}\n- images and split: {}", self.pretrained, self.images));
        text
    }
}
