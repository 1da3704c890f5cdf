//! Convolution and its input gradient: tiles over gathered rows.

use super::geometry::{Class, ConvShape, Gather, Place};
use super::tile::{self, Rows, Tile};
use super::{Isa, LANES, TILE, Target, panel};
use rayon::prelude::*;

/// Pixels of one task: their source rows stay in the second-level cache while the panels go by.
const CHUNK_TILES: usize = 12;
/// Tasks below which the panels are spread too.
const TASKS: usize = 16;

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

/// The convolution of `x` (`[N, H, W, C]`, contiguous) with packed weights.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(isa: Isa, shape: &ConvShape, x: &[f32], packed: &[f32], epilogue: Epilogue<'_>, out: &Target<'_>) {
    assert_eq!(x.len(), shape.input_pixels() * shape.cin);
    assert_eq!((out.pixels(), out.channels()), (shape.output_pixels(), shape.cout));
    gathered(isa, &shape.forward(), shape.window.taps(), x, shape.cin, packed, epilogue, Write::Replace, out);
}

/// What becomes of the values that are already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Replace,
    Add,
}

/// The gradient of the input, given the gradient of the (unscaled) output and [`panel::transposed`] weights.
///
/// # Panics
/// If a length does not fit the shape.
pub fn input_gradient(isa: Isa, shape: &ConvShape, grad: &[f32], transposed: &[f32], write: Write, out: &Target<'_>) {
    assert_eq!(grad.len(), shape.output_pixels() * shape.cout);
    assert_eq!((out.pixels(), out.channels()), (shape.input_pixels(), shape.cin));
    let lanes = panel::panels(shape.cin) * LANES;
    let (scale, bias) = (vec![1.0; lanes], vec![0.0; lanes]);
    let epilogue = Epilogue { scale: &scale, bias: &bias, relu: false };
    gathered(isa, &shape.input_gradient(), shape.window.taps(), grad, shape.cout, transposed, epilogue, write, out);
}

#[allow(clippy::too_many_arguments)]
fn gathered(
    isa: Isa,
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
    let isa = isa.checked();
    let zeros = vec![0f32; depth];
    let job = Job { isa, gather, taps, source, depth, packed, epilogue, write, out, zeros: &zeros };
    for class in &gather.classes {
        let tiles = (gather.batch * class.pixels()).div_ceil(TILE);
        let chunks = tiles.div_ceil(CHUNK_TILES);
        let groups = TASKS.div_ceil(chunks.max(1)).clamp(1, panels);
        let per_group = panels.div_ceil(groups);
        (0..chunks * groups).into_par_iter().for_each(|task| {
            let (chunk, group) = (task / groups, task % groups);
            let panels = group * per_group..((group + 1) * per_group).min(panels);
            let tiles = chunk * CHUNK_TILES..((chunk + 1) * CHUNK_TILES).min(tiles);
            job.run(class, tiles, panels);
        });
    }
}

struct Job<'a> {
    isa: Isa,
    gather: &'a Gather,
    taps: usize,
    source: &'a [f32],
    depth: usize,
    packed: &'a [f32],
    epilogue: Epilogue<'a>,
    write: Write,
    out: &'a Target<'a>,
    zeros: &'a [f32],
}

impl Job<'_> {
    fn run(&self, class: &Class, tiles: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let offsets: Vec<usize> = class.taps.iter().map(|t| t.index * self.depth).collect();
        let count = class.taps.len();
        let mut rows: Vec<Rows> = vec![[self.zeros.as_ptr(); TILE]; count * tiles.len()];
        let mut outs = vec![[0usize; TILE]; tiles.len()];
        let last = self.gather.batch * class.pixels();
        let mut place = class.place(tiles.start * TILE);
        for (tile, outs) in outs.iter_mut().enumerate() {
            let pixels = TILE.min(last - (tiles.start + tile) * TILE);
            let mut places = [place; TILE];
            for (i, slot) in places.iter_mut().enumerate() {
                *slot = place;
                // Unused places repeat the last used one.
                if i + 1 < pixels {
                    place = class.next(place);
                }
            }
            place = class.next(place);
            for (out, &p) in outs.iter_mut().zip(&places[..pixels]) {
                *out = self.gather.destination_pixel(class, p);
            }
            self.locate(class, &places, &mut rows[tile * count..(tile + 1) * count]);
        }
        for panel in panels {
            for (tile, outs) in outs.iter().enumerate() {
                let pixels = TILE.min(last - (tiles.start + tile) * TILE);
                // SAFETY: destination pixels of a class are in range, and no two tasks share a pixel and a panel;
                // row pointers come from `locate`; `gathered` checked the lengths of weights and epilogue.
                unsafe {
                    let mut out = [std::ptr::null_mut(); TILE];
                    for (out, &pixel) in out.iter_mut().zip(&outs[..pixels]) {
                        *out = self.out.row(pixel).add(panel * LANES);
                    }
                    tile::tile(
                        self.isa,
                        &Tile {
                            rows: &rows[tile * count..(tile + 1) * count],
                            taps: &offsets,
                            depth: self.depth,
                            panel: self.packed[panel * self.taps * self.depth * LANES..].as_ptr(),
                            scale: self.epilogue.scale[panel * LANES..].as_ptr(),
                            bias: self.epilogue.bias[panel * LANES..].as_ptr(),
                            relu: self.epilogue.relu,
                            add: self.write == Write::Add,
                            out,
                            pixels,
                            width: LANES.min(self.out.channels() - panel * LANES),
                        },
                    );
                }
            }
        }
    }

    /// Fills in where each pixel of a tile finds its source, tap by tap.
    fn locate(&self, class: &Class, places: &[Place; TILE], rows: &mut [Rows]) {
        let (first, last) = (places[0], places[TILE - 1]);
        let one_line = first.image == last.image && first.y == last.y;
        let inner = |p: &Place| class.is_inner(*p, self.gather.source);
        if one_line && inner(&first) && inner(&last) || !one_line && places.iter().all(inner) {
            // No padding: every tap lies at the same distance from the pixel's own source.
            let width = self.gather.source[1] as isize;
            let base: [*const f32; TILE] = std::array::from_fn(|i| {
                let p = places[i];
                let y = p.image * self.gather.source[0] + p.y * class.source_step;
                let pixel = y * self.gather.source[1] + p.x * class.source_step;
                self.source.as_ptr().wrapping_add(pixel * self.depth)
            });
            for (rows, tap) in rows.iter_mut().zip(&class.taps) {
                let distance = (tap.dy * width + tap.dx) * self.depth as isize;
                *rows = base.map(|b| b.wrapping_offset(distance));
            }
        } else {
            for (rows, &tap) in rows.iter_mut().zip(&class.taps) {
                *rows = std::array::from_fn(|i| match self.gather.source_pixel(class, places[i], tap) {
                    Some(pixel) => self.source[pixel * self.depth..][..self.depth].as_ptr(),
                    None => self.zeros.as_ptr(),
                });
            }
        }
    }
}
