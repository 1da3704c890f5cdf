//! Dropout with keyed masks: a sample's mask depends on its position in the epoch, not on earlier draws.

use crate::ids::{Epoch, TrialNumber};
use crate::rng::{Purpose, StreamRng};
use candle_core::{Device, Result, Tensor};

/// The key of a batch's masks. Its samples are at consecutive positions of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The study's seed.
    pub seed: u64,
    /// The trial.
    pub trial: TrialNumber,
    /// The current epoch (the first is 1).
    pub epoch: Epoch,
    /// The fold, 0 without cross-validation.
    pub fold: u32,
    /// Position in the epoch of the batch's first sample.
    pub first_sample: u64,
}

/// The mask of a batch of `n` rows of `width`: 0 with probability `p`, else 1 / (1 - p) (inverted dropout;
/// Srivastava et al. 2014). The same on every device and for every division of the epoch into batches.
pub fn mask(key: &DropoutKey, layer: u64, p: f64, n: usize, width: usize, device: &Device) -> Result<Tensor> {
    // A draw below the threshold drops: 32 random bits give p to within 2^-32.
    let threshold = (p * 4_294_967_296.0) as u64;
    let keep = (1.0 / (1.0 - p)) as f32;
    let mut bits = vec![0u8; 4 * width];
    let mut values = Vec::with_capacity(n * width);
    for sample in 0..n as u64 {
        let counters =
            [u64::from(key.trial.0), u64::from(key.epoch.0), u64::from(key.fold), key.first_sample + sample, layer];
        StreamRng::keyed(key.seed, Purpose::Dropout, &counters).fill(&mut bits);
        let draws = bits.as_chunks::<4>().0;
        values.extend(draws.iter().map(|b| if u64::from(u32::from_le_bytes(*b)) < threshold { 0.0 } else { keep }));
    }
    Tensor::from_vec(values, (n, width), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: DropoutKey = DropoutKey { seed: 3, trial: TrialNumber(1), epoch: Epoch(2), fold: 0, first_sample: 10 };

    fn rows(key: &DropoutKey, layer: u64, p: f64, n: usize) -> Vec<Vec<f32>> {
        mask(key, layer, p, n, 500, &Device::Cpu).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn a_samples_mask_does_not_depend_on_its_batch() {
        let whole = rows(&KEY, 0, 0.3, 6);
        let tail = rows(&DropoutKey { first_sample: 14, ..KEY }, 0, 0.3, 2);
        assert_eq!(whole[4..], tail[..]);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = rows(&KEY, 0, 0.5, 1);
        for other in [
            DropoutKey { seed: 4, ..KEY },
            DropoutKey { trial: TrialNumber(2), ..KEY },
            DropoutKey { epoch: Epoch(3), ..KEY },
            DropoutKey { fold: 1, ..KEY },
            DropoutKey { first_sample: 11, ..KEY },
        ] {
            assert_ne!(base, rows(&other, 0, 0.5, 1));
        }
        assert_ne!(base, rows(&KEY, 1, 0.5, 1));
    }

    #[test]
    fn a_share_p_is_dropped_and_the_mean_is_kept() {
        for p in [0.1, 0.5, 0.8] {
            let all: Vec<f32> = rows(&KEY, 0, p, 100).concat();
            let dropped = all.iter().filter(|&&x| x == 0.0).count() as f64 / all.len() as f64;
            // The standard error of a share of 50,000 draws is at most .0022.
            assert!((dropped - p).abs() < 0.009, "{dropped} of {p}");
            assert!(all.iter().all(|&x| x == 0.0 || (f64::from(x) - 1.0 / (1.0 - p)).abs() < 1e-6));
        }
        assert!(rows(&KEY, 0, 0.0, 2).concat().iter().all(|&x| x == 1.0));
    }
}
