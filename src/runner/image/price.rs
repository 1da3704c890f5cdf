//! The cost model of image trials: what an epoch of a configuration takes, in operations, before anything has run and on
//! no particular machine.
//!
//! An operation is a multiply-add of a plain convolution in a forward pass. Everything else is expressed in operations by
//! the factors below, fitted once to seconds measured on a CPU with AVX-512 (`benches/quality/price.py`); on another machine
//! they are off by as much as its balance of arithmetic and memory differs.

use crate::data::DataSummary;
use crate::engine::{Paid, Price, Prices};
use crate::nn::inception_v3;
use crate::space::Params;
use crate::spec::{
    BackboneKind, FrozenKey, HeadKind, ImbalancePolicy, NetworkSpec, NormStatistics, RunnerSpec, TrialSettings, Views,
};
use std::ops::Range;

/// Operations that a part of a network takes: of each multiply-add of its plain convolutions, of each of those computed by
/// Winograd's filtering, of each value that a convolution or pool writes, for every image; and of each weight, for every
/// batch.
#[derive(Clone, Copy, Debug)]
struct Factors {
    plain: f64,
    winograd: f64,
    value: f64,
    weight: f64,
}

/// Of a forward pass through frozen layers, or in judging.
const FORWARD: Factors = Factors { plain: 1.0, winograd: 0.56, value: 118.0, weight: 49.0 };
/// Of a training step: forward, both gradients, and the optimiser's 350 of each weight.
const STEP: Factors = Factors { plain: 3.49, winograd: 2.66, value: 626.0, weight: 225.0 + 350.0 };
/// Operations of a head for each of its weights, forward for an image, and for each step.
const HEAD_WEIGHT: f64 = 2.0;
const HEAD_WEIGHT_STEP: f64 = 1070.0;
/// Operations of each feature of an image that a head sees, and of each batch of images: norm, dropout, loss, bookkeeping.
const HEAD_FEATURE: f64 = 1360.0;
const HEAD_BATCH: f64 = 1.8e7;
/// Images that frozen layers, and heads in judging, see at once.
const MANY: f64 = super::training::SCORED_AT_ONCE as f64;
/// Operations of a pixel that is augmented anew.
const AUGMENTED_PIXEL: f64 = 300.0;
/// Multiply-adds of the networks that candle computes, for an image of 224 pixels (He et al. 2016, table 1; Liu et al. 2022,
/// table 1), and the operations that each of them takes there.
const WHOLE_NETWORKS: [(BackboneKind, f64); 3] =
    [(BackboneKind::ResNet18, 1.8e9), (BackboneKind::ResNet50, 4.1e9), (BackboneKind::ConvNextTiny, 4.5e9)];
const CANDLE: f64 = 3.0;

impl Factors {
    /// For an image among `batch`.
    fn of(self, work: inception_v3::Work, batch: f64) -> f64 {
        let plain = (work.multiply_adds - work.winograd) as f64;
        self.plain * plain
            + self.winograd * work.winograd as f64
            + self.value * work.activations as f64
            + self.weight * work.weights as f64 / batch
    }
}

/// Operations of one image or view in each part of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageWork {
    /// The frozen layers.
    pub frozen: f64,
    /// A training step, beyond the frozen layers.
    pub step: f64,
    /// Scoring, beyond the frozen layers.
    pub score: f64,
    /// Drawing an augmented view.
    pub augment: f64,
}

impl ImageWork {
    /// Of images of `size` pixels in a trial with these settings.
    pub fn new(settings: &TrialSettings, size: usize, classes: usize) -> Self {
        let batch = f64::from(settings.training.batch_size);
        Self::at_once(settings, size, classes, batch, if settings.network.head_only() { MANY } else { batch })
    }

