//! Weights from a safetensors file, from the Hub, or drawn at random; names and shapes of all tensors are checked.

use super::{hub, init};
use crate::digest::Digest;
use crate::spec::WeightSource;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Names and shapes of the tensors a network is made of.
pub type Parameters = Vec<(String, Vec<usize>)>;

/// What a network requires of a weight file.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The network's name, for messages.
    pub network: String,
    /// Every tensor it is made of.
    pub parameters: Parameters,
    /// Name prefixes of tensors that are ignored: classifiers and auxiliary heads.
    pub ignored: &'static [&'static str],
}

/// Loaded weights.
#[derive(Clone, Debug)]
pub struct Weights {
    /// f32 tensors by torchvision's (or timm's) name: exactly those that were wanted.
    pub tensors: BTreeMap<String, Tensor>,
    /// Digest of the file's bytes, or of what the random weights were drawn from.
    pub digest: Digest,
}

/// Why weights could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The file cannot be read.
    #[error("read weight file `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is not a safetensors file, or is truncated.
    #[error("read `{}` as a safetensors file\nhint: a PyTorch `.pth` file must be converted first (safetensors.torch.save_file)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// A tensor's number format is not supported.
    #[error("read tensor `{name}` of `{}`: number format {dtype:?}\nhint: f32, f16, bf16 and f64 are read", path.display())]
    NumberFormat {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        dtype: Dtype,
    },
    /// A tensor holds NaN or infinity.
    #[error("use tensor `{name}` of `{}`: it holds a number that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Names or shapes do not fit the network.
    #[error("fit the weights in `{}` to {network}: {mismatch}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The network.
        network: String,
        /// What does not fit.
        mismatch: Box<Mismatch>,
    },
    /// The file could not be fetched from the Hub.
    #[error(transparent)]
    Hub(#[from] hub::HubError),
    /// A tensor could not be put on the device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Tensors that do not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Wanted, but not in the file.
    pub missing: Vec<String>,
    /// In the file, but unknown to the network.
    pub extra: Vec<String>,
    /// Name, wanted shape, shape found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// The network that the names in the file belong to, if they are known.
    pub looks_like: Option<&'static str>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, names) in [("missing", &self.missing), ("unknown", &self.extra)] {
            if !names.is_empty() {
                write!(f, "{separator}{} {what} ({})", names.len(), some_of(names.iter().map(String::as_str)))?;
                separator = ", ";
            }
        }
        if !self.misshapen.is_empty() {
            let shapes: Vec<_> = self.misshapen.iter().map(|(n, w, g)| format!("{n} is {g:?}, not {w:?}")).collect();
            let shapes = some_of(shapes.iter().map(String::as_str));
            write!(f, "{separator}{} misshapen ({shapes})", self.misshapen.len())?;
        }
        match self.looks_like {
            Some(other) => write!(f, "\nhint: the names are those of {other}; check `backbone`"),
            None => write!(f, "\nhint: torchvision's and timm's parameter names are understood"),
        }
    }
}

/// The first few names of a list, and how many more there are.
fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Loads the tensors of `wanted` from `source`. Random weights are drawn from `seed`.
///
/// # Errors
/// If a file cannot be loaded or does not fit: every missing, extra or misshapen tensor is named.
pub fn load(source: &WeightSource, wanted: &Wanted, seed: u64, device: &Device) -> Result<Weights, WeightError> {
    match source {
        WeightSource::File(path) => from_file(path, wanted, device),
        WeightSource::Hub { repo, revision } => from_file(&hub::fetch(repo, revision.as_deref())?, wanted, device),
        WeightSource::Random => random(wanted, seed, device),
    }
}

fn random(wanted: &Wanted, seed: u64, device: &Device) -> Result<Weights, WeightError> {
    let mut tensors = BTreeMap::new();
    for (name, shape) in &wanted.parameters {
        let values = init::backbone_tensor(name, shape, seed);
        tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), device)?);
    }
    let digest = Digest::of_parts([
        ("random weights 1", &seed.to_le_bytes()[..]),
        ("network", wanted.network.as_bytes()),
        ("parameters", format!("{:?}", wanted.parameters).as_bytes()),
    ]);
    Ok(Weights { tensors, digest })
}

