//! Names of metrics and operating points.

use super::{Direction, Metric, OperatingPoint};
use std::fmt;
use std::str::FromStr;

/// Names of the metrics without an argument.
const PLAIN: &[(&str, Metric)] = &[
    ("recall", Metric::Recall),
    ("precision", Metric::Precision),
    ("specificity", Metric::Specificity),
    ("f1", Metric::F1),
    ("balanced_accuracy", Metric::BalancedAccuracy),
    ("accuracy", Metric::Accuracy),
    ("roc_auc", Metric::RocAuc),
    ("pr_auc", Metric::PrAuc),
    ("brier", Metric::Brier),
    ("log_loss", Metric::LogLoss),
];

/// The name of a metric with a constraint up to the bound, and how the metric is made from the bound.
type Constrained = (&'static str, fn(f64) -> Metric);

/// The metrics with a constraint.
const CONSTRAINED: &[Constrained] = &[
    ("recall@specificity>=", Metric::RecallAtSpecificity),
    ("specificity@recall>=", Metric::SpecificityAtRecall),
    ("precision@recall>=", Metric::PrecisionAtRecall),
];

/// A text that names no metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMetric {
    /// No metric has this name.
    #[error("there is no metric `{0}`")]
    Name(String),
    /// The bound of a constraint is not a number above 0, at most 1.
    #[error("the bound in `{0}` must be a number above 0, at most 1")]
    Bound(String),
}

impl Metric {
    /// The names used in a study file, those with a constraint with an example bound.
    pub fn names() -> Vec<String> {
        let plain = PLAIN.iter().map(|(name, _)| (*name).to_owned());
        plain.chain(CONSTRAINED.iter().map(|(prefix, _)| format!("{prefix}0.9"))).collect()
    }

    /// The direction in which it is better; `None` for a custom metric.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::Brier | Self::LogLoss => Some(Direction::Minimize),
            Self::Custom(_) => None,
            _ => Some(Direction::Maximize),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecallAtSpecificity(x) => write!(f, "recall@specificity>={x}"),
            Self::SpecificityAtRecall(x) => write!(f, "specificity@recall>={x}"),
            Self::PrecisionAtRecall(x) => write!(f, "precision@recall>={x}"),
            Self::Custom(name) => f.write_str(name),
            plain => f.write_str(PLAIN.iter().find(|(_, m)| m == plain).map_or("", |(name, _)| name)),
        }
    }
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    /// Reads a built-in metric, never a [`Metric::Custom`].
    fn from_str(text: &str) -> Result<Self, UnknownMetric> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if let Some((_, metric)) = PLAIN.iter().find(|(name, _)| *name == text) {
            return Ok(metric.clone());
        }
        for (prefix, make) in CONSTRAINED {
            if let Some(bound) = text.strip_prefix(prefix) {
                let bound = bound.parse().ok().filter(|x: &f64| *x > 0.0 && *x <= 1.0);
                return bound.map(make).ok_or(UnknownMetric::Bound(text));
            }
        }
        Err(UnknownMetric::Name(text))
    }
}

/// A text that is no operating point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an operating point: a threshold from 0 to 1, youden, f1, recall>=X or specificity>=X is wanted")]
pub struct UnknownOperatingPoint(pub String);

impl fmt::Display for OperatingPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold(x) => x.fmt(f),
            Self::Recall(x) => write!(f, "recall>={x}"),
            Self::Specificity(x) => write!(f, "specificity>={x}"),
            Self::Youden => f.write_str("youden"),
            Self::F1 => f.write_str("f1"),
        }
    }
}

impl FromStr for OperatingPoint {
    type Err = UnknownOperatingPoint;

    fn from_str(text: &str) -> Result<Self, UnknownOperatingPoint> {
        let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let unit = |t: &str| t.parse().ok().filter(|x: &f64| (0.0..=1.0).contains(x));
        let point = match bare.as_str() {
            "youden" => Some(Self::Youden),
            "f1" => Some(Self::F1),
            other => {
                let bound = |prefix: &str| other.strip_prefix(prefix).and_then(unit).filter(|x| *x > 0.0);
                bound("recall>=")
                    .map(Self::Recall)
                    .or_else(|| bound("specificity>=").map(Self::Specificity))
                    .or_else(|| unit(other).map(Self::Threshold))
            }
        };
        point.ok_or_else(|| UnknownOperatingPoint(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for name in Metric::names() {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        let spaced: Metric = "recall @ specificity >= 0.95".parse().unwrap();
        assert_eq!(spaced, Metric::RecallAtSpecificity(0.95));
        for point in ["0.5", "youden", "f1", "recall>=0.95", "specificity>=0.9"] {
            assert_eq!(point.parse::<OperatingPoint>().unwrap().to_string(), point);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!("auc".parse::<Metric>(), Err(UnknownMetric::Name(_))));
        for bound in
            ["recall@specificity>=2", "recall@specificity>=0", "recall@specificity>=nan", "precision@recall>=x"]
        {
            assert!(matches!(bound.parse::<Metric>(), Err(UnknownMetric::Bound(_))), "{bound}");
        }
        for point in ["1.5", "nan", "recall>=0", "best", ""] {
            assert!(point.parse::<OperatingPoint>().is_err(), "{point}");
        }
    }
}
