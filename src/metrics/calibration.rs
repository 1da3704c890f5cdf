//! Calibration: whether a score can be read as a probability.

use serde::{Deserialize, Serialize};

/// One bin of the reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge; a score on an edge belongs to the bin above it, a score of 1 to the last bin.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Images in the bin.
    pub count: u64,
    /// Positive images among them.
    pub positives: u64,
    /// Mean score; `None` in an empty bin.
    pub mean_score: Option<f64>,
}

/// Calibration of scores in 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Bins of equal width.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error: mean over images of |observed rate - mean score| of their bin.
    pub ece: Option<f64>,
    /// Slope of the logistic regression of the truth on logit(score); 1 is ideal; below 1, scores are too extreme.
    pub slope: Option<f64>,
    /// Intercept of that regression; 0 is ideal.
    pub intercept: Option<f64>,
}

/// The regression clamps scores to this distance from 0 and 1, as f32 softmax reaches both exactly.
const EDGE: f64 = 1e-7;

impl Calibration {
    /// From scores and truth, with `bins` bins of equal width. Slope and intercept are `None` with one class or
    /// when the classes are separated, where the estimate would be infinite.
    pub fn new(scores: &[f64], positive: &[bool], bins: usize) -> Self {
        let bins = bins.max(1);
        let mut sums = vec![(0u64, 0u64, 0.0f64); bins];
        for (&s, &p) in scores.iter().zip(positive) {
            let bin = &mut sums[((s * bins as f64) as usize).min(bins - 1)];
            bin.0 += 1;
            bin.1 += u64::from(p);
            bin.2 += s;
        }
        let gap: f64 = sums.iter().filter(|b| b.0 > 0).map(|b| (b.1 as f64 - b.2).abs()).sum();
        let fit = regression(scores, positive);
        Self {
            bins: sums
                .iter()
                .enumerate()
                .map(|(i, &(count, positives, sum))| ReliabilityBin {
                    low: i as f64 / bins as f64,
                    high: (i + 1) as f64 / bins as f64,
                    count,
                    positives,
                    mean_score: (count > 0).then(|| sum / count as f64),
                })
                .collect(),
            ece: (!scores.is_empty()).then(|| gap / scores.len() as f64),
            slope: fit.map(|f| f.1),
            intercept: fit.map(|f| f.0),
        }
    }
}

/// Intercept and slope by Newton's method on the log likelihood (which is concave).
fn regression(scores: &[f64], positive: &[bool]) -> Option<(f64, f64)> {
    let x: Vec<f64> = scores
        .iter()
        .map(|s| {
            let s = s.clamp(EDGE, 1.0 - EDGE);
            (s / (1.0 - s)).ln()
        })
        .collect();
    let (mut a, mut b) = (0.0f64, 0.0f64);
    for _ in 0..60 {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (&x, &y) in x.iter().zip(positive) {
            let p = 1.0 / (1.0 + (-(a + b * x)).exp());
            let (r, w) = (f64::from(u8::from(y)) - p, p * (1.0 - p));
            ga += r;
            gb += r * x;
            haa += w;
            hab += w * x;
            hbb += w * x * x;
        }
        let det = haa * hbb - hab * hab;
        // A vanishing determinant: constant scores, or weights that vanish as the estimate diverges.
        if det <= 1e-10 * haa * hbb || !det.is_finite() || haa < 1e-8 {
            return None;
        }
        let (mut da, mut db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
        let length = (da * da + db * db).sqrt();
        if length > 5.0 {
            (da, db) = (da * 5.0 / length, db * 5.0 / length);
        }
        (a, b) = (a + da, b + db);
        if a.abs() > 200.0 || b.abs() > 200.0 {
            return None;
        }
        if length < 1e-10 {
            return Some((a, b));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separated_or_single_classes_have_no_slope() {
        let separated = Calibration::new(&[0.1, 0.2, 0.8, 0.9], &[false, false, true, true], 10);
        assert_eq!((separated.slope, separated.intercept), (None, None));
        assert!((separated.ece.unwrap() - 0.15).abs() < 1e-12);
        assert_eq!(Calibration::new(&[0.3, 0.6], &[true, true], 10).slope, None);
        assert_eq!(Calibration::new(&[0.5; 4], &[true, false, true, false], 10).slope, None);
        assert_eq!(Calibration::new(&[], &[], 10).ece, None);
    }

    #[test]
    fn the_edges_belong_to_a_bin() {
        let c = Calibration::new(&[0.0, 1.0, 0.5], &[false, true, true], 2);
        assert_eq!(c.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 2]);
    }
}
