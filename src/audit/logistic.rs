//! Scores of images by a classifier that has not seen them: multinomial logistic regression, cross-validated.

use candle_core::{Device, Result, Tensor};

/// Steps of gradient descent after which the held-out images are scored. Stopping early is what keeps the weights small; how
/// early is chosen once, by the loss on all held-out images together.
const STOPS: [usize; 9] = [2, 4, 8, 12, 20, 32, 50, 80, 120];

/// Standardised values beyond this are cut off: one odd file must not decide.
const LARGEST: f32 = 5.0;

/// A table of values, a row for each image.
pub struct Table {
    pub values: Vec<f32>,
    pub width: usize,
}

impl Table {
    /// From one row for each image.
    ///
    /// # Panics
    /// If the rows have different lengths.
    pub fn new(rows: &[Vec<f32>]) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        assert!(rows.iter().all(|row| row.len() == width), "rows of one length");
        Self { values: rows.concat(), width }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }
}

/// Softmax scores of every image by a model of the other folds' images. `folds[i]`: the fold of image `i`, below `count`.
///
/// # Errors
/// If an operation fails.
pub fn held_out_scores(
    table: &Table,
    labels: &[u32],
    classes: usize,
    folds: &[usize],
    count: usize,
) -> Result<Vec<Vec<f32>>> {
    let n = table.len();
    let mut scores = vec![vec![vec![0f32; classes]; n]; STOPS.len()];
    for fold in 0..count {
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| folds[i] == fold);
        if out.is_empty() || kept.is_empty() {
            continue;
        }
        let (means, scales) = moments(table, &kept);
        let standard = |images: &[usize]| {
            let value = |(j, v): (usize, &f32)| ((v - means[j]) * scales[j]).clamp(-LARGEST, LARGEST);
            let values: Vec<f32> = images.iter().flat_map(|&i| table.row(i).iter().enumerate().map(value)).collect();
            Tensor::from_vec(values, (images.len(), table.width), &Device::Cpu)
        };
        let truth: Vec<u32> = kept.iter().map(|&i| labels[i]).collect();
        let (x, held) = (standard(&kept)?, standard(&out)?);
        for (stop, at_stop) in fit(&x, &truth, classes, &held)?.into_iter().enumerate() {
            out.iter().zip(at_stop).for_each(|(&i, row)| scores[stop][i] = row);
        }
    }
    let loss = |scores: &Vec<Vec<f32>>| -> f64 {
        scores.iter().zip(labels).map(|(row, &label)| -f64::from(row[label as usize].max(1e-12)).ln()).sum()
    };
    let best = scores.into_iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
    Ok(best.unwrap_or_default())
}

/// Of every column its mean, and one over its standard deviation; 0 for a constant one.
fn moments(table: &Table, rows: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let n = rows.len() as f64;
    let (mut sums, mut squares) = (vec![0f64; table.width], vec![0f64; table.width]);
    for &i in rows {
        table.row(i).iter().enumerate().for_each(|(j, &v)| sums[j] += f64::from(v));
    }
    let means: Vec<f64> = sums.iter().map(|s| s / n).collect();
    for &i in rows {
        table.row(i).iter().enumerate().for_each(|(j, &v)| squares[j] += (f64::from(v) - means[j]).powi(2));
    }
    let scale = |(s, mean): (&f64, &f64)| {
        let deviation = (s / n).sqrt();
        if deviation > 1e-6 * mean.abs().max(1e-6) { (1.0 / deviation) as f32 } else { 0.0 }
    };
    let scales = squares.iter().zip(&means).map(scale).collect();
    (means.into_iter().map(|m| m as f32).collect(), scales)
}

