//! The random transformation of one view of one image.

use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::rng::{Purpose, StreamRng};
use crate::spec::AugmentSpec;

/// A view of an image: the original or an augmented one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum View {
    /// The image as it is: validation, test, and training at strength 0.
    Original,
    /// View `view` of the image's bank of views: the same for every trial and epoch with equal ranges, so it can be
    /// cached.
    Bank { view: u32 },
    /// A view that only this trial sees, in this epoch only.
    Fresh { trial: TrialNumber, epoch: Epoch },
}

/// The drawn transformation of one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewDraw {
    /// Mirrored left to right, before the rotation. A vertical flip is this one and half a turn.
    pub flip: bool,
    /// Rotation about the centre in degrees, counter-clockwise as seen.
    pub angle: f64,
    /// Factor on the size, about the centre, after the rotation; 1 changes nothing.
    pub zoom: f64,
    /// Displacement to the right and downwards as shares of the side, after the zoom.
    pub shift: [f64; 2],
    /// Factor on every pixel; 1 changes nothing.
    pub brightness: f64,
    /// Weight of the Sobel magnitude that is added; 0 adds nothing.
    pub edges: f64,
    /// Factor on the difference from the image's mean, after edges and brightness; 1 changes nothing.
    pub contrast: f64,
    /// Standard deviation of Gaussian noise as a share of the range of values; 0 adds nothing.
    pub noise: f64,
    /// What the noise is drawn from; 0 without noise.
    pub noise_seed: u64,
}

impl ViewDraw {
    /// The image as it is.
    pub fn original() -> Self {
        Self {
            flip: false,
            angle: 0.0,
            zoom: 1.0,
            shift: [0.0; 2],
            brightness: 1.0,
            edges: 0.0,
            contrast: 1.0,
            noise: 0.0,
            noise_seed: 0,
        }
    }

    /// The transformation of `view` of the image with this digest, under the study's `seed`.
    ///
    /// The same uniform numbers are drawn whatever the spec says, then scaled by the ranges times the strength: changing
    /// the strength changes only the degree of a view's transformation, and strength 0 gives the original.
    pub fn draw(spec: &AugmentSpec, seed: u64, image: &Digest, view: View) -> Self {
        let mut rng = match view {
            View::Original => return Self::original(),
            View::Bank { view } => stream(seed, image, &[u64::from(view)]),
            View::Fresh { trial, epoch } => stream(seed, image, &[u64::from(trial.0), u64::from(epoch.0)]),
        };
        let [flip, angle, brightness, edges] = std::array::from_fn(|_| rng.unit());
        // Drawn after those, which keeps the views of studies that use none of them.
        let [vertical, turned, turn, zoom, right, down, contrast, noise] = std::array::from_fn(|_| rng.unit());
        let either_way = |unit: f64, range: f64| (2.0 * unit - 1.0) * range * spec.strength;
        let vertical = vertical < spec.vertical_flip * spec.strength;
        let quarters = if turned < spec.quarter_turns * spec.strength { 1.0 + (3.0 * turn).floor() } else { 0.0 };
        let noise = noise * spec.noise * spec.strength;
        Self {
            flip: (flip < spec.flip * spec.strength) != vertical,
            angle: either_way(angle, spec.rotation) + if vertical { 180.0 } else { 0.0 } + 90.0 * quarters,
            zoom: 1.0 + either_way(zoom, spec.zoom),
            shift: [right, down].map(|unit| either_way(unit, spec.shift)),
            brightness: 1.0 + either_way(brightness, spec.brightness),
            edges: edges * spec.edges * spec.strength,
            contrast: 1.0 + either_way(contrast, spec.contrast),
            noise,
            noise_seed: if noise > 0.0 { rng.bits() } else { 0 },
        }
    }

    /// Whether pixel values are unchanged, apart from mirroring.
    pub(super) fn keeps_values(&self) -> bool {
        Self { flip: false, ..*self } == Self::original()
    }
}

