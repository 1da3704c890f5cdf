//! From stored u8 pixels to one view in the network's layout.
//!
//! Definition: every source pixel p becomes `min((p + w s) b, 255)`, where s is the Sobel magnitude there (a quarter of
//! the length of the two 3x3 responses, so that a straight step of height h gives h) with replicated borders, w the
//! edge weight and b the brightness. Contrast c then makes of a value v `m + c (v - m)`, from 0 to 255, where m is b times
//! the mean of the image's pixels. That picture is mirrored if asked, rotated and enlarged about its centre and displaced,
//! with bilinear interpolation; noise is added, from 0 to 255; and it is scaled as the weights expect.
//!
//! Beyond the border the nearest pixel is repeated, which adds no structure. Black corners would reveal the angle to
//! the network and add a strong edge; reflection would copy ribs, markers and opacities to places that the label does
//! not describe.
//!
//! Edges are computed before the rotation, so the border of the picture never becomes one.

use super::ViewDraw;
use crate::rng::{Purpose, StreamRng};
use crate::spec::PixelScaling;
use std::cell::RefCell;

thread_local! {
    /// Buffer for the picture after brightness and edges: `(size + 1)^2` pixels, reused by the next view.
    static ADJUSTED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Renders one view of a square image of `size` pixels a side and 1 or 3 `channels`, u8, channels last, into
/// `out`: three channels, channels last, scaled. A grey image fills all three. The result depends on the arguments
/// alone, bit for bit; with [`ViewDraw::original`] it is the plain scaling of every pixel.
///
/// # Panics
/// If `pixels` is not `size * size * channels` long, `out` not `size * size * 3`, or `channels` neither 1 nor 3.
pub fn render(pixels: &[u8], size: usize, channels: usize, draw: &ViewDraw, scaling: PixelScaling, out: &mut [f32]) {
    assert_eq!(pixels.len(), size * size * channels, "pixels of a {size} px image with {channels} channels");
    assert_eq!(out.len(), size * size * 3, "room for a {size} px view");
    match channels {
        1 => render_channels::<1>(pixels, size, draw, scaling, out),
        3 => render_channels::<3>(pixels, size, draw, scaling, out),
        _ => panic!("an image has 1 or 3 channels, not {channels}"),
    }
}

fn render_channels<const C: usize>(
    pixels: &[u8],
    size: usize,
    draw: &ViewDraw,
    scaling: PixelScaling,
    out: &mut [f32],
) {
    let scale = Scale::of(scaling);
    if draw.keeps_values() {
        return plain::<C>(pixels, size, draw.flip, &scale, out);
    }
    ADJUSTED.with_borrow_mut(|adjusted| {
        adjust::<C>(pixels, size, draw, adjusted);
        if draw.contrast != 1.0 {
            stretch(pixels, draw, adjusted);
        }
        if draw.noise > 0.0 {
            transform::<C>(adjusted, size, draw, out, |_, value| value);
            add_noise::<C>(draw, &scale, out);
        } else {
            transform::<C>(adjusted, size, draw, out, |c, value| scale.at(c, value));
        }
    });
}

/// `(v / divisor - mean) / deviation` per channel: every [`PixelScaling`] in one form. A mean of 0 and a deviation of 1
/// are exact.
struct Scale {
    divisor: f32,
    mean: [f32; 3],
    deviation: [f32; 3],
}

impl Scale {
    fn of(scaling: PixelScaling) -> Self {
        let (divisor, mean, deviation) = scaling.constants();
        Self { divisor, mean, deviation }
    }

    #[inline(always)]
    fn at(&self, channel: usize, value: f32) -> f32 {
        (value / self.divisor - self.mean[channel]) / self.deviation[channel]
    }
}

/// Scaling alone, by lookup table, mirrored if `flip`.
fn plain<const C: usize>(pixels: &[u8], size: usize, flip: bool, scale: &Scale, out: &mut [f32]) {
    let table: [[f32; 3]; 256] = std::array::from_fn(|v| std::array::from_fn(|c| scale.at(c, v as f32)));
    for (to, from) in out.chunks_exact_mut(size * 3).zip(pixels.chunks_exact(size * C)) {
        for (i, to) in to.chunks_exact_mut(3).enumerate() {
            let at = if flip { size - 1 - i } else { i } * C;
            let entry = &table[from[at] as usize];
            // Grey pixels are complete with this copy; for colour, channels 1 and 2 are then looked up on their own.
            to.copy_from_slice(entry);
            for c in 1..C {
                to[c] = table[from[at + c] as usize][c];
            }
        }
    }
}

/// Brightness and edges: fills `adjusted` with a `(size + 1)^2` picture whose last row and column repeat their
/// neighbours, so that interpolation needs no check for the border.
fn adjust<const C: usize>(pixels: &[u8], size: usize, draw: &ViewDraw, adjusted: &mut Vec<f32>) {
    let (row, stride) = (size * C, (size + 1) * C);
    adjusted.resize((size + 1) * stride, 0.0);
    let (weight, brightness) = (draw.edges as f32 / 4.0, draw.brightness as f32);
    let (mut sums, mut slopes) = (vec![0.0; row + 2 * C], vec![0.0; row + 2 * C]);
    for y in 0..size {
        let to = &mut adjusted[y * stride..][..stride];
        let middle = &pixels[y * row..][..row];
        if draw.edges == 0.0 {
            for (t, &p) in to.iter_mut().zip(middle) {
                *t = (f32::from(p) * brightness).min(255.0);
            }
        } else {
            let above = &pixels[y.saturating_sub(1) * row..][..row];
            let below = &pixels[(y + 1).min(size - 1) * row..][..row];
            let columns = [&mut sums[..], &mut slopes[..]];
            highlight::<C>([above, middle, below], weight, brightness, columns, &mut to[..row]);
        }
        to.copy_within(row - C..row, row);
    }
    adjusted.copy_within((size - 1) * stride..size * stride, size * stride);
}

/// One row of `min((p + weight * |(gx, gy)|) * brightness, 255)`, from the rows above, at and below it.
///
/// The Sobel kernels are separable, so columns are combined first: `sums` with weights 1 2 1 down a column, `slopes`
/// with -1 0 1, each padded by `C` values on either side. All are integers, exact in f32, which the compiler
/// vectorises.
fn highlight<const C: usize>(
    [above, middle, below]: [&[u8]; 3],
    weight: f32,
    brightness: f32,
    [sums, slopes]: [&mut [f32]; 2],
    to: &mut [f32],
) {
    let row = to.len();
    let (inner_sums, inner_slopes) = (&mut sums[C..][..row], &mut slopes[C..][..row]);
    let (above, middle, below) = (&above[..row], &middle[..row], &below[..row]);
    for i in 0..row {
        let (a, m, b) = (f32::from(above[i]), f32::from(middle[i]), f32::from(below[i]));
        inner_sums[i] = a + 2.0 * m + b;
        inner_slopes[i] = b - a;
    }
    for columns in [&mut *sums, &mut *slopes] {
        columns.copy_within(C..2 * C, 0);
        columns.copy_within(row..row + C, row + C);
    }
    // Slices of equal length let the compiler drop the bounds checks.
    let (left, right) = (&sums[..row], &sums[2 * C..][..row]);
    let (before, at, after) = (&slopes[..row], &slopes[C..][..row], &slopes[2 * C..][..row]);
    for i in 0..row {
        let (gx, gy) = (right[i] - left[i], before[i] + 2.0 * at[i] + after[i]);
        let magnitude = (gx * gx + gy * gy).sqrt();
        to[i] = ((f32::from(middle[i]) + weight * magnitude) * brightness).min(255.0);
    }
}

/// Sine and cosine of an angle in degrees, exact at right angles: such turns only move pixels.
fn sin_cos(degrees: f64) -> (f64, f64) {
    match degrees.rem_euclid(360.0) {
        0.0 => (0.0, 1.0),
        90.0 => (1.0, 0.0),
        180.0 => (0.0, -1.0),
        270.0 => (-1.0, 0.0),
        _ => degrees.to_radians().sin_cos(),
    }
}

/// Pixels per block: their source positions are computed by vector instructions, then read one by one.
const BLOCK: usize = 64;

/// Changes the contrast of the adjusted picture about its mean.
fn stretch(pixels: &[u8], draw: &ViewDraw, adjusted: &mut [f32]) {
    let mean = pixels.iter().map(|&p| u64::from(p)).sum::<u64>() as f64 / pixels.len() as f64;
    let (mean, contrast) = ((mean * draw.brightness) as f32, draw.contrast as f32);
    for value in adjusted {
        *value = (mean + contrast * (*value - mean)).clamp(0.0, 255.0);
    }
}

/// Adds noise to a view of values from 0 to 255, one draw a pixel and channel of the source, and scales it.
fn add_noise<const C: usize>(draw: &ViewDraw, scale: &Scale, out: &mut [f32]) {
    let mut rng = StreamRng::keyed(draw.noise_seed, Purpose::Noise, &[]);
    let deviation = 255.0 * draw.noise as f32;
    for pixel in out.chunks_exact_mut(3) {
        let mut noise = [0f32; C];
        noise.fill_with(|| deviation * rng.normal());
        for (c, value) in pixel.iter_mut().enumerate() {
            *value = scale.at(c, (*value + noise[c % C]).clamp(0.0, 255.0));
        }
    }
}

/// Mirror, rotation, zoom and displacement of the adjusted picture; `store` makes the view's value of a channel's.
fn transform<const C: usize>(
    adjusted: &[f32],
    size: usize,
    draw: &ViewDraw,
    out: &mut [f32],
    store: impl Fn(usize, f32) -> f32,
) {
    let (sin, cos) = sin_cos(draw.angle);
    let (sin, cos) = (sin / draw.zoom, cos / draw.zoom);
    let [right, down] = draw.shift.map(|share| share * size as f64);
    let centre = (size as f64 - 1.0) / 2.0;
    let last = size as f32 - 1.0;
    let stride = (size + 1) * C;
    // The source column runs backwards in a mirrored picture.
    let (step_x, step_y) = (if draw.flip { -cos } else { cos } as f32, sin as f32);
    let (mut place, mut fx, mut fy) = ([0u32; BLOCK], [0f32; BLOCK], [0f32; BLOCK]);
    for (y, to) in out.chunks_exact_mut(size * 3).enumerate() {
        let dy = y as f64 - centre - down;
        let x = -(centre + right) * cos - dy * sin;
        let start_x = (centre + if draw.flip { -x } else { x }) as f32;
        let start_y = (centre - (centre + right) * sin + dy * cos) as f32;
        for (block, to) in to.chunks_mut(BLOCK * 3).enumerate() {
            for i in 0..BLOCK {
                let step = (block * BLOCK + i) as f32;
                let sx = (start_x + step * step_x).clamp(0.0, last);
                let sy = (start_y + step * step_y).clamp(0.0, last);
                let (x0, y0) = (sx as i32, sy as i32);
                (fx[i], fy[i]) = (sx - x0 as f32, sy - y0 as f32);
                place[i] = y0 as u32 * stride as u32 + x0 as u32 * C as u32;
            }
            for (i, to) in to.chunks_exact_mut(3).enumerate() {
                let at = place[i] as usize;
                let (top, bottom) = (&adjusted[at..at + 2 * C], &adjusted[at + stride..at + stride + 2 * C]);
                let mut value = [0f32; C];
                for (c, v) in value.iter_mut().enumerate() {
                    let above = top[c] + (top[C + c] - top[c]) * fx[i];
                    let below = bottom[c] + (bottom[C + c] - bottom[c]) * fx[i];
                    *v = above + (below - above) * fy[i];
                }
                for (c, t) in to.iter_mut().enumerate() {
                    *t = store(c, value[c % C]);
                }
            }
        }
    }
}