fn from_file(path: &Path, wanted: &Wanted, device: &Device) -> Result<Weights, WeightError> {
    let bytes = std::fs::read(path).map_err(|source| WeightError::Io { path: path.to_owned(), source })?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|source| WeightError::Format { path: path.to_owned(), source })?;
    let mismatch = compare(&file, wanted);
    if !mismatch.missing.is_empty() || !mismatch.extra.is_empty() || !mismatch.misshapen.is_empty() {
        return Err(WeightError::Mismatch {
            path: path.to_owned(),
            network: wanted.network.clone(),
            mismatch: Box::new(mismatch),
        });
    }
    let mut tensors = BTreeMap::new();
    for (name, shape) in &wanted.parameters {
        let view = file.tensor(name).map_err(|source| WeightError::Format { path: path.to_owned(), source })?;
        let values = to_f32(&view).ok_or_else(|| WeightError::NumberFormat {
            path: path.to_owned(),
            name: name.clone(),
            dtype: view.dtype(),
        })?;
        if values.iter().any(|x| !x.is_finite()) {
            return Err(WeightError::NotFinite { path: path.to_owned(), name: name.clone() });
        }
        tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), device)?);
    }
    Ok(Weights { tensors, digest: Digest::of(&bytes) })
}

fn compare(file: &SafeTensors<'_>, wanted: &Wanted) -> Mismatch {
    let wants: BTreeMap<&str, &[usize]> = wanted.parameters.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    let mut mismatch = Mismatch::default();
    for (name, view) in file.iter() {
        match wants.get(name) {
            Some(&shape) if shape != view.shape() => {
                mismatch.misshapen.push((name.to_owned(), shape.to_vec(), view.shape().to_vec()));
            }
            Some(_) => {}
            // PyTorch's count of batches has no use in inference.
            None if name.ends_with(".num_batches_tracked") => {}
            None if wanted.ignored.iter().any(|prefix| name.starts_with(prefix)) => {}
            None => mismatch.extra.push(name.to_owned()),
        }
    }
    mismatch.missing = wants.keys().filter(|n| file.tensor(n).is_err()).map(|&n| n.to_owned()).collect();
    mismatch.extra.sort();
    mismatch.misshapen.sort();
    if !mismatch.missing.is_empty() {
        mismatch.looks_like = signature(file);
    }
    mismatch
}

