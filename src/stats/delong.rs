//! The variance of areas under correlated ROC curves (DeLong et al. 1988), by midranks (Sun and Xu 2014).

use super::interval::Interval;
use super::normal::{cdf, quantile};
use super::rank::midranks;

/// Areas of several models on the same images, with their covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct Delong {
    aucs: Vec<f64>,
    covariance: Vec<Vec<f64>>,
}

/// An area with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AucEstimate {
    /// The area.
    pub auc: f64,
    /// Its standard error; 0 when the classes are perfectly separated, which says nothing about the truth.
    pub se: f64,
}

/// Why no covariance can be computed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelongError {
    /// Fewer than two images of a class.
    #[error("compare areas: a variance needs at least two images of each class")]
    TooFewImages,
    /// A model does not have one score per image.
    #[error("compare areas: every model needs one score for every image")]
    Unequal,
    /// A score is not a number.
    #[error("compare areas: a score is not a number")]
    NotANumber,
}

impl Delong {
    /// From each model's scores of the same images and the images' true class. O(models * n log n + models^2 * n).
    pub fn new(scores: &[Vec<f64>], positive: &[bool]) -> Result<Self, DelongError> {
        let m = positive.iter().filter(|&&p| p).count();
        let n = positive.len() - m;
        if m < 2 || n < 2 {
            return Err(DelongError::TooFewImages);
        }
        if scores.iter().any(|s| s.len() != positive.len()) {
            return Err(DelongError::Unequal);
        }
        if scores.iter().flatten().any(|s| s.is_nan()) {
            return Err(DelongError::NotANumber);
        }
        let components: Vec<(f64, Vec<f64>, Vec<f64>)> = scores.iter().map(|s| structural(s, positive, m, n)).collect();
        let aucs: Vec<f64> = components.iter().map(|c| c.0).collect();
        let covariance = components
            .iter()
            .map(|a| {
                components
                    .iter()
                    .map(|b| cov(&a.1, &b.1, a.0, b.0) / m as f64 + cov(&a.2, &b.2, a.0, b.0) / n as f64)
                    .collect()
            })
            .collect();
        Ok(Self { aucs, covariance })
    }

    /// The area of a model and its standard error.
    pub fn estimate(&self, model: usize) -> AucEstimate {
        AucEstimate { auc: self.aucs[model], se: self.covariance[model][model].max(0.0).sqrt() }
    }

    /// The interval of a model's area on the logit scale, which stays inside 0..1. `None` for an area of exactly 0 or
    /// 1: its estimated variance is 0, and an interval of width 0 would mislead.
    pub fn interval(&self, model: usize, level: f64) -> Option<Interval> {
        let AucEstimate { auc, se } = self.estimate(model);
        if auc <= 0.0 || auc >= 1.0 || se == 0.0 {
            return None;
        }
        let logit = (auc / (1.0 - auc)).ln();
        let half = quantile(0.5 + level / 2.0) * se / (auc * (1.0 - auc));
        let back = |x: f64| 1.0 / (1.0 + (-x).exp());
        Some(Interval { low: back(logit - half), high: back(logit + half) })
    }

    /// Model `a`'s area minus model `b`'s: the difference and its standard error.
    pub fn difference(&self, a: usize, b: usize) -> (f64, f64) {
        let variance = self.covariance[a][a] + self.covariance[b][b] - 2.0 * self.covariance[a][b];
        (self.aucs[a] - self.aucs[b], variance.max(0.0).sqrt())
    }

    /// z and two-sided p of the difference. `None` if its standard error is 0 (identical rankings).
    pub fn test(&self, a: usize, b: usize) -> Option<(f64, f64)> {
        let (difference, se) = self.difference(a, b);
        // Rounding leaves variances of about 1e-17 between identical rankings.
        if se < 1e-8 {
            return None;
        }
        let z = difference / se;
        Some((z, 2.0 * cdf(-z.abs())))
    }
}

/// The area and the structural components V10 (one per positive image) and V01 (one per negative image).
fn structural(scores: &[f64], positive: &[bool], m: usize, n: usize) -> (f64, Vec<f64>, Vec<f64>) {
    let of = |class: bool| -> Vec<f64> {
        scores.iter().zip(positive).filter(|(_, p)| **p == class).map(|(s, _)| *s).collect()
    };
    let (x, y) = (of(true), of(false));
    let all: Vec<f64> = x.iter().chain(&y).copied().collect();
    let (tz, tx, ty) = (midranks(&all), midranks(&x), midranks(&y));
    let v10: Vec<f64> = (0..m).map(|i| (tz[i] - tx[i]) / n as f64).collect();
    let v01: Vec<f64> = (0..n).map(|j| 1.0 - (tz[m + j] - ty[j]) / m as f64).collect();
    // Sums of half-integers are exact at any realistic size, so an area of 1 is exactly 1.
    let above: f64 = tz[..m].iter().sum::<f64>() - m as f64 * (m as f64 + 1.0) / 2.0;
    (above / (m as f64 * n as f64), v10, v01)
}

fn cov(a: &[f64], b: &[f64], mean_a: f64, mean_b: f64) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - mean_a) * (y - mean_b)).sum::<f64>() / (a.len() - 1) as f64
}