    /// The same with `batch` images a step and `together` in judging.
    pub(super) fn at_once(settings: &TrialSettings, size: usize, classes: usize, batch: f64, together: f64) -> Self {
        let network = &settings.network;
        let (cut, tap) = (network.cut(), network.tap_position());
        let channels = channels(network) as f64;
        let weights = match settings.head.kind {
            HeadKind::Linear => channels * classes as f64,
            HeadKind::Hidden => f64::from(settings.head.hidden_units) * (channels + classes as f64),
        };
        let head = |batch: f64| HEAD_WEIGHT * weights + HEAD_FEATURE * channels + HEAD_BATCH / batch;
        Self {
            frozen: part(network, FORWARD, size, 0..cut, MANY),
            step: part(network, STEP, size, cut..tap, batch) + HEAD_WEIGHT_STEP * weights / batch + head(batch),
            score: part(network, FORWARD, size, cut..tap, together) + head(together),
            augment: AUGMENTED_PIXEL * (size * size) as f64,
        }
    }
}

/// Operations of some stages for one image among `batch`. Images that are too small for them cost nothing: no trial gets
/// there.
fn part(network: &NetworkSpec, factors: Factors, size: usize, stages: Range<usize>, batch: f64) -> f64 {
    match WHOLE_NETWORKS.iter().find(|(kind, _)| *kind == network.backbone) {
        Some((_, at_224)) if !stages.is_empty() => CANDLE * at_224 * (size as f64 / 224.0).powi(2),
        Some(_) => 0.0,
        None => inception_v3::work(network.width, size, stages.start, stages.end)
            .map_or(0.0, |work| factors.of(work, batch)),
    }
}

/// The shape of an image's frozen features as they are kept; `None` if nothing is frozen, or the image is too small.
pub(super) fn feature_shape(network: &NetworkSpec, size: usize) -> Option<Vec<usize>> {
    let cut = network.cut();
    if cut == 0 {
        return None;
    }
    if network.head_only() {
        return Some(vec![channels(network)]);
    }
    let side = inception_v3::side_at(network.width, size, cut)?;
    Some(vec![side, side, inception_v3::stages(network.width)[cut - 1].channels])
}

/// Channels that the head takes.
fn channels(network: &NetworkSpec) -> usize {
    match network.backbone {
        BackboneKind::InceptionV3 => {
            let stages = inception_v3::stages(network.width);
            network.tap_position().checked_sub(1).and_then(|i| stages.get(i)).map_or(3, |stage| stage.channels)
        }
        BackboneKind::ResNet18 => 512,
        BackboneKind::ResNet50 => 2048,
        BackboneKind::ConvNextTiny => 768,
    }
}

/// How many images each part of an epoch sees, summed over the folds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// Training samples.
    pub train: f64,
    /// Samples over which batch-norm statistics are computed.
    pub statistics: f64,
    /// Validation images.
    pub validation: f64,
    /// Different images, in training and validation.
    pub images: f64,
}

impl Counts {
    /// Of a trial with these settings.
    pub fn new(summary: &DataSummary, settings: &TrialSettings) -> Self {
        let visited = |counts: &[u64]| -> f64 {
            let classes = counts.iter().filter(|n| **n > 0);
            let each = classes.clone().count() as u64;
            (match settings.training.imbalance {
                ImbalancePolicy::None | ImbalancePolicy::Weights => classes.sum::<u64>(),
                ImbalancePolicy::Oversample => each * classes.max().copied().unwrap_or(0),
                ImbalancePolicy::Undersample => each * classes.min().copied().unwrap_or(0),
            }) as f64
        };
        let precise = settings.training.norm_statistics == NormStatistics::Precise;
        let statistics = |n: f64| if precise { super::training::measured(n as usize) as f64 } else { 0.0 };
        let folds = &summary.folds;
        Self {
            train: folds.iter().map(|f| visited(&f.train)).sum(),
            statistics: folds.iter().map(|f| statistics(visited(&f.train))).sum(),
            validation: folds.iter().flat_map(|f| &f.validation).sum::<u64>() as f64,
            // Folds share their images.
            images: folds.first().map_or(0, |f| f.train.iter().chain(&f.validation).sum::<u64>()) as f64,
        }
    }
}

