//! The standard normal distribution.

use std::f64::consts::PI;

fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// The distribution function. Marsaglia's series (2004) in the middle, a continued fraction in the tails, so
/// that small tail probabilities keep their relative precision.
pub fn cdf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x.abs() < 4.0 {
        let (mut term, mut sum, mut i) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            i += 2.0;
            term *= x * x / i;
            sum += term;
        }
        return 0.5 + sum * density(x);
    }
    let z = x.abs();
    if z > 40.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    // Mills' ratio as 1/(z+1/(z+2/(z+3/...))), from the far end.
    let fraction = (1..=60).rev().fold(z, |tail, k| z + f64::from(k) / tail);
    let tail = density(z) / fraction;
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// The quantile function: infinite at 0 and 1, NaN outside 0..=1. Acklam's rational approximation (relative
/// error 1.2e-9), then one step of Halley's method to the precision of [`cdf`].
pub fn quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e+01,
        2.209460984245205e+02,
        -2.759285104469687e+02,
        1.38357751867269e+02,
        -3.066479806614716e+01,
        2.506628277459239e+00,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e+01,
        1.615858368580409e+02,
        -1.556989798598866e+02,
        6.680131188771972e+01,
        -1.328068155288572e+01,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-03,
        -3.223964580411365e-01,
        -2.400758277161838e+00,
        -2.549732539343734e+00,
        4.374664141464968,
        2.938163982698783e+00,
    ];
    const D: [f64; 5] =
        [7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00, 1.0];
    fn horner(c: &[f64], x: f64) -> f64 {
        c.iter().fold(0.0, |sum, c| sum * x + c)
    }
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if p > 0.5 {
        // The lower tail keeps its digits; 1 - p is exact here.
        return -quantile(1.0 - p);
    }
    let x = if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / horner(&D, q)
    } else {
        let q = p - 0.5;
        let r = q * q;
        q * horner(&A, r) / horner(&B, r)
    };
    let error = (cdf(x) - p) / density(x);
    if error.is_finite() { x - error / (1.0 + 0.5 * x * error) } else { x }
}

/// The expected largest of `k` independent standard normal numbers: by how much the best of `k` equally good models
/// overstates its performance, in standard errors. Trapezoid rule on the density of the maximum; 0 for `k` of 0 and 1.
pub fn expected_maximum(k: usize) -> f64 {
    if k < 2 {
        return 0.0;
    }
    const STEP: f64 = 0.01;
    let exponent = (k - 1) as f64;
    (-1000..=1000)
        .map(|i| {
            let x = f64::from(i) * STEP;
            x * density(x) * (exponent * cdf(x).ln()).exp()
        })
        .sum::<f64>()
        * STEP
        * k as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_function_has_the_published_values() {
        // scipy.stats.norm.cdf.
        for (x, p) in [
            (0.0, 0.5),
            (1.0, 0.8413447460685429),
            (-1.0, 0.15865525393145707),
            (1.959963984540054, 0.975),
            (-3.0, 0.0013498980316300933),
            (-5.0, 2.866515718791933e-07),
            (-10.0, 7.61985302416047e-24),
            (6.0, 0.9999999990134123),
        ] {
            assert!((cdf(x) / p - 1.0).abs() < 1e-12, "cdf({x}) = {}", cdf(x));
        }
    }

    #[test]
    fn the_quantile_is_the_inverse_of_the_distribution_function() {
        assert!((quantile(0.975) - 1.959963984540054).abs() < 1e-14);
        assert!((quantile(1e-10) + 6.361340902404056).abs() < 1e-11);
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((cdf(quantile(p)) - p).abs() < 1e-14, "at {p}");
        }
        assert!(quantile(1.5).is_nan());
        assert_eq!(quantile(1.0), f64::INFINITY);
    }

    #[test]
    fn the_best_of_equal_models_looks_better_than_it_is() {
        // Harter (1961), expected values of normal order statistics.
        for (k, e) in [(1, 0.0), (2, 0.56419), (10, 1.53875), (20, 1.86748), (60, 2.31928), (100, 2.50759)] {
            assert!((expected_maximum(k) - e).abs() < 1e-5, "best of {k}: {}", expected_maximum(k));
        }
    }
}
