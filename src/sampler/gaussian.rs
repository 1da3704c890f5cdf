//! Gaussian-process regression (Rasmussen and Williams 2006) for a few hundred noisy values at most.
//!
//! The kernel is Matérn's with nu = 5/2 and a lengthscale for each axis (eq. 4.17). Lengthscales and noise maximise the posterior
//! density given the values: the priors are the lognormal one of Hvarfner et al. (2024), whose lengthscales grow with the square
//! root of the number of axes, a lognormal one for the noise, and for the function's variance an inverse gamma distribution,
//! which is integrated out.

/// Most observations that choose lengthscales and noise.
pub(super) const MOST_FITTED: usize = 100;
/// Steps of the search for lengthscales and noise.
const STEPS: usize = 40;
/// Variance of the logarithm of a lengthscale.
const LENGTH_VARIANCE: f64 = 3.0;
/// Median of the noise's variance, against that of the function, and standard deviation of its logarithm.
const NOISE: (f64, f64) = (0.01, 2.0);
/// What the prior of the function's variance, whose mean is near 1, counts for, in observations.
const VARIANCE_WEIGHT: f64 = 3.0;
/// Bounds of lengthscales and of the noise's variance.
const LENGTHS: (f64, f64) = (0.02, 100.0);
const NOISES: (f64, f64) = (1e-4, 10.0);

/// How two coordinates of an axis compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// By their difference.
    Ordered,
    /// Equal or not.
    Choice,
}

impl Axis {
    fn squared_distance(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Ordered => (a - b) * (a - b),
            Self::Choice => f64::from(a != b),
        }
    }
}

/// A function known at some points.
#[derive(Debug)]
pub(super) struct Process {
    axes: Vec<Axis>,
    points: Vec<Vec<f64>>,
    shape: Shape,
    /// The Cholesky factor of the points' covariance with noise, over the function's variance.
    factor: Lower,
    /// The covariance's inverse times the values.
    weights: Vec<f64>,
    /// Of the function.
    variance: f64,
}

/// Logarithms of the lengthscales, and of the noise's variance over the function's.
#[derive(Clone, Debug)]
struct Shape {
    lengths: Vec<f64>,
    noise: f64,
}

impl Process {
    /// The process given values (with mean 0 and variance 1, roughly) at points, of which the first `fitted` choose its shape.
    ///
    /// # Panics
    /// If there are no points, or a point has other than the axes' coordinates.
    pub(super) fn new(axes: Vec<Axis>, points: Vec<Vec<f64>>, values: &[f64], fitted: usize) -> Self {
        assert!(!points.is_empty() && points.len() == values.len() && points.iter().all(|p| p.len() == axes.len()));
        let fitted = fitted.clamp(1, points.len());
        let shape = Shape::fit(&axes, &points[..fitted], &values[..fitted]);
        let (factor, noise) = factored(&axes, &points, &shape);
        let shape = Shape { noise, ..shape };
        let weights = factor.solve(values);
        let quadratic = dot(values, &weights);
        let variance = (quadratic + VARIANCE_WEIGHT) / (values.len() as f64 + VARIANCE_WEIGHT);
        Self { axes, points, shape, factor, weights, variance }
    }

    /// Mean and variance of the function, without noise, at a point.
    pub(super) fn predict(&self, at: &[f64]) -> (f64, f64) {
        let row = self.row(at);
        let mean = dot(&row, &self.weights);
        let explained = self.factor.forward(&row);
        (mean, self.variance * (1.0 - dot(&explained, &explained)).max(1e-12))
    }

    /// The mean alone.
    pub(super) fn mean(&self, at: &[f64]) -> f64 {
        dot(&self.row(at), &self.weights)
    }

    /// Adds an observation that is what the process expects: the mean stays as it is, and the variance becomes less there
    /// ("kriging believer", Ginsbourger et al. 2010).
    pub(super) fn believe(&mut self, at: Vec<f64>) {
        let row = self.factor.forward(&self.row(&at));
        let rest = 1.0 + self.shape.noise.exp() - dot(&row, &row);
        self.factor.push(row, rest.max(1e-10).sqrt());
        self.points.push(at);
        self.weights.push(0.0);
    }

