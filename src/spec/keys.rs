//! Keys of what is cached: every field of a network and of augmentation has its place here. The fields are named one by
//! one and none is passed over, so a new one does not compile until somebody has decided whether it changes what is cached.
//!
//! Some keys lie on disk: their texts are the names of the study file, which stay, and numbers go in by their bits.

use super::{AugmentSpec, CachePrecision, NetworkSpec, WeightSource};

/// What a network is before it is cut: equal keys, equal networks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey {
    /// See [`NetworkSpec::architecture_key`].
    architecture: String,
    weights: String,
}

/// What decides the frozen features of an image view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrozenKey {
    network: NetworkKey,
    scaling: &'static str,
    views: Option<([u64; 5], u32)>,
    cut: usize,
    pooled: bool,
    half: bool,
}

impl NetworkSpec {
    /// What beside its tensors decides a network's output: part of keys on disk.
    pub fn architecture_key(&self) -> String {
        let Self {
            backbone,
            width,
            pool_padding,
            // Other tensors, with a digest of their own.
            weights: _,
            // The input's.
            scaling: _,
            // Where it is cut, and what is done there.
            tap: _,
            freeze: _,
            batch_norm: _,
            cache: _,
        } = self;
        format!("{backbone} {:016x} {pool_padding}", width.to_bits())
    }

    /// The key of the network, whose weights are named and not looked at: for one process.
    pub fn key(&self) -> NetworkKey {
        let weights = match &self.weights {
            WeightSource::File(path) => format!("file {}", path.display()),
            WeightSource::Hub { repo, revision } => format!("hub {repo} {revision:?}"),
            WeightSource::Random => "random".to_owned(),
        };
        NetworkKey { architecture: self.architecture_key(), weights }
    }

    /// The key of its frozen features: those of trials with equal keys are the same. Sorted, a shallower cut of the same
    /// network and views stands before a deeper one, which can start from it.
    pub fn frozen_key(&self, augment: &AugmentSpec) -> FrozenKey {
        let views = match augment.views {
            super::Views::Bank(n) => n,
            super::Views::Fresh => 0,
        };
        FrozenKey {
            network: self.key(),
            scaling: self.scaling.into_str(),
            views: augment.ranges_key().map(|ranges| (ranges, views)),
            cut: self.cut(),
            pooled: self.head_only(),
            half: self.cache == CachePrecision::F16,
        }
    }
}

impl AugmentSpec {
    /// What decides a view of a given number: part of keys on disk. `None`: every view is the original.
    pub fn ranges_key(&self) -> Option<[u64; 5]> {
        let &Self {
            strength,
            flip,
            rotation,
            brightness,
            edges,
            // Which views are drawn, not what they are.
            views: _,
        } = self;
        let off = strength == 0.0 || [flip, rotation, brightness, edges].iter().all(|range| *range == 0.0);
        (!off).then(|| [strength, flip, rotation, brightness, edges].map(f64::to_bits))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::{BackboneKind, PoolPadding};

    #[test]
    fn texts_that_lie_on_disk_are_the_names_of_the_study_file() {
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
        };
        assert_eq!(network.architecture_key(), "inception_v3 3fc0000000000000 excluded");
    }
}
