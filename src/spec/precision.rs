//! How convolutions multiply on a GPU.

use serde::{Deserialize, Serialize};

/// Arithmetic of convolutions on a GPU. Sums are kept in f32 always, and so is everything else: the head, norms,
/// losses and optimisers. The CPU knows f32 alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Products of f32.
    F32,
    /// Products of operands rounded to ten bits (TF32).
    #[default]
    Tf32,
    /// The frozen part in bf16, the trained part in TF32.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// The name in a study file and in the digest of cached features.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The arithmetic of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether it is what is taken where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_found_by_their_names_and_stored_under_them() {
        for precision in Precision::ALL {
            assert_eq!(Precision::named(precision.name()), Some(precision));
            assert_eq!(serde_json::to_string(&precision).unwrap(), format!("\"{}\"", precision.name()));
        }
        assert_eq!(Precision::named("f16"), None);
        assert!(Precision::Tf32.is_default());
    }
}