/// Operations of an epoch, beyond frozen passes that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochWork {
    /// Training steps, with statistics of batch norm, and frozen passes that are kept nowhere.
    pub training: f64,
    /// Judging after it.
    pub judging: f64,
}

impl EpochWork {
    /// Both.
    pub fn all(&self) -> f64 {
        self.training + self.judging
    }
}

/// The price of some epochs in operations, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Frozen passes that are kept, of views that nobody has paid for.
    pub frozen: f64,
    /// The epochs in which only the head of a network is trained that is trained further later, and their number.
    pub early: (EpochWork, u32),
    /// The others, and their number.
    pub rest: (EpochWork, u32),
}

impl Parts {
    /// The sum over the epochs of what `each` makes of one, early ones apart.
    pub fn epochs(&self, each: impl Fn(&EpochWork) -> f64) -> f64 {
        [self.early, self.rest].iter().map(|(work, n)| f64::from(*n) * each(work)).sum()
    }
}

/// Different views of an image that epochs `before..before + epochs` add to those drawn before, on average, where each
/// draws one of `bank`.
fn new_views(bank: u32, before: u32, epochs: u32) -> f64 {
    let seen = |epochs: u32| f64::from(bank) * (1.0 - (1.0 - 1.0 / f64::from(bank.max(1))).powi(epochs as i32));
    seen(before + epochs) - seen(before)
}

/// Prices of the trials of an image study.
#[derive(Debug)]
pub struct ImagePrices {
    runner: RunnerSpec,
    summary: DataSummary,
}

impl ImagePrices {
    /// Of a study of these images.
    pub fn new(runner: &RunnerSpec, summary: &DataSummary) -> Self {
        Self { runner: runner.clone(), summary: summary.clone() }
    }

    /// The parts of the price of some epochs of a trial (`0..3` are the first three), given what earlier ones have paid
    /// for.
    pub fn parts(&self, settings: &TrialSettings, epochs: Range<u32>, paid: &Paid) -> Parts {
        let mut parts = Parts::default();
        for (settings, n, early) in stages(settings, epochs) {
            let (frozen, work) = self.stage(&settings, n, paid);
            parts.frozen += frozen;
            *(if early { &mut parts.early } else { &mut parts.rest }) = (work, n);
        }
        parts
    }

    /// Frozen passes for `epochs` epochs, and the work of one of them, where the same layers are trained in all.
    fn stage(&self, settings: &TrialSettings, epochs: u32, paid: &Paid) -> (f64, EpochWork) {
        let counts = Counts::new(&self.summary, settings);
        let each = ImageWork::new(settings, self.summary.size, self.summary.classes.len());
        let mut frozen = 0.0;
        let mut work = EpochWork {
            training: counts.train * each.step + counts.statistics * each.score,
            judging: counts.validation * each.score,
        };
        let bank = bank(settings);
        let frozen_anew = |kept: bool| if kept { 0.0 } else { each.frozen };
        let augmented = settings.augment.ranges_key().is_some();
        if augmented && (bank.is_none() || settings.network.cut() == 0) {
            work.training += (counts.train + counts.statistics) * (each.augment + frozen_anew(bank.is_some()));
        }
        if let Some(key) = shared(settings) {
            let before = paid.get(&key).copied().unwrap_or(0);
            // Validation sees the original images.
            let originals = if before == 0 && augmented { counts.images } else { 0.0 };
            let views = originals + counts.images * bank.map_or(0.0, |bank| new_views(bank, before, epochs));
            // A shallower prefix of the same network and views whose maps are kept is where a deeper one begins.
            let from = paid.keys().filter(|other| key.extends(other)).map(FrozenKey::cut).max();
            let skipped = from.map_or(0.0, |cut| part(&settings.network, FORWARD, self.summary.size, 0..cut, MANY));
            let drawn = if augmented && from.is_none() { each.augment } else { 0.0 };
            frozen = views * (each.frozen - skipped + drawn);
        }
        (frozen, work)
    }
}

