//! Statistics for reports: intervals, tests, resampling, rank correlation.

mod bootstrap;
mod delong;
mod interval;
mod normal;
mod rank;

pub use bootstrap::{Resampling, percentile_interval};
pub use delong::{AucEstimate, Delong, DelongError};
pub use interval::{Interval, hanley_mcneil, holm, wilson};
pub use normal::{cdf, expected_maximum, quantile};
pub use rank::{kendall_tau, midranks, spearman};
