//! What changes the key of features, and what does not.

use super::*;
use crate::ids::{Epoch, TrialNumber};
use crate::spec::{
    BackboneKind, BatchNormMode, FreezeTo, HeadKind, HeadSpec, ImbalancePolicy, LossKind, NetworkSpec, OptimiserKind,
    PoolPadding, ScheduleKind, TrainingSpec, TrialSettings, WeightSource, Window,
};

/// A source of images of another size or number of channels.
struct Seen {
    size: usize,
    channels: usize,
    window: Window,
}

impl PixelSource for Seen {
    fn records(&self) -> &[ImageRecord] {
        &[]
    }
    fn size(&self) -> usize {
        self.size
    }
    fn channels(&self) -> usize {
        self.channels
    }
    fn window(&self) -> Window {
        self.window
    }
    fn pixels(&self, _: usize) -> &[u8] {
        &[]
    }
}

#[test]
fn every_part_of_the_key_counts() {
    let bench = Bench::new(0);
    let base = FeatureRequest { view: View::Bank { view: 1 }, ..bench.request() };
    let seen = |size, channels, window| Seen { size, channels, window };
    let (large, rgb) = (seen(SIDE + 1, 1, Window::File), seen(SIDE, 3, Window::File));
    let level = |center| seen(SIDE, 1, Window::Level { center, width: 100.0 });
    let (range, lung, bone) = (seen(SIDE, 1, Window::Range), level(-600.0), level(400.0));
    let with = |change: fn(&mut AugmentSpec)| {
        let mut augment = bench.augment.clone();
        change(&mut augment);
        augment
    };
    let augments = [
        with(|a| a.strength = 0.25),
        with(|a| a.flip = 0.25),
        with(|a| a.rotation = 10.0),
        with(|a| a.brightness = 0.1),
        with(|a| a.edges = 0.1),
        with(|a| a.vertical_flip = 0.1),
        with(|a| a.quarter_turns = 0.1),
        with(|a| a.zoom = 0.1),
        with(|a| a.shift = 0.1),
        with(|a| a.contrast = 0.1),
        with(|a| a.noise = 0.1),
    ];
    let mut others = vec![
        FeatureRequest { weights: Digest::of(b"other"), ..base },
        FeatureRequest { cut: 2, ..base },
        FeatureRequest { pooled: true, ..base },
        FeatureRequest { precision: CachePrecision::F16, ..base },
        FeatureRequest { source: &large, side: large.size(), ..base },
        FeatureRequest { side: SIDE - 1, ..base },
        FeatureRequest { side: SIDE - 2, ..base },
        FeatureRequest { source: &rgb, ..base },
        FeatureRequest { source: &range, ..base },
        FeatureRequest { source: &lung, ..base },
        FeatureRequest { source: &bone, ..base },
        FeatureRequest { scaling: PixelScaling::Unit, ..base },
        FeatureRequest { view: View::Original, ..base },
        FeatureRequest { view: View::Bank { view: 2 }, ..base },
        FeatureRequest { seed: 8, ..base },
    ];
    others.extend(augments.iter().map(|augment| FeatureRequest { augment, ..base }));
    let mut keys: Vec<Digest> = others.iter().chain([&base]).map(|r| r.shelved().unwrap().key()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), others.len() + 1);
}

#[test]
fn what_does_not_change_a_view_does_not_change_its_key() {
    let bench = Bench::new(0);
    let base = bench.request();
    let none = AugmentSpec { strength: 0.0, ..bench.augment.clone() };
    let empty = AugmentSpec { flip: 0.0, rotation: 0.0, brightness: 0.0, edges: 0.0, ..bench.augment.clone() };
    let larger_bank = AugmentSpec { views: Views::Bank(16), ..bench.augment.clone() };
    let key = |r: FeatureRequest<'_>| r.shelved().unwrap().key();
    let original = key(base);
    assert_eq!(key(FeatureRequest { seed: 99, augment: &none, ..base }), original);
    for augment in [&none, &empty] {
        assert_eq!(key(FeatureRequest { view: View::Bank { view: 3 }, augment, ..base }), original);
    }
    let bank = FeatureRequest { view: View::Bank { view: 3 }, ..base };
    assert_eq!(key(FeatureRequest { augment: &larger_bank, ..bank }), key(bank), "banks of any size share views");
}

