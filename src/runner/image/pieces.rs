//! A training step in micro-batches, where memory is short: up to rounding, the step on the whole batch.
//!
//! Most memory is taken by the feature maps that the trained layers keep for their gradients. So these layers see the
//! batch in pieces, while the head, whose batch norm and loss need the whole batch and whose input is small, sees it
//! whole. Each piece goes forward, keeping only its pooled output; then head and loss run on all pooled outputs, and
//! backward to them; then each piece goes forward again, and backward from its pooled output. That costs one more
//! forward pass (as gradient checkpointing does; Chen et al. 2016) and gives the gradients of the whole batch. Only
//! batch norm of the trained layers in training mode differs: its statistics are those of a piece.

use crate::nn::{Mode, Suffix, backward, head};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// Micro-batch size: `batch` halved `halvings` times, at least 1.
pub fn at_once(batch: usize, halvings: u32) -> usize {
    batch.div_ceil(1usize.checked_shl(halvings).unwrap_or(usize::MAX)).max(1)
}

/// The loss of a batch `x`, computed `at_once` images at a time, and the gradients of all parameters; `None` if the
/// loss is not finite. `loss` is the head's and the loss function's part, from pooled features `[N, C]` to a scalar.
pub fn gradients(
    suffix: &dyn Suffix,
    x: &Tensor,
    at_once: usize,
    loss: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<(f32, Option<GradStore>)> {
    let n = x.dim(0)?;
    let pieces: Vec<(usize, usize)> =
        (0..n).step_by(at_once.max(1)).map(|from| (from, at_once.max(1).min(n - from))).collect();
    let pooled =
        |&(from, count): &(usize, usize)| head::pool(&suffix.forward(&x.narrow(0, from, count)?, Mode::Train)?);

    // Only the second forward pass is to update running statistics: they are restored after the first.
    let before = suffix.buffers().into_iter().map(|(_, var)| Ok((var.as_detached_tensor().copy()?, var)));
    let before = before.collect::<Result<Vec<_>>>()?;
    let all = pieces.iter().map(|piece| Ok(pooled(piece)?.detach())).collect::<Result<Vec<_>>>()?;
    for (values, var) in before {
        var.set(&values)?;
    }

    let all = Var::from_tensor(&Tensor::cat(&all, 0)?)?;
    let loss = loss(&all)?;
    let value = loss.to_scalar::<f32>()?;
    if !value.is_finite() {
        return Ok((value, None));
    }
    let mut gradients = loss.backward()?;
    let Some(upstream) = gradients.remove(&all) else { return Ok((value, Some(gradients))) };
    let parameters = suffix.parameters();
    for piece in &pieces {
        let product = (pooled(piece)? * upstream.narrow(0, piece.0, piece.1)?)?.sum_all()?;
        let mut of_piece = backward(&product, Some(suffix))?;
        for (_, var) in &parameters {
            let Some(new) = of_piece.remove(var) else { continue };
            let sum = match gradients.remove(var) {
                Some(old) => (old + new)?.detach(),
                None => new,
            };
            gradients.insert(var, sum);
        }
    }
    Ok((value, Some(gradients)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::inception_v3::{InceptionV3, random};
    use crate::nn::{Backbone, SuffixOptions};
    use crate::spec::{BatchNormMode, PoolPadding};
    use candle_core::Device;

    #[test]
    fn batches_are_halved_down_to_one_image() {
        assert_eq!([0, 1, 2, 3, 5, 40, 64].map(|halvings| at_once(12, halvings)), [12, 6, 3, 2, 1, 1, 1]);
        assert_eq!(at_once(7, 1), 4);
    }

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Compares the step on the whole batch with the one in pieces: the largest difference of gradients, relative to
    /// the largest value of a gradient, and the running statistics of both.
    fn compared(batch_norm: BatchNormMode, at_once: usize) -> (f32, Vec<f32>, Vec<f32>) {
        let tensors = random(0.125, 5, &Device::Cpu).unwrap();
        let network = InceptionV3::new(&tensors, 0.125, PoolPadding::Excluded, &Device::Cpu).unwrap();
        let pixels: Vec<f32> = (0..5 * 75 * 75 * 3).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect();
        let images = Tensor::from_vec(pixels, (5, 75, 75, 3), &Device::Cpu).unwrap();
        let x = network.prefix(0, 8, &images).unwrap();
        let run = |at_once: Option<usize>| {
            let suffix = network.suffix(8, 11, SuffixOptions { batch_norm }).unwrap();
            // A loss that ties the images together, as the head's batch norm does.
            let loss = |pooled: &Tensor| pooled.broadcast_sub(&pooled.mean_keepdim(0)?)?.sqr()?.mean_all();
            let (value, gradients) = match at_once {
                Some(at_once) => gradients(suffix.as_ref(), &x, at_once, loss).unwrap(),
                None => {
                    let y = loss(&head::pool(&suffix.forward(&x, Mode::Train).unwrap()).unwrap()).unwrap();
                    (y.to_scalar().unwrap(), Some(backward(&y, Some(suffix.as_ref())).unwrap()))
                }
            };
            let gradients = gradients.unwrap();
            let all: Vec<Vec<f32>> =
                suffix.parameters().iter().map(|(_, v)| values(gradients.get(v).unwrap())).collect();
            let buffers = suffix.buffers().iter().flat_map(|(_, v)| values(v)).collect::<Vec<f32>>();
            (value, all, buffers)
        };
        let (whole, by_pieces) = (run(None), run(Some(at_once)));
        assert!((whole.0 - by_pieces.0).abs() < 1e-5 * whole.0.abs());
        let mut worst = 0f32;
        for (a, b) in whole.1.iter().zip(&by_pieces.1) {
            let largest = a.iter().fold(1e-12f32, |m, v| m.max(v.abs()));
            worst = a.iter().zip(b).fold(worst, |m, (a, b)| m.max((a - b).abs() / largest));
        }
        (worst, whole.2, by_pieces.2)
    }

    #[test]
    fn pieces_have_the_gradients_of_the_whole_batch_where_batch_norm_is_frozen() {
        for at_once in [1, 2, 4] {
            let (worst, whole, by_pieces) = compared(BatchNormMode::Frozen, at_once);
            assert!(worst < 2e-5, "{at_once} at once: {worst}");
            assert_eq!(whole, by_pieces, "running statistics are left alone");
        }
    }

    #[test]
    fn running_statistics_see_every_piece_once() {
        let (_, whole, one) = compared(BatchNormMode::Train, 5);
        assert_eq!(whole, one, "one piece is the whole batch");
    }
}
