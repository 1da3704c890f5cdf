//! Batch norm with batch statistics, ReLU, and other loops along the channels of `[pixels, C]`.

// Indexed loops over fixed lengths: calls, as of iterators, might not be compiled for the instruction set.
#![allow(clippy::needless_range_loop)]

use super::{Isa, Source, Target};
use rayon::prelude::*;

/// Pixels of one partial sum. A constant: it fixes the order of summation.
const CHUNK: usize = 256;

/// Statistics of a batch, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub mean: Vec<f32>,
    /// Population variance: the sum of squared deviations divided by n.
    pub variance: Vec<f32>,
}

/// Channels processed at a time: one register of AVX-512.
const WIDE: usize = 16;

/// The values of up to `WIDE` channels from `first` on, then zeros. A whole piece is a plain load.
#[inline(always)]
fn piece(row: &[f32], first: usize) -> [f32; WIDE] {
    let row = &row[first..];
    if let Some(whole) = row.first_chunk::<WIDE>() {
        return *whole;
    }
    let mut out = [0f32; WIDE];
    out[..row.len()].copy_from_slice(row);
    out
}

/// The same channels of several rows.
#[inline(always)]
fn piece_of_each<const N: usize>(rows: &[&[f32]; N], first: usize) -> [[f32; WIDE]; N] {
    let mut out = [[0f32; WIDE]; N];
    for n in 0..N {
        out[n] = piece(rows[n], first);
    }
    out
}

/// The same pixel of several sources.
#[inline(always)]
fn row_of_each<'a, const N: usize>(sources: &[Source<'a>; N], pixel: usize) -> [&'a [f32]; N] {
    let mut out = [[].as_slice(); N];
    for n in 0..N {
        out[n] = sources[n].row(pixel);
    }
    out
}

/// The `i`-th value of each.
#[inline(always)]
fn across<const N: usize>(values: &[[f32; WIDE]; N], i: usize) -> [f32; N] {
    let mut out = [0f32; N];
    for n in 0..N {
        out[n] = values[n][i];
    }
    out
}

/// Operands of an element-by-element loop: feature maps, and vectors with one value for each channel.
#[derive(Clone, Copy)]
struct Operands<'a, const S: usize, const P: usize> {
    sources: [Source<'a>; S],
    by_channel: [&'a [f32]; P],
}

impl<const S: usize, const P: usize> Operands<'_, S, P> {
    /// Pixels and channels, which are the same for all.
    fn size(&self) -> (usize, usize) {
        let size = (self.sources[0].pixels(), self.sources[0].channels());
        assert!(self.sources.iter().all(|s| (s.pixels(), s.channels()) == size));
        assert!(self.by_channel.iter().all(|p| p.len() == size.1));
        size
    }
}

/// Writes the K sums over a chunk of pixels into `part`, one row for each.
#[inline(always)]
fn add_up<const S: usize, const P: usize, const K: usize>(
    (operands, pixels, part, f): (
        &Operands<'_, S, P>,
        std::ops::Range<usize>,
        &mut [f32],
        &impl Fn([f32; S], [f32; P]) -> [f32; K],
    ),
) {
    let channels = part.len() / K;
    for first in (0..channels).step_by(WIDE) {
        let of_channel = piece_of_each(&operands.by_channel, first);
        let mut sums = [[0f32; WIDE]; K];
        for pixel in pixels.clone() {
            let values = piece_of_each(&row_of_each(&operands.sources, pixel), first);
            for i in 0..WIDE {
                let terms = f(across(&values, i), across(&of_channel, i));
                for k in 0..K {
                    sums[k][i] += terms[k];
                }
            }
        }
        for k in 0..K {
            let width = WIDE.min(channels - first);
            part[k * channels + first..][..width].copy_from_slice(&sums[k][..width]);
        }
    }
}

