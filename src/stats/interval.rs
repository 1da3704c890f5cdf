//! Intervals and corrections with closed forms.

use super::normal::quantile;
use serde::{Deserialize, Serialize};

/// A two-sided interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval (1927) of a proportion `hits` of `n` at a two-sided `level` such as 0.95. `None`
/// when nothing was counted, when `hits > n`, or when the level is not strictly between 0 and 1.
pub fn wilson(hits: u64, n: u64, level: f64) -> Option<Interval> {
    if n == 0 || hits > n || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let (n_f, p) = (n as f64, hits as f64 / n as f64);
    let z = quantile(0.5 + level / 2.0);
    let scale = 1.0 + z * z / n_f;
    let centre = (p + z * z / (2.0 * n_f)) / scale;
    let half = z * (p * (1.0 - p) / n_f + z * z / (4.0 * n_f * n_f)).sqrt() / scale;
    Some(Interval {
        low: if hits == 0 { 0.0 } else { (centre - half).max(0.0) },
        high: if hits == n { 1.0 } else { (centre + half).min(1.0) },
    })
}

/// Standard error of an area `auc` under a ROC curve from `positives` and `negatives` images (Hanley and McNeil
/// 1982, their exponential approximation). For planning and for models without predictions; where predictions
/// are known, [`super::Delong`] is the better estimate. `None` without both classes or outside 0..=1.
pub fn hanley_mcneil(auc: f64, positives: u64, negatives: u64) -> Option<f64> {
    if positives == 0 || negatives == 0 || !(0.0..=1.0).contains(&auc) {
        return None;
    }
    let (m, n) = (positives as f64, negatives as f64);
    let q1 = auc / (2.0 - auc);
    let q2 = 2.0 * auc * auc / (1.0 + auc);
    let square = auc * auc;
    Some(((auc * (1.0 - auc) + (m - 1.0) * (q1 - square) + (n - 1.0) * (q2 - square)) / (m * n)).max(0.0).sqrt())
}

/// Holm's step-down adjustment (1979) of p-values, in the given order. Comparing the adjusted values with a level keeps
/// the family-wise error rate at or below it.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut floor = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        adjusted[i] = floor;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_gives_the_published_intervals() {
        // Newcombe (1998), table I, method 3 (score without continuity correction).
        for (hits, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let i = wilson(hits, n, 0.95).unwrap();
            assert!((i.low - low).abs() < 5e-5 && (i.high - high).abs() < 5e-5, "{hits}/{n}: {i:?}");
        }
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(7, 7, 0.95).unwrap().high, 1.0);
    }

    #[test]
    fn hanley_and_mcneil_give_the_known_standard_errors() {
        for (m, n, se) in [(50, 50, 0.0227), (100, 100, 0.0160), (390, 234, 0.0083)] {
            let ours = hanley_mcneil(0.95, m, n).unwrap();
            assert!((ours - se).abs() < 5e-5, "{m}/{n}: {ours}");
        }
        assert_eq!(hanley_mcneil(0.9, 0, 5), None);
    }

    #[test]
    fn holm_steps_down_and_stays_monotone() {
        // R: p.adjust(c(.01, .04, .03, .005), "holm").
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (ours, r) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((ours - r).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
