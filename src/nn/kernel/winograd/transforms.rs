//! The transforms of weights, inputs and products.

use super::super::conv_cpu::Write;
use super::super::{ConvShape, LANES};
#[cfg(target_arch = "x86_64")]
use super::form::Paired;
use super::form::{Form, Lanes, Plain, Rounded, load, store};
use super::{CHUNK, Job, POSITIONS, SKEW, Taps, VECTOR};

// For `on_isa!`: arrays of one vector's length, all read before any is written, so that
// the compiler keeps them in registers.

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    let mut sum = [0.0; VECTOR];
    for i in 0..VECTOR {
        sum[i] = a[i] + b[i];
    }
    sum
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    let mut difference = [0.0; VECTOR];
    for i in 0..VECTOR {
        difference[i] = a[i] - b[i];
    }
    difference
}

#[inline(always)]
fn half(a: Lanes) -> Lanes {
    let mut halves = [0.0; VECTOR];
    for i in 0..VECTOR {
        halves[i] = 0.5 * a[i];
    }
    halves
}

/// `G g` for a column of three.
#[inline(always)]
fn weights_of(g: [Lanes; 3]) -> [Lanes; 4] {
    let outer = add(g[0], g[2]);
    [g[0], half(add(outer, g[1])), half(sub(outer, g[1])), g[2]]
}

/// `B' d` for a column of four.
#[inline(always)]
fn inputs_of(d: [Lanes; 4]) -> [Lanes; 4] {
    [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])]
}

/// `A' m` for a column of four.
#[inline(always)]
fn outputs_of(m: [Lanes; 4]) -> [Lanes; 2] {
    [add(add(m[0], m[1]), m[2]), sub(sub(m[1], m[2]), m[3])]
}

#[inline(always)]
pub(super) fn transform_panel(packed: &[f32], cin: usize, taps: Taps, out: &mut [f32]) {
    assert!(packed.len() == 9 * cin * LANES && out.len() == POSITIONS * cin * LANES);
    for at in (0..cin * LANES).step_by(VECTOR) {
        let mut columns = [[[0.0; VECTOR]; 4]; 3];
        for x in 0..3 {
            let mut g = [[0.0; VECTOR]; 3];
            for y in 0..3 {
                let tap = match taps {
                    Taps::Forward => 3 * y + x,
                    Taps::Reversed => 8 - (3 * y + x),
                };
                // SAFETY: inside `packed`, whose length was checked; VECTOR divides LANES.
                g[y] = unsafe { load::<true>(packed.as_ptr().add(tap * cin * LANES + at), VECTOR) };
            }
            columns[x] = weights_of(g);
        }
        for y in 0..4 {
            let line = weights_of([columns[0][y], columns[1][y], columns[2][y]]);
            for x in 0..4 {
                // SAFETY: inside `out`, whose length was checked.
                unsafe { store::<true>(line[x], out.as_mut_ptr().add((4 * y + x) * cin * LANES + at), VECTOR) };
            }
        }
    }
}

#[inline(always)]
pub(super) fn transform_plain(job: &Job<'_>, first: usize, count: usize, out: &mut [f32]) {
    transform_inputs::<Plain>(job, first, count, out);
}

#[inline(always)]
pub(super) fn transform_rounded(job: &Job<'_>, first: usize, count: usize, out: &mut [f32]) {
    transform_inputs::<Rounded>(job, first, count, out);
}

/// # Safety
/// The processor must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma")]
pub(super) unsafe fn transform_paired(job: &Job<'_>, first: usize, count: usize, out: &mut [f32]) {
    transform_inputs::<Paired>(job, first, count, out);
}

#[inline(always)]
fn transform_inputs<F: Form>(job: &Job<'_>, first: usize, count: usize, out: &mut [f32]) {
    let ConvShape { input: [height, width], cin, window, .. } = *job.shape;
    let zeros = [0f32; VECTOR];
    let stride = CHUNK * job.depth + SKEW;
    assert!(count <= CHUNK && out.len() >= POSITIONS * stride);
    for tile in 0..count {
        let [image, down, across] = job.place(first + tile);
        // A pointer to each pixel's channels and its step by channel: 0 in the padding.
        let mut from = [[(zeros.as_ptr(), 0); 4]; 4];
        for y in 0..4 {
            for x in 0..4 {
                // A negative coordinate wraps round to one beyond the image.
                let (row, column) =
                    ((2 * down + y).wrapping_sub(window.padding[0]), (2 * across + x).wrapping_sub(window.padding[1]));
                if row < height && column < width {
                    from[y][x] = (job.x[((image * height + row) * width + column) * cin..][..cin].as_ptr(), 1);
                }
            }
        }
        let mut channel = 0;
        // SAFETY: each pixel has `cin` channels or stays at VECTOR zeros; `out` holds POSITIONS strides of CHUNK tiles
        // of `depth` words, those of `cin` channels.
        unsafe {
            let to = out.as_mut_ptr().add(tile * job.depth);
            while channel + VECTOR <= cin {
                transform_input::<F, true>(&from, channel, VECTOR, to.add(F::words(channel)), stride);
                channel += VECTOR;
            }
            if channel < cin {
                transform_input::<F, false>(&from, channel, cin - channel, to.add(F::words(channel)), stride);
            }
        }
    }
}

