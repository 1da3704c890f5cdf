//! Labels that the images contradict: confident learning (Northcutt, Jiang and Chuang 2021), cut where too many of those named
//! would be right.

/// So large a share of the labels that are named is expected to be wrong.
const PRECISION: f64 = 0.8;

/// A label that is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The image.
    pub image: usize,
    /// The class that it seems to be.
    pub instead: usize,
}

/// The estimated number of wrong labels, and images whose labels are doubted, the least probable label first. `scores`: softmax
/// scores of each image by a model that has not seen it.
///
/// Of the images that confident learning names, the most doubtful ones: as many as leave the mean probability that their labels
/// are wrong at four in five or more.
pub fn doubts(scores: &[Vec<f32>], labels: &[u32], classes: usize) -> (u64, Vec<Doubt>) {
    let (wrong, mut found) = named(scores, labels, classes);
    let wrongness = wrongness(scores, labels, classes);
    let (mut sum, mut kept) = (0.0, 0);
    for (n, doubt) in found.iter().enumerate() {
        sum += wrongness[doubt.image];
        if sum >= PRECISION * (n + 1) as f64 {
            kept = n + 1;
        }
    }
    found.truncate(kept);
    (wrong, found)
}

/// The probability that each label is wrong, if labels are exchanged with equal probability `e`, whatever the image and its
/// class: by Bayes' rule, `e' (1 - q) / ((1 - e) q + e' (1 - q))` with `q` the probability of the class that the label names
/// and `e' = e / (classes - 1)`. `q` is the softmax of the scores' logarithms divided by a temperature (Guo et al. 2017), and
/// temperature and `e` are those of largest likelihood of the labels, on a grid.
fn wrongness(scores: &[Vec<f32>], labels: &[u32], classes: usize) -> Vec<f64> {
    const TEMPERATURES: i32 = 24;
    const SHARES: u32 = 40;
    let others = classes.saturating_sub(1).max(1) as f64;
    let logits: Vec<Vec<f64>> =
        scores.iter().map(|row| row.iter().map(|&p| f64::from(p).max(1e-12).ln()).collect()).collect();
    let own = |temperature: f64| -> Vec<f64> {
        let of = |(row, &label): (&Vec<f64>, &u32)| {
            let sum: f64 = row.iter().map(|l| ((l - row[label as usize]) / temperature).exp()).sum();
            1.0 / sum
        };
        logits.iter().zip(labels).map(of).collect()
    };
    let mut best = (f64::NEG_INFINITY, 1.0, 0.0);
    for step in -TEMPERATURES..=TEMPERATURES {
        let temperature = 2f64.powf(f64::from(step) / 6.0); // a sixteenth to sixteen
        let q = own(temperature);
        for share in 0..=SHARES {
            let e = 0.4 * (f64::from(share) / f64::from(SHARES)).powi(2);
            let likelihood: f64 = q.iter().map(|q| ((1.0 - e) * q + e / others * (1.0 - q)).max(1e-300).ln()).sum();
            if likelihood > best.0 {
                best = (likelihood, temperature, e);
            }
        }
    }
    let (_, temperature, e) = best;
    let wrong = |q: f64| {
        let (right, other) = ((1.0 - e) * q, e / others * (1.0 - q));
        if other > 0.0 { other / (right + other) } else { 0.0 }
    };
    own(temperature).into_iter().map(wrong).collect()
}

