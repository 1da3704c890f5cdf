//! The card of an exported model: what it is, how images are prepared for it, and how good it was.

use super::inputs::{Inputs, Unlikeness};
use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::space::Params;
use crate::spec::{
    BackboneKind, BatchNormMode, CachePrecision, ColourMode, FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling,
    PoolPadding, WeightSource, Window,
};
use crate::wording::listed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The version of the format.
const FORMAT: u32 = 2;
/// That of cards of networks that see reduced images, which programs that do not reduce them must refuse.
const REDUCING: u32 = 3;

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
    #[error("read the card `{}`: its format is {found}, this program reads up to {REDUCING}", path.display())]
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
}

/// The backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Which architecture.
    pub backbone: BackboneKind,
    /// How it wants pixel values scaled: see [`PixelScaling`].
    pub scaling: PixelScaling,
    /// Factor on the published numbers of channels.
    pub width: f64,
    /// Whether average pooling counts padding.
    pub pool_padding: PoolPadding,
    /// The stage whose output the head takes.
    pub tap: String,
    /// Side in pixels to which it reduces the image by a triangle filter, before scaling or after; `None`: it takes the image as
    /// it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
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

/// A trial whose scores count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Which trial.
    pub trial: TrialNumber,
    /// Epochs that it was trained for.
    pub epochs: Epoch,
    /// Its configuration.
    pub params: Params,
    /// The backbone.
    pub network: Network,
    /// The head.
    pub head: Head,
    /// Digests of its model files: one, or one for each fold, whose mean score is the trial's.
    pub models: Vec<Digest>,
    /// Digest of the weights that training began with.
    pub pretrained: Digest,
    /// The largest difference between a score on record and the same score by the exported file; of the models of several
    /// folds each judges its own images. `None` on cards of earlier versions that did not compare those.
    pub largest_difference: Option<f64>,
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
    /// The trial; or several, the mean of whose scores counts. Their files are numbered in this order, each trial's folds
    /// together.
    pub members: Vec<Member>,
    /// Classes, in the order of scores.
    pub classes: Vec<String>,
    /// Index of the positive class.
    pub positive: u32,
    /// How images are prepared.
    pub preprocessing: Preprocessing,
    /// How the threshold was fixed, on validation images.
    pub operating_point: String,
    /// From this score on, an image is called positive; `None`: undefined, .5 is used.
    pub threshold: Option<f64>,
    /// Metrics on the validation images, by which its trials were chosen: the best of many, so flattering.
    pub validation: BTreeMap<String, Figure>,
    /// Metrics on the test images; `None` while they are locked, or if this model was not tested.
    pub test: Option<BTreeMap<String, Figure>>,
    /// Distances of the validation images in feature space: the mean over the head's channels of the squared distance from
    /// the training mean in units of the training variance; of several trials the mean.
    pub unlikeness: Unlikeness,
    /// What the images looked like; `None`: on cards from before it was noted.
    #[serde(default)]
    pub inputs: Option<Inputs>,
    /// Digest of `model.onnx`, which has all models in one; `None`: there is no such file.
    #[serde(default)]
    pub onnx: Option<Digest>,
    /// Digest of the study's images and their split.
    pub images: Digest,
}

impl Card {
    /// The version of a new card with these members.
    pub(super) fn format_of(members: &[Member]) -> u32 {
        if members.iter().any(|member| member.network.input_size.is_some()) { REDUCING } else { FORMAT }
    }

    /// Reads a card.
    ///
    /// # Errors
    /// If the file cannot be read, is no card, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, CardError> {
        let text = std::fs::read_to_string(path).map_err(|source| CardError::Io { path: path.to_owned(), source })?;
        let json = |source| CardError::Json { path: path.to_owned(), source };
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(json)?;
        let found = value["format"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        match found {
            1 => first_format(&mut value),
            FORMAT | REDUCING => {}
            _ => return Err(CardError::Format { path: path.to_owned(), found }),
        }
        let card: Self = serde_json::from_value(value).map_err(json)?;
        let wrong = match &card {
            Self { classes, .. } if classes.len() < 2 => Some("it has fewer than two classes"),
            Self { classes, positive, .. } if *positive as usize >= classes.len() => {
                Some("its positive class is none of them")
            }
            Self { members, .. } if members.is_empty() => Some("it names no trial"),
            Self { members, preprocessing, .. }
                if members.iter().any(|m| m.network.input_size.is_some_and(|n| n as usize > preprocessing.size)) =>
            {
                Some("its network sees more than there is")
            }
            Self { preprocessing, .. } if !(1..=4096).contains(&preprocessing.size) => {
                Some("its image size is impossible")
            }
            Self { members, .. } => members.iter().find_map(Member::wrong),
        };
        match wrong {
            Some(what) => Err(CardError::Content { path: path.to_owned(), what }),
            None => Ok(card),
        }
    }

