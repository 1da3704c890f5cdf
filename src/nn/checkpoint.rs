//! A trial's checkpoint: ONE safetensors file, written atomically, so that model and optimiser always match.
//!
//! It holds the trained part's parameters, its running statistics, the optimiser's moments and step, and a note of
//! what it belongs to. There is no random state: every random stream is keyed (see [`crate::rng`]).

use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::nn::tensor::little_endian;
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// The version of the format. 2 holds convolution weights as torch does, `[O, I, KH, KW]`; 1 held the CPU's panels and
/// can still be read.
const FORMAT: u32 = 2;
/// The only key of the file's metadata: a map with several would be written in random order.
const KEY: &str = "hpsearch";

/// What a checkpoint belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The version of the format.
    pub format: u32,
    /// The trial.
    pub trial: TrialNumber,
    /// Epochs done.
    pub epoch: Epoch,
    /// Digest of the settings it was trained with: data, network, head, training, augmentation.
    pub settings: Digest,
    /// Optimiser steps taken by the model of each fold (one without cross-validation).
    pub steps: Vec<u64>,
}

/// Tensors by name, and a note.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it belongs to.
    pub note: Note,
    /// f32 tensors: `fold/parameter/name`, `fold/buffer/name`, `fold/optimiser/name`, `fold/average/name`.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{action} checkpoint `{}`", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file's bytes are not those that were recorded.
    #[error("read checkpoint `{}`: its digest is {found}, recorded was {wanted}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest of its bytes.
        found: Digest,
        /// The recorded one.
        wanted: Digest,
    },
    /// It is not a safetensors file.
    #[error("read checkpoint `{}`", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// Its note is missing, unreadable, or of another version.
    #[error("read checkpoint `{}`: it has no note of format {FORMAT}", path.display())]
    Note {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another trial or other settings.
    #[error("resume from a checkpoint of {found}: wanted is one of {wanted}")]
    Foreign {
        /// What it belongs to.
        found: String,
        /// What it should belong to.
        wanted: String,
    },
    /// A tensor is missing or has another shape.
    #[error("resume from a checkpoint: tensor `{name}` is missing or not of shape {shape:?}")]
    Tensor {
        /// Its name.
        name: String,
        /// The shape wanted.
        shape: Vec<usize>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Note {
    /// A note of this version.
    pub fn new(trial: TrialNumber, epoch: Epoch, settings: Digest, steps: Vec<u64>) -> Self {
        Self { format: FORMAT, trial, epoch, settings, steps }
    }
}

impl Checkpoint {
    /// The file's bytes: equal checkpoints give equal bytes.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, CheckpointError> {
        let mut data = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            data.push((name, tensor.dims().to_vec(), little_endian(&values)));
        }
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let mut views = Vec::with_capacity(data.len());
        for (name, shape, bytes) in &data {
            views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(format)?));
        }
        let note = serde_json::to_string(&self.note).map_err(|e| CheckpointError::Io {
            action: "write",
            path: path.to_owned(),
            source: e.into(),
        })?;
        safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), note)]))).map_err(format)
    }

    /// Writes the file atomically. Returns its digest and size.
    ///
    /// # Errors
    /// If a folder or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(Digest, u64), CheckpointError> {
        let bytes = self.bytes(path)?;
        let io = |source| CheckpointError::Io { action: "write", path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        crate::fsx::write_atomic(path, &bytes).map_err(io)?;
        Ok((Digest::of(&bytes), bytes.len() as u64))
    }

    /// Reads a file and verifies its digest, if one is on record.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is not a checkpoint.
    pub fn read(path: &Path, digest: Option<Digest>, device: &Device) -> Result<Self, CheckpointError> {
        let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        if let Some(wanted) = digest {
            let found = Digest::of(&bytes);
            if found != wanted {
                return Err(CheckpointError::Digest { path: path.to_owned(), found, wanted });
            }
        }
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let note: Note = header
            .metadata()
            .as_ref()
            .and_then(|m| serde_json::from_str(m.get(KEY)?).ok())
            .filter(|n: &Note| (1..=FORMAT).contains(&n.format))
            .ok_or_else(|| CheckpointError::Note { path: path.to_owned() })?;
        let file = SafeTensors::deserialize(&bytes).map_err(format)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensors.insert(name.to_owned(), Tensor::from_vec(values, view.shape(), device)?);
        }
        Ok(Self { note, tensors })
    }

    /// The tensor of this name and shape.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        self.tensors
            .get(name)
            .filter(|t| t.dims() == shape)
            .cloned()
            .ok_or_else(|| CheckpointError::Tensor { name: name.to_owned(), shape: shape.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
        Checkpoint {
            note: Note::new(TrialNumber(3), Epoch(2), Digest::of(b"settings"), vec![14]),
            tensors: [
                ("0/parameter/a".to_owned(), tensor(&[1.5, -0.0, 3e-39])),
                ("0/buffer/b".to_owned(), tensor(&[7.0])),
            ]
            .into(),
        }
    }

    #[test]
    fn older_files_are_read_and_newer_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for (format, readable) in [(0, false), (1, true), (FORMAT, true), (FORMAT + 1, false)] {
            let path = folder.path().join(format!("{format}.safetensors"));
            let mut checkpoint = checkpoint();
            checkpoint.note.format = format;
            checkpoint.write(&path).unwrap();
            assert_eq!(Checkpoint::read(&path, None, &Device::Cpu).is_ok(), readable, "{format}");
        }
    }

    #[test]
    fn a_written_checkpoint_is_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/x.safetensors");
        let (digest, bytes) = checkpoint().write(&path).unwrap();
        assert_eq!(digest, Digest::of_file(&path).unwrap());
        assert_eq!(bytes, path.metadata().unwrap().len());
        let back = Checkpoint::read(&path, Some(digest), &Device::Cpu).unwrap();
        assert_eq!(back.note, checkpoint().note);
        let bits = |c: &Checkpoint| -> Vec<u32> {
            c.tensors.values().flat_map(|t| t.to_vec1::<f32>().unwrap()).map(f32::to_bits).collect()
        };
        assert_eq!(bits(&back), bits(&checkpoint()));
        assert_eq!(checkpoint().write(&path).unwrap().0, digest, "equal checkpoints are equal bytes");
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (digest, _) = checkpoint().write(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let read = |digest| Checkpoint::read(&path, digest, &Device::Cpu);
        assert!(matches!(read(Some(digest)), Err(CheckpointError::Digest { .. })));
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(read(None), Err(CheckpointError::Format { .. })));
        std::fs::write(&path, safetensors::serialize::<&str, TensorView, _>([], None).unwrap()).unwrap();
        assert!(matches!(read(None), Err(CheckpointError::Note { .. })));
    }

    #[test]
    fn a_missing_or_misshapen_tensor_is_named() {
        let error = checkpoint().tensor("0/parameter/a", &[4]).unwrap_err();
        assert!(error.to_string().contains("`0/parameter/a`"), "{error}");
        assert!(checkpoint().tensor("0/parameter/c", &[3]).is_err());
        assert!(checkpoint().tensor("0/parameter/a", &[3]).is_ok());
    }
}
