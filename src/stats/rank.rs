//! Ranks and rank correlation.

/// Ranks from 1, equal values sharing the mean of their ranks; the order is that of `f64::total_cmp`.
pub fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (group.len() + 1) as f64 / 2.0;
        before += group.len();
        for &i in group {
            ranks[i] = rank;
        }
    }
    ranks
}

/// Kendall's tau-b of paired values: a tied pair is neither concordant nor discordant. `None` for fewer than two pairs
/// or where one side is constant. O(n^2): meant for the trials of a study, not for images.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    let (mut score, mut untied_a, mut untied_b) = (0i64, 0i64, 0i64);
    for i in 0..n {
        for j in 0..i {
            let sign = |x: &[f64]| x[i].partial_cmp(&x[j]).map_or(0, |o| o as i64);
            let (x, y) = (sign(a), sign(b));
            score += x * y;
            untied_a += x.abs();
            untied_b += y.abs();
        }
    }
    let scale = (untied_a as f64 * untied_b as f64).sqrt();
    (scale > 0.0).then(|| score as f64 / scale)
}

/// Spearman's rank correlation, with midranks. `None` for fewer than two pairs or where one side is constant.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    let (a, b) = (midranks(&a[..n]), midranks(&b[..n]));
    let mean = (n as f64 + 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        ab += (x - mean) * (y - mean);
        aa += (x - mean) * (x - mean);
        bb += (y - mean) * (y - mean);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_mean_rank() {
        assert_eq!(midranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert!(midranks(&[]).is_empty());
    }

    #[test]
    fn kendall_and_spearman_agree_with_scipy() {
        // scipy.stats.kendalltau and spearmanr of the same lists.
        let (a, b) = ([12.0, 2.0, 1.0, 12.0, 2.0], [1.0, 4.0, 7.0, 1.0, 0.0]);
        assert!((kendall_tau(&a, &b).unwrap() + 0.4714045207910316).abs() < 1e-12);
        assert!((spearman(&a, &b).unwrap() + 0.5407380704358752).abs() < 1e-12);
        assert_eq!(kendall_tau(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
    }
}
