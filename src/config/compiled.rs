//! A compiled search space with the places of its parameters in the files.

use super::reader::Place;
use crate::space::SearchSpace;
use std::collections::BTreeMap;

/// A search space, and where in the files its parameters' values are.
pub(super) struct CompiledSpace {
    pub space: SearchSpace,
    pub places: BTreeMap<String, Place>,
}

impl CompiledSpace {
    /// The place of a parameter's value.
    pub fn place(&self, name: &str) -> Place {
        self.places.get(name).cloned().unwrap_or(Place { file: 0, span: None })
    }
}
