//! Labels that the images contradict: confident learning (Northcutt, Jiang and Chuang 2021).

/// A label that is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The image.
    pub image: usize,
    /// The class that it seems to be.
    pub instead: usize,
}

/// The estimated number of wrong labels, and the images most likely among them, the least probable label first. `scores`:
/// softmax scores of each image by a model that has not seen it.
///
/// An image counts as a confident member of the class of highest score among those whose score reaches the mean score that
/// the class has on images of this label (equation 1 of the paper); the counts, scaled to the numbers of images of each label
/// (equation 3), estimate how many images of a label are of another class. So many with the largest difference of the two
/// scores are chosen (its method "prune by noise rate"), and of these those that are confident members of the other class.
pub fn doubts(scores: &[Vec<f32>], labels: &[u32], classes: usize) -> (u64, Vec<Doubt>) {
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
        assert_eq!(doubts(&scores, &labels, 2), (1, vec![Doubt { image: 3, instead: 1 }]));
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
}
