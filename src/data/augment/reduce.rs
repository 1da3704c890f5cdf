//! Views for a network that sees its images smaller than they are kept.

use super::{ViewDraw, render};
use crate::spec::PixelScaling;
use std::cell::RefCell;

thread_local! {
    /// The view before it is reduced, and one of its rows after: reused by the next view.
    static WHOLE: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Renders views of square images as a network takes them: at the side of the images, or reduced to a smaller one.
#[derive(Clone, Debug)]
pub struct Renderer {
    size: usize,
    channels: usize,
    side: usize,
    scaling: PixelScaling,
    reduction: Option<Reduction>,
}

impl Renderer {
    /// For images of `size` pixels a side and 1 or 3 `channels`; its views have `side` pixels a side.
    ///
    /// # Panics
    /// If `side` is 0 or larger than `size`.
    pub fn new((size, channels): (usize, usize), side: usize, scaling: PixelScaling) -> Self {
        let reduction = (side != size).then(|| Reduction::new(size, side));
        Self { size, channels, side, scaling, reduction }
    }

    /// Side of the views in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Renders one view as [`render`] does; augmentation comes before the reduction. `out` has `side * side * 3` values.
    ///
    /// # Panics
    /// If an image or `out` has another length.
    pub fn render(&self, pixels: &[u8], draw: &ViewDraw, out: &mut [f32]) {
        let Some(reduction) = &self.reduction else {
            return render(pixels, self.size, self.channels, draw, self.scaling, out);
        };
        WHOLE.with_borrow_mut(|(whole, row)| {
            whole.resize(self.size * self.size * 3, 0.0);
            render(pixels, self.size, self.channels, draw, self.scaling, whole);
            reduction.apply(whole, row, out);
        });
    }
}

/// A triangle filter as wide as the reduction, along each axis: that of Pillow's `BILINEAR`, which also made the images,
/// and of PyTorch's `interpolate` with `antialias`, on values that are not rounded.
#[derive(Clone, Debug)]
pub struct Reduction {
    from: usize,
    /// For each place of the result the first place that it takes, and the weights from there, whose sum is 1.
    weights: Vec<(usize, Vec<f32>)>,
}

impl Reduction {
    /// From `from` to `to` values along each axis.
    ///
    /// # Panics
    /// If `to` is 0 or larger than `from`.
    pub fn new(from: usize, to: usize) -> Self {
        assert!((1..=from).contains(&to), "{from} px cannot be reduced to {to} px");
        let width = from as f64 / to as f64;
        let weights = (0..to).map(|i| {
            let centre = (i as f64 + 0.5) * width;
            let first = (centre - width + 0.5).max(0.0) as usize;
            let end = ((centre + width + 0.5) as usize).min(from);
            let triangle = |place: usize| (1.0 - ((place as f64 + 0.5 - centre) / width).abs()).max(0.0);
            let sum: f64 = (first..end).map(triangle).sum();
            (first, (first..end).map(|place| (triangle(place) / sum) as f32).collect())
        });
        Self { from, weights: weights.collect() }
    }

    /// The weights as a matrix `[to, from]`, row-major: `M x Mᵀ` is the reduced image of `x`.
    pub fn matrix(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.weights.len() * self.from];
        for (row, (first, weights)) in matrix.chunks_exact_mut(self.from).zip(&self.weights) {
            row[*first..][..weights.len()].copy_from_slice(weights);
        }
        matrix
    }

    /// Reduces a picture of three channels, channels last. `row`: a buffer.
    fn apply(&self, picture: &[f32], row: &mut Vec<f32>, out: &mut [f32]) {
        let (to, length) = (self.weights.len(), self.from * 3);
        assert_eq!((picture.len(), out.len()), (self.from * length, to * to * 3), "pictures of three channels");
        for (out, (first, weights)) in out.chunks_exact_mut(to * 3).zip(&self.weights) {
            row.clear();
            row.resize(length, 0.0);
            for (line, weight) in picture[first * length..].chunks_exact(length).zip(weights) {
                row.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
            }
            for (out, (first, weights)) in out.chunks_exact_mut(3).zip(&self.weights) {
                let mut sums = [0f32; 3];
                for (pixel, weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * value);
                }
                out.copy_from_slice(&sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::View;
    use crate::digest::Digest;
    use crate::spec::AugmentSpec;

    /// `torch.nn.functional.interpolate(x, size=(3, 3), mode="bilinear", antialias=True)` of x[i][j] = ((7 i + 3 j²) mod 11) / 2
    /// for 8 x 8 pixels.
    const TORCH: [f32; 9] =
        [2.559_557, 2.060_777, 2.282_548, 2.574_875, 2.334_467, 2.464_912, 2.818_906, 2.765_038, 2.279_086];

    #[test]
    fn pictures_are_reduced_as_pytorch_does() {
        let picture: Vec<f32> =
            (0..64).map(|at| ((7 * (at / 8) + 3 * (at % 8) * (at % 8)) % 11) as f32 / 2.0).collect();
        let colours: Vec<f32> = picture.iter().flat_map(|v| [*v, 2.0 * v, -v]).collect();
        let (reduction, mut out) = (Reduction::new(8, 3), [0f32; 27]);
        reduction.apply(&colours, &mut Vec::new(), &mut out);
        for (pixel, wanted) in out.chunks_exact(3).zip(TORCH) {
            for (found, factor) in pixel.iter().zip([1.0, 2.0, -1.0]) {
                assert!((found - factor * wanted).abs() < 1e-5, "{found} {wanted}");
            }
        }
        let matrix = reduction.matrix();
        let one = |i: usize, j: usize| -> f32 {
            (0..64).map(|at| matrix[i * 8 + at / 8] * matrix[j * 8 + at % 8] * picture[at]).sum()
        };
        for (at, wanted) in TORCH.into_iter().enumerate() {
            assert!((one(at / 3, at % 3) - wanted).abs() < 1e-5);
        }
    }

    #[test]
    fn every_reduction_keeps_constants_and_takes_places_inside_the_picture() {
        for from in 1..40 {
            for to in 1..=from {
                for (first, weights) in &Reduction::new(from, to).weights {
                    assert!(!weights.is_empty() && first + weights.len() <= from, "{from} {to}");
                    assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn views_are_augmented_at_full_size_and_a_full_side_changes_nothing() {
        let pixels: Vec<u8> = (0..400u32).map(|i| (i * 37 % 251) as u8).collect();
        let spec = AugmentSpec { strength: 1.0, ..AugmentSpec::default() };
        let draw = ViewDraw::draw(&spec, 3, &Digest::of(b"image"), View::Bank { view: 2 });
        let mut whole = vec![0f32; 1200];
        render(&pixels, 20, 1, &draw, PixelScaling::Imagenet, &mut whole);
        let rendered = |side: usize| {
            let mut out = vec![0f32; side * side * 3];
            Renderer::new((20, 1), side, PixelScaling::Imagenet).render(&pixels, &draw, &mut out);
            out
        };
        assert_eq!(rendered(20), whole);
        let mut reduced = vec![0f32; 9 * 9 * 3];
        Reduction::new(20, 9).apply(&whole, &mut Vec::new(), &mut reduced);
        assert_eq!(rendered(9), reduced);
    }
}
