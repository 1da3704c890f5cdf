//! Hyperparameter search whose trials are transfer-learning jobs in candle.

pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod data;
pub mod digest;
pub mod engine;
pub mod fsx;
pub mod history;
pub mod ids;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod report;
pub mod rng;
pub mod run;
pub mod runner;
pub mod sampler;
pub mod scheduler;
pub mod space;
pub mod spec;
pub mod stats;
pub mod store;
pub mod study;
pub mod wording;
