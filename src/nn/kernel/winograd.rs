//! 3x3 convolutions of stride 1 with 16 instead of 36 multiplications for each 2 x 2 pixels: F(2x2, 3x3) of Lavin and
//! Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1.
//!
//! With `d` the 4 x 4 input pixels of a tile, `g` the kernel: `y = A' [(G g G') * (B' d B)] A`. The product in brackets
//! is, for each of its 16 positions, a matrix product over the input channels, done by the micro-kernels of
//! `super::tile`. All constants of `A` and `B` are 0 or +-1, of `G` also +-1/2, so rounding errors stay near those of
//! the direct sum.

// Indexed loops of fixed length over the positions of a tile keep arrays in registers.
#![allow(clippy::needless_range_loop)]

mod form;
mod transforms;

use super::arithmetic::{Arithmetic, Factors};
use super::conv_cpu::{Epilogue, Write};
use super::isa::on_isa;
use super::micro;
use super::tile::Tile;
use super::{ConvShape, Isa, LANES, TILE, Target, Window, panel};
use rayon::prelude::*;
use std::cell::RefCell;
#[cfg(target_arch = "x86_64")]
use transforms::transform_paired;
use transforms::{transform_outputs, transform_panel, transform_plain, transform_rounded};

/// Positions of a transformed tile.
pub const POSITIONS: usize = 16;
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