    /// Correlations with the points.
    fn row(&self, at: &[f64]) -> Vec<f64> {
        let inverse = self.shape.inverse_squares();
        self.points.iter().map(|point| correlation(squared(&self.axes, &inverse, point, at))).collect()
    }
}

impl Shape {
    fn inverse_squares(&self) -> Vec<f64> {
        self.lengths.iter().map(|length| (-2.0 * length).exp()).collect()
    }

    /// The shape with the largest posterior density: by signs of the gradient alone, with steps that grow while a sign stays and
    /// shrink where it changes (Rprop, Riedmiller and Braun 1993).
    fn fit(axes: &[Axis], points: &[Vec<f64>], values: &[f64]) -> Self {
        let dimensions = axes.len();
        // Those that are fitted may be better ones than the mean.
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let values: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let start = prior_length(dimensions) - LENGTH_VARIANCE; // the mode
        let mut shape = Self { lengths: vec![start; dimensions], noise: NOISE.0.ln() };
        let (mut best, mut most) = (shape.clone(), f64::NEG_INFINITY);
        let (mut steps, mut before) = (vec![0.3; dimensions + 1], vec![0.0; dimensions + 1]);
        for _ in 0..STEPS {
            let Some((density, gradient)) = shape.log_density(axes, points, &values) else { break };
            if density > most {
                (most, best) = (density, shape.clone());
            }
            for (i, &slope) in gradient.iter().enumerate() {
                let turned: f64 = slope * before[i];
                if turned > 0.0 {
                    steps[i] = f64::min(steps[i] * 1.2, 1.0);
                } else if turned < 0.0 {
                    steps[i] *= 0.5;
                }
                let step = steps[i] * if slope == 0.0 { 0.0 } else { slope.signum() };
                let (value, (low, high)) =
                    if i < dimensions { (&mut shape.lengths[i], LENGTHS) } else { (&mut shape.noise, NOISES) };
                *value = (*value + step).clamp(low.ln(), high.ln());
                before[i] = slope;
            }
        }
        best
    }

    /// Logarithm of the posterior density, up to a constant, and its gradient: by the lengths, then by the noise. `None` where
    /// the covariance has no factor.
    ///
    /// With the inverse gamma prior the values have Student's t distribution: the term of the values in the Gaussian likelihood
    /// (Rasmussen and Williams, eq. 5.8) becomes -(n + w) / 2 * ln(w + y' C^-1 y).
    fn log_density(&self, axes: &[Axis], points: &[Vec<f64>], values: &[f64]) -> Option<(f64, Vec<f64>)> {
        let n = points.len();
        let inverse = self.inverse_squares();
        let noise = self.noise.exp();
        let distance = |i: usize, j: usize| squared(axes, &inverse, &points[i], &points[j]);
        let factor = Lower::new(n, |i, j| if i == j { 1.0 + noise } else { correlation(distance(i, j)) })?;
        let weights = factor.solve(values);
        let spread = dot(values, &weights) + VARIANCE_WEIGHT;
        let half = 0.5 * (n as f64 + VARIANCE_WEIGHT);
        let center = prior_length(axes.len());
        let mut density = -half * spread.ln() - factor.log_determinant();
        let mut gradient = vec![0.0; axes.len() + 1];
        for (length, slope) in self.lengths.iter().zip(&mut gradient) {
            let off = length - center;
            density -= length + off * off / (2.0 * LENGTH_VARIANCE);
            *slope = -1.0 - off / LENGTH_VARIANCE;
        }
        let off = (self.noise - NOISE.0.ln()) / NOISE.1;
        density -= 0.5 * off * off;
        let covariance = factor.inverse();
        let (mut trace, scale) = (0.0, 2.0 * half / spread);
        for i in 0..n {
            trace += covariance[i][0];
            for j in 0..i {
                // Twice: the matrix is symmetric. `covariance[j]` begins at its diagonal.
                let pull = scale * weights[i] * weights[j] - covariance[j][i - j];
                let pull = pull * slope_of_correlation(distance(i, j));
                for (k, axis) in axes.iter().enumerate() {
                    gradient[k] += pull * axis.squared_distance(points[i][k], points[j][k]) * inverse[k];
                }
            }
        }
        gradient[axes.len()] = 0.5 * noise * (scale * dot(&weights, &weights) - trace) - off / NOISE.1;
        Some((density, gradient))
    }
}

