//! How convolutions multiply on a GPU.

use serde::{Deserialize, Serialize};

/// Arithmetic of a network's layers on a GPU. Sums are kept in f32 always, and so are weights that train, statistics
/// of norms, the head, losses and optimisers. The CPU knows f32 alone.
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
    /// Feature maps and factors in bf16 throughout: automatic mixed precision (Micikevicius et al. 2018), which for
    /// bf16 needs no scaling of the loss.
    Amp,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::Amp];

    /// The name in a study file; that of [`Self::of_frozen`] is in the digest of cached features.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Amp => "amp",
        }
    }

    /// How the frozen part alone is computed: those with the same answer share cached features.
    pub fn of_frozen(self) -> Self {
        if self == Self::Amp { Self::Bf16 } else { self }
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
        assert_eq!(Precision::ALL.map(|p| p.of_frozen().name()), ["f32", "tf32", "bf16", "bf16"]);
    }
}