/// The convolution of `x` (`[N, H, W, C]`, contiguous, in f32) with weights from [`transform_weights`] in the form of
/// `arithmetic` ([`Arithmetic::panels`]): what [`super::conv_cpu::forward`] computes, up to rounding. Where operands are
/// rounded, those of the products are: the transformed ones.
///
/// # Panics
/// If a length does not fit the shape, or the window is not 3x3 of stride 1.
pub fn forward(
    arithmetic: impl Into<Arithmetic>,
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
    let arithmetic = arithmetic.into();
    let depth = arithmetic.words(shape.cin);
    assert_eq!(transformed.len(), transformed_shape(depth, shape.cout).iter().product::<usize>());
    let panels = panel::panels(shape.cout);
    assert!(epilogue.scale.len() >= panels * LANES && epilogue.bias.len() >= panels * LANES);
    let grid = shape.output.map(|length| length.div_ceil(2));
    let tiles = shape.batch * grid[0] * grid[1];
    let job = Job { arithmetic, depth, shape, grid, x, transformed, epilogue, write, out };
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
pub fn input_gradient(
    arithmetic: impl Into<Arithmetic>,
    shape: &ConvShape,
    grad: &[f32],
    transformed: &[f32],
    write: Write,
    out: &Target<'_>,
) {
    let lanes = panel::panels(shape.cin) * LANES;
    let (scale, bias) = (vec![1.0; lanes], vec![0.0; lanes]);
    let epilogue = Epilogue { scale: &scale, bias: &bias, relu: false };
    forward(arithmetic, &mirrored(shape), grad, transformed, epilogue, write, out);
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
    arithmetic: Arithmetic,
    /// Input channels, or words of them.
    depth: usize,
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
        let depth = self.depth;
        let (input_stride, product_stride) = (CHUNK * depth + SKEW, CHUNK * LANES + SKEW);
        let (inputs, products) = (POSITIONS * input_stride, POSITIONS * product_stride);
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < inputs + products {
                scratch.resize(inputs + products, 0.0);
            }
            let (inputs, products) = scratch.split_at_mut(inputs);
            let (first, count) = (tiles.start, tiles.len());
            self.transform(first, count, inputs);
            for panel in panels {
                for position in 0..POSITIONS {
                    let inputs = &inputs[position * input_stride..][..tiles.len() * depth];
                    let products = &mut products[position * product_stride..][..tiles.len() * LANES];
                    self.multiply(panel, position, inputs, products);
                }
                on_isa!(
                    self.arithmetic.isa,
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

    /// The transformed inputs of some tiles, in the form of the arithmetic.
    fn transform(&self, first: usize, count: usize, inputs: &mut [f32]) {
        match self.arithmetic.factors() {
            Factors::F32 => on_isa!(
                self.arithmetic.isa,
                transform_plain(job: &Job<'_> = self, first: usize = first, count: usize = count, out: &mut [f32] = inputs)
            ),
            Factors::Rounded => on_isa!(
                self.arithmetic.isa,
                transform_rounded(job: &Job<'_> = self, first: usize = first, count: usize = count, out: &mut [f32] = inputs)
            ),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: pairs are chosen only where the processor has them.
            Factors::Pairs => unsafe { transform_paired(self, first, count, inputs) },
            #[cfg(not(target_arch = "x86_64"))]
            Factors::Pairs => unreachable!("only x86-64 has pairs"),
        }
    }

    /// `products = inputs * weights` at one position: `[tiles, depth]` times `[depth, LANES]`.
    fn multiply(&self, panel: usize, position: usize, inputs: &[f32], products: &mut [f32]) {
        let depth = self.depth;
        let weights = &self.transformed[(panel * POSITIONS + position) * depth * LANES..][..depth * LANES];
        let ones = [1.0; LANES];
        let zeros = [0.0; LANES];
        for (inputs, products) in inputs.chunks(TILE * depth).zip(products.chunks_mut(TILE * LANES)) {
            let pixels = products.len() / LANES;
            let (mut rows, mut out) = ([inputs.as_ptr(); TILE], [products.as_mut_ptr(); TILE]);
            for i in 0..TILE {
                // Unused entries repeat the last used one.
                let i_used = i.min(pixels - 1);
                rows[i] = rows[i].wrapping_add(i_used * depth);
                out[i] = out[i].wrapping_add(i_used * LANES);
            }
            // SAFETY: each row has `depth` inputs, the weights `depth` rows of LANES, each product row LANES floats; the
            // buffers belong to this task.
            unsafe {
                micro::tile(
                    self.arithmetic,
                    &Tile {
                        rows: &[rows],
                        taps: &[0],
                        depth,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::conv_cpu;
    use crate::nn::reference::{self, assert_close, dot, f32s, narrow, numbers};

    /// Input, output channels, padding: odd and even sides, partial vectors, panels and chunks.
    const CASES: [([usize; 4], usize, usize); 6] = [
        ([2, 6, 5, 4], 33, 1),
        ([1, 5, 5, 13], 3, 0),
        ([2, 3, 3, 35], 16, 1),
        ([1, 1, 1, 25], 40, 1),
        ([2, 19, 17, 16], 70, 0),
        ([1, 4, 7, 17], 9, 2),
    ];

    /// [`transform_weights`] into a new buffer.
    fn transformed(isa: Isa, packed: &[f32], cin: usize, cout: usize, taps: Taps) -> Vec<f32> {
        let mut out = vec![0.0; transformed_shape(cin, cout).iter().product()];
        transform_weights(isa, packed, cin, cout, taps, &mut out);
        out
    }

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

    /// Whether all are the same, and as near the exact results as eight bits can be: two roundings by up to 2^-9 each, and
    /// sums of transformed products of which a part cancels.
    #[track_caller]
    fn agree(results: &[(String, Vec<f32>)], exact: &[f64]) {
        let first: Vec<f64> = results[0].1.iter().map(|&v| f64::from(v)).collect();
        results.iter().for_each(|(what, y)| assert_close(y, &first, 2e-6, what));
        let error: f64 = first.iter().zip(exact).map(|(a, b)| (a - b).powi(2)).sum();
        let relative = (error / dot(exact, exact)).sqrt();
        assert!(relative > 1e-4 && relative < 1e-2, "{}: {relative:e}", results[0].0);
    }

    /// Transformed inputs and weights are rounded, so there is no exact answer.
    #[test]
    fn products_of_bf16_agree_between_arithmetics_and_with_f32() {
        for (input, cout, padding) in CASES {
            let shape = ConvShape::new(input, cout, Window::new([3, 3], 1, [padding; 2])).unwrap();
            let (cin, cout) = (shape.cin, shape.cout);
            let x = numbers(1, shape.input_pixels() * cin);
            let weights = numbers(2, 9 * cin * cout);
            let packed = panel::pack(&f32s(&weights), 9, cin, cout);
            let lanes = panel::panels(cout) * LANES;
            let (ones, zeros) = (vec![1.0; lanes], vec![0.0; lanes]);
            let epilogue = Epilogue { scale: &ones, bias: &zeros, relu: false };
            let results = narrow().map(|arithmetic| {
                let transformed = transformed(arithmetic.isa(), &packed, cin, cout, Taps::Forward);
                let [_, formed] = reference::formed(arithmetic, &[], cin, &transformed);
                let what = format!("{input:?} -> {cout}, {arithmetic:?}");
                let y = reference::columns(shape.output_pixels(), cout, 7.0, &what, |target| {
                    forward(arithmetic, &shape, &f32s(&x), &formed, epilogue, Write::Replace, target);
                });
                (what, y)
            });
            agree(&results.collect::<Vec<_>>(), &reference::conv(&shape, &x, &weights));

            let grad = numbers(4, shape.output_pixels() * cout);
            let transposed = panel::transposed(&packed, 9, cin, cout, None);
            let results = narrow().map(|arithmetic| {
                let transformed = transformed(arithmetic.isa(), &transposed, cout, cin, Taps::Reversed);
                let [_, formed] = reference::formed(arithmetic, &[], cout, &transformed);
                let what = format!("input gradient of {input:?} -> {cout}, {arithmetic:?}");
                let dx = reference::columns(shape.input_pixels(), cin, 0.0, &what, |target| {
                    input_gradient(arithmetic, &shape, &f32s(&grad), &formed, Write::Add, target);
                });
                (what, dx)
            });
            agree(&results.collect::<Vec<_>>(), &reference::conv_input_gradient(&shape, &grad, &weights));
        }
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