/// One tile and vector of channels; positions lie `stride` apart in `to`.
///
/// # Safety
/// See [`transform_inputs`].
#[inline(always)]
unsafe fn transform_input<F: Form, const WHOLE: bool>(
    from: &[[(*const f32, usize); 4]; 4],
    channel: usize,
    n: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut lines = [[[0.0; VECTOR]; 4]; 4];
    for y in 0..4 {
        let mut d = [[0.0; VECTOR]; 4];
        for x in 0..4 {
            let (base, moves) = from[y][x];
            // SAFETY: the caller's promise.
            d[x] = unsafe { load::<WHOLE>(base.add(moves * channel), n) };
        }
        lines[y] = inputs_of(d);
    }
    for x in 0..4 {
        let column = inputs_of([lines[0][x], lines[1][x], lines[2][x], lines[3][x]]);
        for y in 0..4 {
            // SAFETY: as above.
            unsafe { F::store::<WHOLE>(column[y], to.add((4 * y + x) * stride), n) };
        }
    }
}

#[inline(always)]
pub(super) fn transform_outputs(job: &Job<'_>, first: usize, count: usize, panel: usize, products: &[f32]) {
    let [height, width] = job.shape.output;
    let stride = CHUNK * LANES + SKEW;
    assert!(count <= CHUNK && products.len() >= POSITIONS * stride);
    let channels = LANES.min(job.shape.cout - panel * LANES);
    for tile in 0..count {
        let [image, down, across] = job.place(first + tile);
        let mut to = [[None; 2]; 2];
        for y in 0..2 {
            for x in 0..2 {
                let (row, column) = (2 * down + y, 2 * across + x);
                if row < height && column < width {
                    // SAFETY: a pixel of the target, and channels of it that no other task has.
                    to[y][x] = Some(unsafe { job.out.row((image * height + row) * width + column).add(panel * LANES) });
                }
            }
        }
        let mut channel = 0;
        // SAFETY: `products` holds POSITIONS strides of CHUNK tiles of LANES; `to` has room for `channels`, the
        // epilogue whole panels.
        unsafe {
            let from = products.as_ptr().add(tile * LANES);
            while channel + VECTOR <= channels {
                transform_output::<true>(job, from.add(channel), stride, panel * LANES, channel, VECTOR, &to);
                channel += VECTOR;
            }
            if channel < channels {
                let rest = channels - channel;
                transform_output::<false>(job, from.add(channel), stride, panel * LANES, channel, rest, &to);
            }
        }
    }
}

/// One tile and one vector of channels, from `channel` on in the panel whose first channel is `panel`.
///
/// # Safety
/// See [`transform_outputs`].
#[inline(always)]
unsafe fn transform_output<const WHOLE: bool>(
    job: &Job<'_>,
    from: *const f32,
    stride: usize,
    panel: usize,
    channel: usize,
    n: usize,
    to: &[[Option<*mut f32>; 2]; 2],
) {
    let mut columns = [[[0.0; VECTOR]; 2]; 4];
    for x in 0..4 {
        let mut m = [[0.0; VECTOR]; 4];
        for y in 0..4 {
            // SAFETY: the caller's promise; products come in whole panels.
            m[y] = unsafe { load::<true>(from.add((4 * y + x) * stride), VECTOR) };
        }
        columns[x] = outputs_of(m);
    }
    // SAFETY: as above.
    let (scale, bias) = unsafe {
        let at = panel + channel;
        (
            load::<true>(job.epilogue.scale.as_ptr().add(at), VECTOR),
            load::<true>(job.epilogue.bias.as_ptr().add(at), VECTOR),
        )
    };
    let floor = if job.epilogue.relu { 0.0 } else { f32::NEG_INFINITY };
    for y in 0..2 {
        let line = outputs_of([columns[0][y], columns[1][y], columns[2][y], columns[3][y]]);
        for x in 0..2 {
            let Some(to) = to[y][x] else { continue };
            let mut values = line[x];
            for i in 0..VECTOR {
                let value = values[i] * scale[i] + bias[i];
                // A NaN stays a NaN.
                values[i] = if value < floor { floor } else { value };
            }
            // SAFETY: as above.
            unsafe {
                let to = to.add(channel);
                if job.write == Write::Add {
                    values = add(load::<WHOLE>(to, n), values);
                }
                store::<WHOLE>(values, to, n);
            }
        }
    }
}
