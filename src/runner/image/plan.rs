//! Which images an epoch visits, in which order and view: all drawn from keyed random streams.

use crate::data::augment::View;
use crate::ids::{Epoch, TrialNumber};
use crate::nn::loss::{oversampled, undersampled};
use crate::rng::{Purpose, StreamRng};
use crate::spec::{AugmentSpec, ImbalancePolicy, TrainingSpec, Views};
use std::collections::HashMap;

/// One image in one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Index into the data set's records.
    pub image: usize,
    /// The view.
    pub view: View,
}

/// What determines the epochs of one fold of one trial.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    pub seed: u64,
    pub trial: TrialNumber,
    pub fold: u32,
    /// The fold's training images.
    pub train: &'a [usize],
    /// Their classes.
    pub labels: &'a [u32],
    pub classes: usize,
    pub training: &'a TrainingSpec,
    pub augment: &'a AugmentSpec,
}

impl Planner<'_> {
    /// The batches of an epoch (the first is 1).
    pub fn epoch(&self, epoch: Epoch) -> Vec<Vec<Sample>> {
        let mut order = self.visited(epoch);
        StreamRng::keyed(self.seed, Purpose::Shuffle, &self.counters(epoch)).shuffle(&mut order);
        let mut seen = HashMap::new();
        let samples: Vec<Sample> = order
            .into_iter()
            .map(|position| {
                let image = self.train[position];
                let times = seen.entry(image).or_insert(0u64);
                *times += 1;
                Sample { image, view: self.view(epoch, image, *times - 1) }
            })
            .collect();
        batches(samples.len(), self.training.batch_size as usize).map(|range| samples[range].to_vec()).collect()
    }

    /// Steps per epoch.
    pub fn steps(&self) -> usize {
        batches(self.visited(Epoch(1)).len(), self.training.batch_size as usize).count()
    }

    fn counters(&self, epoch: Epoch) -> [u64; 3] {
        [u64::from(self.trial.0), u64::from(epoch.0), u64::from(self.fold)]
    }

    /// Positions in `train` that an epoch visits, before shuffling.
    fn visited(&self, epoch: Epoch) -> Vec<usize> {
        match self.training.imbalance {
            ImbalancePolicy::None | ImbalancePolicy::Weights => (0..self.train.len()).collect(),
            ImbalancePolicy::Oversample => oversampled(self.labels, self.classes, self.seed, &self.counters(epoch)),
            ImbalancePolicy::Undersample => undersampled(self.labels, self.classes, self.seed, &self.counters(epoch)),
        }
    }

    /// The view of an image that is visited for the `occurrence`-th time in an epoch. Not keyed by the fold: folds
    /// share their views, and so their cached features.
    fn view(&self, epoch: Epoch, image: usize, occurrence: u64) -> View {
        match self.augment.views {
            _ if self.augment.is_off() => View::Original,
            Views::Fresh => View::Fresh { trial: self.trial, epoch },
            Views::Bank(views) => {
                let counters = [u64::from(self.trial.0), u64::from(epoch.0), image as u64, occurrence];
                let draw = StreamRng::keyed(self.seed, Purpose::ViewChoice, &counters).below(u64::from(views.max(1)));
                View::Bank { view: draw as u32 }
            }
        }
    }
}

