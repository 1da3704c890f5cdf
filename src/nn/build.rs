//! Builds a network from its description in a study.

use super::inception_v3::{self, InceptionV3, InceptionV3Error};
use super::weights::{self, Wanted, WeightError, Weights};
use super::{Backbone, cuda::precision, frozen_backbone};
use crate::digest::Digest;
use crate::spec::{BackboneKind, NetworkSpec, Precision};
use candle_core::Device;

/// A backbone with its weights.
pub struct Built {
    /// The network.
    pub backbone: Box<dyn Backbone>,
    /// Digest of its weights.
    pub weights: Digest,
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The weights cannot be loaded, or do not fit.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Networks from candle-transformers have a fixed width.
    #[error("build a {kind:?} of width {width}: only InceptionV3 can be narrowed or widened\nhint: set `width = 1`")]
    Width {
        /// The network.
        kind: BackboneKind,
        /// The width asked for.
        width: f64,
    },
    /// The tensors do not form an InceptionV3.
    #[error(transparent)]
    Inception(#[from] InceptionV3Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Builds the network that `spec` describes, in the precision of this process. Random weights are drawn from `seed`.
///
/// # Errors
/// If the weights cannot be loaded or do not fit, or the network does not exist in this width.
pub fn build(spec: &NetworkSpec, seed: u64, device: &Device) -> Result<Built, BuildError> {
    in_precision(spec, seed, device, precision())
}

/// The same for judging only: on the CPU in f32, whatever the precision of this process, so that an exported model says the
/// same wherever it is asked.
///
/// # Errors
/// As [`build`].
pub fn exact(spec: &NetworkSpec, seed: u64, device: &Device) -> Result<Built, BuildError> {
    in_precision(spec, seed, device, Precision::F32)
}

fn in_precision(spec: &NetworkSpec, seed: u64, device: &Device, precision: Precision) -> Result<Built, BuildError> {
    let weights = tensors(spec, seed, device)?;
    let backbone: Box<dyn Backbone> =
        match frozen_backbone::FrozenBackbone::new(spec.backbone, &weights.tensors, device)? {
            Some(network) => Box::new(network),
            None => {
                let network = InceptionV3::new(&weights.tensors, spec.width, spec.pool_padding, device)?;
                Box::new(network.with_precision(precision))
            }
        };
    Ok(Built { backbone, weights: weights.digest })
}

/// The weights of the network that `spec` describes, by torchvision's (or timm's) names.
///
/// # Errors
/// As [`build`].
pub fn tensors(spec: &NetworkSpec, seed: u64, device: &Device) -> Result<Weights, BuildError> {
    let wanted = match frozen_backbone::wanted(spec.backbone) {
        Some(_) if spec.width != 1.0 => {
            return Err(BuildError::Width { kind: spec.backbone, width: spec.width });
        }
        Some(wanted) => wanted,
        None => Wanted {
            network: format!("InceptionV3 of width {}", spec.width),
            parameters: inception_v3::parameters(spec.width),
            ignored: &["fc.", "AuxLogits.", "top."],
        },
    };
    Ok(weights::load(&spec.weights, &wanted, seed, device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BatchNormMode, CachePrecision, FreezeTo, PixelScaling, PoolPadding, WeightSource};

    fn spec(backbone: BackboneKind, width: f64) -> NetworkSpec {
        NetworkSpec {
            backbone,
            width,
            weights: WeightSource::Random,
            scaling: PixelScaling::Unit,
            pool_padding: PoolPadding::Excluded,
            tap: backbone.last_stage().to_owned(),
            freeze: FreezeTo::All,
            batch_norm: BatchNormMode::Frozen,
            cache: CachePrecision::F32,
            input_size: None,
        }
    }

    #[test]
    fn every_known_network_has_the_stages_that_studies_name() {
        for (kind, width) in [
            (BackboneKind::InceptionV3, 0.125),
            (BackboneKind::ResNet18, 1.0),
            (BackboneKind::ResNet50, 1.0),
            (BackboneKind::ConvNextTiny, 1.0),
        ] {
            let built = build(&spec(kind, width), 1, &Device::Cpu).unwrap();
            let names: Vec<_> = built.backbone.stages().iter().map(|s| s.name.as_str()).collect();
            assert_eq!(names, kind.stages());
            let smallest = kind.smallest_image() as usize;
            assert!(built.backbone.side_at(names.len(), smallest).is_some(), "{kind:?}");
            assert!(built.backbone.side_at(names.len(), smallest - 1).is_none(), "{kind:?}");
        }
    }

    #[test]
    fn only_inception_can_be_narrowed() {
        let error = build(&spec(BackboneKind::ResNet18, 0.5), 1, &Device::Cpu).err().unwrap();
        assert!(matches!(error, BuildError::Width { .. }), "{error}");
        assert!(build(&spec(BackboneKind::InceptionV3, 0.125), 1, &Device::Cpu).is_ok());
    }

    #[test]
    fn weights_of_another_width_do_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let wide = Wanted { network: String::new(), parameters: inception_v3::parameters(0.125), ignored: &[] };
        let weights = weights::load(&WeightSource::Random, &wide, 1, &Device::Cpu).unwrap();
        let tensors: std::collections::HashMap<_, _> = weights.tensors.into_iter().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let from_file =
            |width| NetworkSpec { weights: WeightSource::File(path.clone()), ..spec(BackboneKind::InceptionV3, width) };
        assert!(build(&from_file(0.125), 1, &Device::Cpu).is_ok());
        let error = build(&from_file(0.25), 1, &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains("misshapen") && error.contains("InceptionV3 of width 0.25"), "{error}");
    }
}
