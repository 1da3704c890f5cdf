//! Precision of a network's arithmetic.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray, VariantNames};

/// Arithmetic of a network's layers. Sums are always kept in f32, and so are trained weights, statistics of norms, the
/// head, losses and optimisers. CPUs have no TF32, and multiply f32 instead; where a GPU's feature maps are bf16, theirs
/// are f32 and only factors are rounded ([`crate::nn::kernel::arithmetic`]).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Precision {
    /// Products of f32.
    F32,
    /// Products of operands rounded to ten mantissa bits (TF32); on CPUs f32.
    #[default]
    Tf32,
    /// The frozen part in bf16, the trained part in TF32 (on CPUs f32).
    Bf16,
    /// Feature maps and operands in bf16 throughout: automatic mixed precision (Micikevicius et al. 2018), which for
    /// bf16 needs no loss scaling.
    Amp,
}

impl Precision {
    /// The precision of the frozen part: settings for which it is the same share cached features.
    pub fn of_frozen(self) -> Self {
        if self == Self::Amp { Self::Bf16 } else { self }
    }

    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amp_computes_the_frozen_part_as_bf16_does() {
        let all: &[Precision] = VariantArray::VARIANTS;
        let frozen: Vec<&str> = all.iter().map(|p| p.of_frozen().into_str()).collect();
        assert_eq!(frozen, ["f32", "tf32", "bf16", "bf16"]);
        assert!(Precision::Tf32.is_default());
    }
}
