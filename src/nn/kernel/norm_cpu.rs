//! Batch norm with batch statistics, ReLU, and what else runs along the channels of `[pixels, C]`.

use super::{Isa, Source, Target};
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
    each_pixel(isa, out.pixels(), out, |pixel, row| {
        let values = x[pixel * channels..][..channels].iter().zip(mean).zip(scale).zip(shift);
        for (out, (((x, mean), scale), shift)) in row.iter_mut().zip(values) {
            let y = (x - mean) * scale + shift;
            *out = if y < 0.0 { 0.0 } else { y };
        }
    });
}

/// What a normalisation of a batch was.
#[derive(Clone, Copy, Debug)]
pub struct Fitted<'a> {
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub mean: &'a [f32],
    /// One over the batch's deviation.
    pub rstd: &'a [f32],
}

/// The gradients of `y = relu(gamma * (x - mean) * rstd + beta)` where mean and deviation are the batch's own (Ioffe
/// and Szegedy 2015, section 3): that of `x` into `out`, those of gamma and beta returned.
///
/// Where the ReLU was shut is computed again from `x`, which is read anyway.
///
/// # Panics
/// If lengths differ.
pub fn norm_gradients(isa: Isa, x: &[f32], grad: Source<'_>, fitted: Fitted<'_>, out: &Target<'_>) -> [Vec<f32>; 2] {
    let Fitted { gamma, beta: shift, mean, rstd } = fitted;
    let channels = gamma.len();
    let pixels = grad.pixels();
    assert!(x.len() == pixels * channels && grad.channels() == channels && out.channels() == channels);
    assert!(out.pixels() >= pixels && [shift.len(), mean.len(), rstd.len()] == [channels; 3]);
    let a: Vec<f32> = gamma.iter().zip(rstd).map(|(g, r)| g * r).collect();
    let [beta, centred] = channel_sums(isa, pixels, channels, |pixel, [beta, centred]| {
        let rows = x[pixel * channels..][..channels].iter().zip(grad.row(pixel)).zip(mean).zip(&a).zip(shift);
        for ((beta, centred), ((((x, g), mean), a), shift)) in beta.iter_mut().zip(centred).zip(rows) {
            let d = x - mean;
            let g = if d * a + shift > 0.0 { *g } else { 0.0 };
            *beta += g;
            *centred += g * d;
        }
    });
    let n = pixels as f64;
    // dx = a * g + b * (x - mean) + c
    let b: Vec<f32> =
        (0..channels).map(|i| (-f64::from(a[i]) * f64::from(rstd[i]).powi(2) * centred[i] / n) as f32).collect();
    let c: Vec<f32> = (0..channels).map(|i| (-f64::from(a[i]) * beta[i] / n) as f32).collect();
    each_pixel(isa, pixels, out, |pixel, row| {
        let rows = x[pixel * channels..][..channels].iter().zip(grad.row(pixel)).zip(mean).zip(shift);
        let factors = a.iter().zip(&b).zip(&c);
        for ((out, (((x, g), mean), shift)), ((a, b), c)) in row.iter_mut().zip(rows).zip(factors) {
            let d = x - mean;
            let g = if d * a + shift > 0.0 { *g } else { 0.0 };
            *out = a * g + b * d + c;
        }
    });
    let gamma = centred.iter().zip(rstd).map(|(c, &r)| (c * f64::from(r)) as f32).collect();
    [gamma, beta.iter().map(|&v| v as f32).collect()]
}

/// Calls `f` with every pixel and its row of `out`, in parallel, compiled for `isa`.
fn each_pixel(isa: Isa, pixels: usize, out: &Target<'_>, f: impl Fn(usize, &mut [f32]) + Sync) {
    assert!(out.pixels() >= pixels);
    (0..pixels.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        isa.vectorised(|| {
            for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels) {
                // SAFETY: one task a pixel, and the pixel is the buffer's.
                f(pixel, unsafe { std::slice::from_raw_parts_mut(out.row(pixel), out.channels()) });
            }
        });
    });
}

/// `grad` where `y` is positive, zero elsewhere: the gradient of ReLU.
///
/// # Panics
/// If lengths differ.
pub fn relu_gradient(isa: Isa, y: Source<'_>, grad: Source<'_>, out: &Target<'_>) {
    let shape = (out.pixels(), out.channels());
    assert!((y.pixels(), y.channels()) == shape && (grad.pixels(), grad.channels()) == shape);
    each_pixel(isa, out.pixels(), out, |pixel, row| {
        for (out, (y, g)) in row.iter_mut().zip(y.row(pixel).iter().zip(grad.row(pixel))) {
            *out = if *y > 0.0 { *g } else { 0.0 };
        }
    });
}

/// [`relu_gradient`] and the sum of its result over all pixels, by channel.
///
/// # Panics
/// If lengths differ.
pub fn relu_gradient_sums(isa: Isa, y: Source<'_>, grad: Source<'_>, out: &Target<'_>) -> Vec<f32> {
    let (pixels, channels) = (out.pixels(), out.channels());
    assert!((y.pixels(), y.channels()) == (pixels, channels) && (grad.pixels(), grad.channels()) == (pixels, channels));
    let [sums] = channel_sums(isa, pixels, channels, |pixel, [sums]| {
        // SAFETY: `channel_sums` hands each pixel to one task, and the lengths were checked.
        let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), channels) };
        for ((out, sum), (y, g)) in row.iter_mut().zip(sums).zip(y.row(pixel).iter().zip(grad.row(pixel))) {
            *out = if *y > 0.0 { *g } else { 0.0 };
            *sum += *out;
        }
    });
    sums.iter().map(|&v| v as f32).collect()
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
