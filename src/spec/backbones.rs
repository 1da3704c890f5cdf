//! What is known of each architecture without its weights.

use super::{BackboneKind, FreezeTo, NetworkSpec, PixelScaling, PoolPadding, WeightSource};

/// Stages of InceptionV3, named as in torchvision (Szegedy et al. 2016).
const INCEPTION_V3: &[&str] = &[
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "maxpool1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "maxpool2",
    "Mixed_5b",
    "Mixed_5c",
    "Mixed_5d",
    "Mixed_6a",
    "Mixed_6b",
    "Mixed_6c",
    "Mixed_6d",
    "Mixed_6e",
    "Mixed_7a",
    "Mixed_7b",
    "Mixed_7c",
];

/// Networks taken whole from candle-transformers: one stage, their pooled features.
const WHOLE: &[&str] = &["features"];

impl BackboneKind {
    /// The stages in order, by the network's own names. The head takes the output of one (`tap`), the frozen part ends
    /// with one (`freeze`).
    pub const fn stages(&self) -> &'static [&'static str] {
        match self {
            Self::InceptionV3 => INCEPTION_V3,
            Self::ResNet18 | Self::ResNet50 | Self::ConvNextTiny => WHOLE,
        }
    }

    /// The last stage: the default tap.
    pub const fn last_stage(&self) -> &'static str {
        let stages = self.stages();
        stages[stages.len() - 1]
    }

    /// The number of stages up to and including this one; `None` if there is no such stage.
    pub fn position(&self, stage: &str) -> Option<usize> {
        self.stages().iter().position(|s| *s == stage).map(|i| i + 1)
    }

    /// Whether the backbone's layers can be trained.
    pub const fn trainable(&self) -> bool {
        matches!(self, Self::InceptionV3)
    }

    /// The side of the smallest image that the network accepts, in pixels.
    pub const fn smallest_image(&self) -> u32 {
        match self {
            Self::InceptionV3 => 75,
            Self::ResNet18 | Self::ResNet50 | Self::ConvNextTiny => 32,
        }
    }

    /// The repository of the Hugging Face Hub that `weights = "pretrained"` stands for: ImageNet-1k weights.
    pub const fn pretrained(&self) -> &'static str {
        match self {
            Self::InceptionV3 => "timm/inception_v3.tv_in1k",
            Self::ResNet18 => "timm/resnet18.a1_in1k",
            Self::ResNet50 => "timm/resnet50.a1_in1k",
            Self::ConvNextTiny => "timm/convnext_tiny.fb_in1k",
        }
    }
}

impl NetworkSpec {
    /// The number of frozen stages, at most those up to `tap`.
    pub fn cut(&self) -> usize {
        let tap = self.tap_position();
        match &self.freeze {
            FreezeTo::None => 0,
            FreezeTo::All => tap,
            FreezeTo::Stage(stage) => self.backbone.position(stage).unwrap_or(tap).min(tap),
        }
    }

    /// The number of stages up to and including `tap`.
    pub fn tap_position(&self) -> usize {
        self.backbone.position(&self.tap).unwrap_or(self.backbone.stages().len())
    }

    /// Whether only the head is trained.
    pub fn head_only(&self) -> bool {
        self.cut() == self.tap_position()
    }

    /// This network with another backbone: a tap at the last stage moves to the new last stage, and the pretrained
    /// weights become those of the new backbone. `None` if other weights of the old one were named explicitly.
    pub fn with_backbone(&self, kind: BackboneKind) -> Option<Self> {
        if kind == self.backbone {
            return Some(self.clone());
        }
        let mut other = Self { backbone: kind, ..self.clone() };
        if self.tap == self.backbone.last_stage() {
            other.tap = kind.last_stage().to_owned();
        }
        match &self.weights {
            WeightSource::Random => {}
            WeightSource::Hub { repo, revision: None } if repo == self.backbone.pretrained() => {
                other.weights = WeightSource::Hub { repo: kind.pretrained().to_owned(), revision: None };
                other.scaling = PixelScaling::Imagenet;
                other.pool_padding = PoolPadding::Counted;
            }
            WeightSource::Hub { .. } | WeightSource::File(_) => return None,
        }
        Some(other)
    }
}

impl FreezeTo {
    /// The name in a study file: `none`, `all` or a stage.
    pub fn name(&self) -> &str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::Stage(stage) => stage,
        }
    }
}