/// Cuts `n` samples into batches of `size`. A last batch of one sample joins the batch before it: batch norm learns
/// nothing from a single sample.
pub fn batches(n: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = size.max(1);
    let count = if n % size == 1 && n > size && size > 1 { n / size } else { n.div_ceil(size) };
    (0..count).map(move |i| i * size..if i + 1 == count { n } else { (i + 1) * size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{LossKind, OptimiserKind, ScheduleKind};

    fn training(imbalance: ImbalancePolicy) -> TrainingSpec {
        TrainingSpec {
            epochs: 4,
            batch_size: 4,
            optimiser: OptimiserKind::AdamW,
            learning_rate: 0.01,
            weight_decay: 0.0,
            momentum: 0.9,
            backbone_rate: 0.1,
            schedule: ScheduleKind::Constant,
            warmup_epochs: 0.0,
            loss: LossKind::CrossEntropy,
            focal_gamma: 2.0,
            label_smoothing: 0.0,
            imbalance,
            ..TrainingSpec::default()
        }
    }

    fn augment(strength: f64, views: Views) -> AugmentSpec {
        AugmentSpec { strength, views, ..AugmentSpec::default() }
    }

    const TRAIN: [usize; 9] = [3, 5, 8, 9, 12, 20, 21, 22, 40];
    const LABELS: [u32; 9] = [0, 0, 0, 0, 0, 0, 1, 1, 1];

    fn plan(t: &TrainingSpec, a: &AugmentSpec, trial: u32, fold: u32, epoch: u32) -> Vec<Vec<Sample>> {
        let (trial, train, labels) = (TrialNumber(trial), &TRAIN[..], &LABELS[..]);
        Planner { seed: 1, trial, fold, train, labels, classes: 2, training: t, augment: a }.epoch(Epoch(epoch))
    }

    #[test]
    fn an_epoch_visits_every_image_once_in_an_order_of_its_own() {
        let (t, a) = (training(ImbalancePolicy::Weights), augment(0.0, Views::Bank(8)));
        let base = plan(&t, &a, 0, 0, 1);
        // Nine samples in batches of four: the last sample joins the second batch.
        assert_eq!(base.iter().map(Vec::len).collect::<Vec<_>>(), [4, 5]);
        let mut images: Vec<_> = base.concat().iter().map(|s| s.image).collect();
        images.sort_unstable();
        assert_eq!(images, TRAIN);
        assert!(base.concat().iter().all(|s| s.view == View::Original), "strength 0 is the original");
        assert_eq!(base, plan(&t, &a, 0, 0, 1));
        for other in [plan(&t, &a, 1, 0, 1), plan(&t, &a, 0, 1, 1), plan(&t, &a, 0, 0, 2)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn resampled_epochs_have_equal_classes_and_equal_length() {
        for (policy, steps) in [(ImbalancePolicy::Oversample, 3), (ImbalancePolicy::Undersample, 2)] {
            let (t, a) = (training(policy), augment(1.0, Views::Bank(8)));
            for epoch in 1..5 {
                let plan = plan(&t, &a, 0, 0, epoch);
                assert_eq!(plan.len(), steps);
                let positive = plan.concat().iter().filter(|s| s.image >= 21).count();
                assert_eq!(2 * positive, plan.concat().len());
            }
        }
    }

    #[test]
    fn views_come_from_the_bank_or_are_fresh() {
        let t = training(ImbalancePolicy::None);
        let bank = augment(0.5, Views::Bank(3));
        let mut drawn: Vec<_> = (1..30).flat_map(|e| plan(&t, &bank, 0, 0, e).concat()).map(|s| s.view).collect();
        drawn.sort_unstable_by_key(|v| format!("{v:?}"));
        drawn.dedup();
        assert_eq!(drawn, (0..3).map(|view| View::Bank { view }).collect::<Vec<_>>());
        let fresh = plan(&t, &augment(0.5, Views::Fresh), 2, 0, 7).concat();
        assert!(fresh.iter().all(|s| s.view == View::Fresh { trial: TrialNumber(2), epoch: Epoch(7) }));
        let still = AugmentSpec { flip: 0.0, rotation: 0.0, brightness: 0.0, edges: 0.0, ..augment(1.0, Views::Fresh) };
        assert!(plan(&t, &still, 2, 0, 7).concat().iter().all(|s| s.view == View::Original));
    }

    #[test]
    fn batches_cover_everything() {
        for (n, size, lengths) in [(8, 4, vec![4, 4]), (9, 4, vec![4, 5]), (10, 4, vec![4, 4, 2]), (1, 4, vec![1])] {
            assert_eq!(batches(n, size).map(|r| r.len()).collect::<Vec<_>>(), lengths);
        }
        assert_eq!(batches(3, 1).count(), 3);
        assert_eq!(batches(0, 4).count(), 0);
    }
}
