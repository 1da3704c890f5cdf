//! 3x3 convolutions of stride 1 with 16 instead of 36 multiplications for each 2 x 2 pixels: F(2x2, 3x3) of Lavin and
//! Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1.
//!
//! With `d` the 4 x 4 input pixels of a tile, `g` the kernel: `y = A' [(G g G') * (B' d B)] A`. The product in brackets
//! is, for each of its 16 positions, a matrix product over the input channels, done by the micro-kernels of
//! `super::tile`. All constants of `A` and `B` are 0 or +-1, of `G` also +-1/2, so rounding errors stay near those of
//! the direct sum.

// Indexed loops of fixed length over the positions of a tile keep arrays in registers.
#![allow(clippy::needless_range_loop)]

use super::conv_cpu::{Epilogue, Write};
use super::isa::on_isa;
use super::micro;
use super::tile::Tile;
use super::{ConvShape, Isa, LANES, TILE, Target, Window, panel};
use rayon::prelude::*;
use std::cell::RefCell;

/// Positions of a transformed tile.
const POSITIONS: usize = 16;
/// Tiles of one task: transformed input and products stay in the second-level cache.
const CHUNK: usize = 4 * TILE;
/// With fewer tasks per thread than this, the panels are distributed among tasks too.
const TASKS: usize = 8;
/// Channels handled at a time by the transforms.
const VECTOR: usize = 16;
/// Padding between positions, in floats: without it all positions would fall into the same set of the cache.
const SKEW: usize = 16;

/// Whether [`forward`] supports this shape and saves enough multiplications to outweigh its transforms.
pub fn pays(shape: &ConvShape) -> bool {
    let [height, width] = shape.output;
    let tiles = height.div_ceil(2) * width.div_ceil(2);
    shape.window.kernel == [3, 3]
        && shape.window.stride == 1
        && shape.cin >= VECTOR
        && shape.cout >= VECTOR
        && 3 * POSITIONS * tiles <= 2 * 9 * height * width
}

/// The shape of transformed weights: panels, rows (position-major, then input channel), lanes.
pub fn transformed_shape(cin: usize, cout: usize) -> [usize; 3] {
    panel::packed_shape(POSITIONS, cin, cout)
}

/// The order in which the taps of a kernel are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taps {
    /// As stored: for the forward pass.
    Forward,
    /// From the last to the first: for the input gradient.
    Reversed,
}

/// `G g G'` of packed 3x3 weights ([`panel::pack`], or [`panel::transposed`] for the input gradient), into a buffer of
/// [`transformed_shape`] with arbitrary content.
///
/// # Panics
/// If a length does not fit.
pub fn transform_weights(isa: Isa, packed: &[f32], cin: usize, cout: usize, taps: Taps, out: &mut [f32]) {
    assert_eq!(packed.len(), panel::packed_shape(9, cin, cout).iter().product::<usize>());
    assert_eq!(out.len(), transformed_shape(cin, cout).iter().product::<usize>());
    let panels = out.par_chunks_mut(POSITIONS * cin * LANES).zip(packed.par_chunks(9 * cin * LANES));
    panels.for_each(|(out, packed)| {
        on_isa!(isa, transform_panel(packed: &[f32] = packed, cin: usize = cin, taps: Taps = taps, out: &mut [f32] = out));
    });
}

/// [`transform_weights`] into a new buffer.
pub fn transformed(isa: Isa, packed: &[f32], cin: usize, cout: usize, taps: Taps) -> Vec<f32> {
    let mut out = vec![0.0; transformed_shape(cin, cout).iter().product()];
    transform_weights(isa, packed, cin, cout, taps, &mut out);
    out
}

