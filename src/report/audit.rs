//! What an audit of a study's images found, as plain data.

use super::picture::Picture;
use crate::digest::Digest;
use crate::ids::TrialNumber;
use serde::{Deserialize, Serialize};

/// An audit of the images of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Digest of images and split: an audit of others says nothing about these.
    pub images: Digest,
    /// Images of all sets, among which pictures were looked for that appear twice.
    pub looked_at: usize,
    /// Images of the training and validation sets, whose labels were looked at. Those of test images are locked.
    pub developed: usize,
    /// Pictures that appear twice, most alike first.
    pub duplicates: Vec<Duplicate>,
    /// Of pairs that cannot be the same picture, how many were taken for it, and how many were tried.
    pub control: (usize, usize),
    /// Labels that the images contradict.
    pub labels: Labels,
    /// What else tells the classes apart; the first is the picture as the network sees it, for comparison.
    pub shortcuts: Vec<Shortcut>,
    /// Drawn beside it: kept as PNG files of their own.
    #[serde(skip)]
    pub pictures: Vec<(String, Picture)>,
}

/// An image and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its name in predictions.
    pub image: String,
    /// The set it is in: `training`, `validation`, `test`; with folds, `training` stands for all development images.
    pub set: String,
    /// Its class; `None` for a test image, whose label is locked.
    pub class: Option<String>,
}

/// Two files of the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The one.
    pub first: Place,
    /// The other.
    pub second: Place,
    /// Correlation of what they do not have in common with all images, once they lie on each other, up to 1.
    pub similarity: f64,
    /// Whether one is the mirror image of the other.
    pub mirrored: bool,
    /// Whether they lie in different sets: the one tells what the other is.
    pub across: bool,
}

impl Duplicate {
    /// Whether their labels are known and differ.
    pub fn contradict(&self) -> bool {
        self.first.class.is_some() && self.second.class.is_some() && self.first.class != self.second.class
    }
}

/// Labels that the images contradict, by confident learning (Northcutt et al. 2021).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// The estimated number of wrong labels among those judged; `None`: the classes are told apart too badly to doubt a label.
    pub wrong: Option<u64>,
    /// How many labels were judged; `None`: in audits of earlier versions, those of all development images.
    #[serde(default)]
    pub judged: Option<usize>,
    /// How the study's trials judged, if they did; the features judged the labels of other images.
    #[serde(default)]
    pub trials: Option<TrialsJudged>,
    /// The images most likely among them, most suspect first.
    pub suspects: Vec<Suspect>,
}

impl Labels {
    /// How many labels were judged, of so many images outside the test set; all of these if none was.
    pub fn judged_of(&self, developed: usize) -> usize {
        self.judged.filter(|&judged| judged > 0).unwrap_or(developed)
    }
}

/// Labels judged by the mean score of trials on images that they were not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialsJudged {
    /// The trials.
    pub trials: Vec<TrialNumber>,
    /// The number of images.
    pub images: usize,
    /// The area under the ROC curve of their mean score (of more than two classes, the mean).
    pub roc_auc: f64,
    /// That of the features' scores of the same images. The larger of both judges.
    #[serde(default)]
    pub features: f64,
}

impl TrialsJudged {
    /// Whether the trials tell the classes apart better than the features do, and so judge.
    pub fn is_better(&self) -> bool {
        self.roc_auc > self.features
    }
}

/// What judged a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Judge {
    /// A logistic regression on the frozen network's features, by cross-validation.
    #[default]
    Features,
    /// The mean score of the study's leading trials.
    Trials,
}

/// An image whose label is doubtful.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its name in predictions.
    pub image: String,
    /// Its label.
    pub label: String,
    /// What other images say it is.
    pub instead: String,
    /// What says so.
    #[serde(default)]
    pub by: Judge,
    /// The score of its label, by a classifier that has not seen it.
    pub score: f64,
    /// The score of the other class.
    pub score_instead: f64,
}

/// How well something beside the picture tells the classes apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shortcut {
    /// By what.
    pub by: String,
    /// The cross-validated area under the ROC curve (of more than two classes, the mean).
    pub roc_auc: f64,
    /// Its 95 % interval by the bootstrap, of whole patients where they are known.
    pub interval: Option<[f64; 2]>,
    /// The single value that does so best, and its area.
    pub most: Option<(String, f64)>,
}

impl Shortcut {
    /// Whether it tells classes apart better than chance would.
    pub fn better_than_chance(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low > 0.5)
    }
}