fn stream(seed: u64, image: &Digest, counters: &[u64]) -> StreamRng {
    StreamRng::named(seed, Purpose::Augment, &image.to_string(), counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(strength: f64) -> AugmentSpec {
        AugmentSpec { strength, brightness: 0.3, edges: 0.4, ..AugmentSpec::default() }
    }

    #[test]
    fn at_strength_zero_every_view_is_the_original() {
        for view in 0..50 {
            let drawn = ViewDraw::draw(&spec(0.0), 3, &Digest::of(b"x"), View::Bank { view });
            assert_eq!(drawn, ViewDraw::original());
        }
    }

    #[test]
    fn draws_fill_their_ranges_evenly() {
        let n = 4000;
        let draws: Vec<ViewDraw> =
            (0..n).map(|view| ViewDraw::draw(&spec(1.0), 3, &Digest::of(b"x"), View::Bank { view })).collect();
        let mean = |f: &dyn Fn(&ViewDraw) -> f64| draws.iter().map(f).sum::<f64>() / f64::from(n);
        // Four standard errors of the mean of n draws: range / sqrt(12 n) * 4, and sqrt(p q / n) * 4 for the flip.
        assert!((mean(&|d| f64::from(u8::from(d.flip))) - 0.5).abs() < 0.032);
        assert!(mean(&|d| d.angle).abs() < 0.74);
        assert!((mean(&|d| d.brightness) - 1.0).abs() < 0.011);
        assert!((mean(&|d| d.edges) - 0.2).abs() < 0.0074);
        let largest = draws.iter().map(|d| d.angle.abs()).fold(0.0, f64::max);
        assert!((19.9..=20.0).contains(&largest), "{largest}");
    }

    #[test]
    fn further_draws_fill_their_ranges_and_leave_the_first_ones_alone() {
        let n = 4000;
        let further = AugmentSpec {
            vertical_flip: 0.5,
            quarter_turns: 0.75,
            zoom: 0.2,
            shift: 0.1,
            contrast: 0.3,
            noise: 0.05,
            ..spec(1.0)
        };
        let at = |spec: &AugmentSpec, view| ViewDraw::draw(spec, 3, &Digest::of(b"x"), View::Bank { view });
        let draws: Vec<ViewDraw> = (0..n).map(|view| at(&further, view)).collect();
        let mean = |f: &dyn Fn(&ViewDraw) -> f64| draws.iter().map(f).sum::<f64>() / f64::from(n);
        // Four standard errors of the mean of 4,000 uniform draws over a range r: 4 r / sqrt(12 n) = 0.0183 r.
        assert!((mean(&|d| d.zoom) - 1.0).abs() < 0.0073);
        assert!((mean(&|d| d.contrast) - 1.0).abs() < 0.011);
        assert!(mean(&|d| d.shift[0]).abs() < 0.0037 && mean(&|d| d.shift[1]).abs() < 0.0037);
        assert!((mean(&|d| d.noise) - 0.025).abs() < 0.00092);
        let mut turns = [0; 8];
        for (draw, view) in draws.iter().zip(0..) {
            let first = at(&spec(1.0), view);
            let turned = draw.angle - first.angle;
            assert!((turned / 90.0 - (turned / 90.0).round()).abs() < 1e-9, "{turned}");
            let vertical = draw.flip != first.flip;
            turns[usize::from(vertical) * 4 + (turned / 90.0).round() as usize % 4] += 1;
            assert_eq!((draw.brightness, draw.edges), (first.brightness, first.edges));
        }
        // All eight symmetries of the square are equally likely with these probabilities: 500 each, within 4 of 21.
        assert!(turns.iter().all(|count| (416..=584).contains(count)), "{turns:?}");
        let mut seeds: Vec<u64> = draws.iter().map(|d| d.noise_seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), draws.len());
    }

    #[test]
    fn a_fresh_view_depends_on_trial_and_epoch() {
        let at = |trial, epoch| {
            let view = View::Fresh { trial: TrialNumber(trial), epoch: Epoch(epoch) };
            ViewDraw::draw(&spec(1.0), 3, &Digest::of(b"x"), view)
        };
        assert_eq!(at(1, 2), at(1, 2));
        assert_ne!(at(1, 2), at(2, 1));
        assert_ne!(at(1, 2), at(1, 3));
    }

    proptest! {
        #[test]
        fn strength_only_scales_a_view(strength in 0.0..=1.0f64, view in 0u32..1000, seed: u64) {
            let image = Digest::of(b"image");
            let full = ViewDraw::draw(&spec(1.0), seed, &image, View::Bank { view });
            let part = ViewDraw::draw(&spec(strength), seed, &image, View::Bank { view });
            prop_assert!((part.angle - full.angle * strength).abs() < 1e-12);
            prop_assert!((part.edges - full.edges * strength).abs() < 1e-12);
            prop_assert!((part.brightness - 1.0 - (full.brightness - 1.0) * strength).abs() < 1e-12);
            prop_assert!(full.flip || !part.flip, "a weaker view flips only where the full one does");
        }
    }
}
