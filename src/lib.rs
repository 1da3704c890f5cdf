//! Hyperparameter search whose trials are transfer-learning jobs in candle.

pub mod cli;
pub mod config;
pub mod data;
pub mod digest;
pub mod engine;
pub mod ids;
pub mod metrics;
pub mod nn;
pub mod rng;
pub mod runner;
pub mod space;
pub mod spec;
pub mod stats;
