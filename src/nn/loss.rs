//! Losses and what is done about unequal classes.

use crate::rng::{Purpose, StreamRng};
use crate::spec::{LossKind, TrainingSpec};
use candle_core::{Result, Tensor};
use candle_nn::ops::log_softmax;

/// A training loss, averaged over a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// A weight for every class; empty: all 1.
    weights: Vec<f64>,
    smoothing: f64,
    /// The focal loss's exponent; 0 is cross-entropy.
    gamma: f64,
}

impl Loss {
    /// The loss that `spec` names. `weights` are those of the classes, or empty.
    pub fn new(spec: &TrainingSpec, weights: Vec<f64>) -> Self {
        let gamma = match spec.loss {
            LossKind::CrossEntropy => 0.0,
            LossKind::Focal => spec.focal_gamma,
        };
        Self { weights, smoothing: spec.label_smoothing, gamma }
    }

    /// The mean loss of `logits` `[N, classes]` against the true classes `labels`.
    ///
    /// With t_c = (1 - e) w_y [c = y] + (e / classes) w_c and p the softmax:
    /// sum over samples and classes of -t_c (1 - p_c)^gamma ln p_c, over the sum of the samples' w_y.
    /// At gamma = 0 this is PyTorch's `cross_entropy(weight, label_smoothing)`; at e = 0 the multi-class focal
    /// loss with alpha = w (Lin et al. 2017).
    pub fn forward(&self, logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let (n, classes) = logits.dims2()?;
        if labels.len() != n || labels.iter().any(|&y| y as usize >= classes) {
            candle_core::bail!("{} labels below {classes} are wanted for {n} rows of logits", n);
        }
        let weight = |c: usize| self.weights.get(c).copied().unwrap_or(1.0);
        let total: f64 = labels.iter().map(|&y| weight(y as usize)).sum();
        let mut targets = Vec::with_capacity(n * classes);
        for &y in labels {
            for c in 0..classes {
                let hit = if c == y as usize { (1.0 - self.smoothing) * weight(c) } else { 0.0 };
                targets.push((-(hit + self.smoothing / classes as f64 * weight(c)) / total) as f32);
            }
        }
        let targets = Tensor::from_vec(targets, (n, classes), logits.device())?;
        let log_p = log_softmax(logits, 1)?;
        let mut terms = (log_p.clone() * targets)?;
        if self.gamma > 0.0 {
            // Kept off 0, where the derivative of a power below 1 is infinite.
            let rest = (1.0 - log_p.exp()?)?.maximum(1e-6)?;
            terms = (terms * rest.powf(self.gamma)?)?;
        }
        terms.sum_all()
    }
}

/// Class c weighs n / (classes * n_c): balanced classes weigh 1 each. A class without images weighs 0.
pub fn balanced_weights(labels: &[u32], classes: usize) -> Vec<f64> {
    let counts = counts(labels, classes);
    let n = labels.len() as f64;
    counts.iter().map(|&k| if k == 0 { 0.0 } else { n / (classes as f64 * k as f64) }).collect()
}

fn counts(labels: &[u32], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.iter().for_each(|&y| counts[y as usize] += 1);
    counts
}

/// The positions (in `labels`) that an epoch visits when every class is to be as large as the largest:
/// each image as often as that divides, the rest a keyed draw without repetition.
pub fn oversampled(labels: &[u32], classes: usize, seed: u64, counters: &[u64]) -> Vec<usize> {
    let target = counts(labels, classes).into_iter().max().unwrap_or(0);
    resampled(labels, classes, seed, counters, |_| target)
}

/// The positions that an epoch visits when every class is to be as small as the smallest that has images:
/// a keyed draw without repetition.
pub fn undersampled(labels: &[u32], classes: usize, seed: u64, counters: &[u64]) -> Vec<usize> {
    let target = counts(labels, classes).into_iter().filter(|&k| k > 0).min().unwrap_or(0);
    resampled(labels, classes, seed, counters, |_| target)
}

fn resampled(
    labels: &[u32],
    classes: usize,
    seed: u64,
    counters: &[u64],
    target: impl Fn(usize) -> usize,
) -> Vec<usize> {
    let mut rng = StreamRng::keyed(seed, Purpose::Resample, counters);
    let mut visited = Vec::new();
    for class in 0..classes {
        let mut members: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] as usize == class).collect();
        if members.is_empty() {
            continue;
        }
        let target = target(class);
        for _ in 0..target / members.len() {
            visited.extend_from_slice(&members);
        }
        rng.shuffle(&mut members);
        visited.extend_from_slice(&members[..target % members.len()]);
    }
    visited
}
