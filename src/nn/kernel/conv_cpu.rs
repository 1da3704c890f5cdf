//! Convolution and its input gradient, computed in tiles of gathered rows.

// Several arrays over the pixels of a tile are indexed together.
#![allow(clippy::needless_range_loop)]

use super::geometry::{Class, ConvShape, Gather, Place};
use super::micro;
use super::tile::{Rows, Tile};
use super::{Arithmetic, LANES, TILE, Target, panel};
use rayon::prelude::*;
use std::ops::Range;

/// Size of one task in tiles: their source rows stay in the second-level cache while the panels are processed.
const CHUNK_TILES: usize = 12;
/// With fewer tasks per thread than this, the panels are distributed among tasks too.
const TASKS: usize = 8;

/// What happens to a sum before it is stored: `act(scale * sum + bias)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// A factor for each output channel, padded to whole panels.
    pub scale: &'a [f32],
    /// A summand for each output channel, padded to whole panels.
    pub bias: &'a [f32],
    /// Whether negative results become zero.
    pub relu: bool,
}

/// The convolution of `x` (`[N, H, W, C]`, contiguous) with packed weights, both in the form of `arithmetic`
/// ([`Arithmetic::map`], [`Arithmetic::panels`]).
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(
    arithmetic: impl Into<Arithmetic>,
    shape: &ConvShape,
    x: &[f32],
    packed: &[f32],
    epilogue: Epilogue<'_>,
    out: &Target<'_>,
) {
    let (arithmetic, taps) = (arithmetic.into(), shape.window.taps());
    let depth = arithmetic.words(shape.cin);
    assert_eq!(x.len(), shape.input_pixels() * depth);
    assert_eq!((out.pixels(), out.channels()), (shape.output_pixels(), shape.cout));
    gathered(arithmetic, &shape.forward(), taps, x, depth, packed, epilogue, Write::Replace, out);
}

/// Whether results replace the values in the destination or are added to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Replace,
    Add,
}

/// The gradient of the input, given the gradient of the (unscaled) output and [`panel::transposed`] weights, both in the
/// form of `arithmetic`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn input_gradient(
    arithmetic: impl Into<Arithmetic>,
    shape: &ConvShape,
    grad: &[f32],
    transposed: &[f32],
    write: Write,
    out: &Target<'_>,
) {
    let (arithmetic, taps) = (arithmetic.into(), shape.window.taps());
    let depth = arithmetic.words(shape.cout);
    assert_eq!(grad.len(), shape.output_pixels() * depth);
    assert_eq!((out.pixels(), out.channels()), (shape.input_pixels(), shape.cin));
    let lanes = panel::panels(shape.cin) * LANES;
    let (scale, bias) = (vec![1.0; lanes], vec![0.0; lanes]);
    let epilogue = Epilogue { scale: &scale, bias: &bias, relu: false };
    gathered(arithmetic, &shape.input_gradient(), taps, grad, depth, transposed, epilogue, write, out);
}

#[allow(clippy::too_many_arguments)]
fn gathered(
    arithmetic: Arithmetic,
    gather: &Gather,
    taps: usize,
    source: &[f32],
    depth: usize,
    packed: &[f32],
    epilogue: Epilogue<'_>,
    write: Write,
    out: &Target<'_>,
) {
    let panels = panel::panels(out.channels());
    assert_eq!(packed.len(), panels * taps * depth * LANES);
    assert!(epilogue.scale.len() >= panels * LANES && epilogue.bias.len() >= panels * LANES);
    assert_eq!(source.len(), gather.batch * gather.source[0] * gather.source[1] * depth);
    assert_eq!(out.pixels(), gather.batch * gather.destination[0] * gather.destination[1]);
    for class in &gather.classes {
        let span = class.span();
        let zeros = vec![0f32; span * depth];
        let job =
            Job { arithmetic, gather, class, span, taps, source, depth, packed, epilogue, write, out, zeros: &zeros };
        let tiles = (gather.batch * class.pixels()).div_ceil(TILE);
        let chunks = tiles.div_ceil(CHUNK_TILES);
        let tiles_of = |chunk: usize| chunk * CHUNK_TILES..((chunk + 1) * CHUNK_TILES).min(tiles);
        let groups = (TASKS * rayon::current_num_threads()).div_ceil(chunks.max(1)).clamp(1, panels);
        if groups == 1 {
            (0..chunks).into_par_iter().for_each(|chunk| job.multiply(&job.locate(tiles_of(chunk)), 0..panels));
            continue;
        }
        let located: Vec<Located> = (0..chunks).into_par_iter().map(|chunk| job.locate(tiles_of(chunk))).collect();
        let per_group = panels.div_ceil(groups);
        (0..chunks * groups).into_par_iter().for_each(|task| {
            let (chunk, group) = (task / groups, task % groups);
            job.multiply(&located[chunk], group * per_group..((group + 1) * per_group).min(panels));
        });
    }
}

