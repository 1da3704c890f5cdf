//! Heat maps: which places of an image speak for a class.
//!
//! The method is HiResCAM (Draelos and Carin 2020): at each place of a feature map the sum over channels of activation
//! times the derivative of the class's log-odds by that activation.

use super::head::{DropoutKey, Head};
use super::{Lattice, Mode, Suffix, backward};
use crate::ids::{Epoch, TrialNumber};
use candle_core::{Result, Tensor, Var};

/// What the places of a square image contribute to a class.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Contributions in log-odds, row by row; what speaks against the class is negative.
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

/// Contributions `[N, H, W]` of the places of feature maps `x`, `[N, H, W, C]`, to the log-odds of one class for each
/// map, through the layers `suffix` (`None`: there are none) and the head.
///
/// The layers must have frozen batch norm: then each image has a gradient of its own.
///
/// # Errors
/// If an operation fails.
pub fn contributions(x: &Tensor, suffix: Option<&dyn Suffix>, head: &Head, classes: &[usize]) -> Result<Tensor> {
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
    match std::env::var("CAM").as_deref() {
        Ok("grad") => {
            let w = gradient.mean_keepdim((1, 2))?;
            x.broadcast_mul(&w)?.sum(3)
        }
        Ok("layer") => (gradient.relu()? * x)?.sum(3),
        _ => (gradient * x)?.sum(3),
    }
}
