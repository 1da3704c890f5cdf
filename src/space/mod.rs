//! Search spaces: parameters, their domains and conditions, and configurations drawn from them.

mod domain;
mod params;
mod value;

pub use domain::{Condition, Domain, Parameter, SearchSpace};
pub use params::Params;
pub use value::Value;
