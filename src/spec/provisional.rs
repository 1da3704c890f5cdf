use super::{Metric, RunnerSpec};
impl RunnerSpec {
    pub fn epochs(&self) -> u32 {
        match self {
            Self::Image { training, .. } => training.epochs,
            Self::Command(c) => c.epochs,
            Self::Synthetic { epochs, .. } => *epochs,
        }
    }
}
impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Custom(n) => n.fmt(f),
            other => write!(f, "{other:?}"),
        }
    }
}
