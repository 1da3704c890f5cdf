//! A trial's model outside its study: exported to a folder with a card, and used on other images.

mod card;
mod explain;
mod export;
mod inputs;

pub use card::{Card, CardError, Figure, Head, Member, Network, Preprocessing};
pub use explain::{Explainer, Explanation};
pub use export::{Choice, ExportError, ExportOptions, Exported, export};
pub use inputs::{Inputs, Unlike, Unlikeness};

use crate::data::decode::{Appearance, channels, decode_and_look};
use crate::digest::Digest;
use crate::metrics::{Prediction, Predictions};
use crate::runner::image::{ImageError, Scorer, mean_score};
use crate::spec::Device;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The card's file.
pub const CARD: &str = "card.json";
/// The list of the images that the study has seen: BLAKE3 digest of the file and set.
pub const IMAGES: &str = "images.csv";

/// The model as ONNX.
pub const ONNX: &str = "model.onnx";

/// The file of the `number`-th of `total` models, counted from 0.
fn file_name(number: usize, total: usize) -> String {
    if total == 1 { "model.safetensors".to_owned() } else { format!("model-{}.safetensors", number + 1) }
}

/// Why an exported model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The card cannot be used.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A file cannot be read.
    #[error("read `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file is not the one that the card was written with.
    #[error("use `{}`: its digest is not the one on the card\nhint: export the model again", path.display())]
    Changed { path: PathBuf },
    /// The list of images is damaged.
    #[error("read `{}`", path.display())]
    Images { path: PathBuf, source: csv::Error },
    /// Heat maps of several networks have no places in common.
    #[error(
        "draw heat maps: the model is a mean of networks that differ, or that see images of different sizes\nhint: export a single trial of them"
    )]
    Mixed,
    /// The network cannot be built or fails.
    #[error(transparent)]
    Image(Box<ImageError>),
}

impl From<ImageError> for ModelError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

/// An exported model, ready to score images.
pub struct Model {
    /// Its card.
    pub card: Card,
    /// For each trial.
    scorers: Vec<Scorer>,
    /// By digest, the set to which an image of the study belonged.
    known: HashMap<Digest, String>,
}

/// What a model says of an image file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Opinion {
    /// Softmax score of each class.
    pub scores: Vec<f32>,
    /// The class that is decided for: the positive one from the threshold on; of more than two, the one with the highest
    /// score.
    pub decision: String,
    /// How unlike the training images its features are: see [`Unlikeness`].
    pub distance: f64,
    /// Its own width and height in pixels.
    pub size: [u32; 2],
    /// How much colour it has: see [`Appearance::colour`].
    pub colour: f64,
    /// How far the distribution of its grey levels is from that of the study's images, in grey levels (Wasserstein's
    /// distance); `None` if the card does not say how they looked.
    pub shift: Option<f64>,
    /// In what it is unlike the study's images.
    pub unlike: Vec<Unlike>,
    /// The set of the study to which the very same file belonged.
    pub seen: Option<String>,
}

/// An image file, decoded as the network takes it.
struct Decoded {
    digest: Digest,
    pixels: Vec<u8>,
    appearance: Appearance,
}

impl Model {
    /// Loads a model from the folder that [`export`] wrote. Only files of fixed names in this folder are read.
    ///
    /// # Errors
    /// If a file is missing, damaged, or not the one that the card was written with.
    pub fn load(folder: &Path, device: Device) -> Result<Self, ModelError> {
        let card = Card::read(&folder.join(CARD))?;
        let (total, mut number) = (card.files(), 0);
        let mut scorers = Vec::new();
        for member in &card.members {
            let mut files = Vec::new();
            for digest in &member.models {
                let path = folder.join(file_name(number, total));
                let found = Digest::of_file(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
                if found != *digest {
                    return Err(ModelError::Changed { path });
                }
                files.push(path);
                number += 1;
            }
            scorers.push(Scorer::load(
                &files,
                &member.network_spec(),
                &member.head_spec(),
                card.classes.len(),
                (card.preprocessing.size, channels(card.preprocessing.colour)),
                total,
                device,
            )?);
        }
        let list = folder.join(IMAGES);
        let mut known = HashMap::new();
        let failed = |source| ModelError::Images { path: list.clone(), source };
        for row in csv::Reader::from_path(&list).map_err(failed)?.deserialize::<(Digest, String)>() {
            let (digest, set) = row.map_err(failed)?;
            known.insert(digest, set);
        }
        Ok(Self { card, scorers, known })
    }

    /// Scores image files, decoded by several threads. In the order of `files`; what cannot be read or decoded has its
    /// reason instead.
    ///
    /// # Errors
    /// If the network fails.
    pub fn predict(&self, files: &[PathBuf]) -> Result<Vec<Result<Opinion, String>>, ModelError> {
        let mut all = Vec::with_capacity(files.len());
        for part in files.chunks(256) {
            all.extend(self.opinions(&self.decoded(part))?);
        }
        Ok(all)
    }

    fn decoded(&self, files: &[PathBuf]) -> Vec<Result<Decoded, String>> {
        let Preprocessing { size, colour, window, .. } = self.card.preprocessing;
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
            let (pixels, appearance) = decode_and_look(&bytes, size, colour, window).map_err(|e| e.to_string())?;
            Ok(Decoded { digest: Digest::of(&bytes), pixels, appearance })
        };
        files.par_iter().map(read).collect()
    }

    fn opinions(&self, images: &[Result<Decoded, String>]) -> Result<Vec<Result<Opinion, String>>, ModelError> {
        let pixels: Vec<&[u8]> = images.iter().flatten().map(|image| image.pixels.as_slice()).collect();
        let mut scored = mean_score(&self.scorers, &pixels)?.into_iter();
        let opinion = |image: &Result<Decoded, String>| {
            let image = image.as_ref().map_err(String::clone)?;
            let scored = scored.next().ok_or_else(|| "it has no score".to_owned())?;
            let (inputs, appearance) = (self.card.inputs.as_ref(), &image.appearance);
            let strange = scored.distance > self.card.unlikeness.largest;
            let unlike = strange.then_some(Unlike::Features);
            Ok(Opinion {
                decision: self.decision(&scored.scores),
                distance: scored.distance,
                size: appearance.size,
                colour: appearance.colour,
                shift: inputs.map(|inputs| appearance.shift(&inputs.grey)),
                unlike: unlike.into_iter().chain(inputs.map_or_else(Vec::new, |i| i.unlike(appearance))).collect(),
                seen: self.known.get(&image.digest).cloned(),
                scores: scored.scores,
            })
        };
        Ok(images.iter().map(opinion).collect())
    }

    fn decision(&self, scores: &[f32]) -> String {
        self.card.classes[self.decided(scores)].clone()
    }

    /// The index of the class that is decided for.
    fn decided(&self, scores: &[f32]) -> usize {
        let Card { classes, positive, threshold, .. } = &self.card;
        let row = Prediction { image: String::new(), patient: None, label: 0, scores: scores.to_vec() };
        let shape = Predictions { classes: classes.clone(), positive: *positive, rows: Vec::new() };
        shape.called(&row, threshold.unwrap_or(0.5))
    }
}
