//! Choice of a threshold. Made on validation images, then carried to the test images unchanged.

use super::Curve;
use crate::spec::OperatingPoint;

impl Curve {
    /// The threshold of an operating point, among the scores that occur and one just above the largest (nothing
    /// is called positive). Among equally good thresholds of Youden's index and of F1 the largest is taken.
    /// `None` when the point cannot be reached, or when a rate that it needs is undefined for want of a class.
    pub fn choose(&self, point: &OperatingPoint) -> Option<f64> {
        let (p, n) = (self.positives as f64, self.negatives as f64);
        let above = self.steps.first().map(|s| s.threshold.next_up());
        match *point {
            OperatingPoint::Threshold(t) => Some(t),
            OperatingPoint::Recall(r) if r <= 0.0 => above,
            OperatingPoint::Recall(r) => {
                if self.positives == 0 {
                    return None;
                }
                self.steps.iter().find(|s| s.tp as f64 / p >= r).map(|s| s.threshold)
            }
            OperatingPoint::Specificity(q) => {
                if self.negatives == 0 {
                    return None;
                }
                let kept = self.steps.iter().rev().find(|s| (self.negatives - s.fp) as f64 / n >= q);
                if q > 1.0 { None } else { kept.map(|s| s.threshold).or(above) }
            }
            OperatingPoint::Youden => {
                if self.positives == 0 || self.negatives == 0 {
                    return None;
                }
                self.best(|tp, fp| tp / p - fp / n).or(above)
            }
            OperatingPoint::F1 => {
                if self.positives == 0 {
                    return None;
                }
                self.best(|tp, fp| 2.0 * tp / (p + tp + fp))
            }
        }
    }

    /// The largest threshold that maximises a function of (true positives, false positives); `None` if none is above 0.
    fn best(&self, figure: impl Fn(f64, f64) -> f64) -> Option<f64> {
        let mut best = (0.0, None);
        for s in &self.steps {
            let value = figure(s.tp as f64, s.fp as f64);
            if value > best.0 {
                best = (value, Some(s.threshold));
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ranked;

    fn curve() -> Curve {
        let positive = [true, false, true, true, false, false];
        Ranked::new(&[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], &positive).unwrap().curve()
    }

    #[test]
    fn each_operating_point_gives_its_threshold() {
        for (point, threshold) in [
            (OperatingPoint::Threshold(0.33), 0.33),
            (OperatingPoint::Recall(0.5), 0.7),
            (OperatingPoint::Recall(1.0), 0.6),
            (OperatingPoint::Specificity(1.0), 0.9),
            (OperatingPoint::Specificity(0.6), 0.6),
            (OperatingPoint::Youden, 0.6),
            (OperatingPoint::F1, 0.6),
        ] {
            assert_eq!(curve().choose(&point), Some(threshold), "{point:?}");
        }
    }

    #[test]
    fn full_specificity_may_mean_that_nothing_is_called_positive() {
        let c = Ranked::new(&[0.9, 0.1], &[false, true]).unwrap().curve();
        let t = c.choose(&OperatingPoint::Specificity(1.0)).unwrap();
        assert!(t > 0.9 && t < 0.9 + 1e-9);
        assert_eq!(c.choose(&OperatingPoint::Youden), Some(t));
    }

    #[test]
    fn a_point_that_cannot_be_reached_is_none() {
        let negatives = Ranked::new(&[0.5], &[false]).unwrap().curve();
        assert_eq!(negatives.choose(&OperatingPoint::Recall(0.9)), None);
        assert_eq!(negatives.choose(&OperatingPoint::Youden), None);
        assert_eq!(curve().choose(&OperatingPoint::Recall(1.01)), None);
    }
}