struct Job<'a> {
    arithmetic: Arithmetic,
    gather: &'a Gather,
    class: &'a Class,
    /// Number of adjacent taps that are read as one where none of them lies in the padding: their sources, and their
    /// weights, are contiguous.
    span: usize,
    taps: usize,
    source: &'a [f32],
    depth: usize,
    packed: &'a [f32],
    epilogue: Epilogue<'a>,
    write: Write,
    out: &'a Target<'a>,
    /// As long as a span of taps: the source of taps in the padding.
    zeros: &'a [f32],
}

/// Sources and destinations of some tiles; the pointers are valid as long as the [`Job`] lives.
struct Located {
    /// For each tile as many as the class has taps; where spans are read as one, only the first ones are used.
    rows: Vec<Rows>,
    tiles: Vec<TilePlace>,
}

// SAFETY: the pointers lead to data that a `Job` borrows shared, and a `Job` is itself shared between threads.
unsafe impl Send for Located {}
// SAFETY: as above.
unsafe impl Sync for Located {}

struct TilePlace {
    /// Destination pixels.
    out: [usize; TILE],
    /// How many of them are in use.
    pixels: usize,
    /// Whether spans are read as one.
    merged: bool,
}

impl Job<'_> {
    fn locate(&self, tiles: Range<usize>) -> Located {
        let count = self.class.taps.len();
        let last = self.gather.batch * self.class.pixels();
        let mut rows: Vec<Rows> = vec![[self.zeros.as_ptr(); TILE]; count * tiles.len()];
        let mut place = self.class.place(tiles.start * TILE);
        let mut found = Vec::with_capacity(tiles.len());
        for (at, tile) in tiles.enumerate() {
            let pixels = TILE.min(last - tile * TILE);
            let mut places = [place; TILE];
            let mut out = [0; TILE];
            for i in 0..pixels {
                places[i] = place;
                out[i] = self.gather.destination_pixel(self.class, place);
                place = self.class.next(place);
            }
            // Unused entries repeat the last used one.
            let last_used = places[pixels - 1];
            places[pixels..].fill(last_used);
            let merged = self.locate_tile(&places, &mut rows[at * count..(at + 1) * count]);
            found.push(TilePlace { out, pixels, merged });
        }
        Located { rows, tiles: found }
    }

    /// Fills in the source pointers of a tile's pixels, by tap or by span; returns whether by span.
    fn locate_tile(&self, places: &[Place; TILE], rows: &mut [Rows]) -> bool {
        let [height, width] = self.gather.source;
        let step = self.class.source_step;
        let (mut lines, mut ys, mut xs) = ([0; TILE], [0isize; TILE], [0isize; TILE]);
        for i in 0..TILE {
            let p = places[i];
            lines[i] = (p.image * height) as isize;
            (ys[i], xs[i]) = ((p.y * step) as isize, (p.x * step) as isize);
        }
        let merged = self.span > 1 && {
            let (first, last) = (self.class.taps[0].dx, self.class.taps[self.span - 1].dx);
            xs.iter().all(|x| x + first >= 0 && x + last < width as isize)
        };
        let every = if merged { self.span } else { 1 };
        for (rows, tap) in rows.iter_mut().zip(self.class.taps.iter().step_by(every)) {
            for i in 0..TILE {
                let (y, x) = (ys[i] + tap.dy, xs[i] + tap.dx);
                // As an unsigned number, a negative coordinate is beyond the end.
                if (y as usize) < height && (x as usize) < width {
                    let pixel = (lines[i] + y) * width as isize + x;
                    rows[i] = self.source.as_ptr().wrapping_offset(pixel * self.depth as isize);
                }
            }
        }
        merged
    }

    fn multiply(&self, located: &Located, panels: Range<usize>) {
        let count = self.class.taps.len();
        let all: Vec<usize> = self.class.taps.iter().map(|t| t.index * self.depth).collect();
        let spans: Vec<usize> = all.iter().copied().step_by(self.span).collect();
        for panel in panels {
            let width = LANES.min(self.out.channels() - panel * LANES);
            for (at, tile) in located.tiles.iter().enumerate() {
                let rows = &located.rows[at * count..];
                let (taps, depth) = if tile.merged { (&spans, self.span * self.depth) } else { (&all, self.depth) };
                // SAFETY: destination pixels of a class are in range, and no two tasks share a pixel and a panel;
                // row pointers come from `locate_tile`: sources inside the image with `depth` floats each (a span lies
                // inside its line), or `zeros`; `gathered` checked the lengths of weights and epilogue.
                unsafe {
                    let mut out = [std::ptr::null_mut(); TILE];
                    for i in 0..tile.pixels {
                        out[i] = self.out.row(tile.out[i]).add(panel * LANES);
                    }
                    micro::tile(
                        self.arithmetic,
                        &Tile {
                            rows: &rows[..taps.len()],
                            taps,
                            depth,
                            panel: self.packed[panel * self.taps * self.depth * LANES..].as_ptr(),
                            scale: self.epilogue.scale[panel * LANES..].as_ptr(),
                            bias: self.epilogue.bias[panel * LANES..].as_ptr(),
                            relu: self.epilogue.relu,
                            add: self.write == Write::Add,
                            out,
                            pixels: tile.pixels,
                            width,
                        },
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::{Isa, Window};
    use crate::nn::reference::{self, assert_close, bf16s, f32s, formed, narrow, numbers};

    /// Input and output channels that end inside a vector, a register block or a panel.
    const CASES: [(usize, usize); 4] = [(5, 29), (10, 13), (29, 5), (37, 61)];

    #[test]
    fn partial_vectors_are_written_and_their_neighbours_are_not() {
        for ((cin, cout), isa) in CASES.into_iter().flat_map(|case| Isa::all_available().map(move |isa| (case, isa))) {
            let what = format!("{cin} -> {cout}, {isa:?}");
            let shape = ConvShape::new([2, 5, 4, cin], cout, Window::new([3, 3], 2, [1, 1])).unwrap();
            let (x, weights) = (numbers(1, shape.input_pixels() * cin), numbers(2, 9 * cin * cout));
            let (affine, grad) = (numbers(3, 2 * cout), numbers(4, shape.output_pixels() * cout));
            let packed = panel::pack(&f32s(&weights), 9, cin, cout);

            let (scale, bias) = (panel::padded(&f32s(&affine[..cout])), panel::padded(&f32s(&affine[cout..])));
            let epilogue = Epilogue { scale: &scale, bias: &bias, relu: true };
            let y = reference::columns(shape.output_pixels(), cout, 7.0, &what, |target| {
                forward(isa, &shape, &f32s(&x), &packed, epilogue, target);
            });
            let expected = reference::affine_relu(&reference::conv(&shape, &x, &weights), &affine);
            assert_close(&y, &expected, 1e-6, &what);

            let transposed = panel::transposed(&packed, 9, cin, cout, None);
            let dx = reference::columns(shape.input_pixels(), cin, 7.0, &what, |target| {
                input_gradient(isa, &shape, &f32s(&grad), &transposed, Write::Add, target);
            });
            let added = reference::conv_input_gradient(&shape, &grad, &weights);
            let expected: Vec<f64> = added.iter().map(|v| 7.0 + v).collect();
            assert_close(&dx, &expected, 2e-6, &what);
        }
    }

    /// Windows whose taps are read one by one or as a line, in the padding, with gaps; sums longer than a block.
    #[test]
    fn operands_in_bf16_are_multiplied_exactly() {
        let cases = CASES.map(|case| (case, Window::new([3, 3], 2, [1, 1])));
        let more = [
            ((3, 32), Window::new([3, 3], 2, [0, 0])),
            ((300, 40), Window::new([1, 7], 1, [0, 3])),
            ((64, 24), Window::new([1, 1], 1, [0, 0])),
        ];
        for (((cin, cout), window), arithmetic) in
            cases.into_iter().chain(more).flat_map(|case| narrow().map(move |arithmetic| (case, arithmetic)))
        {
            let what = format!("{cin} -> {cout}, {window:?}, {arithmetic:?}");
            let taps = window.taps();
            let shape = ConvShape::new([2, 5, 9, cin], cout, window).unwrap();
            let (x, weights) = (numbers(1, shape.input_pixels() * cin), numbers(2, taps * cin * cout));
            let (affine, grad) = (numbers(3, 2 * cout), numbers(4, shape.output_pixels() * cout));
            let packed = panel::pack(&f32s(&weights), taps, cin, cout);
            let (scale, bias) = (panel::padded(&f32s(&affine[..cout])), panel::padded(&f32s(&affine[cout..])));
            let epilogue = Epilogue { scale: &scale, bias: &bias, relu: true };

            let [operands, formed_weights] = formed(arithmetic, &x, cin, &packed);
            let y = reference::columns(shape.output_pixels(), cout, 7.0, &what, |target| {
                forward(arithmetic, &shape, &operands, &formed_weights, epilogue, target);
            });
            let expected = reference::conv(&shape, &bf16s(&x), &bf16s(&weights));
            assert_close(&y, &reference::affine_relu(&expected, &affine), 2e-6, &what);

            let transposed = panel::transposed(&packed, taps, cin, cout, None);
            let [operands, formed_weights] = formed(arithmetic, &grad, cout, &transposed);
            let dx = reference::columns(shape.input_pixels(), cin, 7.0, &what, |target| {
                input_gradient(arithmetic, &shape, &operands, &formed_weights, Write::Add, target);
            });
            let added = reference::conv_input_gradient(&shape, &bf16s(&grad), &bf16s(&weights));
            let expected: Vec<f64> = added.iter().map(|v| 7.0 + v).collect();
            assert_close(&dx, &expected, 2e-6, &what);
        }
    }
}
