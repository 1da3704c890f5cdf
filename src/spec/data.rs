//! Where the images come from and how they are split.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// The data of an image study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSpec {
    /// Where the images are.
    pub source: DataSource,
    /// The class that counts as positive (binary: the disease). `None`: the last class in the order of names.
    pub positive: Option<String>,
    /// A regular expression over the file name whose first group (or whole match) names the patient.
    pub patient: Option<String>,
    /// What happens to files that cannot be decoded.
    pub bad_files: BadFilePolicy,
    /// Whether pixels are read as one grey channel or as three.
    pub colour: ColourMode,
    /// Side of the square image in pixels, at least 75 for InceptionV3.
    pub size: u32,
    /// Which values of images of more than 8 bits become black and white.
    // Serialised only if it is not the default, so that studies from before it keep their digest.
    #[serde(default, skip_serializing_if = "Window::is_file")]
    pub window: Window,
    /// How images become training, validation and test sets.
    pub split: SplitSpec,
}

/// Where images are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// `{train,val,test}/{CLASS}/*` or `{CLASS}/*`, relative paths resolved against the study file's folder.
    Folder(PathBuf),
    /// A CSV file with columns `path`, `label` and optionally `patient`, `split`; paths relative to the CSV's folder.
    Manifest(PathBuf),
    /// Made by this program: radiograph-like images with subtle opacities. Synthetic, for trying things out.
    Synthetic(SyntheticSpec),
}

/// The synthetic data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyntheticSpec {
    /// How many images in all.
    pub images: u32,
    /// Share of images with an opacity (the positive class), 0..1.
    pub prevalence: f64,
    /// Contrast of the opacities, 0..1: smaller is harder.
    pub contrast: f64,
    /// The seed of the images, separate from the study's.
    pub seed: u64,
}

/// What happens to a broken, empty or undecodable file.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum BadFilePolicy {
    /// The run ends with an error that names every such file.
    Fail,
    /// Named in a warning, counted, left out.
    Skip,
}

/// Channels read from an image.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ColourMode {
    /// One luminance channel, repeated for the network's three.
    Grey,
    /// Three channels.
    Rgb,
}

/// Which of the values of a DICOM file, or of a grey PNG of 16 bits, become black and white. 8-bit PNG and JPEG and colour
/// are taken as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// As the file says: its lookup table, or its first window. Without one, values of up to 8 bits are taken as they are,
    /// and those of more from the smallest to the largest. In a PNG, the full range of its 16 bits.
    #[default]
    File,
    /// From the smallest to the largest value of each image.
    Range,
    /// The same window for all images, in the unit of the modality (Hounsfield units; in a PNG, its values).
    Level { center: f64, width: f64 },
}

impl Window {
    /// Whether it is the default.
    pub fn is_file(&self) -> bool {
        *self == Self::File
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Range => f.write_str("range"),
            Self::Level { center, width } => write!(f, "center {center}, width {width}"),
        }
    }
}

/// How images are divided. All images of a patient, and files with equal bytes, end up in the same set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitSpec {
    /// Share of the development images (everything but test) kept for validation, 0..1.
    pub validation: f64,
    /// Share of all images kept for test where the data brings no test set; 0: none.
    pub test: f64,
    /// What to do with a validation folder that the data brings.
    pub policy: ValidationPolicy,
    /// Cross-validation folds over the development images; `None`: one split.
    pub folds: Option<u32>,
}

/// What to do with a validation set that the data brings.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ValidationPolicy {
    /// Keep it if it has at least 30 images of every class, else merge it with training and split again.
    Auto,
    /// Keep it as it is.
    Keep,
    /// Merge it with training and split again.
    Merge,
}