/// The convolution of `x` (`[N, H, W, C]`, contiguous) with weights from [`transform_weights`]: what
/// [`super::conv_cpu::forward`] computes, up to rounding.
///
/// # Panics
/// If a length does not fit the shape, or the window is not 3x3 of stride 1.
pub fn forward(
    isa: Isa,
    shape: &ConvShape,
    x: &[f32],
    transformed: &[f32],
    epilogue: Epilogue<'_>,
    write: Write,
    out: &Target<'_>,
) {
    assert_eq!((shape.window.kernel, shape.window.stride), ([3, 3], 1));
    assert_eq!(x.len(), shape.input_pixels() * shape.cin);
    assert_eq!((out.pixels(), out.channels()), (shape.output_pixels(), shape.cout));
    assert_eq!(transformed.len(), transformed_shape(shape.cin, shape.cout).iter().product::<usize>());
    let panels = panel::panels(shape.cout);
    assert!(epilogue.scale.len() >= panels * LANES && epilogue.bias.len() >= panels * LANES);
    let grid = shape.output.map(|length| length.div_ceil(2));
    let tiles = shape.batch * grid[0] * grid[1];
    let job = Job { isa: isa.checked(), shape, grid, x, transformed, epilogue, write, out };
    let chunks = tiles.div_ceil(CHUNK);
    let groups = (TASKS * rayon::current_num_threads()).div_ceil(chunks.max(1)).clamp(1, panels);
    let per_group = panels.div_ceil(groups);
    (0..chunks * groups).into_par_iter().for_each(|task| {
        let (chunk, group) = (task / groups, task % groups);
        let panels = group * per_group..((group + 1) * per_group).min(panels);
        if !panels.is_empty() {
            job.run(chunk * CHUNK..((chunk + 1) * CHUNK).min(tiles), panels);
        }
    });
}

/// The gradient of the input of the convolution `shape`, given that of the (unscaled) output and the weights from
/// [`panel::transposed`] through [`transform_weights`] with [`Taps::Reversed`].
///
/// # Panics
/// As [`forward`]; the padding must be at most 2.
pub fn input_gradient(isa: Isa, shape: &ConvShape, grad: &[f32], transformed: &[f32], write: Write, out: &Target<'_>) {
    let lanes = panel::panels(shape.cin) * LANES;
    let (scale, bias) = (vec![1.0; lanes], vec![0.0; lanes]);
    forward(isa, &mirrored(shape), grad, transformed, Epilogue { scale: &scale, bias: &bias, relu: false }, write, out);
}

/// The convolution that computes the input gradient of `shape`, for a 3x3 window with a padding of at most 2.
pub fn mirrored(shape: &ConvShape) -> ConvShape {
    ConvShape {
        batch: shape.batch,
        input: shape.output,
        output: shape.input,
        cin: shape.cout,
        cout: shape.cin,
        window: Window { padding: shape.window.padding.map(|padding| 2usize.saturating_sub(padding)), ..shape.window },
    }
}

thread_local! {
    /// Transformed inputs and products of the current task.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

struct Job<'a> {
    isa: Isa,
    shape: &'a ConvShape,
    /// Tiles down and across.
    grid: [usize; 2],
    x: &'a [f32],
    transformed: &'a [f32],
    epilogue: Epilogue<'a>,
    write: Write,
    out: &'a Target<'a>,
}

impl Job<'_> {
    fn run(&self, tiles: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let cin = self.shape.cin;
        let (input_stride, product_stride) = (CHUNK * cin + SKEW, CHUNK * LANES + SKEW);
        let (inputs, products) = (POSITIONS * input_stride, POSITIONS * product_stride);
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < inputs + products {
                scratch.resize(inputs + products, 0.0);
            }
            let (inputs, products) = scratch.split_at_mut(inputs);
            let (first, count) = (tiles.start, tiles.len());
            on_isa!(
                self.isa,
                transform_inputs(
                    job: &Job<'_> = self,
                    first: usize = first,
                    count: usize = count,
                    out: &mut [f32] = inputs,
                )
            );
            for panel in panels {
                for position in 0..POSITIONS {
                    let inputs = &inputs[position * input_stride..][..tiles.len() * cin];
                    let products = &mut products[position * product_stride..][..tiles.len() * LANES];
                    self.multiply(panel, position, inputs, products);
                }
                on_isa!(
                    self.isa,
                    transform_outputs(
                        job: &Job<'_> = self,
                        first: usize = first,
                        count: usize = count,
                        panel: usize = panel,
                        products: &[f32] = products,
                    )
                );
            }
        });
    }

    /// `products = inputs * weights` at one position: `[tiles, cin]` times `[cin, LANES]`.
    fn multiply(&self, panel: usize, position: usize, inputs: &[f32], products: &mut [f32]) {
        let cin = self.shape.cin;
        let weights = &self.transformed[(panel * POSITIONS + position) * cin * LANES..][..cin * LANES];
        let ones = [1.0; LANES];
        let zeros = [0.0; LANES];
        for (inputs, products) in inputs.chunks(TILE * cin).zip(products.chunks_mut(TILE * LANES)) {
            let pixels = products.len() / LANES;
            let (mut rows, mut out) = ([inputs.as_ptr(); TILE], [products.as_mut_ptr(); TILE]);
            for i in 0..TILE {
                // Unused entries repeat the last used one.
                let i_used = i.min(pixels - 1);
                rows[i] = rows[i].wrapping_add(i_used * cin);
                out[i] = out[i].wrapping_add(i_used * LANES);
            }
            // SAFETY: each row has `cin` inputs, the weights `cin` rows of LANES, each product row LANES floats; the
            // buffers belong to this task.
            unsafe {
                micro::tile(
                    self.isa,
                    &Tile {
                        rows: &[rows],
                        taps: &[0],
                        depth: cin,
                        panel: weights.as_ptr(),
                        scale: ones.as_ptr(),
                        bias: zeros.as_ptr(),
                        relu: false,
                        add: false,
                        out,
                        pixels,
                        width: LANES.min(self.shape.cout - panel * LANES),
                    },
                );
            }
        }
    }

    /// Image, row and column of a tile in the grid.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.grid;
        [tile / (down * across), tile / across % down, tile % across]
    }
}

