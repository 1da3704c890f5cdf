//! Pools and their gradients.

#![allow(clippy::needless_range_loop)]

use super::{ConvShape, Isa, Source, Target};
use rayon::prelude::*;

/// Pixels of one task.
const CHUNK: usize = 64;

/// The source pixels under window position (`y`, `x`) of an image, in row-major order of the window.
fn under(shape: &ConvShape, image: usize, y: usize, x: usize) -> impl Iterator<Item = usize> + Clone {
    let [h, w] = shape.input;
    let win = shape.window;
    let along = move |axis: usize, at: usize, length: usize| {
        let start = at * win.stride;
        start.saturating_sub(win.padding[axis])
            ..(start + win.kernel[axis]).saturating_sub(win.padding[axis]).min(length)
    };
    let columns = along(1, x, w);
    along(0, y, h).flat_map(move |y| columns.clone().map(move |x| (image * h + y) * w + x))
}

/// Calls `f` with every output pixel and its image, row and column, in parallel.
fn each_output(shape: &ConvShape, f: impl Fn(usize, [usize; 3]) + Sync) {
    let [oh, ow] = shape.output;
    let pixels = shape.output_pixels();
    (0..pixels.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        for pixel in chunk * CHUNK..((chunk + 1) * CHUNK).min(pixels) {
            f(pixel, [pixel / (oh * ow), pixel / ow % oh, pixel % ow]);
        }
    });
}

fn check(shape: &ConvShape, x: &[f32], out: &Target<'_>) {
    assert_eq!(shape.cin, shape.cout);
    assert_eq!(x.len(), shape.input_pixels() * shape.cin);
    assert_eq!((out.pixels(), out.channels()), (shape.output_pixels(), shape.cin));
}

// The loops over channels, for `Isa::vectorised`. By index over slices of one length: no calls.

#[inline(always)]
fn raise((best, values): (&mut [f32], &[f32])) {
    let values = &values[..best.len()];
    for i in 0..best.len() {
        let value = values[i];
        best[i] = if value > best[i] || value.is_nan() { value } else { best[i] };
    }
}

#[inline(always)]
fn add_scaled((sums, values, factor): (&mut [f32], &[f32], f32)) {
    let values = &values[..sums.len()];
    for i in 0..sums.len() {
        sums[i] += values[i] * factor;
    }
}

#[inline(always)]
fn scale_shift_relu((values, factor, shift): (&mut [f32], f32, &[f32])) {
    let shift = &shift[..values.len()];
    for i in 0..values.len() {
        let y = values[i] * factor + shift[i];
        values[i] = if y < 0.0 { 0.0 } else { y };
    }
}

/// Adds `rest` to `out` where the value is the maximum, and sets `rest` to zero there.
#[inline(always)]
fn hand_out((out, rest, values, best): (&mut [f32], &mut [f32], &[f32], &[f32])) {
    let n = out.len();
    let (rest, values, best) = (&mut rest[..n], &values[..n], &best[..n]);
    for i in 0..n {
        let hit = values[i] == best[i];
        out[i] += if hit { rest[i] } else { 0.0 };
        rest[i] = if hit { 0.0 } else { rest[i] };
    }
}

/// The largest value under each window; padding never wins, NaN always does.
///
/// # Panics
/// If a length does not fit the shape.
pub fn max(isa: Isa, shape: &ConvShape, x: &[f32], out: &Target<'_>) {
    check(shape, x, out);
    let c = shape.cin;
    each_output(shape, |pixel, [image, y, x0]| {
        // SAFETY: each pixel belongs to one task, and `check` verified the lengths.
        let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), c) };
        row.fill(f32::NEG_INFINITY);
        for source in under(shape, image, y, x0) {
            isa.vectorised((row as &mut [f32], &x[source * c..][..c]), raise);
        }
    });
}

/// Adds the gradient of [`max`] to `out`: each window's gradient goes to its first maximum (as in torch).
///
/// # Panics
/// If a length does not fit the shape.
pub fn add_max_gradient(isa: Isa, shape: &ConvShape, x: &[f32], y: Source<'_>, grad: Source<'_>, out: &mut [f32]) {
    let c = shape.cin;
    assert!(x.len() == shape.input_pixels() * c && out.len() == x.len());
    let fits = |s: &Source<'_>| (s.pixels(), s.channels()) == (shape.output_pixels(), c);
    assert!(fits(&y) && fits(&grad));
    // Windows overlap, so an image belongs to one task.
    out.par_chunks_mut((shape.input[0] * shape.input[1] * c).max(1)).enumerate().for_each(|(image, out)| {
        let [h, w] = shape.input;
        let [oh, ow] = shape.output;
        let mut rest = vec![0f32; c];
        for position in 0..oh * ow {
            let pixel = image * oh * ow + position;
            rest.copy_from_slice(grad.row(pixel));
            for source in under(shape, image, position / ow, position % ow) {
                let out = &mut out[(source - image * h * w) * c..][..c];
                isa.vectorised((out, rest.as_mut_slice(), &x[source * c..][..c], y.row(pixel)), hand_out);
            }
        }
    });
}

/// What the mean of each window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The full window, padding included.
    Window,
    /// The pixels inside the image.
    Inside,
}

impl Divisor {
    fn reciprocal(self, shape: &ConvShape, y: usize, x: usize) -> f32 {
        let count = match self {
            Self::Window => shape.window.taps(),
            Self::Inside => under(shape, 0, y, x).count(),
        };
        1.0 / count as f32
    }
}

/// The mean under each window; with a bias, `relu(mean + bias)`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn average(isa: Isa, shape: &ConvShape, divisor: Divisor, x: &[f32], bias_relu: Option<&[f32]>, out: &Target<'_>) {
    check(shape, x, out);
    let c = shape.cin;
    each_output(shape, |pixel, [image, y, x0]| {
        let factor = divisor.reciprocal(shape, y, x0);
        // SAFETY: each pixel belongs to one task, and `check` verified the lengths.
        let row = unsafe { std::slice::from_raw_parts_mut(out.row(pixel), c) };
        row.fill(0.0);
        for source in under(shape, image, y, x0) {
            isa.vectorised((row as &mut [f32], &x[source * c..][..c], 1.0), add_scaled);
        }
        match bias_relu {
            None => row.iter_mut().for_each(|v| *v *= factor),
            Some(bias) => isa.vectorised((row as &mut [f32], factor, &bias[..c]), scale_shift_relu),
        }
    });
}

/// Adds the gradient of [`average`] without bias to `out`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn add_average_gradient(isa: Isa, shape: &ConvShape, divisor: Divisor, grad: Source<'_>, out: &mut [f32]) {
    let c = shape.cin;
    assert_eq!((grad.pixels(), grad.channels()), (shape.output_pixels(), c));
    assert_eq!(out.len(), shape.input_pixels() * c);
    let [h, w] = shape.input;
    let [oh, ow] = shape.output;
    let factors: Vec<f32> = (0..oh * ow).map(|p| divisor.reciprocal(shape, p / ow, p % ow)).collect();
    // Windows overlap, so an image belongs to one task.
    out.par_chunks_mut((h * w * c).max(1)).enumerate().for_each(|(image, out)| {
        for (position, &factor) in factors.iter().enumerate() {
            let grad = grad.row(image * oh * ow + position);
            for source in under(shape, image, position / ow, position % ow) {
                let out = &mut out[(source - image * h * w) * c..][..c];
                isa.vectorised((out, grad, factor), add_scaled);
            }
        }
    });
}
