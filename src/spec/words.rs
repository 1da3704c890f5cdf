//! The names of choices as a study file writes them.

/// Gives a field-less enum `ALL`, `NAMES`, `name` and `from_name`.
macro_rules! words {
    ($kind:ty { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $kind {
            /// Every value, in the order of [`Self::NAMES`].
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Every value's name in a study file.
            pub const NAMES: &'static [&'static str] = &[$($word),+];
            /// The name in a study file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            /// The value of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

use super::*;

words!(BackboneKind { InceptionV3 => "inception_v3", ResNet18 => "resnet18", ResNet50 => "resnet50", ConvNextTiny => "convnext_tiny" });
words!(PixelScaling { Unit => "unit", Symmetric => "symmetric", Imagenet => "imagenet" });
words!(PoolPadding { Counted => "counted", Excluded => "excluded" });
words!(BatchNormMode { Frozen => "frozen", Train => "train" });
words!(CachePrecision { F32 => "f32", F16 => "f16" });
words!(HeadKind { Linear => "linear", Hidden => "hidden" });
words!(OptimiserKind { AdamW => "adamw", Sgd => "sgd" });
words!(ScheduleKind { Constant => "constant", Cosine => "cosine", Step => "step" });
words!(LossKind { CrossEntropy => "cross_entropy", Focal => "focal" });
words!(ImbalancePolicy { None => "none", Weights => "weights", Oversample => "oversample", Undersample => "undersample" });
words!(NormStatistics { Running => "running", Precise => "precise" });
words!(BadFilePolicy { Fail => "fail", Skip => "skip" });
words!(ColourMode { Grey => "grey", Rgb => "rgb" });
words!(ValidationPolicy { Auto => "auto", Keep => "keep", Merge => "merge" });
words!(Direction { Maximize => "maximize", Minimize => "minimize" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_and_the_study_file_use_the_same_words() {
        macro_rules! check {
            ($($kind:ty),+) => {$(
                assert_eq!(<$kind>::ALL.len(), <$kind>::NAMES.len());
                for (value, name) in <$kind>::ALL.iter().zip(<$kind>::NAMES) {
                    assert_eq!(serde_json::to_value(value).unwrap(), *name);
                    assert_eq!(<$kind>::from_name(name), Some(*value));
                    assert_eq!(value.to_string(), *name);
                }
                assert_eq!(<$kind>::from_name("?"), None);
            )+};
        }
        check!(
            BackboneKind,
            PixelScaling,
            PoolPadding,
            BatchNormMode,
            CachePrecision,
            HeadKind,
            OptimiserKind,
            ScheduleKind,
            LossKind,
            ImbalancePolicy,
            NormStatistics,
            BadFilePolicy,
            ColourMode,
            ValidationPolicy,
            Direction
        );
    }
}
