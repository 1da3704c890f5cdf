//! Stratified assignment of groups to parts.

/// Assigns each group to a part, so that every part's share of every class is close to `shares`.
///
/// `sizes[g][c]` counts the images of class `c` in group `g`. Groups are placed in the order given, each where it
/// most reduces the squared relative deviations from the targets, summed over classes (the greedy rule of
/// scikit-learn's `StratifiedGroupKFold`, for unequal shares). If every group is a single image, every part gets
/// exactly its rounded target. Every part's target is at least one image of a class while there are enough, and the
/// last groups of a class go to the parts that have none of it yet.
pub(super) fn assign(sizes: &[Vec<usize>], shares: &[f64]) -> Vec<usize> {
    let classes = sizes.first().map_or(0, Vec::len);
    let totals: Vec<usize> = (0..classes).map(|c| sizes.iter().map(|s| s[c]).sum()).collect();
    let targets: Vec<Vec<f64>> = totals.iter().map(|&n| targets(n, shares)).collect();
    let mut filled = vec![vec![0.0; classes]; shares.len()];
    let mut left: Vec<usize> = (0..classes).map(|c| sizes.iter().filter(|s| s[c] > 0).count()).collect();
    sizes
        .iter()
        .map(|size| {
            // The change of sum over c of ((filled - target) / total)^2 when the group goes to `part`.
            let cost = |part: usize| -> f64 {
                (0..classes)
                    .filter(|&c| size[c] > 0)
                    .map(|c| {
                        let (add, gap) = (size[c] as f64, filled[part][c] - targets[c][part]);
                        add * (2.0 * gap + add) / (totals[c] as f64).powi(2)
                    })
                    .sum()
            };
            let empty = |c: usize| filled.iter().filter(|f| f[c] == 0.0).count();
            let scarce = (0..classes).find(|&c| size[c] > 0 && empty(c) > 0 && left[c] <= empty(c));
            let parts = (0..shares.len()).filter(|&part| scarce.is_none_or(|c| filled[part][c] == 0.0));
            // `min_by` keeps the first of equals.
            let part = parts.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
            for c in (0..classes).filter(|&c| size[c] > 0) {
                filled[part][c] += size[c] as f64;
                left[c] -= 1;
            }
            part
        })
        .collect()
}

/// Integer targets that sum to `n`: rounded shares, at least one each where `n` allows.
fn targets(n: usize, shares: &[f64]) -> Vec<f64> {
    let least = usize::from(n >= shares.len());
    let exact: Vec<f64> = shares.iter().map(|s| s * n as f64).collect();
    let mut targets: Vec<usize> = exact.iter().map(|e| (e.floor() as usize).max(least)).collect();
    loop {
        let sum: usize = targets.iter().sum();
        // The part farthest from its exact share gains or loses one image; the first among equals.
        let gap = |i: usize| exact[i] - targets[i] as f64;
        let parts = 0..shares.len();
        if sum < n {
            let i = parts.rev().max_by(|&a, &b| gap(a).total_cmp(&gap(b))).unwrap_or(0);
            targets[i] += 1;
        } else if sum > n {
            let i = parts.filter(|&i| targets[i] > least).min_by(|&a, &b| gap(a).total_cmp(&gap(b))).unwrap_or(0);
            targets[i] -= 1;
        } else {
            return targets.into_iter().map(|t| t as f64).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_sum_up_and_leave_no_part_empty() {
        assert_eq!(targets(100, &[0.2, 0.8]), [20.0, 80.0]);
        assert_eq!(targets(3, &[0.1, 0.9]), [1.0, 2.0]);
        assert_eq!(targets(7, &[0.25; 4]), [2.0, 2.0, 2.0, 1.0]);
        assert_eq!(targets(2, &[0.25; 4]).iter().sum::<f64>(), 2.0);
        assert_eq!(targets(5, &[0.01, 0.99]), [1.0, 4.0]);
    }

    #[test]
    fn single_images_fill_their_targets_exactly() {
        let sizes: Vec<Vec<usize>> = (0..103).map(|i| if i % 3 == 0 { vec![1, 0] } else { vec![0, 1] }).collect();
        let parts = assign(&sizes, &[0.2, 0.8]);
        let count = |part, class: usize| (0..103).filter(|&i| parts[i] == part && sizes[i][class] == 1).count();
        // 35 and 68 images: a fifth is 7 and 13.6.
        assert_eq!([count(0, 0), count(0, 1), count(1, 0), count(1, 1)], [7, 14, 28, 54]);
    }

    #[test]
    fn every_part_gets_something_of_a_class_that_has_few_groups() {
        assert_eq!(assign(&[vec![5], vec![5]], &[0.2, 0.8]), [1, 0]);
        let mut thirds = assign(&[vec![9, 1], vec![1, 4], vec![1, 1]], &[0.1, 0.1, 0.8]);
        thirds.sort_unstable();
        assert_eq!(thirds, [0, 1, 2]);
    }

    #[test]
    fn a_large_group_does_not_go_to_a_small_part() {
        let sizes =
            [vec![40], vec![1], vec![1], vec![1], vec![1], vec![1], vec![1], vec![1], vec![1], vec![1], vec![1]];
        let parts = assign(&sizes, &[0.2, 0.8]);
        assert_eq!(parts[0], 1);
        assert_eq!(parts.iter().filter(|&&p| p == 0).count(), 10);
    }
}