/// The network that the names belong to, recognised by a tensor that only it has.
fn signature(file: &SafeTensors<'_>) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 8] = [
        ("Mixed_7c.branch1x1.conv.weight", "an InceptionV3"),
        ("layer4.0.conv3.weight", "a ResNet with bottleneck blocks (50, 101, 152)"),
        ("layer4.0.conv2.weight", "a ResNet with basic blocks (18, 34)"),
        ("stages.3.blocks.0.conv_dw.weight", "a ConvNeXt in timm's naming"),
        ("features.7.0.block.0.weight", "a ConvNeXt in torchvision's naming (timm's is understood)"),
        ("features.denseblock1.denselayer1.norm1.weight", "a DenseNet"),
        ("blocks.0.attn.qkv.weight", "a vision transformer"),
        ("conv_stem.weight", "an EfficientNet in timm's naming"),
    ];
    KNOWN.iter().find(|(name, _)| file.tensor(name).is_ok()).map(|&(_, network)| network)
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            network: "a test network".into(),
            parameters: vec![("a.conv.weight".into(), vec![2, 1, 1, 1]), ("a.bn.bias".into(), vec![2])],
            ignored: &["fc.", "AuxLogits."],
        }
    }

    fn file(folder: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> PathBuf {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()))
            .collect();
        let path = folder.join("weights.safetensors");
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    }

    fn bytes<const N: usize>(values: &[f32], to: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&x| to(x)).collect()
    }

    fn values(weights: &Weights, name: &str) -> Vec<f32> {
        weights.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn half_precision_is_widened_and_classifiers_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(
            folder.path(),
            &[
                ("a.conv.weight", Dtype::F16, &[2, 1, 1, 1], bytes(&[0.5, -3.0], |x| f16::from_f32(x).to_le_bytes())),
                ("a.bn.bias", Dtype::BF16, &[2], bytes(&[1.0, 0.25], |x| bf16::from_f32(x).to_le_bytes())),
                ("a.bn.num_batches_tracked", Dtype::I64, &[], vec![0; 8]),
                ("fc.weight", Dtype::F32, &[1], bytes(&[1.0], f32::to_le_bytes)),
                ("AuxLogits.fc.bias", Dtype::F32, &[1], bytes(&[1.0], f32::to_le_bytes)),
            ],
        );
        let weights = load(&WeightSource::File(path.clone()), &wanted(), 0, &Device::Cpu).unwrap();
        assert_eq!(weights.tensors.len(), 2);
        assert_eq!(values(&weights, "a.conv.weight"), [0.5, -3.0]);
        assert_eq!(values(&weights, "a.bn.bias"), [1.0, 0.25]);
        assert_eq!(weights.digest, Digest::of_file(&path).unwrap());
    }

    #[test]
    fn missing_extra_and_misshapen_tensors_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(
            folder.path(),
            &[
                ("a.conv.weight", Dtype::F32, &[1, 2, 1, 1], bytes(&[0.5, -3.0], f32::to_le_bytes)),
                ("layer4.0.conv2.weight", Dtype::F32, &[1], bytes(&[1.0], f32::to_le_bytes)),
            ],
        );
        let error = load(&WeightSource::File(path), &wanted(), 0, &Device::Cpu).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("1 missing (a.bn.bias)"), "{text}");
        assert!(text.contains("1 unknown (layer4.0.conv2.weight)"), "{text}");
        assert!(text.contains("a.conv.weight is [1, 2, 1, 1], not [2, 1, 1, 1]"), "{text}");
        assert!(text.contains("hint: the names are those of a ResNet with basic blocks"), "{text}");
    }

    #[test]
    fn unusable_files_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pth");
        let load = |path: &Path| load(&WeightSource::File(path.to_owned()), &wanted(), 0, &Device::Cpu).unwrap_err();
        assert!(matches!(load(&path), WeightError::Io { .. }));
        std::fs::write(&path, b"PK\x03\x04 a zip archive, as torch.save makes them").unwrap();
        assert!(matches!(load(&path), WeightError::Format { .. }));
        let nan = file(
            folder.path(),
            &[
                ("a.conv.weight", Dtype::F32, &[2, 1, 1, 1], bytes(&[0.5, f32::NAN], f32::to_le_bytes)),
                ("a.bn.bias", Dtype::F32, &[2], bytes(&[1.0, 0.25], f32::to_le_bytes)),
            ],
        );
        assert!(matches!(load(&nan), WeightError::NotFinite { name, .. } if name == "a.conv.weight"));
        let whole = file(
            folder.path(),
            &[
                ("a.conv.weight", Dtype::I8, &[2, 1, 1, 1], vec![1, 2]),
                ("a.bn.bias", Dtype::F32, &[2], bytes(&[1.0, 0.25], f32::to_le_bytes)),
            ],
        );
        assert!(matches!(load(&whole), WeightError::NumberFormat { .. }));
    }

    #[test]
    fn random_weights_depend_on_the_seed_and_nothing_else() {
        let draw = |seed| load(&WeightSource::Random, &wanted(), seed, &Device::Cpu).unwrap();
        let (a, b, c) = (draw(1), draw(1), draw(2));
        assert_eq!(values(&a, "a.conv.weight"), values(&b, "a.conv.weight"));
        assert_eq!(a.digest, b.digest);
        assert_ne!(values(&a, "a.conv.weight"), values(&c, "a.conv.weight"));
        assert_ne!(a.digest, c.digest);
    }
}