/// The mean of the logarithm of a lengthscale (Hvarfner et al. 2024).
fn prior_length(dimensions: usize) -> f64 {
    std::f64::consts::SQRT_2 + 0.5 * (dimensions.max(1) as f64).ln()
}

/// The factor of the points' covariance; where numbers are too coarse for one, with more noise.
fn factored(axes: &[Axis], points: &[Vec<f64>], shape: &Shape) -> (Lower, f64) {
    let inverse = shape.inverse_squares();
    let mut noise = shape.noise;
    loop {
        let entry = |i: usize, j: usize| {
            if i == j { 1.0 + noise.exp() } else { correlation(squared(axes, &inverse, &points[i], &points[j])) }
        };
        match Lower::new(points.len(), entry) {
            Some(factor) => return (factor, noise),
            None => noise += 1.0,
        }
    }
}

fn squared(axes: &[Axis], inverse: &[f64], a: &[f64], b: &[f64]) -> f64 {
    axes.iter().zip(inverse).zip(a.iter().zip(b)).map(|((axis, w), (&a, &b))| w * axis.squared_distance(a, b)).sum()
}

/// Matérn's correlation with nu = 5/2 at a squared distance.
fn correlation(squared: f64) -> f64 {
    let s = (5.0 * squared).sqrt();
    (1.0 + s + s * s / 3.0) * (-s).exp()
}

/// Its derivative by the logarithm of a lengthscale, over that axis' part of the squared distance.
fn slope_of_correlation(squared: f64) -> f64 {
    let s = (5.0 * squared).sqrt();
    5.0 / 3.0 * (1.0 + s) * (-s).exp()
}

/// A product of vectors, in eight sums, so that it is computed in vectors of the processor.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let ((a8, a1), (b8, b1)) = (a[..n].as_chunks::<8>(), b[..n].as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + a1.iter().zip(b1).map(|(a, b)| a * b).sum::<f64>()
}

/// A lower triangular matrix; row `i` has `i + 1` entries.
#[derive(Debug)]
struct Lower(Vec<Vec<f64>>);

impl Lower {
    /// The Cholesky factor of a symmetric matrix, given its lower entries; `None` if it is not positive definite.
    fn new(n: usize, entry: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
        for i in 0..n {
            let mut row = Vec::with_capacity(i + 1);
            for (j, other) in rows.iter().enumerate() {
                let rest = entry(i, j) - dot(&row, &other[..j]);
                row.push(rest / other[j]);
            }
            let rest = entry(i, i) - dot(&row, &row);
            row.push((rest > 1e-12).then(|| rest.sqrt())?);
            rows.push(row);
        }
        Some(Self(rows))
    }

    /// Adds a row: what lies before the diagonal, and the diagonal.
    fn push(&mut self, mut row: Vec<f64>, diagonal: f64) {
        row.push(diagonal);
        self.0.push(row);
    }

    /// Half the logarithm of the determinant of the matrix that it is the factor of.
    fn log_determinant(&self) -> f64 {
        self.0.iter().enumerate().map(|(i, row)| row[i].ln()).sum()
    }

    /// `x` in `L x = y`.
    fn forward(&self, y: &[f64]) -> Vec<f64> {
        let mut x = Vec::with_capacity(y.len());
        for (i, (row, y)) in self.0.iter().zip(y).enumerate() {
            x.push((y - dot(&row[..i], &x)) / row[i]);
        }
        x
    }