    /// The number of model files.
    pub fn files(&self) -> usize {
        self.members.iter().map(|member| member.models.len()).sum()
    }

    /// Whose scores count: `trial 7`, or `mean of trials 7, 14 and 20`.
    pub fn whose(&self) -> String {
        match self.members.as_slice() {
            [only] => format!("trial {}", only.trial),
            several => format!("mean of trials {}", listed(several.iter().map(|member| member.trial))),
        }
    }

    /// The card for people, as Markdown.
    pub fn page(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{args}");
        };
        let Self { study, members, classes, positive, preprocessing, .. } = self;
        line(format_args!("# Model of study {study}, {}\n", self.whose()));
        line(format_args!("Written by {}. No medical device.\n", self.program));
        line(format_args!("**Intended use:** {}\n", self.intended_use.as_deref().unwrap_or("_to be filled in_")));
        line(format_args!("**Not for:** _to be filled in_\n"));
        line(format_args!("## What it is\n"));
        match classes.len() {
            2 => line(format_args!("- Classes: {}; positive: {}", classes.join(", "), classes[*positive as usize])),
            _ => line(format_args!("- Classes: {}; the one with the highest score is decided for", classes.join(", "))),
        }
        for Member { trial, epochs, network, head, .. } in members {
            let whose = if members.len() > 1 { format!("Trial {trial}: ") } else { String::new() };
            let width = if network.width == 1.0 { String::new() } else { format!(" of width {}", network.width) };
            let reduced =
                network.input_size.map_or_else(String::new, |side| format!(" on images reduced to {side} x {side}"));
            line(format_args!(
                "- {whose}{}{width}{reduced}, pixel scaling `{}`, global average pooling after {}, head `{}`; trained for {epochs} \
                 epochs",
                network.backbone, network.scaling, network.tap, head.kind
            ));
        }
        line(format_args!(
            "- Input: the whole image resized to {0} x {0} ({1}), {2}, window of DICOM and 16-bit files `{3}`",
            preprocessing.size, preprocessing.resize, preprocessing.colour, preprocessing.window
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
        let (chosen, them) = if members.len() > 1 { ("trials were", "them") } else { ("trial was", "it") };
        line(format_args!("\nThe {chosen} chosen by validation figures among others, so they flatter {them}."));
        if self.test.is_none() {
            line(format_args!(
                "The test images are locked, or this model was not tested on them, or its predictions are gone."
            ));
        }
        line(format_args!("\n## Configuration\n"));
        let trials: String = members.iter().map(|member| format!(" trial {} |", member.trial)).collect();
        line(format_args!("| parameter |{trials}\n|---|{}", "---|".repeat(members.len())));
        let names: BTreeSet<&str> = members.iter().flat_map(|m| m.params.0.keys().map(AsRef::as_ref)).collect();
        for name in names {
            let value =
                |member: &Member| member.params.0.get(name).map_or_else(|| " - |".to_owned(), |v| format!(" {v} |"));
            line(format_args!("| {name} |{}", members.iter().map(value).collect::<String>()));
        }
        line(format_args!("\n## Digests (BLAKE3)\n"));
        members.iter().flat_map(|m| &m.models).for_each(|digest| line(format_args!("- model: {digest}")));
        self.onnx.iter().for_each(|digest| line(format_args!("- ONNX: {digest}")));
        let pretrained: BTreeSet<String> = members.iter().map(|m| m.pretrained.to_string()).collect();
        pretrained.iter().for_each(|digest| line(format_args!("- weights before training: {digest}")));
        line(format_args!("- images and split: {}", self.images));
        text
    }
}

impl Member {
    /// What is impossible about it.
    fn wrong(&self) -> Option<&'static str> {
        match self {
            Self { models, .. } if models.is_empty() => Some("it names no model"),
            Self { network, .. } if network.backbone.position(&network.tap).is_none() => {
                Some("its network has no such stage")
            }
            Self { network, .. } if !(network.width > 0.0 && network.width <= 4.0) => Some("its width is impossible"),
            Self { network, .. } if network.input_size == Some(0) => Some("its network sees nothing"),
            Self { head, .. } if head.hidden_units > 1 << 20 => Some("its head is impossibly large"),
            _ => None,
        }
    }

