//! The trained layers recorded operation by operation, as candle's own would be: what the one pass of
//! `inception_v3::pass` is compared with, and a witness for every kernel by itself, whose gradients are checked by finite
//! differences here.

pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod norm;
pub(crate) mod pool;
