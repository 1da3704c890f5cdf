//! Kinds of pools.

use super::kernel::pool_cpu::Divisor;
use crate::spec::PoolPadding;

/// The kind of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value; the gradient goes to the first of equal maxima.
    Max,
    /// The mean.
    Average(Divisor),
}

impl From<PoolPadding> for Divisor {
    fn from(padding: PoolPadding) -> Self {
        match padding {
            PoolPadding::Counted => Self::Window,
            PoolPadding::Excluded => Self::Inside,
        }
    }
}
