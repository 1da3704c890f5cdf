//! Losses of an epoch's steps, read in groups so that no step waits for a GPU.
//!
//! On the CPU a loss is known when its step ends. On a GPU a step ends once its work is queued, and reading its loss
//! would wait for that work; so losses are read several dozen at a time. Steps may then follow a loss that was not
//! finite, which does no harm: the epoch ends in an error, and nothing of it is kept.

use super::ImageError;
use crate::ids::Epoch;
use candle_core::Tensor;

/// The most losses that wait to be read.
const AT_ONCE: usize = 64;

/// A step's loss, computed before its update.
#[derive(Clone, Debug)]
pub enum StepLoss {
    /// Known. If it is not finite the step was not taken.
    Known(f32),
    /// A scalar on a GPU, not yet read.
    Waiting(Tensor),
}

/// The losses of an epoch.
pub struct Losses {
    epoch: Epoch,
    sum: f64,
    waiting: Vec<(Tensor, usize, u64)>,
}

impl Losses {
    /// None yet.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, sum: 0.0, waiting: Vec::new() }
    }

    /// Adds the mean loss of `images` images at the `step`-th step of the trial.
    ///
    /// # Errors
    /// If this loss, or one that waited, is not finite.
    pub fn add(&mut self, loss: StepLoss, images: usize, step: u64) -> Result<(), ImageError> {
        match loss {
            StepLoss::Known(value) => self.count(value, images, step),
            StepLoss::Waiting(scalar) => {
                self.waiting.push((scalar, images, step));
                if self.waiting.len() >= AT_ONCE { self.read() } else { Ok(()) }
            }
        }
    }

    /// The sum over all images.
    ///
    /// # Errors
    /// If a loss that waited is not finite.
    pub fn sum(mut self) -> Result<f64, ImageError> {
        self.read()?;
        Ok(self.sum)
    }

    fn read(&mut self) -> Result<(), ImageError> {
        let waiting = std::mem::take(&mut self.waiting);
        let scalars: Vec<&Tensor> = waiting.iter().map(|(scalar, ..)| scalar).collect();
        if scalars.is_empty() {
            return Ok(());
        }
        let values = Tensor::stack(&scalars, 0)?.to_vec1::<f32>()?;
        waiting.iter().zip(values).try_for_each(|((_, images, step), value)| self.count(value, *images, *step))
    }

    fn count(&mut self, value: f32, images: usize, step: u64) -> Result<(), ImageError> {
        if !value.is_finite() {
            return Err(ImageError::Diverged { what: "loss", value, epoch: self.epoch.0, step });
        }
        self.sum += f64::from(value) * images as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn waiting(value: f32) -> StepLoss {
        StepLoss::Waiting(Tensor::new(value, &Device::Cpu).unwrap())
    }

    #[test]
    fn losses_that_wait_are_summed_like_those_that_are_known() {
        let (mut known, mut later) = (Losses::new(Epoch(1)), Losses::new(Epoch(1)));
        for i in 0..2 * AT_ONCE + 3 {
            known.add(StepLoss::Known(i as f32 / 7.0), 1 + i % 5, i as u64).unwrap();
            later.add(waiting(i as f32 / 7.0), 1 + i % 5, i as u64).unwrap();
            assert!(later.waiting.len() < AT_ONCE);
        }
        assert_eq!(known.sum().unwrap(), later.sum().unwrap());
        assert_eq!(Losses::new(Epoch(1)).sum().unwrap(), 0.0);
    }

    #[test]
    fn a_loss_that_is_not_finite_is_found_with_its_step() {
        let mut losses = Losses::new(Epoch(3));
        losses.add(waiting(1.0), 4, 17).unwrap();
        losses.add(waiting(f32::NAN), 4, 18).unwrap();
        let found = losses.sum().unwrap_err();
        assert!(matches!(found, ImageError::Diverged { what: "loss", epoch: 3, step: 18, .. }), "{found}");
        let found = Losses::new(Epoch(1)).add(StepLoss::Known(f32::INFINITY), 1, 5).unwrap_err();
        assert!(matches!(found, ImageError::Diverged { step: 5, .. }), "{found}");
    }
}
