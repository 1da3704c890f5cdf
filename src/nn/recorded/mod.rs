//! The trained layers as separate candle operations: the reference with which the fused pass of `inception_v3::pass` is
//! compared. The gradients of each kernel are checked here by finite differences.

pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod norm;
pub(crate) mod pool;