// The loops over channels, for `on_isa!`: arrays of one vector's length, all read before any is written, so that
// the compiler keeps them in registers.

type Lanes = [f32; VECTOR];

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

/// A vector from `from` on: whole, or the first `n` values followed by zeros.
///
/// # Safety
/// `from` must be valid for reading that many floats.
#[inline(always)]
unsafe fn load<const WHOLE: bool>(from: *const f32, n: usize) -> Lanes {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            return from.cast::<Lanes>().read_unaligned();
        }
        let mut values = [0.0; VECTOR];
        for i in 0..n {
            values[i] = *from.add(i);
        }
        values
    }
}

/// The counterpart of [`load`].
///
/// # Safety
/// `to` must be valid for writing that many floats.
#[inline(always)]
unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            return to.cast::<Lanes>().write_unaligned(values);
        }
        for i in 0..n {
            *to.add(i) = values[i];
        }
    }
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
fn transform_panel(packed: &[f32], cin: usize, taps: Taps, out: &mut [f32]) {
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
fn transform_inputs(job: &Job<'_>, first: usize, count: usize, out: &mut [f32]) {
    let ConvShape { input: [height, width], cin, window, .. } = *job.shape;
    let zeros = [0f32; VECTOR];
    let stride = CHUNK * cin + SKEW;
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
        // of `cin` channels.
        unsafe {
            let to = out.as_mut_ptr().add(tile * cin);
            while channel + VECTOR <= cin {
                transform_input::<true>(&from, channel, VECTOR, to.add(channel), stride);
                channel += VECTOR;
            }
            if channel < cin {
                transform_input::<false>(&from, channel, cin - channel, to.add(channel), stride);
            }
        }
    }
}

/// One tile and vector of channels; positions lie `stride` apart in `to`.
///
/// # Safety
/// See [`transform_inputs`].
#[inline(always)]
unsafe fn transform_input<const WHOLE: bool>(
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
            unsafe { store::<WHOLE>(column[y], to.add((4 * y + x) * stride), n) };
        }
    }
}

