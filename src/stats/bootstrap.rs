//! The bootstrap: images drawn again with replacement, within strata, whole patients at a time.

use super::interval::Interval;
use crate::rng::{Purpose, StreamRng};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A resampling plan: clusters (patients, or single images) are drawn within strata (the set of classes in a cluster),
/// so that every draw has as many clusters of each stratum as the sample.
#[derive(Clone, Debug)]
pub struct Resampling {
    strata: Vec<Vec<Vec<usize>>>,
    images: usize,
    clustered: bool,
}

impl Resampling {
    /// Single images, stratified by class.
    pub fn stratified(labels: &[u32]) -> Self {
        let mut strata: BTreeMap<u32, Vec<Vec<usize>>> = BTreeMap::new();
        for (i, &label) in labels.iter().enumerate() {
            strata.entry(label).or_default().push(vec![i]);
        }
        Self { strata: strata.into_values().collect(), images: labels.len(), clustered: false }
    }

    /// Whole patients, stratified by the set of classes among a patient's images. An image whose patient is not known is a
    /// patient of its own, as in the split; where no patient is known, these are single images.
    pub fn by_patient(labels: &[u32], patients: &[Option<&str>]) -> Self {
        let mut clusters: BTreeMap<(Option<&str>, usize), Vec<usize>> = BTreeMap::new();
        for i in 0..labels.len() {
            let patient = patients.get(i).copied().flatten();
            let own = if patient.is_some() { 0 } else { i };
            clusters.entry((patient, own)).or_default().push(i);
        }
        let clustered = clusters.values().any(|images| images.len() > 1);
        let mut strata: BTreeMap<Vec<u32>, Vec<Vec<usize>>> = BTreeMap::new();
        for images in clusters.into_values() {
            let mut classes: Vec<u32> = images.iter().map(|&i| labels[i]).collect();
            classes.sort_unstable();
            classes.dedup();
            strata.entry(classes).or_default().push(images);
        }
        Self { strata: strata.into_values().collect(), images: labels.len(), clustered }
    }

    /// Whether several images are drawn together anywhere: images are then not independent.
    pub fn clustered(&self) -> bool {
        self.clustered
    }

    /// Evaluates `statistic` on `draws` draws; its argument is how often each image was drawn. The random stream of a
    /// draw is keyed by its number, so the result does not depend on the number of threads, and runs of several models
    /// with the same `key` are paired.
    pub fn run<T: Send>(&self, seed: u64, key: u64, draws: usize, statistic: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        (0..draws as u64)
            .into_par_iter()
            .map(|draw| {
                let mut rng = StreamRng::keyed(seed, Purpose::Bootstrap, &[key, draw]);
                let mut times = vec![0u32; self.images];
                for clusters in &self.strata {
                    for _ in clusters {
                        for &i in &clusters[rng.below(clusters.len() as u64) as usize] {
                            times[i] += 1;
                        }
                    }
                }
                statistic(&times)
            })
            .collect()
    }
}

/// The percentile interval of draws at a two-sided `level`, with linear interpolation between order statistics
/// (type 7 of Hyndman and Fan). Undefined draws are left out; `None` when fewer than 9 in 10 are defined.
pub fn percentile_interval(draws: &[Option<f64>], level: f64) -> Option<Interval> {
    let mut defined: Vec<f64> = draws.iter().copied().flatten().filter(|x| !x.is_nan()).collect();
    if defined.is_empty() || defined.len() * 10 < draws.len() * 9 {
        return None;
    }
    defined.sort_by(f64::total_cmp);
    let at = |p: f64| {
        let place = p * (defined.len() - 1) as f64;
        let (below, part) = (place.floor() as usize, place.fract());
        let above = (below + 1).min(defined.len() - 1);
        defined[below] + (defined[above] - defined[below]) * part
    };
    Some(Interval { low: at((1.0 - level) / 2.0), high: at((1.0 + level) / 2.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_keep_the_size_of_every_stratum() {
        let labels = [0, 0, 0, 1, 1, 2];
        for times in Resampling::stratified(&labels).run(1, 0, 50, <[u32]>::to_vec) {
            assert_eq!(times[..3].iter().sum::<u32>(), 3);
            assert_eq!(times[3..5].iter().sum::<u32>(), 2);
            assert_eq!(times[5], 1);
        }
    }

    #[test]
    fn the_images_of_a_patient_are_drawn_together() {
        let labels = [0, 0, 1, 1, 0, 1];
        let patients = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("d")];
        let plan = Resampling::by_patient(&labels, &patients);
        assert!(plan.clustered());
        for times in plan.run(1, 0, 50, <[u32]>::to_vec) {
            assert_eq!(times[0], times[1]);
            assert_eq!(times[2], times[3]);
        }
        assert!(!Resampling::by_patient(&labels, &[None; 6]).clustered());
    }

    #[test]
    fn an_image_of_an_unknown_patient_is_drawn_alone_and_the_others_stay_together() {
        let labels = [0, 0, 1, 1, 0, 0];
        let patients = [Some("a"), Some("a"), Some("b"), Some("b"), None, None];
        let plan = Resampling::by_patient(&labels, &patients);
        assert!(plan.clustered());
        let draws = plan.run(1, 0, 50, <[u32]>::to_vec);
        assert!(draws.iter().all(|times| times[0] == times[1] && times[2] == times[3]));
        assert!(draws.iter().any(|times| times[4] != times[5]), "two unknown patients are not one");
        // One image each is no clustering, whether the patient is known or not.
        let single = [Some("a"), Some("b"), Some("c"), Some("d"), Some("e"), None];
        assert!(!Resampling::by_patient(&labels, &single).clustered());
        let alone = Resampling::by_patient(&labels, &[None; 6]).run(1, 0, 50, <[u32]>::to_vec);
        assert_eq!(alone, Resampling::stratified(&labels).run(1, 0, 50, <[u32]>::to_vec));
    }

    #[test]
    fn the_interval_of_a_mean_has_the_width_of_its_standard_error() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 20)).collect();
        let plan = Resampling::stratified(&[0; 200]);
        let draws = plan.run(3, 1, 4000, |times| {
            Some(times.iter().zip(&values).map(|(&t, v)| f64::from(t) * v).sum::<f64>() / 200.0)
        });
        let Interval { low, high } = percentile_interval(&draws, 0.95).unwrap();
        // The standard deviation of 0..20 is sqrt(33.25), so that of the mean is .4077.
        assert!((high - low - 2.0 * 1.96 * 0.4077).abs() < 0.08, "{low}..{high}");
        assert_eq!(percentile_interval(&[None, Some(1.0)], 0.95), None);
    }
}
