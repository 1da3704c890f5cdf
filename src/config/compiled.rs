//! A search space as it was compiled, with where everything stands.

use super::reader::Place;
use crate::space::SearchSpace;
use std::collections::BTreeMap;

/// A compiled space and where its parameters stand.
pub(super) struct CompiledSpace {
    pub space: SearchSpace,
    pub places: BTreeMap<String, Place>,
}

impl CompiledSpace {
    /// Where a parameter's value stands.
    pub fn place(&self, name: &str) -> Place {
        self.places.get(name).cloned().unwrap_or(Place { file: 0, span: None })
    }
}
