//! Search spaces: parameters, their domains and conditions, and configurations drawn from them.

mod coding;
mod configuration;
mod domain;
mod params;
mod value;

pub use configuration::NotInSpace;
pub use domain::{Condition, Domain, Parameter, SearchSpace};
pub use params::Params;
pub use value::Value;
