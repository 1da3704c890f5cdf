//! Why an image trial failed, and which class of failure that is.

use super::super::device::DeviceError;
use super::super::{SinkClosed, TrialError};
use crate::data::DataError;
use crate::data::features::FeatureError;
use crate::engine::FailureClass;
use crate::fsx;
use crate::metrics::PredictionsError;
use crate::nn::BackboneError;
use crate::nn::build::BuildError;
use crate::nn::checkpoint::CheckpointError;
use crate::spec::{BackboneKind, SettingsError};
use std::error::Error;
use std::path::PathBuf;

/// Why an image trial ended without reaching its goal.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The study's trials are no image trials.
    #[error("run an image trial: the study's runner is of another kind")]
    NotImages,
    /// An epoch was asked for whose images were not prepared.
    #[error("train epoch {epoch}: its images were not prepared")]
    NotPrepared {
        /// The epoch.
        epoch: u32,
    },
    /// The configuration cannot be run.
    #[error("read the trial's settings")]
    Settings(#[source] SettingsError),
    /// No such device on this machine.
    #[error(transparent)]
    Device(Box<DeviceError>),
    /// The images cannot be used.
    #[error("open the images")]
    Data(#[source] Box<DataError>),
    /// The images are not those on record.
    #[error(
        "open the images: they are not those that the study was begun with\nhint: were files added, removed or changed since, or are they others on this machine?"
    )]
    OtherImages,
    /// The weights are not those on record.
    #[error(
        "build {backbone}: its weights are not those that the study was begun with\nhint: were they changed since, or are they others on this machine? Those of the hub lie in the cache `HF_HOME`"
    )]
    OtherWeights {
        /// The network.
        backbone: BackboneKind,
    },
    /// The images are too small for the network.
    #[error(
        "put a head on {tap}: images of {size} pixels do not reach it\nhint: let the network see larger ones (`size`, `input_size`, `small_size`), or take an earlier `tap`"
    )]
    TooSmall {
        /// The stage.
        tap: String,
        /// Side of the images.
        size: usize,
    },
    /// The network has no stage of this name.
    #[error("make heat maps at {stage}: there is no such stage\nhint: the stages are {known}")]
    NoStage {
        /// The name.
        stage: String,
        /// Those that can be named.
        known: String,
    },
    /// A stage is not computed.
    #[error("make heat maps at {stage}: the head is on {tap}, and stages beyond it are not part of the model")]
    BeyondTap {
        /// The stage.
        stage: String,
        /// Where the head is.
        tap: String,
    },
    /// The network cannot be differentiated.
    #[error(
        "make heat maps with {network}: candle-transformers gives it as one piece from the image to pooled features, \
         which have no places in the image\nhint: heat maps can be had of inception_v3"
    )]
    NoMaps {
        /// The network.
        network: BackboneKind,
    },
    /// The network cannot be built.
    #[error("build the network")]
    Build(#[source] Box<BuildError>),
    /// The network cannot do what was asked.
    #[error("prepare the network")]
    Backbone(#[source] BackboneError),
    /// Frozen features cannot be computed.
    #[error("compute frozen features")]
    Features(#[source] Box<FeatureError>),
    /// A checkpoint cannot be written or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Predictions cannot be written.
    #[error("write predictions `{}`", path.display())]
    Predictions {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: PredictionsError,
    },
    /// A file or folder cannot be written.
    #[error("write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The loss or a score is NaN or infinite.
    #[error(
        "train: the {what} is {value} at epoch {epoch}, step {step}\nhint: a smaller learning rate or a warm-up usually helps"
    )]
    Diverged {
        /// Loss or score.
        what: &'static str,
        /// Its value.
        value: f32,
        /// The epoch.
        epoch: u32,
        /// The step, over all epochs.
        step: u64,
    },
    /// The objective has no value on these validation images.
    #[error("evaluate {metric}: it is undefined on the validation images of fold {fold}: {why}")]
    Undefined {
        /// The objective.
        metric: String,
        /// The fold, from 0.
        fold: usize,
        /// What is missing.
        why: String,
    },
    /// There are no images to do this with.
    #[error("find {what} images: there are none")]
    NoImages {
        /// `training`, `validation`, `test`.
        what: &'static str,
    },
    /// A tensor operation failed.
    #[error("compute")]
    Candle(#[from] candle_core::Error),
    /// The trial was interrupted.
    #[error("go on: interrupted")]
    Interrupted,
    /// The receiver of reports has gone.
    #[error(transparent)]
    Sink(#[from] SinkClosed),
}

impl ImageError {
    /// The failure class, which decides the policy.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Diverged { .. } => FailureClass::Diverged,
            Self::Sink(_) | Self::Interrupted => FailureClass::Lost,
            Self::NotImages
            | Self::NotPrepared { .. }
            | Self::Settings(_)
            | Self::Data(_)
            | Self::OtherImages
            | Self::OtherWeights { .. }
            | Self::TooSmall { .. }
            | Self::NoStage { .. }
            | Self::BeyondTap { .. }
            | Self::NoMaps { .. }
            | Self::NoImages { .. }
            | Self::Undefined { .. } => FailureClass::BadInput,
            Self::Backbone(BackboneError::CannotTrain { .. }) => FailureClass::BadInput,
            _ if mentions(self, &OUT_OF_MEMORY) => FailureClass::Oom,
            _ if mentions(self, &LOST_CONTEXT) => FailureClass::Lost,
            // After these: a network that is sound may still not fit a GPU, or meet one that has failed.
            Self::Build(_) => FailureClass::BadInput,
            _ => FailureClass::Crashed,
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Texts of out-of-memory errors of the process, CUDA, cuDNN and cuBLAS.
const OUT_OF_MEMORY: [&str; 5] =
    ["out of memory", "out_of_memory", "cannot allocate memory", "alloc_failed", "device_allocation_failed"];

/// Texts of errors after which a GPU context is unusable, and only a new process gets a new one. The trial need not be
/// the cause (another process's kernel or the hardware may be), so this counts as a lost worker.
const LOST_CONTEXT: [&str; 9] = [
    "cuda_error_illegal_address",
    "cuda_error_illegal_instruction",
    "cuda_error_misaligned_address",
    "cuda_error_launch_failed",
    "cuda_error_launch_timeout",
    "cuda_error_hardware_stack_error",
    "cuda_error_ecc_uncorrectable",
    "cuda_error_context_is_destroyed",
    "cuda_error_device_unavailable",
];

/// Whether any error in the chain of causes contains one of these texts: candle passes on device errors as text.
fn mentions(error: &(dyn Error + 'static), texts: &[&str]) -> bool {
    causes(error).any(|e| {
        let text = e.to_string().to_lowercase();
        texts.iter().any(|sought| text.contains(sought))
    })
}

/// The chain of causes as one text, with its hints at the end.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::from("failed to ");
    let mut hints = Vec::new();
    let mut last = String::new();
    for (depth, cause) in causes(error).enumerate() {
        let message = cause.to_string();
        let (line, hint) = message.split_once("\nhint: ").map_or((message.as_str(), None), |(l, h)| (l, Some(h)));
        // Some libraries repeat their source's message in their own.
        if !last.contains(line) {
            text.push_str(if depth == 0 { "" } else { ": " });
            text.push_str(line);
            last = line.to_owned();
        }
        hints.extend(hint.map(str::to_owned));
    }
    for hint in hints {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text
}

impl From<ImageError> for TrialError {
    fn from(error: ImageError) -> Self {
        let broken = |e: &(dyn Error + 'static)| e.downcast_ref::<std::io::Error>().is_some_and(fsx::is_fault_of_disk);
        // A run opens images and weights before its workers do: what they miss has gone since, or is not on their machine. Weights
        // for which a GPU has no room are not among that.
        let gone = error.class() == FailureClass::BadInput
            && match &error {
                ImageError::Data(_) | ImageError::OtherImages | ImageError::OtherWeights { .. } => true,
                ImageError::Build(error) => matches!(**error, BuildError::Weights(_)),
                _ => false,
            };
        Self { class: error.class(), reason: explain(&error), of_place: gone || causes(&error).any(broken) }
    }
}

impl From<BuildError> for ImageError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Candle(e) => Self::Candle(e),
            e => Self::Build(Box::new(e)),
        }
    }
}

impl From<BackboneError> for ImageError {
    fn from(error: BackboneError) -> Self {
        match error {
            BackboneError::Candle(e) => Self::Candle(e),
            e => Self::Backbone(e),
        }
    }
}

impl From<FeatureError> for ImageError {
    fn from(error: FeatureError) -> Self {
        match error {
            FeatureError::Interrupted => Self::Interrupted,
            e => Self::Features(Box::new(e)),
        }
    }
}

impl From<DataError> for ImageError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::inception_v3::InceptionV3Error;
    use crate::nn::weights::WeightError;
    use crate::spec::Devices;

    #[test]
    fn out_of_memory_and_lost_contexts_are_recognised() {
        let candle = |text: &str| ImageError::from(candle_core::Error::Msg(text.to_owned()));
        assert_eq!(candle("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")").class(), FailureClass::Oom);
        assert_eq!(candle("CudnnError(CUDNN_STATUS_ALLOC_FAILED)").class(), FailureClass::Oom);
        let illegal = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")";
        assert_eq!(candle(illegal).class(), FailureClass::Lost);
        assert_eq!(candle("shape mismatch").class(), FailureClass::Crashed);
        let built = |text: &str| {
            let error = InceptionV3Error::Candle(candle_core::Error::Msg(text.to_owned()));
            ImageError::from(BuildError::Inception(error)).class()
        };
        assert_eq!(built("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"), FailureClass::Oom);
        assert_eq!(built(illegal), FailureClass::Lost);
        assert_eq!(built("shape mismatch"), FailureClass::BadInput);
    }

    #[test]
    fn weights_that_are_gone_are_the_fault_of_the_place_and_a_full_gpu_is_not() {
        let failed = |error: WeightError| TrialError::from(ImageError::from(BuildError::Weights(error)));
        let io = |kind: std::io::ErrorKind| WeightError::Io { path: "w".into(), source: kind.into() };
        let gone = failed(io(std::io::ErrorKind::NotFound));
        assert_eq!((gone.class, gone.of_place), (FailureClass::BadInput, true));
        let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".to_owned();
        let full = failed(WeightError::Candle(candle_core::Error::Msg(text)));
        assert_eq!((full.class, full.of_place), (FailureClass::Oom, false));
        // Of what can be written to, a broken disk is; of trials, nothing.
        for (code, of_place) in [(5, true), (28, true), (30, true), (116, true), (2, false)] {
            let source = std::io::Error::from_raw_os_error(code); // EIO, ENOSPC, EROFS, ESTALE, ENOENT
            assert_eq!(TrialError::from(ImageError::Io { path: "f".into(), source }).of_place, of_place, "{code}");
        }
    }

    #[test]
    fn the_reason_names_every_cause_and_ends_with_the_hint() {
        let missing = DeviceError::NoGpu { devices: Devices::Cuda(vec![7]), reason: "no driver".to_owned() };
        let text = TrialError::from(ImageError::Device(Box::new(missing))).reason;
        let wanted = "failed to use device `cuda:7`: no NVIDIA GPU can be used here (no driver)\nhint: `nvidia-smi`";
        assert!(text.starts_with(wanted), "{text}");
    }
}