    /// The network as a study would have it, without weights.
    pub(super) fn network_spec(&self) -> NetworkSpec {
        let Network { backbone, scaling, width, pool_padding, tap, input_size } = self.network.clone();
        NetworkSpec {
            backbone,
            width,
            weights: WeightSource::Random,
            scaling,
            pool_padding,
            tap,
            freeze: FreezeTo::All,
            batch_norm: BatchNormMode::Frozen,
            cache: CachePrecision::F32,
            input_size,
        }
    }

    /// The head as a study would have it.
    pub(super) fn head_spec(&self) -> HeadSpec {
        HeadSpec { kind: self.head.kind, dropout: 0.0, hidden_units: self.head.hidden_units }
    }
}

/// Makes a card of the first format, which had a single trial, one of this format.
fn first_format(value: &mut serde_json::Value) {
    let Some(card) = value.as_object_mut() else { return };
    let mut member: serde_json::Map<_, _> =
        ["trial", "epochs", "params", "network", "head", "models", "pretrained", "largest_difference"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), card.remove(key)?)))
            .collect();
    let scaling = card.get_mut("preprocessing").and_then(|p| p.as_object_mut()?.remove("scaling"));
    if let (Some(network), Some(scaling)) = (member.get_mut("network").and_then(|n| n.as_object_mut()), scaling) {
        network.insert("scaling".to_owned(), scaling);
    }
    card.insert("members".to_owned(), serde_json::json!([member]));
    card.insert("format".to_owned(), FORMAT.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card as the first version wrote it.
    const FIRST: &str = include_str!("../../tests/data/card_1.json");

    #[test]
    fn a_card_of_the_first_format_is_read_as_one_of_a_single_trial() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.json");
        std::fs::write(&path, FIRST).unwrap();
        let card = Card::read(&path).unwrap();
        let [member] = card.members.as_slice() else { panic!("{:?}", card.members) };
        assert_eq!((card.format, member.trial, member.epochs), (FORMAT, TrialNumber(1), Epoch(2)));
        assert_eq!((member.network.scaling, member.network.tap.as_str()), (PixelScaling::Unit, "Mixed_5b"));
        assert_eq!((card.files(), card.whose()), (1, "trial 1".to_owned()));
        std::fs::write(&path, serde_json::to_string(&card).unwrap()).unwrap();
        assert_eq!(Card::read(&path).unwrap(), card);

        // Programs that do not reduce images refuse cards of networks that want them reduced.
        let mut reduced = card.clone();
        reduced.members[0].network.input_size = Some(50);
        reduced.format = Card::format_of(&reduced.members);
        assert_eq!((Card::format_of(&card.members), reduced.format), (2, 3));
        std::fs::write(&path, serde_json::to_string(&reduced).unwrap()).unwrap();
        assert_eq!(Card::read(&path).unwrap(), reduced);
        assert_eq!(reduced.members[0].network_spec().side(75), 50);
        assert!(reduced.page().contains("on images reduced to 50 x 50"), "{}", reduced.page());

        let wrong = |change: fn(&mut Card), said: &str| {
            let mut wrong = card.clone();
            change(&mut wrong);
            std::fs::write(&path, serde_json::to_string(&wrong).unwrap()).unwrap();
            let error = Card::read(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        };
        wrong(|card| card.format = 4, "its format is 4");
        wrong(|card| card.members[0].network.input_size = Some(76), "more than there is");
        wrong(|card| card.members.clear(), "no trial");
        wrong(|card| card.members[0].models.clear(), "no model");
        wrong(|card| card.members[0].network.tap = "Mixed_9z".into(), "no such stage");
        wrong(|card| card.positive = 2, "none of them");
    }

    #[test]
    fn the_page_of_a_mean_has_a_column_for_each_trial() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.json");
        std::fs::write(&path, FIRST).unwrap();
        let mut card = Card::read(&path).unwrap();
        let mut other = card.members[0].clone();
        other.trial = TrialNumber(7);
        other.params.0.remove("learning_rate");
        card.members.push(other);
        let page = card.page();
        assert!(page.starts_with("# Model of study s, mean of trials 1 and 7\n"), "{page}");
        assert!(page.contains("| parameter | trial 1 | trial 7 |\n|---|---|---|\n"), "{page}");
        assert!(page.contains("| learning_rate | 0.01 | - |"), "{page}");
        assert!(page.contains("The trials were chosen"), "{page}");
    }
}
