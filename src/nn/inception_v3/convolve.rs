//! Which kernel computes a convolution on the CPU, and the form of its operands.

use super::arena::Arena;
use crate::nn::kernel::conv_cpu::{self, Epilogue, Write};
use crate::nn::kernel::winograd::{self, Taps};
use crate::nn::kernel::{Arithmetic, ConvShape, Target};
use std::cell::OnceCell;

/// A feature map that convolutions read, `[pixels, channels]`.
pub(super) struct Map<'a> {
    pub data: &'a [f32],
    channels: usize,
    /// Its operands in the form of an arithmetic that rounds them, made when first used.
    operands: OnceCell<Vec<f32>>,
}

impl<'a> Map<'a> {
    pub fn new(data: &'a [f32], channels: usize) -> Self {
        Self { data, channels, operands: OnceCell::new() }
    }

    /// Operands of products, from the arena where they are not the map itself.
    fn operands(&self, arithmetic: Arithmetic, arena: &mut Arena) -> &[f32] {
        if !arithmetic.rounds() {
            return self.data;
        }
        self.operands.get_or_init(|| {
            let mut out = arena.take(self.data.len() / self.channels * arithmetic.words(self.channels));
            arithmetic.map(self.data, self.channels, &mut out);
            out
        })
    }

    /// Returns what was made for it to the arena.
    pub fn give(self, arena: &mut Arena) {
        if let Some(operands) = self.operands.into_inner() {
            arena.give(operands);
        }
    }
}

/// Packed weights of a convolution of `shape` as [`convolve`] reads them, in a buffer of the arena; `None` if they are
/// read as they are.
pub(super) fn formed(
    arithmetic: Arithmetic,
    arena: &mut Arena,
    packed: &[f32],
    shape: &ConvShape,
    taps: Taps,
) -> Option<Vec<f32>> {
    let (cin, cout) = (shape.cin, shape.cout);
    let transformed = winograd::pays(shape).then(|| {
        let mut transformed = arena.take(winograd::transformed_shape(cin, cout).iter().product());
        winograd::transform_weights(arithmetic.isa(), packed, cin, cout, taps, &mut transformed);
        transformed
    });
    if !arithmetic.rounds() {
        return transformed;
    }
    let rows = if transformed.is_some() { winograd::POSITIONS } else { shape.window.taps() };
    let mut out = arena.take(arithmetic.packed_length(rows, cin, cout));
    arithmetic.panels(transformed.as_deref().unwrap_or(packed), cin, &mut out);
    if let Some(transformed) = transformed {
        arena.give(transformed);
    }
    Some(out)
}

/// The convolution of `map` with `weights` from [`formed`] (with [`Taps::Forward`]), or packed ones where it returns
/// none.
pub(super) fn convolve(
    arithmetic: Arithmetic,
    arena: &mut Arena,
    shape: &ConvShape,
    map: &Map<'_>,
    weights: &[f32],
    epilogue: Epilogue<'_>,
    out: &Target<'_>,
) {
    if winograd::pays(shape) {
        winograd::forward(arithmetic, shape, map.data, weights, epilogue, Write::Replace, out);
    } else {
        conv_cpu::forward(arithmetic, shape, map.operands(arithmetic, arena), weights, epilogue, out);
    }
}

/// The gradient of the input of the convolution `shape`, from that of its (unscaled) output and
/// [`crate::nn::kernel::panel::transposed`] weights.
pub(super) fn input_gradient(
    arithmetic: Arithmetic,
    arena: &mut Arena,
    shape: &ConvShape,
    grad: &[f32],
    transposed: &[f32],
    write: Write,
    out: &Target<'_>,
) {
    // A convolution with the channels swapped.
    let mirrored = winograd::mirrored(shape);
    let formed = formed(arithmetic, arena, transposed, &mirrored, Taps::Reversed);
    let weights = formed.as_deref().unwrap_or(transposed);
    if winograd::pays(&mirrored) {
        winograd::input_gradient(arithmetic, shape, grad, weights, write, out);
    } else {
        let map = Map::new(grad, shape.cout);
        conv_cpu::input_gradient(arithmetic, shape, map.operands(arithmetic, arena), weights, write, out);
        map.give(arena);
    }
    if let Some(formed) = formed {
        arena.give(formed);
    }
}