#[inline(always)]
fn transform_outputs(job: &Job<'_>, first: usize, count: usize, panel: usize, products: &[f32]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::conv_cpu;
    use crate::nn::reference::{self, assert_close, dot, f32s, numbers};

    /// Input, output channels, padding: odd and even sides, partial vectors, panels and chunks.
    const CASES: [([usize; 4], usize, usize); 6] = [
        ([2, 6, 5, 4], 33, 1),
        ([1, 5, 5, 13], 3, 0),
        ([2, 3, 3, 35], 16, 1),
        ([1, 1, 1, 25], 40, 1),
        ([2, 19, 17, 16], 70, 0),
        ([1, 4, 7, 17], 9, 2),
    ];

    fn each_case(f: impl Fn(Isa, &ConvShape, &str)) {
        for (input, cout, padding) in CASES {
            let shape = ConvShape::new(input, cout, Window::new([3, 3], 1, [padding; 2])).unwrap();
            for isa in Isa::all_available() {
                f(isa, &shape, &format!("{input:?} -> {cout}, padding {padding}, {isa:?}"));
            }
        }
    }

    #[test]
    fn the_convolution_is_that_of_the_definition() {
        each_case(|isa, shape, what| {
            let (cin, cout) = (shape.cin, shape.cout);
            let x = numbers(1, shape.input_pixels() * cin);
            let weights = numbers(2, 9 * cin * cout);
            let affine = numbers(3, 2 * cout);
            let expected = reference::affine_relu(&reference::conv(shape, &x, &weights), &affine);
            let packed = panel::pack(&f32s(&weights), 9, cin, cout);
            let transformed = transformed(isa, &packed, cin, cout, Taps::Forward);
            let (scale, bias) = (panel::padded(&f32s(&affine[..cout])), panel::padded(&f32s(&affine[cout..])));
            let epilogue = Epilogue { scale: &scale, bias: &bias, relu: true };
            let y = reference::columns(shape.output_pixels(), cout, 7.0, what, |target| {
                forward(isa, shape, &f32s(&x), &transformed, epilogue, Write::Replace, target);
            });
            assert_close(&y, &expected, 1e-6, what);
        });
    }

    #[test]
    fn the_input_gradient_is_the_adjoint_of_the_convolution_and_is_added() {
        each_case(|isa, shape, what| {
            let (cin, cout) = (shape.cin, shape.cout);
            let weights = numbers(2, 9 * cin * cout);
            let grad = numbers(4, shape.output_pixels() * cout);
            let packed = panel::pack(&f32s(&weights), 9, cin, cout);
            let transposed = panel::transposed(&packed, 9, cin, cout, None);
            let transformed = transformed(isa, &transposed, cout, cin, Taps::Reversed);
            let dx = reference::columns(shape.input_pixels(), cin, 1.0, what, |target| {
                input_gradient(isa, shape, &f32s(&grad), &transformed, Write::Add, target);
            });
            let added = reference::conv_input_gradient(shape, &grad, &weights);
            let expected: Vec<f64> = added.iter().map(|v| 1.0 + v).collect();
            assert_close(&dx, &expected, 2e-6, what);
        });
    }

    #[test]
    fn rounding_errors_stay_near_those_of_the_direct_sum() {
        // Sizes of Mixed_7c, the longest sums of InceptionV3.
        let shape = ConvShape::new([1, 8, 8, 448], 384, Window::new([3, 3], 1, [1, 1])).unwrap();
        let (cin, cout) = (shape.cin, shape.cout);
        let x: Vec<f64> = numbers(1, shape.input_pixels() * cin).iter().map(|v| v.max(0.0)).collect();
        let weights = numbers(2, 9 * cin * cout);
        let exact = reference::conv(&shape, &x, &weights);
        let packed = panel::pack(&f32s(&weights), 9, cin, cout);
        let lanes = panel::panels(cout) * LANES;
        let (ones, zeros) = (vec![1.0; lanes], vec![0.0; lanes]);
        let epilogue = Epilogue { scale: &ones, bias: &zeros, relu: false };
        let error = |out: &[f32]| {
            let sum: f64 = out.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            (sum / dot(&exact, &exact)).sqrt()
        };
        let mut out = vec![0.0; exact.len()];
        conv_cpu::forward(Isa::best(), &shape, &f32s(&x), &packed, epilogue, &Target::columns(&mut out, cout, 0, cout));
        let direct = error(&out);
        let transformed = transformed(Isa::best(), &packed, cin, cout, Taps::Forward);
        let target = Target::columns(&mut out, cout, 0, cout);
        forward(Isa::best(), &shape, &f32s(&x), &transformed, epilogue, Write::Replace, &target);
        let ours = error(&out);
        assert!(ours < 4.0 * direct && ours < 1e-6, "{ours:e}, direct {direct:e}");
    }

    #[test]
    fn a_nan_is_not_lost() {
        let shape = ConvShape::new([1, 4, 4, 16], 16, Window::new([3, 3], 1, [1, 1])).unwrap();
        let mut x = vec![1.0; 256];
        x[0] = f32::NAN;
        let packed = panel::pack(&vec![1.0; 9 * 256], 9, 16, 16);
        let affine = vec![1.0; LANES];
        let epilogue = Epilogue { scale: &affine, bias: &affine, relu: true };
        for isa in Isa::all_available() {
            let transformed = transformed(isa, &packed, 16, 16, Taps::Forward);
            let mut out = vec![0.0; 256];
            forward(isa, &shape, &x, &transformed, epilogue, Write::Replace, &Target::columns(&mut out, 16, 0, 16));
            assert!(out[0].is_nan(), "{isa:?}");
        }
    }
}
