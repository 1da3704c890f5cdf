//! Keys of cached networks and features. Every field of a network and of augmentation is named here, without `..`, so a
//! new field does not compile until its author has decided whether it changes what is cached.
//!
//! Some keys are stored on disk: they consist of names of the study file, which never change, and of the bits of
//! numbers.

use super::{AugmentSpec, CachePrecision, NetworkSpec, WeightSource};

/// Identifies a network with its weights, before it is cut: equal keys, equal networks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey {
    /// See [`NetworkSpec::architecture_key`].
    architecture: String,
    weights: String,
}

/// All that determines the frozen features of an image view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrozenKey {
    network: NetworkKey,
    scaling: &'static str,
    /// Side in pixels of the network's input; `None`: that of the images.
    side: Option<u32>,
    views: Option<(Vec<u64>, u32)>,
    cut: usize,
    pooled: bool,
    half: bool,
}

impl FrozenKey {
    /// Frozen stages.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Whether these features can be computed from those of `other`: whole feature maps of a shallower cut of the same
    /// network and views, unless they are halves, which are rounded.
    pub fn extends(&self, other: &Self) -> bool {
        let family = |key: &Self| Self { cut: 0, pooled: false, ..key.clone() };
        !other.pooled && !other.half && other.cut <= self.cut && other != self && family(other) == family(self)
    }
}

impl NetworkSpec {
    /// What determines a network's output besides its tensors: part of keys on disk.
    pub fn architecture_key(&self) -> String {
        let Self {
            backbone,
            width,
            pool_padding,
            // Tensors have a digest of their own.
            weights: _,
            // Applied to the input.
            scaling: _,
            // Where the network is cut, and what happens there.
            tap: _,
            freeze: _,
            batch_norm: _,
            cache: _,
            // The shape of the input; keys name it beside this one.
            input_size: _,
        } = self;
        format!("{backbone} {:016x} {pool_padding}", width.to_bits())
    }

    /// The key of the network, with its weights identified by source, not by content: valid within one process.
    pub fn key(&self) -> NetworkKey {
        let weights = match &self.weights {
            WeightSource::File(path) => format!("file {}", path.display()),
            WeightSource::Hub { repo, revision } => format!("hub {repo} {revision:?}"),
            WeightSource::Random => "random".to_owned(),
        };
        NetworkKey { architecture: self.architecture_key(), weights }
    }

    /// The key of its frozen features: trials with equal keys share them. In sorted order, a shallower cut of the same
    /// network and views comes before a deeper one, which can be computed from it.
    pub fn frozen_key(&self, augment: &AugmentSpec) -> FrozenKey {
        let views = match augment.views {
            super::Views::Bank(n) => n,
            super::Views::Fresh => 0,
        };
        FrozenKey {
            network: self.key(),
            scaling: self.scaling.into_str(),
            side: self.input_size,
            views: augment.ranges_key().map(|ranges| (ranges, views)),
            cut: self.cut(),
            pooled: self.head_only(),
            half: self.cache == CachePrecision::F16,
        }
    }
}

impl AugmentSpec {
    /// What determines the view with a given number, as exact bits: part of keys on disk. `None`: every view is the
    /// original image. Ranges that came later are left out where all of them are 0, which leaves older keys as they were.
    pub fn ranges_key(&self) -> Option<Vec<u64>> {
        const FIRST: usize = 4;
        let ranges = self.ranges();
        let used = if ranges[FIRST..].iter().all(|range| *range == 0.0) { FIRST } else { ranges.len() };
        (!self.is_off())
            .then(|| std::iter::once(self.strength).chain(ranges.into_iter().take(used)).map(f64::to_bits).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::{BackboneKind, PoolPadding};

    #[test]
    fn keys_on_disk_use_the_names_of_the_study_file() {
        let network = crate::spec::NetworkSpec {
            backbone: BackboneKind::InceptionV3,
            width: 0.125,
            weights: crate::spec::WeightSource::Random,
            scaling: crate::spec::PixelScaling::Unit,
            pool_padding: PoolPadding::Excluded,
            tap: "Mixed_7c".to_owned(),
            freeze: crate::spec::FreezeTo::All,
            batch_norm: crate::spec::BatchNormMode::Frozen,
            cache: crate::spec::CachePrecision::F32,
            input_size: None,
        };
        assert_eq!(network.architecture_key(), "inception_v3 3fc0000000000000 excluded");
    }
}