/// Fits to `x`, `[N, D]`, and scores `held` after each of [`STOPS`] steps. The loss's Hessian is at most half the largest
/// eigenvalue of `x'x / N` (Boehning 1992), which gives the step; momentum is Nesterov's.
fn fit(x: &Tensor, labels: &[u32], classes: usize, held: &Tensor) -> Result<Vec<Vec<Vec<f32>>>> {
    let (n, d) = x.dims2()?;
    let one_hot: Vec<f32> =
        labels.iter().flat_map(|&l| (0..classes).map(move |c| f32::from(c == l as usize))).collect();
    let targets = Tensor::from_vec(one_hot, (n, classes), &Device::Cpu)?;
    let transposed = x.t()?.contiguous()?;
    let step = 2.0 / (largest_eigenvalue(x, &transposed)? / n as f64).max(1.0);
    let mut weights = Tensor::zeros((d, classes), candle_core::DType::F32, &Device::Cpu)?;
    // The intercept begins where it would end without any features.
    let counts = targets.sum_keepdim(0)?;
    let mut intercept = ((counts + 1.0)? / n as f64)?.log()?;
    let (mut ahead, mut ahead_intercept) = (weights.clone(), intercept.clone());
    let mut stops = Vec::new();
    for t in 0..STOPS[STOPS.len() - 1] {
        let scores = candle_nn::ops::softmax(&x.matmul(&ahead)?.broadcast_add(&ahead_intercept)?, 1)?;
        let error = ((scores - &targets)? / n as f64)?;
        let next = (&ahead - (transposed.matmul(&error)? * step)?)?;
        let next_intercept = (&ahead_intercept - error.sum_keepdim(0)?)?;
        let momentum = t as f64 / (t as f64 + 3.0);
        ahead = (&next + ((&next - &weights)? * momentum)?)?;
        ahead_intercept = (&next_intercept + ((&next_intercept - &intercept)? * momentum)?)?;
        (weights, intercept) = (next, next_intercept);
        if STOPS.contains(&(t + 1)) {
            let scores = candle_nn::ops::softmax(&held.matmul(&weights)?.broadcast_add(&intercept)?, 1)?;
            stops.push(scores.to_vec2()?);
        }
    }
    Ok(stops)
}

/// That of `x'x`, by the power method.
fn largest_eigenvalue(x: &Tensor, transposed: &Tensor) -> Result<f64> {
    let d = x.dim(1)?;
    let start: Vec<f32> = (0..d).map(|i| 1.0 + (i % 7) as f32 / 7.0).collect();
    let mut v = Tensor::from_vec(start, (d, 1), &Device::Cpu)?;
    let mut largest = 0.0;
    for _ in 0..12 {
        let norm = f64::from(v.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
        if norm == 0.0 {
            return Ok(0.0);
        }
        v = (v / norm)?;
        v = transposed.matmul(&x.matmul(&v)?)?;
        largest = f64::from(v.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ranked;
    use crate::rng::{Purpose, StreamRng};

    fn area(scores: &[Vec<f32>], labels: &[u32]) -> f64 {
        let scores: Vec<f64> = scores.iter().map(|row| row[1].into()).collect();
        let truth: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
        Ranked::new(&scores, &truth).unwrap().curve().roc_auc().unwrap()
    }

    #[test]
    fn held_out_scores_know_what_can_be_known_and_no_more() {
        let mut rng = StreamRng::keyed(1, Purpose::Test, &[]);
        let labels: Vec<u32> = (0..600).map(|i| u32::from(i % 4 == 0)).collect();
        let folds: Vec<usize> = (0..600).map(|i| i / 7 % 5).collect();
        // 40 values of noise, one constant, one shifted by 2 standard deviations between the classes: an area of
        // cdf(2 / sqrt 2) = .921.
        let mut row = |shift: f32| -> Vec<f32> {
            let noise = (0..40).map(|_| 1e3 * rng.normal());
            noise.chain([7.0]).collect::<Vec<_>>().into_iter().chain([shift + rng.normal()]).collect()
        };
        let informed: Vec<Vec<f32>> = labels.iter().map(|&l| row(2.0 * l as f32)).collect();
        let blind: Vec<Vec<f32>> = labels.iter().map(|_| row(0.0)).collect();
        let scores = |rows: &[Vec<f32>]| held_out_scores(&Table::new(rows), &labels, 2, &folds, 5).unwrap();
        let informed = scores(&informed);
        let found = area(&informed, &labels);
        assert!((0.87..0.95).contains(&found), "{found}");
        let blind = scores(&blind);
        let found = area(&blind, &labels);
        assert!((0.42..0.58).contains(&found), "{found}");
        // Scores are probabilities, and without knowledge they are the share of the class.
        assert!(informed.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        let mean = blind.iter().map(|row| row[1]).sum::<f32>() / 600.0;
        assert!((mean - 0.25).abs() < 0.02, "{mean}");
    }
}
