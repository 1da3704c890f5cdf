//! Networks taken whole from candle-transformers: ResNet-18, ResNet-50, ConvNeXt-tiny.
//!
//! Their public interface is one closure from the image to the pooled features. So they have a single stage,
//! `features`, which is always frozen: only heads are trained on it. Internally they compute channels first; images and
//! features are channels last here as everywhere.

use super::Mode;
use super::backbone::{Backbone, BackboneError, Lattice, StageInfo, Suffix, SuffixOptions};
use super::weights::{Parameters, Wanted};
use crate::spec::BackboneKind;
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{Func, LayerNorm, Module, VarBuilder};
use candle_transformers::models::{convnext, resnet};
use std::collections::BTreeMap;

/// A frozen network of one stage: `[N, H, W, 3]` to `[N, 1, 1, C]`.
pub struct FrozenBackbone {
    name: &'static str,
    stages: [StageInfo; 1],
    network: Func<'static>,
    /// ConvNeXt's norm after pooling, which timm counts as part of the features.
    norm: Option<LayerNorm>,
    smallest: usize,
}

/// The number of blocks in each stage of a ResNet, and their kind.
pub(super) struct ResNet {
    pub blocks: [usize; 4],
    pub bottleneck: bool,
}

pub(super) fn resnet_of(kind: BackboneKind) -> Option<ResNet> {
    match kind {
        BackboneKind::ResNet18 => Some(ResNet { blocks: [2, 2, 2, 2], bottleneck: false }),
        BackboneKind::ResNet50 => Some(ResNet { blocks: [3, 4, 6, 3], bottleneck: true }),
        _ => None,
    }
}

pub(super) const CONVNEXT_BLOCKS: [usize; 4] = [3, 3, 9, 3];
pub(super) const CONVNEXT_CHANNELS: [usize; 4] = [96, 192, 384, 768];
pub(super) const CONVNEXT_EPSILON: f64 = 1e-6;

/// Names and shapes of a network's tensors; `None` if it is not one of these networks.
pub fn wanted(kind: BackboneKind) -> Option<Wanted> {
    let (network, parameters) = match kind {
        BackboneKind::ConvNextTiny => ("ConvNeXt-tiny", convnext_parameters()),
        BackboneKind::ResNet18 => ("ResNet-18", resnet_parameters(&resnet_of(kind)?)),
        BackboneKind::ResNet50 => ("ResNet-50", resnet_parameters(&resnet_of(kind)?)),
        BackboneKind::InceptionV3 => return None,
    };
    Some(Wanted { network: network.to_owned(), parameters, ignored: &["fc.", "head.fc.", "top."] })
}

fn norm(all: &mut Parameters, name: &str, channels: usize, running: bool) {
    let parts: &[&str] = if running { &["weight", "bias", "running_mean", "running_var"] } else { &["weight", "bias"] };
    all.extend(parts.iter().map(|part| (format!("{name}.{part}"), vec![channels])));
}