    /// `x` in `L L' x = y`.
    fn solve(&self, y: &[f64]) -> Vec<f64> {
        let mut x = self.forward(y);
        for i in (0..x.len()).rev() {
            let row = &self.0[i];
            x[i] /= row[i];
            let found = x[i];
            for (x, l) in x[..i].iter_mut().zip(row) {
                *x -= l * found;
            }
        }
        x
    }

    /// The upper half of the inverse of `L L'`: row `i` has the entries from the diagonal on.
    fn inverse(&self) -> Vec<Vec<f64>> {
        let n = self.0.len();
        // Columns of the inverse of L, from their diagonal on.
        let columns: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let mut column = Vec::with_capacity(n - i);
                column.push(1.0 / self.0[i][i]);
                for (k, row) in self.0.iter().enumerate().skip(i + 1) {
                    column.push(-dot(&row[i..k], &column) / row[k]);
                }
                column
            })
            .collect();
        (0..n).map(|i| (i..n).map(|j| dot(&columns[i][j - i..], &columns[j])).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, StreamRng};

    const AXES: [Axis; 3] = [Axis::Ordered, Axis::Choice, Axis::Ordered];

    fn points(n: usize) -> Vec<Vec<f64>> {
        let mut rng = StreamRng::keyed(5, Purpose::Test, &[]);
        (0..n).map(|_| vec![rng.unit(), rng.below(3) as f64, rng.unit()]).collect()
    }

    fn values(points: &[Vec<f64>]) -> Vec<f64> {
        points.iter().map(|p| (6.0 * p[0]).sin() + 0.5 * p[1] - 1.0).collect()
    }

    #[test]
    fn the_gradient_of_the_density_is_that_of_finite_differences() {
        let points = points(12);
        let values = values(&points);
        let shape = Shape { lengths: vec![-0.4, 0.3, 0.9], noise: -1.5 };
        let density = |shape: &Shape| shape.log_density(&AXES, &points, &values).unwrap();
        let (_, gradient) = density(&shape);
        for (i, slope) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut shape = shape.clone();
                *(if i < 3 { &mut shape.lengths[i] } else { &mut shape.noise }) += by;
                density(&shape).0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((difference - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{i}: {difference} {slope}");
        }
    }

    #[test]
    fn a_smooth_function_is_found_and_an_axis_without_effect_is_long() {
        let (seen, unseen) = {
            let mut all = points(80);
            let unseen = all.split_off(60);
            (all, unseen)
        };
        let process = Process::new(AXES.to_vec(), seen.clone(), &values(&seen), 60);
        for (point, value) in unseen.iter().zip(values(&unseen)) {
            let (mean, variance) = process.predict(point);
            assert!((mean - value).abs() < 0.05, "{mean} {value}");
            assert!((mean - value).abs() < 5.0 * variance.sqrt() + 0.01, "{mean} {value} {variance}");
            assert_eq!(mean, process.mean(point));
        }
        assert!(process.shape.lengths[2] > process.shape.lengths[0] + 1.0, "{:?}", process.shape);
        assert!(process.shape.noise.exp() < 0.01, "{:?}", process.shape);
    }

    #[test]
    fn what_is_believed_leaves_the_mean_and_lowers_the_variance() {
        let seen = points(20);
        let mut process = Process::new(AXES.to_vec(), seen.clone(), &values(&seen), 20);
        let (there, elsewhere) = (vec![0.5, 1.0, 0.5], vec![0.52, 1.0, 0.4]);
        let before = (process.predict(&there), process.predict(&elsewhere));
        process.believe(there.clone());
        let after = (process.predict(&there), process.predict(&elsewhere));
        for (a, b) in [(before.0, after.0), (before.1, after.1)] {
            assert!((a.0 - b.0).abs() < 1e-12 && b.1 < a.1, "{a:?} {b:?}");
        }
    }

    #[test]
    fn points_that_coincide_and_values_that_are_equal_do_no_harm() {
        let same = vec![vec![0.5, 1.0, 0.5]; 30];
        let process = Process::new(AXES.to_vec(), same.clone(), &[0.0; 30], 30);
        let (mean, variance) = process.predict(&same[0]);
        assert!(mean == 0.0 && variance > 0.0 && variance.is_finite());
    }
}