#[test]
fn the_network_digest_tells_architecture_padding_and_arithmetic_apart() {
    let base = settings().network;
    let tensors = Digest::of(b"tensors");
    let mut digests = vec![
        network_digest(tensors, &base, "cpu avx2"),
        network_digest(Digest::of(b"others"), &base, "cpu avx2"),
        network_digest(tensors, &base, "cuda 9.0"),
        network_digest(tensors, &NetworkSpec { width: 0.5, ..base.clone() }, "cpu avx2"),
        network_digest(tensors, &NetworkSpec { pool_padding: PoolPadding::Excluded, ..base.clone() }, "cpu avx2"),
        network_digest(tensors, &NetworkSpec { backbone: BackboneKind::ResNet18, ..base.clone() }, "cpu avx2"),
    ];
    let same = NetworkSpec { tap: "Mixed_6e".to_owned(), freeze: FreezeTo::None, ..base };
    assert_eq!(network_digest(tensors, &same, "cpu avx2"), digests[0], "tap and freeze are the cut's business");
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 6);
}

#[test]
fn a_fresh_view_is_never_cached_but_can_be_computed() {
    let bench = Bench::new(3);
    let fresh = |epoch| View::Fresh { trial: TrialNumber(1), epoch: Epoch(epoch) };
    let request = FeatureRequest { view: fresh(1), ..bench.request() };
    assert!(matches!(bench.cache().features(&request, &Quiet), Err(FeatureError::Fresh)));
    assert!(matches!(bench.cache().coverage(&request), Err(FeatureError::Fresh)));
    assert_eq!(bench.segments().len(), 0);
    assert_ne!(uncached(&request), uncached(&FeatureRequest { view: fresh(2), ..request }));
}

fn settings() -> TrialSettings {
    TrialSettings {
        network: NetworkSpec {
            backbone: BackboneKind::InceptionV3,
            width: 1.0,
            weights: WeightSource::Random,
            scaling: PixelScaling::Unit,
            pool_padding: PoolPadding::Counted,
            tap: "Mixed_7c".to_owned(),
            freeze: FreezeTo::All,
            batch_norm: BatchNormMode::Frozen,
            cache: CachePrecision::F32,
            input_size: None,
        },
        head: HeadSpec { kind: HeadKind::Linear, dropout: 0.2, hidden_units: 8 },
        training: TrainingSpec {
            epochs: 3,
            batch_size: 4,
            optimiser: OptimiserKind::AdamW,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            momentum: 0.9,
            backbone_rate: 0.1,
            schedule: ScheduleKind::Constant,
            warmup_epochs: 0.0,
            loss: LossKind::CrossEntropy,
            focal_gamma: 2.0,
            label_smoothing: 0.0,
            imbalance: ImbalancePolicy::None,
            ..TrainingSpec::default()
        },
        augment: Bench::new(0).augment,
    }
}

#[test]
fn trials_are_grouped_by_frozen_key_shallower_cuts_first() {
    let base = settings();
    let with = |change: fn(&mut TrialSettings)| {
        let mut other = base.clone();
        change(&mut other);
        other.network.frozen_key(&other.augment)
    };
    let same = [
        with(|s| s.training.learning_rate = 0.1),
        with(|s| s.head.dropout = 0.5),
        with(|s| s.network.batch_norm = BatchNormMode::Train),
        with(|s| s.network.freeze = FreezeTo::Stage("Mixed_7c".to_owned())),
    ];
    assert!(same.iter().all(|key| *key == base.network.frozen_key(&base.augment)));
    let different = [
        with(|s| s.network.width = 0.5),
        with(|s| s.network.tap = "Mixed_6e".to_owned()),
        with(|s| s.network.freeze = FreezeTo::Stage("Mixed_6e".to_owned())),
        with(|s| s.network.cache = CachePrecision::F16),
        with(|s| s.network.scaling = PixelScaling::Symmetric),
        with(|s| s.augment.strength = 0.25),
        with(|s| s.augment.strength = 0.0),
    ];
    assert!(different.iter().all(|key| *key != base.network.frozen_key(&base.augment)));
    let unaugmented = with(|s| (s.augment.strength, s.augment.rotation) = (0.0, 5.0));
    assert_eq!(unaugmented, with(|s| s.augment.strength = 0.0), "no augmentation is no augmentation");
    let mut cuts: Vec<_> = ["Mixed_7a", "Mixed_5d", "Mixed_6e"]
        .map(|stage| {
            let mut other = base.clone();
            other.network.freeze = FreezeTo::Stage(stage.to_owned());
            (other.network.frozen_key(&other.augment), stage)
        })
        .into();
    cuts.sort();
    assert_eq!(cuts.iter().map(|(_, stage)| *stage).collect::<Vec<_>>(), ["Mixed_5d", "Mixed_6e", "Mixed_7a"]);
}