/// Confident learning: the estimated number of wrong labels, and the images most likely among them, the least probable label
/// first.
///
/// An image counts as a confident member of the class of highest score among those whose score reaches the mean score that
/// the class has on images of this label (equation 1 of the paper); the counts, scaled to the numbers of images of each label
/// (equation 3), estimate how many images of a label are of another class. So many with the largest difference of the two
/// scores are chosen (its method "prune by noise rate"), and of these those that are confident members of the other class.
fn named(scores: &[Vec<f32>], labels: &[u32], classes: usize) -> (u64, Vec<Doubt>) {
    let mut sums = vec![(0f64, 0usize); classes];
    for (row, &label) in scores.iter().zip(labels) {
        let (sum, count) = &mut sums[label as usize];
        *sum += f64::from(row[label as usize]);
        *count += 1;
    }
    let threshold: Vec<f64> = sums.iter().map(|&(sum, n)| if n > 0 { sum / n as f64 } else { f64::INFINITY }).collect();
    let member = |row: &Vec<f32>| {
        let reached = (0..classes).filter(|&c| f64::from(row[c]) >= threshold[c]);
        reached.max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
    };
    let members: Vec<Option<usize>> = scores.iter().map(member).collect();
    let mut joint = vec![vec![0usize; classes]; classes];
    for (member, &label) in members.iter().zip(labels) {
        if let Some(member) = member {
            joint[label as usize][*member] += 1;
        }
    }
    let (mut wrong, mut found) = (0, Vec::new());
    for label in 0..classes {
        let (all, counted) = (sums[label].1, joint[label].iter().sum::<usize>());
        for instead in (0..classes).filter(|&c| c != label && counted > 0) {
            let estimated = (joint[label][instead] as f64 * all as f64 / counted as f64).round() as usize;
            wrong += estimated as u64;
            let margin = |i: &usize| scores[*i][instead] - scores[*i][label];
            let mut images: Vec<usize> = (0..scores.len()).filter(|&i| labels[i] as usize == label).collect();
            images.sort_by(|a, b| margin(b).total_cmp(&margin(a)).then(a.cmp(b)));
            images.truncate(estimated);
            let confident = images.into_iter().filter(|&i| members[i] == Some(instead));
            found.extend(confident.map(|image| Doubt { image, instead }));
        }
    }
    let own = |d: &Doubt| scores[d.image][labels[d.image] as usize];
    found.sort_by(|a, b| own(a).total_cmp(&own(b)).then(a.image.cmp(&b.image)));
    found.dedup_by_key(|d| d.image);
    (wrong, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, StreamRng};

    /// Worked by hand after the paper's equations.
    #[test]
    fn a_small_example_is_counted_as_on_paper() {
        let scores: Vec<Vec<f32>> = [0.9, 0.8, 0.7, 0.2, 0.1, 0.3, 0.6].iter().map(|&p| vec![p, 1.0 - p]).collect();
        // Mean score of the own label: class 0 (.9 + .8 + .7 + .2) / 4 = .65, class 1 (.9 + .7 + .4) / 3 = .667.
        let labels = [0, 0, 0, 0, 1, 1, 1];
        // Confident members: images 0 to 2 of class 0; 3, 4 and 5 of class 1; 6 of none (.6 < .65, .4 < .667).
        // Counts: label 0: 3 and 1 of 4; label 1: 0 and 2, scaled to 3. So one label is wrong, that of image 3.
        assert_eq!(named(&scores, &labels, 2), (1, vec![Doubt { image: 3, instead: 1 }]));
        assert_eq!(doubts(&[], &[], 2), (0, vec![]));
    }

    #[test]
    fn flipped_labels_are_found_among_well_separated_classes() {
        let mut rng = StreamRng::keyed(2, Purpose::Test, &[]);
        let truth: Vec<usize> = (0..3000).map(|i| i % 3).collect();
        let flipped: Vec<bool> = (0..3000).map(|_| rng.unit() < 0.05).collect();
        let labels: Vec<u32> = truth.iter().zip(&flipped).map(|(t, &f)| ((t + usize::from(f)) % 3) as u32).collect();
        let scores: Vec<Vec<f32>> = truth
            .iter()
            .map(|&t| {
                let logits: Vec<f32> = (0..3).map(|c| if c == t { 3.0 } else { 0.0 } + rng.normal()).collect();
                let sum: f32 = logits.iter().map(|l| l.exp()).sum();
                logits.iter().map(|l| l.exp() / sum).collect()
            })
            .collect();
        let (wrong, found) = doubts(&scores, &labels, 3);
        let all = flipped.iter().filter(|&&f| f).count();
        let right = found.iter().filter(|d| flipped[d.image] && d.instead == truth[d.image]).count();
        assert!((all as f64 * 0.7..all as f64 * 1.5).contains(&(wrong as f64)), "{wrong} of {all}");
        assert!(right * 10 >= found.len() * 8, "{right} of {} found are right", found.len());
        assert!(right * 10 >= all * 7, "{right} of {all} are found");
    }

    /// Scores that are too sure or not sure enough are seen through: normal scores of two classes whose likelihood ratio is known,
    /// with labels exchanged.
    #[test]
    fn the_probability_of_a_wrong_label_is_what_it_says() {
        for (sureness, share) in [(1.0, 0.05), (4.0, 0.05), (0.3, 0.1), (1.0, 0.0)] {
            let mut rng = StreamRng::keyed(3, Purpose::Test, &[]);
            let (mut scores, mut labels, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
            for i in 0..4000 {
                let truth = i % 2;
                // Means of 1.5 and -1.5, deviation 1: a log likelihood ratio of 3 x.
                let x = if truth == 1 { 1.5 } else { -1.5 } + f64::from(rng.normal());
                let p = 1.0 / (1.0 + (-3.0 * x * sureness).exp());
                let flipped = rng.unit() < share;
                scores.push(vec![1.0 - p as f32, p as f32]);
                labels.push(truth ^ u32::from(flipped));
                wrong.push(flipped);
            }
            let found = wrongness(&scores, &labels, 2);
            let sum: f64 = found.iter().sum();
            let all = wrong.iter().filter(|&&w| w).count() as f64;
            assert!((sum - all).abs() < 20.0 + 0.15 * all, "{sureness}: {sum} of {all}");
            let (_, doubted) = doubts(&scores, &labels, 2);
            let right = doubted.iter().filter(|d| wrong[d.image]).count() as f64;
            if share > 0.0 {
                let precision = right / doubted.len() as f64;
                assert!(
                    (0.75..=0.95).contains(&precision) && right > 0.4 * all,
                    "{sureness}: {right} of {all}, {precision}"
                );
            } else {
                assert!(doubted.len() < 10, "{} of clean labels", doubted.len());
            }
        }
    }
}