/// Sums `f(values of the sources, values of the channel)` over all pixels by channel: in f32 within a chunk, in f64
/// across chunks. `also` is called with the pixels of each chunk before they are summed.
fn channel_sums<const S: usize, const P: usize, const K: usize>(
    isa: Isa,
    operands: Operands<'_, S, P>,
    also: impl Fn(std::ops::Range<usize>) + Sync,
    f: impl Fn([f32; S], [f32; P]) -> [f32; K] + Sync,
) -> [Vec<f64>; K] {
    let (pixels, channels) = operands.size();
    let parts: Vec<Vec<f32>> = (0..pixels.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut part = vec![0f32; K * channels];
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels);
            also(range.clone());
            isa.vectorised((&operands, range, part.as_mut_slice(), &f), add_up);
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

/// Writes `f(values of the sources, values of the channel)` for pixels that no other thread touches.
#[inline(always)]
fn write_pixels<const S: usize, const P: usize>(
    (operands, pixels, out, f): (
        &Operands<'_, S, P>,
        std::ops::Range<usize>,
        &Target<'_>,
        &impl Fn([f32; S], [f32; P]) -> f32,
    ),
) {
    let channels = out.channels();
    for pixel in pixels {
        // SAFETY: callers hand each pixel of `out` to one task.
        let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), channels) };
        let rows = row_of_each(&operands.sources, pixel);
        for first in (0..channels).step_by(WIDE) {
            let of_channel = piece_of_each(&operands.by_channel, first);
            let values = piece_of_each(&rows, first);
            let mut results = [0f32; WIDE];
            for i in 0..WIDE {
                results[i] = f(across(&values, i), across(&of_channel, i));
            }
            let row = &mut row[first..];
            match row.first_chunk_mut::<WIDE>() {
                Some(whole) => *whole = results,
                None => row.copy_from_slice(&results[..row.len()]),
            }
        }
    }
}

/// Writes `f(values of the sources, values of the channel)` for every pixel of the sources.
fn write_all<const S: usize, const P: usize>(
    isa: Isa,
    operands: Operands<'_, S, P>,
    out: &Target<'_>,
    f: impl Fn([f32; S], [f32; P]) -> f32 + Sync,
) {
    let (pixels, channels) = operands.size();
    assert!(out.pixels() >= pixels && out.channels() == channels);
    (0..pixels.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels);
        isa.vectorised((&operands, range, out, &f), write_pixels);
    });
}

/// Mean and variance of each channel. The first pixel's values are subtracted before summing, so a mean far from zero
/// costs no precision.
///
/// # Panics
/// If there is no pixel.
pub fn moments(isa: Isa, x: &[f32], channels: usize) -> Moments {
    let x = Source::whole(x, channels);
    assert!(x.pixels() > 0, "a batch has pixels");
    let shift = x.row(0);
    let [sums, squares] = channel_sums(
        isa,
        Operands { sources: [x], by_channel: [shift] },
        |_| (),
        |[x], [shift]| [x - shift, (x - shift) * (x - shift)],
    );
    let n = x.pixels() as f64;
    let mean = sums.iter().zip(shift).map(|(s, &k)| (f64::from(k) + s / n) as f32).collect();
    let variance = sums.iter().zip(&squares).map(|(s, q)| ((q - s * s / n) / n).max(0.0) as f32).collect();
    Moments { mean, variance }
}

/// `1 / sqrt(variance + eps)`.
pub fn rstd(variance: &[f32], eps: f32) -> Vec<f32> {
    variance.iter().map(|&v| (1.0 / (f64::from(v) + f64::from(eps)).sqrt()) as f32).collect()
}

/// `relu((x - mean) * scale + shift)` by channel.
///
/// # Panics
/// If lengths differ.
pub fn normalise_relu(isa: Isa, x: &[f32], mean: &[f32], scale: &[f32], shift: &[f32], out: &Target<'_>) {
    let x = Source::whole(x, scale.len());
    assert_eq!(x.pixels(), out.pixels());
    write_all(isa, Operands { sources: [x], by_channel: [mean, scale, shift] }, out, |[x], [mean, scale, shift]| {
        let y = (x - mean) * scale + shift;
        if y < 0.0 { 0.0 } else { y }
    });
}

/// Parameters and statistics of a batch norm's forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Fitted<'a> {
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub mean: &'a [f32],
    /// `1 / sqrt(variance + eps)` of the batch.
    pub rstd: &'a [f32],
}

