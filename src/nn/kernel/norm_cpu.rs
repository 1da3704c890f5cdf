//! Batch norm with batch statistics, ReLU, and what else runs along the channels of `[pixels, C]`.

use super::{Isa, Target};
use rayon::prelude::*;

/// Pixels of one partial sum. A constant: it fixes the order of summation.
const CHUNK: usize = 256;

/// Statistics of a batch, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub mean: Vec<f32>,
    /// Of the batch itself: the sum of squares over n.
    pub variance: Vec<f32>,
}

/// Sums `f(pixel's rows) -> K values a channel` over all pixels: in f32 within a chunk, in f64 across chunks.
fn channel_sums<const K: usize>(
    isa: Isa,
    pixels: usize,
    channels: usize,
    add: impl Fn(usize, [&mut [f32]; K]) + Sync,
) -> [Vec<f64>; K] {
    let parts: Vec<Vec<f32>> = (0..pixels.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut part = vec![0f32; K * channels];
            isa.vectorised(|| {
                for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels) {
                    let mut columns = part.chunks_exact_mut(channels);
                    add(pixel, std::array::from_fn(|_| columns.next().unwrap_or_default()));
                }
            });
            part
        })
        .collect();
    std::array::from_fn(|k| {
        let mut sums = vec![0f64; channels];
        for part in &parts {
            for (sum, value) in sums.iter_mut().zip(&part[k * channels..]) {
                *sum += f64::from(*value);
            }
        }
        sums
    })
}

/// Mean and variance of each channel. Values are taken from the first pixel's, so a mean far from zero costs no
/// digits.
///
/// # Panics
/// If there is no pixel.
pub fn moments(isa: Isa, x: &[f32], channels: usize) -> Moments {
    let pixels = x.len() / channels;
    assert!(pixels > 0, "a batch has pixels");
    let shift = &x[..channels];
    let [sums, squares] = channel_sums(isa, pixels, channels, |pixel, [sums, squares]| {
        let row = &x[pixel * channels..][..channels];
        for (((sum, square), x), shift) in sums.iter_mut().zip(squares).zip(row).zip(shift) {
            let d = x - shift;
            *sum += d;
            *square += d * d;
        }
    });
    let n = pixels as f64;
    let mean = sums.iter().zip(shift).map(|(s, &k)| (f64::from(k) + s / n) as f32).collect();
    let variance = sums.iter().zip(&squares).map(|(s, q)| ((q - s * s / n) / n).max(0.0) as f32).collect();
    Moments { mean, variance }
}

/// `relu((x - mean) * scale + shift)` by channel.
///
/// # Panics
/// If lengths differ.
pub fn normalise_relu(isa: Isa, x: &[f32], mean: &[f32], scale: &[f32], shift: &[f32], out: &Target<'_>) {
    let channels = scale.len();
    assert!(x.len() == out.pixels() * channels && out.channels() == channels);
    assert!(mean.len() == channels && shift.len() == channels);
    (0..out.pixels().div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        isa.vectorised(|| {
            for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(out.pixels()) {
                // SAFETY: one task a pixel; the lengths were checked.
                let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), channels) };
                let values = x[pixel * channels..][..channels].iter().zip(mean).zip(scale).zip(shift);
                for (out, (((x, mean), scale), shift)) in row.iter_mut().zip(values) {
                    let y = (x - mean) * scale + shift;
                    *out = if y < 0.0 { 0.0 } else { y };
                }
            }
        });
    });
}

/// The gradients of `y = relu(gamma * (x - mean) * rstd + beta)` where mean and deviation are the batch's own (Ioffe
/// and Szegedy 2015, section 3): that of `x`, then a row for gamma's and one for beta's.
///
/// # Panics
/// If lengths differ.
pub fn norm_gradients(
    isa: Isa,
    x: &[f32],
    y: &[f32],
    grad: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
) -> Vec<f32> {
    let channels = gamma.len();
    let pixels = x.len() / channels;
    assert!(x.len() == y.len() && y.len() == grad.len() && mean.len() == channels && rstd.len() == channels);
    let [beta, centred] = channel_sums(isa, pixels, channels, |pixel, [beta, centred]| {
        let at = pixel * channels..(pixel + 1) * channels;
        let rows = x[at.clone()].iter().zip(&y[at.clone()]).zip(&grad[at]).zip(mean);
        for ((beta, centred), (((x, y), g), mean)) in beta.iter_mut().zip(centred).zip(rows) {
            let g = if *y > 0.0 { *g } else { 0.0 };
            *beta += g;
            *centred += g * (x - mean);
        }
    });
    let n = pixels as f64;
    // dx = a * g + b * x + c
    let a: Vec<f32> = gamma.iter().zip(rstd).map(|(g, r)| g * r).collect();
    let b: Vec<f32> =
        (0..channels).map(|i| (-f64::from(a[i]) * f64::from(rstd[i]).powi(2) * centred[i] / n) as f32).collect();
    let c: Vec<f32> = (0..channels).map(|i| (-f64::from(a[i]) * beta[i] / n) as f32).collect();
    // SAFETY: every pixel's row is written below, each by one task, and then the two last ones.
    unsafe {
        super::target::written(pixels + 2, channels, |out| {
            (0..pixels.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
                isa.vectorised(|| {
                    for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels) {
                        let row = std::slice::from_raw_parts_mut(out.row(pixel), channels);
                        let at = pixel * channels..(pixel + 1) * channels;
                        let rows = x[at.clone()].iter().zip(&y[at.clone()]).zip(&grad[at]).zip(mean);
                        let factors = a.iter().zip(&b).zip(&c);
                        for ((out, (((x, y), g), mean)), ((a, b), c)) in row.iter_mut().zip(rows).zip(factors) {
                            let g = if *y > 0.0 { *g } else { 0.0 };
                            *out = a * g + b * (x - mean) + c;
                        }
                    }
                });
            });
            for channel in 0..channels {
                out.row(pixels).add(channel).write((centred[channel] * f64::from(rstd[channel])) as f32);
                out.row(pixels + 1).add(channel).write(beta[channel] as f32);
            }
        })
    }
}

/// `grad` where `y` is positive, zero elsewhere: the gradient of ReLU.
///
/// # Panics
/// If lengths differ.
pub fn relu_gradient(isa: Isa, y: &[f32], grad: &[f32], out: &Target<'_>) {
    let channels = out.channels();
    assert!(y.len() == grad.len() && y.len() == out.pixels() * channels);
    (0..out.pixels().div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        isa.vectorised(|| {
            for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(out.pixels()) {
                // SAFETY: one task a pixel; the lengths were checked.
                let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), channels) };
                let at = pixel * channels..(pixel + 1) * channels;
                for (out, (y, g)) in row.iter_mut().zip(y[at.clone()].iter().zip(&grad[at])) {
                    *out = if *y > 0.0 { *g } else { 0.0 };
                }
            }
        });
    });
}

/// The sum of each channel over all pixels.
pub fn sums(isa: Isa, x: &[f32], channels: usize) -> Vec<f32> {
    let [sums] = channel_sums(isa, x.len() / channels, channels, |pixel, [sums]| {
        for (sum, x) in sums.iter_mut().zip(&x[pixel * channels..][..channels]) {
            *sum += x;
        }
    });
    sums.iter().map(|&v| v as f32).collect()
}
