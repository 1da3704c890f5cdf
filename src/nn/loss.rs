//! Losses, and the handling of class imbalance.

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
            // Bounded away from 0, where the derivative of a power below 1 is infinite.
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
/// each image as often as that divides evenly, the remainder a keyed draw without replacement.
pub fn oversampled(labels: &[u32], classes: usize, seed: u64, counters: &[u64]) -> Vec<usize> {
    let target = counts(labels, classes).into_iter().max().unwrap_or(0);
    resampled(labels, classes, seed, counters, |_| target)
}

/// The positions that an epoch visits when every class is to be as small as the smallest that has images:
/// a keyed draw without replacement.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::figures::{figures, list, s};
    use candle_core::{Device, Var};

    const LABELS: [u32; 7] = [0, 2, 1, 1, 2, 0, 1];

    fn logits() -> Var {
        let values = s("logits", 21).into_iter().map(|x| x * 4.0).collect();
        Var::from_vec(values, (7, 3), &Device::Cpu).unwrap()
    }

    fn value(loss: &Loss, logits: &Tensor) -> f64 {
        f64::from(loss.forward(logits, &LABELS).unwrap().to_scalar::<f32>().unwrap())
    }

    /// Values and gradients against PyTorch's: cross-entropy with and without weights and smoothing, focal loss.
    #[test]
    fn losses_agree_with_pytorch() {
        let cases = figures()["losses"].as_array().unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let loss = Loss {
                weights: list(&case["weights"]),
                smoothing: case["smoothing"].as_f64().unwrap(),
                gamma: case["gamma"].as_f64().unwrap(),
            };
            let x = logits();
            let wanted = case["loss"].as_f64().unwrap();
            assert!((value(&loss, &x) / wanted - 1.0).abs() < 1e-5, "{loss:?}");
            let grads = loss.forward(&x, &LABELS).unwrap().backward().unwrap();
            let ours: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            for (ours, theirs) in ours.iter().zip(list(&case["gradient"])) {
                assert!((f64::from(*ours) - theirs).abs() < 1e-6, "{loss:?}: {ours} against {theirs}");
            }
        }
    }

    /// Smoothing and focusing together have no counterpart in PyTorch: finite differences.
    #[test]
    fn a_smoothed_focal_loss_has_the_gradient_of_its_value() {
        let loss = Loss { weights: vec![0.5, 2.0, 1.25], smoothing: 0.2, gamma: 1.5 };
        let x = logits();
        let grads = loss.forward(&x, &LABELS).unwrap().backward().unwrap();
        let ours: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let start: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        for (i, ours) in ours.into_iter().enumerate() {
            let at = |d: f32| {
                let mut moved = start.clone();
                moved[i] += d;
                value(&loss, &Tensor::from_vec(moved, (7, 3), &Device::Cpu).unwrap())
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(ours)).abs() < 1e-4, "{i}: {ours} against {numeric}");
        }
    }

    #[test]
    fn a_confident_correct_prediction_has_finite_gradients() {
        let x = Var::from_vec(vec![200f32, -200.0], (1, 2), &Device::Cpu).unwrap();
        let loss = Loss { weights: vec![], smoothing: 0.0, gamma: 0.5 };
        let grads = loss.forward(&x, &[0]).unwrap().backward().unwrap();
        let grads: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(grads.iter().all(|g| g.is_finite()), "{grads:?}");
    }

    /// scikit-learn 1.7: compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 1, 2]).
    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        let weights = balanced_weights(&[0, 0, 0, 1, 1, 2], 3);
        for (ours, theirs) in weights.iter().zip([0.666_666_67, 1.0, 2.0]) {
            assert!((ours - theirs).abs() < 1e-8);
        }
        assert_eq!(balanced_weights(&[0, 0], 2), [0.5, 0.0]);
    }

    #[test]
    fn resampling_makes_classes_equal() {
        let labels = [0, 0, 0, 0, 0, 1, 1, 2];
        let counted = |visited: &[usize]| counts(&visited.iter().map(|&i| labels[i]).collect::<Vec<_>>(), 3);
        let over = oversampled(&labels, 3, 1, &[4]);
        assert_eq!(counted(&over), [5, 5, 5]);
        // Nothing is left out, and the two images of class 1 are used as equally as five allows.
        assert!((0..labels.len()).all(|i| over.contains(&i)));
        let times = over.iter().filter(|&&i| i == 5).count();
        assert!((2..=3).contains(&times));
        let under = undersampled(&labels, 3, 1, &[4]);
        assert_eq!(counted(&under), [1, 1, 1]);
        assert_eq!(under, undersampled(&labels, 3, 1, &[4]));
        let draws: Vec<_> = (0..20).map(|epoch| undersampled(&labels, 3, 1, &[epoch])).collect();
        assert!(draws.iter().any(|d| d != &under), "every epoch is a fresh draw");
    }
}