/// Views from which the epochs of a trial draw; `None`: every epoch draws new ones.
pub(super) fn bank(settings: &TrialSettings) -> Option<u32> {
    match settings.augment.views {
        _ if settings.augment.ranges_key().is_none() => Some(1),
        Views::Bank(n) => Some(n),
        Views::Fresh => None,
    }
}

/// The settings that hold in some epochs of a trial, with how many they are and whether only the head is trained in them
/// although more is later.
fn stages(settings: &TrialSettings, epochs: Range<u32>) -> impl Iterator<Item = (TrialSettings, u32, bool)> {
    let last = settings.probing_epochs();
    let early = epochs.end.min(last).saturating_sub(epochs.start);
    let rest = epochs.end.saturating_sub(epochs.start.max(last));
    let early = settings.probing().filter(|_| early > 0).map(|probing| (probing, early, true));
    early.into_iter().chain((rest > 0).then(|| (settings.clone(), rest, false)))
}

/// The frozen features of a trial with these settings, if it has any.
fn shared(settings: &TrialSettings) -> Option<FrozenKey> {
    (settings.network.cut() > 0).then(|| settings.network.frozen_key(&settings.augment))
}

/// The frozen features of some epochs of a trial with these settings, and for how many of the epochs.
pub(super) fn shared_by(settings: &TrialSettings, epochs: Range<u32>) -> Vec<(FrozenKey, u32)> {
    stages(settings, epochs).filter_map(|(settings, n, _)| Some((shared(&settings)?, n))).collect()
}

/// Operations as mega-operations, rounded up.
fn mega(operations: f64) -> u64 {
    (operations * 1e-6).ceil() as u64
}

impl Prices for ImagePrices {
    fn shared(&self, params: &Params, epochs: Range<u32>) -> Vec<(FrozenKey, u32)> {
        self.runner.settings(params).map_or_else(|_| Vec::new(), |settings| shared_by(&settings, epochs))
    }