/// The gradients of `y = relu(gamma * (x - mean) * rstd + beta)` where mean and deviation are the batch's own (Ioffe
/// and Szegedy 2015, section 3): that of `x` is written to `out`, those of gamma and beta are returned.
///
/// Where the ReLU was inactive is recomputed from `x`, which is read anyway.
///
/// # Panics
/// If lengths differ.
pub fn norm_gradients(isa: Isa, x: &[f32], grad: Source<'_>, fitted: Fitted<'_>, out: &Target<'_>) -> [Vec<f32>; 2] {
    let Fitted { gamma, beta: shift, mean, rstd } = fitted;
    let channels = gamma.len();
    let x = Source::whole(x, channels);
    assert_eq!([shift.len(), mean.len(), rstd.len()], [channels; 3]);
    let a: Vec<f32> = gamma.iter().zip(rstd).map(|(g, r)| g * r).collect();
    let through = |d: f32, g: f32, a: f32, shift: f32| if d * a + shift > 0.0 { g } else { 0.0 };
    let [beta, centred] = channel_sums(
        isa,
        Operands { sources: [x, grad], by_channel: [mean, &a, shift] },
        |_| (),
        |[x, g], [mean, a, shift]| {
            let g = through(x - mean, g, a, shift);
            [g, g * (x - mean)]
        },
    );
    let n = x.pixels() as f64;
    // dx = a * g + b * (x - mean) + c
    let b: Vec<f32> =
        (0..channels).map(|i| (-f64::from(a[i]) * f64::from(rstd[i]).powi(2) * centred[i] / n) as f32).collect();
    let c: Vec<f32> = (0..channels).map(|i| (-f64::from(a[i]) * beta[i] / n) as f32).collect();
    write_all(
        isa,
        Operands { sources: [x, grad], by_channel: [mean, &a, shift, &b, &c] },
        out,
        |[x, g], [mean, a, shift, b, c]| a * through(x - mean, g, a, shift) + b * (x - mean) + c,
    );
    let gamma = centred.iter().zip(rstd).map(|(c, &r)| (c * f64::from(r)) as f32).collect();
    [gamma, beta.iter().map(|&v| v as f32).collect()]
}

/// `grad` where `y` is positive, zero elsewhere.
#[inline(always)]
fn opened([y, grad]: [f32; 2], []: [f32; 0]) -> f32 {
    if y > 0.0 { grad } else { 0.0 }
}

/// `grad` where `y` is positive, zero elsewhere: the gradient of ReLU.
///
/// # Panics
/// If lengths differ.
pub fn relu_gradient(isa: Isa, y: Source<'_>, grad: Source<'_>, out: &Target<'_>) {
    assert_eq!(y.pixels(), out.pixels());
    write_all(isa, Operands { sources: [y, grad], by_channel: [] }, out, opened);
}

/// [`relu_gradient`] and the sum of its result over all pixels, by channel.
///
/// # Panics
/// If lengths differ.
pub fn relu_gradient_sums(isa: Isa, y: Source<'_>, grad: Source<'_>, out: &Target<'_>) -> Vec<f32> {
    assert_eq!((y.pixels(), y.channels()), (out.pixels(), out.channels()));
    assert_eq!((grad.pixels(), grad.channels()), (out.pixels(), out.channels()));
    // A chunk is still in the cache when it is summed.
    let operands = Operands { sources: [y, grad], by_channel: [] };
    let write = |pixels| isa.vectorised((&operands, pixels, out, &opened), write_pixels);
    let [sums] = channel_sums(isa, operands, write, |values, none| [opened(values, none)]);
    sums.iter().map(|&v| v as f32).collect()
}

/// The sum of each channel over all pixels.
pub fn sums(isa: Isa, x: &[f32], channels: usize) -> Vec<f32> {
    let [sums] =
        channel_sums(isa, Operands { sources: [Source::whole(x, channels)], by_channel: [] }, |_| (), |[x], []| [x]);
    sums.iter().map(|&v| v as f32).collect()
}
