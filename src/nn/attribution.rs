//! Heat maps: which places of an image speak for a class.
//!
//! A map is the sum over channels of activation times weight, at each place of a feature map; [`Weighing`] has the
//! weights.

use super::head::{DropoutKey, Head};
use super::{Lattice, Mode, Suffix, backward};
use crate::ids::{Epoch, TrialNumber};
use candle_core::{Result, Tensor, Var};

/// How the activations of a feature map are weighed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, strum::Display, strum::EnumString, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Weighing {
    /// Each activation by the derivative of the class's log-odds by itself (Draelos and Carin 2020): a value is what
    /// scaling the activations of its place changes.
    HiResCam,
    /// All activations of a channel by the mean of these derivatives over the image (Selvaraju et al. 2017, equation 1,
    /// without the clipping of equation 2): steadier where channels stand for things, as in late stages, and
    /// meaningless where they stand for edges.
    GradCam,
    /// Each activation by the positive part of the derivative by itself (LayerCAM, Jiang et al. 2021): what
    /// speaks against the class does not cancel what speaks for it, so that places of early stages stand out.
    LayerCam,
}

/// What the places of a square image contribute to a class.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Contributions in log-odds (of [`Weighing::GradCam`]: estimates of them; of [`Weighing::LayerCam`]: the positive ones
    /// alone), row by row; what speaks against the class is negative.
    pub values: Vec<f32>,
    /// Values in a row and in a column.
    pub side: usize,
    /// Where the values lie in the image.
    pub lattice: Lattice,
}

impl HeatMap {
    /// The place with the largest contribution, in pixels from the left and upper edge, and the contribution; the first
    /// of equals. `None` if nothing speaks for the class.
    pub fn peak(&self) -> Option<([f64; 2], f32)> {
        let mut best: Option<(usize, f32)> = None;
        for (i, &value) in self.values.iter().enumerate() {
            if value > best.map_or(0.0, |(_, best)| best) {
                best = Some((i, value));
            }
        }
        let at = |i: usize| self.lattice.first + i as f64 * self.lattice.step;
        best.map(|(i, value)| ([at(i % self.side), at(i / self.side)], value))
    }

    /// The contribution at a place in pixels from the left and upper edge: bilinear between values, constant beyond the
    /// outermost.
    pub fn at(&self, x: f64, y: f64) -> f32 {
        let last = self.side - 1;
        let place = |v: f64| {
            let v = ((v - self.lattice.first) / self.lattice.step).clamp(0.0, last as f64);
            let low = v.floor() as usize;
            (low, (low + 1).min(last), (v - low as f64) as f32)
        };
        let ((left, right, fx), (top, bottom, fy)) = (place(x), place(y));
        let row = |row: usize| {
            let [a, b] = [left, right].map(|column| self.values[row * self.side + column]);
            a + (b - a) * fx
        };
        let (top, bottom) = (row(top), row(bottom));
        top + (bottom - top) * fy
    }
}

/// The log-odds `ln(p / (1 - p))` of one class for each row of logits `[N, K]`, `K` at least 2: its logit less the
/// logarithm of the sum of the exponentials of the others; with two classes the difference of the logits.
///
/// A logit by itself means nothing: softmax scores do not change if all logits of an image change by the same amount.
///
/// # Errors
/// If an operation fails.
pub fn log_odds(logits: &Tensor, classes: &[usize]) -> Result<Tensor> {
    let (n, k) = logits.dims2()?;
    let chosen: Vec<u32> = classes.iter().map(|&c| c as u32).collect();
    let others: Vec<u32> = classes.iter().flat_map(|&c| (0..k).filter(move |&o| o != c)).map(|o| o as u32).collect();
    let chosen = logits.gather(&Tensor::from_vec(chosen, (n, 1), logits.device())?, 1)?.squeeze(1)?;
    let others = logits.gather(&Tensor::from_vec(others, (n, k - 1), logits.device())?, 1)?;
    let largest = others.detach().max_keepdim(1)?;
    let sums = others.broadcast_sub(&largest)?.exp()?.sum(1)?.log()?;
    chosen - (sums + largest.squeeze(1)?)?
}