    /// Settings that cannot be run cost nothing: their trial fails at once.
    fn price(&self, params: &Params, epochs: Range<u32>, paid: &Paid) -> Price {
        let Ok(settings) = self.runner.settings(params) else { return Price::default() };
        let Parts { frozen, early: (early, early_epochs), rest: (rest, _) } = self.parts(&settings, epochs, paid);
        Price { once: mega(frozen), epoch: mega(rest.all()), early_epochs, early: mega(early.all()) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::from_text;

    const FILE: &str = "[data]\nsynthetic = {}\nsize = 150\n[network]\nweights = \"random\"\n[space]\n\
        freeze = { type = \"ordinal\", choices = [\"none\", \"Mixed_5b\", \"Mixed_6e\", \"all\"] }\n\
        [budget]\nn_trials = 1\n[training]\nepochs = 8\nbatch_size = 16\n";

    pub fn summary() -> DataSummary {
        let folds = vec![crate::data::FoldCounts { train: vec![900, 300], validation: vec![300, 100] }];
        let given_validation = crate::data::GivenValidation::default();
        DataSummary {
            classes: vec!["no".to_owned(), "yes".to_owned()],
            positive: 1,
            synthetic: true,
            size: 150,
            channels: 1,
            images: vec![1200, 400],
            folds,
            test: vec![0, 0],
            dropped: vec![0, 0],
            given_validation,
            patients: None,
            duplicates: 0,
            skipped: Vec::new(),
            notes: Vec::new(),
            digest: crate::digest::Digest::of(b""),
        }
    }

    fn prices(more: &str) -> ImagePrices {
        ImagePrices::new(&from_text(&format!("{FILE}{more}")).unwrap().spec.runner, &summary())
    }

    fn frozen_to(stage: &str) -> Params {
        Params([("freeze".to_owned(), crate::space::Value::Text(stage.to_owned()))].into())
    }

    fn key(prices: &ImagePrices, params: &Params) -> FrozenKey {
        prices.shared(params, 0..1).remove(0).0
    }

    #[test]
    fn epochs_of_the_head_alone_cost_as_with_all_frozen() {
        let (plain, probing) = (prices(""), prices("probe_epochs = 3\n"));
        let (mixed, all, nothing) = (frozen_to("Mixed_6e"), frozen_to("all"), Paid::new());
        let price = |prices: &ImagePrices, params, epochs| prices.price(params, epochs, &nothing);
        let (whole, head) = (price(&plain, &mixed, 0..8), price(&plain, &all, 0..8));
        assert_eq!(
            price(&probing, &mixed, 0..3),
            Price { early_epochs: 3, early: head.epoch, ..Price::new(head.once, 0) }
        );
        assert_eq!(price(&probing, &mixed, 3..8), whole);
        let both = Price { early_epochs: 2, early: head.epoch, ..Price::new(head.once + whole.once, whole.epoch) };
        let found = price(&probing, &mixed, 1..8);
        assert!((both.once..both.once + 2).contains(&(found.once + 1)), "{found:?}");
        assert_eq!(Price { once: both.once, ..found }, both);
        assert_eq!(price(&probing, &all, 0..8), head, "nothing but the head is ever trained");
        let shared = |epochs| probing.shared(&mixed, epochs);
        assert_eq!(shared(0..8).iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(shared(0..2), [(key(&plain, &all), 2)]);
        assert_eq!(shared(3..8), [(key(&plain, &mixed), 5)]);
    }

    #[test]
    fn the_deeper_is_frozen_the_cheaper_is_an_epoch() {
        let prices = prices("");
        let epochs = ["none", "Mixed_5b", "Mixed_6e", "all"]
            .map(|stage| prices.price(&frozen_to(stage), 0..1, &Paid::new()).epoch);
        assert!(epochs.is_sorted_by(|a, b| a > b), "{epochs:?}");
        // The issue that asked for a price: a head costs a hundredth of the network and less.
        assert!(epochs[0] > 100 * epochs[3], "{epochs:?}");
    }

    #[test]
    fn frozen_features_are_paid_once_and_deeper_ones_start_from_shallower() {
        let prices = prices("");
        let (mixed, all) = (frozen_to("Mixed_6e"), frozen_to("all"));
        let alone = prices.price(&all, 0..8, &Paid::new()).once;
        let mut paid = Paid::new();
        let first = prices.price(&mixed, 0..8, &paid).once;
        assert!(0 < first && first < alone);
        paid.insert(key(&prices, &mixed), 8);
        assert_eq!(prices.price(&mixed, 0..8, &paid).once, 0);
        let rest = prices.price(&all, 0..8, &paid).once;
        assert!(first + rest <= alone + 2 && alone <= first + rest + 2, "{first} + {rest}, {alone}");
        assert_eq!(prices.price(&frozen_to("none"), 0..8, &paid).once, 0);
        assert_eq!(prices.shared(&frozen_to("none"), 0..8), []);
    }

    #[test]
    fn views_of_a_bank_are_paid_as_they_are_drawn() {
        assert!((new_views(8, 0, 1) - 1.0).abs() < 1e-12);
        assert!((new_views(8, 0, 3) + new_views(8, 3, 5) - new_views(8, 0, 8)).abs() < 1e-12);
        assert!(new_views(8, 0, 1000) < 8.0 + 1e-9 && new_views(1, 1, 5).abs() < 1e-12);
        let augmented = prices("[augment]\nstrength = 1.0\nviews = 8\n");
        let all = frozen_to("all");
        let mut paid = Paid::new();
        let first = augmented.price(&all, 0..2, &paid).once;
        paid.insert(key(&augmented, &all), 2);
        let second = augmented.price(&all, 0..2, &paid).once;
        assert!(0 < second && second < first, "{first} {second}");
        let fresh = prices("[augment]\nstrength = 1.0\nviews = \"fresh\"\n");
        let fresh = fresh.price(&all, 0..2, &Paid::new());
        assert!(fresh.epoch > 100 * augmented.price(&all, 0..2, &paid).epoch);
    }
}