fn resnet_parameters(net: &ResNet) -> Parameters {
    let mut all = vec![("conv1.weight".to_owned(), vec![64, 3, 7, 7])];
    norm(&mut all, "bn1", 64, true);
    let mut inputs = 64;
    for (stage, &blocks) in net.blocks.iter().enumerate() {
        let width = 64 << stage;
        let outputs = if net.bottleneck { 4 * width } else { width };
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let convolutions: &[(usize, usize, usize)] = if net.bottleneck {
                &[(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
            } else {
                &[(inputs, width, 3), (width, width, 3)]
            };
            for (i, &(from, to, side)) in convolutions.iter().enumerate() {
                all.push((format!("{name}.conv{}.weight", i + 1), vec![to, from, side, side]));
                norm(&mut all, &format!("{name}.bn{}", i + 1), to, true);
            }
            if block == 0 && (stage > 0 || inputs != outputs) {
                all.push((format!("{name}.downsample.0.weight"), vec![outputs, inputs, 1, 1]));
                norm(&mut all, &format!("{name}.downsample.1"), outputs, true);
            }
            inputs = outputs;
        }
    }
    all
}

fn convnext_parameters() -> Parameters {
    let mut all = Vec::new();
    let layer = |all: &mut Parameters, name: &str, shape: Vec<usize>| {
        let outputs = shape[0];
        all.push((format!("{name}.weight"), shape));
        all.push((format!("{name}.bias"), vec![outputs]));
    };
    layer(&mut all, "stem.0", vec![96, 3, 4, 4]);
    norm(&mut all, "stem.1", 96, false);
    for (stage, (&blocks, &c)) in CONVNEXT_BLOCKS.iter().zip(&CONVNEXT_CHANNELS).enumerate() {
        if stage > 0 {
            norm(&mut all, &format!("stages.{stage}.downsample.0"), c / 2, false);
            layer(&mut all, &format!("stages.{stage}.downsample.1"), vec![c, c / 2, 2, 2]);
        }
        for block in 0..blocks {
            let name = format!("stages.{stage}.blocks.{block}");
            layer(&mut all, &format!("{name}.conv_dw"), vec![c, 1, 7, 7]);
            norm(&mut all, &format!("{name}.norm"), c, false);
            layer(&mut all, &format!("{name}.mlp.fc1"), vec![4 * c, c]);
            layer(&mut all, &format!("{name}.mlp.fc2"), vec![c, 4 * c]);
            all.push((format!("{name}.gamma"), vec![c]));
        }
    }
    norm(&mut all, "head.norm", 768, false);
    all
}

impl FrozenBackbone {
    /// The network `kind` with `weights` by torchvision's (ResNet) or timm's (both) names; `None` if it is not one
    /// of these networks.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen ([`super::weights::load`] names them all).
    pub fn new(kind: BackboneKind, weights: &BTreeMap<String, Tensor>, device: &Device) -> Result<Option<Self>> {
        let tensors = weights.iter().map(|(name, t)| (name.clone(), t.clone())).collect();
        let vars = VarBuilder::from_tensors(tensors, DType::F32, device);
        let (name, channels, network, norm) = match kind {
            BackboneKind::ResNet18 => ("ResNet-18", 512, resnet::resnet18_no_final_layer(vars)?, None),
            BackboneKind::ResNet50 => ("ResNet-50", 2048, resnet::resnet50_no_final_layer(vars)?, None),
            BackboneKind::ConvNextTiny => {
                let norm = candle_nn::layer_norm(768, CONVNEXT_EPSILON, vars.pp("head.norm"))?;
                let network = convnext::convnext_no_final_layer(&convnext::Config::tiny(), vars)?;
                ("ConvNeXt-tiny", 768, network, Some(norm))
            }
            BackboneKind::InceptionV3 => return Ok(None),
        };
        let stages = [StageInfo { name: "features".to_owned(), channels }];
        // All of them reduce an image by a factor of 32.
        Ok(Some(Self { name, stages, network, norm, smallest: 32 }))
    }
}

impl Backbone for FrozenBackbone {
    fn stages(&self) -> &[StageInfo] {
        &self.stages
    }

    fn side_at(&self, position: usize, side: usize) -> Option<usize> {
        match position {
            0 => Some(side),
            1 if side >= self.smallest => Some(1),
            _ => None,
        }
    }

    fn lattice(&self, position: usize) -> Option<Lattice> {
        (position == 0).then_some(Lattice { first: 0.5, step: 1.0 })
    }

    /// Computed image by image: candle's matrix products may sum in another order for another number of rows.
    fn prefix(&self, from: usize, to: usize, x: &Tensor) -> Result<Tensor> {
        if from == to && to <= 1 {
            return Ok(x.clone());
        }
        if (from, to) != (0, 1) {
            candle_core::bail!("{} has one stage; there is no way from {from} to {to}", self.name);
        }
        let (n, h, w, _) = x.dims4()?;
        if h.min(w) < self.smallest {
            candle_core::bail!("{} wants images of at least {} pixels a side, not {h} x {w}", self.name, self.smallest);
        }
        let x = x.permute((0, 3, 1, 2))?;
        let mut rows = Vec::with_capacity(n);
        for i in 0..n {
            let features = self.network.forward(&x.narrow(0, i, 1)?.contiguous()?)?;
            rows.push(match &self.norm {
                Some(norm) => norm.forward(&features)?,
                None => features,
            });
        }
        let features = Tensor::cat(&rows, 0)?;
        let channels = features.dim(D::Minus1)?;
        features.reshape((n, 1, 1, channels))
    }

    fn suffix(
        &self,
        from: usize,
        to: usize,
        _options: SuffixOptions,
    ) -> std::result::Result<Box<dyn Suffix>, BackboneError> {
        if from == to && to <= 1 {
            return Ok(Box::new(Empty));
        }
        Err(BackboneError::CannotTrain {
            network: self.name.to_owned(),
            first: "the head (candle-transformers gives it as one frozen piece)".to_owned(),
            asked: if from == 0 { "the first layer".to_owned() } else { format!("position {from}") },
        })
    }
}

/// A suffix without layers: only the head is trained.
struct Empty;

impl Suffix for Empty {
    fn forward(&self, x: &Tensor, _mode: Mode) -> Result<Tensor> {
        Ok(x.clone())
    }
    fn parameters(&self) -> Vec<(String, Var)> {
        Vec::new()
    }
    fn buffers(&self) -> Vec<(String, Var)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::figures::{figures, s};
    use crate::nn::weights;
    use crate::spec::{BatchNormMode, WeightSource};

    fn random(kind: BackboneKind) -> FrozenBackbone {
        let weights = weights::load(&WeightSource::Random, &wanted(kind).unwrap(), 1, &Device::Cpu).unwrap();
        FrozenBackbone::new(kind, &weights.tensors, &Device::Cpu).unwrap().unwrap()
    }

    /// Images generated as `[N, C, H, W]`, then permuted to channels last.
    fn images() -> Tensor {
        Tensor::from_vec(s("image", 2 * 3 * 64 * 64), (2, 3, 64, 64), &Device::Cpu)
            .and_then(|x| x.permute((0, 2, 3, 1))?.contiguous())
            .unwrap()
    }

    /// Against torchvision 0.29, with weights and images from the same integer generator
    /// (tests/data/make_training_figures.py).
    #[test]
    fn features_agree_with_torchvision() {
        for (kind, key) in [
            (BackboneKind::ResNet18, "resnet18"),
            (BackboneKind::ResNet50, "resnet50"),
            (BackboneKind::ConvNextTiny, "convnext_tiny"),
        ] {
            let mut tensors = BTreeMap::new();
            for (name, shape) in wanted(kind).unwrap().parameters {
                let bound = (6.0 / shape.iter().skip(1).product::<usize>() as f64).sqrt();
                let n = shape.iter().product();
                let last = name.rsplit('.').next().unwrap();
                let values = s(&name, n).into_iter().map(|v| {
                    let v = f64::from(v);
                    (match last {
                        "running_var" => 1.0 + v / 4.0,
                        "weight" if shape.len() > 1 => v * bound,
                        "weight" => 0.5 + v / 8.0,
                        "gamma" => v / 2.0,
                        _ => v / 8.0,
                    }) as f32
                });
                let values: Vec<f32> = values.collect();
                tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
            }
            let network = FrozenBackbone::new(kind, &tensors, &Device::Cpu).unwrap().unwrap();
            let features = network.prefix(0, 1, &images()).unwrap();
            let wanted = &figures()["networks"][key];
            let channels = wanted["channels"].as_u64().unwrap() as usize;
            assert_eq!(features.dims(), [2, 1, 1, channels]);
            let features: Vec<f32> = features.flatten_all().unwrap().to_vec1().unwrap();
            let std = wanted["std"].as_f64().unwrap();
            let index: Vec<usize> =
                wanted["index"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect();
            let ours = (0..2).flat_map(|row| index.iter().map(move |i| row * channels + i)).map(|i| features[i]);
            for (ours, theirs) in ours.zip(wanted["values"].as_array().unwrap()) {
                let off = (f64::from(ours) - theirs.as_f64().unwrap()).abs() / std;
                assert!(off < 2e-5, "{key}: {ours} against {theirs}, {off} deviations");
            }
        }
    }

    #[test]
    fn features_do_not_depend_on_the_batch() {
        let network = random(BackboneKind::ResNet18);
        let whole: Vec<f32> = network.prefix(0, 1, &images()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let second = network.prefix(0, 1, &images().narrow(0, 1, 1).unwrap()).unwrap();
        assert_eq!(whole[512..], second.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(network.side_at(1, 64), Some(1));
        assert_eq!(network.side_at(1, 31), None);
        assert!(network.prefix(0, 1, &images().narrow(1, 0, 20).unwrap()).is_err());
    }

    #[test]
    fn only_a_head_can_be_trained_on_them() {
        let network = random(BackboneKind::ConvNextTiny);
        let options = SuffixOptions { batch_norm: BatchNormMode::Frozen };
        assert_eq!(network.stages()[0].name, BackboneKind::ConvNextTiny.stages()[0]);
        assert!(network.suffix(1, 1, options).unwrap().parameters().is_empty());
        let Err(error) = network.suffix(0, 1, options) else { panic!("trained what is frozen") };
        let text = error.to_string();
        assert!(text.contains("ConvNeXt-tiny can be trained from the head"), "{text}");
    }
}