/// Contributions `[N, H, W]`, weighed as `weighing` says, of the places of feature maps `x`, `[N, H, W, C]`, to the log-odds
/// of one class for each map, through the layers `suffix` (`None`: there are none) and the head.
///
/// The layers must have frozen batch norm: then each image has a gradient of its own.
///
/// # Errors
/// If an operation fails.
pub fn contributions(
    x: &Tensor,
    suffix: Option<&dyn Suffix>,
    head: &Head,
    classes: &[usize],
    weighing: Weighing,
) -> Result<Tensor> {
    let x = Var::from_tensor(&x.detach().contiguous()?)?;
    // Recorded for gradients; frozen batch norm computes the same in both modes.
    let features = match suffix {
        Some(suffix) => suffix.forward(&x, Mode::Train)?,
        None => x.as_tensor().clone(),
    };
    let key = DropoutKey { seed: 0, trial: TrialNumber(0), epoch: Epoch(0), fold: 0, first_sample: 0 };
    let odds = log_odds(&head.forward(&features, Mode::Eval, &key)?, classes)?;
    let gradients = backward(&odds.sum_all()?, suffix)?;
    let Some(gradient) = gradients.get(&x) else { candle_core::bail!("the head does not depend on the feature map") };
    let x = x.as_detached_tensor();
    match weighing {
        Weighing::HiResCam => (gradient * x)?.sum(3),
        Weighing::LayerCam => (gradient.relu()? * x)?.sum(3),
        Weighing::GradCam => x.broadcast_mul(&gradient.mean_keepdim((1, 2))?)?.sum(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{SuffixOptions, build};
    use crate::rng::{Purpose, StreamRng};
    use crate::spec::{
        BackboneKind, BatchNormMode, CachePrecision, FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling,
        PoolPadding, WeightSource,
    };
    use candle_core::Device;

    /// HiResCAM's contribution is the change of the log-odds as all activations of its place are scaled up: held against
    /// central differences, place by place. Grad-CAM's weight of a channel is the change as a constant is added to the whole
    /// channel, over the number of places: held against central differences, channel by channel.
    #[test]
    fn contributions_are_what_scaling_a_place_or_raising_a_channel_changes() {
        let network = NetworkSpec {
            backbone: BackboneKind::InceptionV3,
            width: 0.125,
            weights: WeightSource::Random,
            scaling: PixelScaling::Unit,
            pool_padding: PoolPadding::Excluded,
            tap: "Mixed_5b".to_owned(),
            freeze: FreezeTo::All,
            batch_norm: BatchNormMode::Frozen,
            cache: CachePrecision::F32,
            input_size: None,
        };
        let backbone = build::build(&network, 0, &Device::Cpu).unwrap().backbone;
        let tap = network.tap_position();
        let mut rng = StreamRng::keyed(3, Purpose::Test, &[]);
        let values: Vec<f32> = (0..2 * 75 * 75 * 3).map(|_| rng.unit() as f32).collect();
        let images = Tensor::from_vec(values, (2, 75, 75, 3), &Device::Cpu).unwrap();
        for (kind, classes, from) in
            [(HeadKind::Linear, 2, tap - 2), (HeadKind::Hidden, 3, tap - 1), (HeadKind::Linear, 3, tap)]
        {
            let head = HeadSpec { kind, dropout: 0.3, hidden_units: 8 };
            let channels = backbone.stages()[tap - 1].channels;
            let head = Head::new(&head, channels, classes, 0, (TrialNumber(0), 0), &Device::Cpu).unwrap();
            let suffix =
                backbone.suffix(from.min(tap - 1), tap, SuffixOptions { batch_norm: BatchNormMode::Frozen }).unwrap();
            let suffix = (from < tap).then_some(&*suffix);
            let x = backbone.prefix(0, from, &images).unwrap();
            let chosen = [1, classes - 1];
            let odds = |x: &Tensor| -> Vec<f32> {
                let features = suffix.map_or_else(|| x.clone(), |suffix| suffix.forward(x, Mode::Eval).unwrap());
                let key = DropoutKey { seed: 0, trial: TrialNumber(0), epoch: Epoch(0), fold: 0, first_sample: 0 };
                log_odds(&head.forward(&features, Mode::Eval, &key).unwrap(), &chosen).unwrap().to_vec1().unwrap()
            };
            let found = contributions(&x, suffix, &head, &chosen, Weighing::HiResCam).unwrap();
            let (_, side, _) = found.dims3().unwrap();
            let found: Vec<Vec<Vec<f32>>> = found.to_vec3().unwrap();
            let largest = found.iter().flatten().flatten().fold(0f32, |a, b| a.max(b.abs()));
            assert!(largest > 0.0);
            let mut off = Vec::new();
            for place in 0..side * side {
                const STEP: f32 = 0.004;
                let scaled = |by: f32| {
                    let mask = (0..side * side).map(|i| if i == place { 1.0 + by } else { 1.0 }).collect::<Vec<f32>>();
                    let mask = Tensor::from_vec(mask, (1, side, side, 1), &Device::Cpu).unwrap();
                    odds(&x.broadcast_mul(&mask).unwrap())
                };
                let (more, less) = (scaled(STEP), scaled(-STEP));
                for image in 0..2 {
                    let expected = (more[image] - less[image]) / (2.0 * STEP);
                    let own = found[image][place / side][place % side];
                    if (own - expected).abs() > 0.05 * largest {
                        off.push(format!("{own} {expected}"));
                    }
                }
            }
            // A difference may straddle the kink of an activation or a change of the largest value of a pool.
            assert!(off.len() * 50 <= 2 * side * side, "{kind:?} from {from}: {off:?} of {largest}");

            // Of two classes, what speaks for one speaks against the other.
            if classes == 2 {
                let layer = |classes: [usize; 2]| {
                    let map = contributions(&x, suffix, &head, &classes, Weighing::LayerCam).unwrap();
                    map.flatten_all().unwrap().to_vec1::<f32>().unwrap()
                };
                let (own, other) = (layer(chosen), layer(chosen.map(|class| 1 - class)));
                let whole = found.iter().flatten().flatten().zip(own.iter().zip(&other));
                for (hires, (own, other)) in whole {
                    assert!(*own >= 0.0 && *other >= 0.0 && (own - other - hires).abs() <= 1e-4 * largest);
                }
                assert!(own.iter().any(|v| *v > 0.0));
            }

            let channels = x.dims()[3];
            let mut expected = vec![0f32; 2 * side * side];
            let activations: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            for channel in 0..channels {
                const STEP: f32 = 2e-3;
                let raised = |by: f32| {
                    let added: Vec<f32> = (0..channels).map(|c| if c == channel { by } else { 0.0 }).collect();
                    odds(
                        &x.broadcast_add(&Tensor::from_vec(added, (1, 1, 1, channels), &Device::Cpu).unwrap()).unwrap(),
                    )
                };
                let (more, less) = (raised(STEP), raised(-STEP));
                for image in 0..2 {
                    let weight = (more[image] - less[image]) / (2.0 * STEP) / (side * side) as f32;
                    for place in 0..side * side {
                        let at = image * side * side + place;
                        expected[at] += weight * activations[at * channels + channel];
                    }
                }
            }
            let averaged = contributions(&x, suffix, &head, &chosen, Weighing::GradCam).unwrap();
            let averaged: Vec<f32> = averaged.flatten_all().unwrap().to_vec1().unwrap();
            let largest = averaged.iter().fold(0f32, |a, b| a.max(b.abs()));
            let far = averaged.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 0.05 * largest).count();
            assert!(largest > 0.0 && far * 50 <= averaged.len(), "{kind:?} from {from}: {far} of {}", averaged.len());
        }
    }
}
