//! Radiograph-like images made by this program: for a first run without a download, and for tests.
//!
//! They are drawings, not simulations: a chest of smooth shapes (lungs, spine, heart, ribs, diaphragm) under noise,
//! each patient with a build of their own. The positive class has one to three soft opacities in the lungs, too faint
//! to be recognised by brightness alone. The spec determines every pixel, through keyed random streams.

mod chest;

use crate::rng::{Purpose, StreamRng};
use crate::spec::SyntheticSpec;

pub use chest::{DrawnOpacity, drawn, radiograph};

/// Raised whenever the same spec would give other pixels.
pub const VERSION: u32 = 1;

/// Classes, negative first.
pub const CLASSES: [&str; 2] = ["NORMAL", "OPACITY"];

/// Images of each patient.
const PER_PATIENT: u32 = 2;

/// One image to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number, from 0.
    pub image: u32,
    /// Its patient's number.
    pub patient: u32,
    /// Whether it shows an opacity.
    pub opacity: bool,
}

impl Planned {
    /// Its name, as if it were a file.
    pub fn name(&self) -> String {
        format!("{}/{}-{:05}", CLASSES[usize::from(self.opacity)], self.patient_name(), self.image)
    }

    /// Its patient's name.
    pub fn patient_name(&self) -> String {
        format!("patient{:05}", self.patient)
    }
}

/// The images to draw: each patient has two images of one class (except at most one patient with both classes, and one
/// with a single image), and `prevalence` of the images, rounded, have an opacity.
pub fn plan(spec: &SyntheticSpec) -> Vec<Planned> {
    let positives = (f64::from(spec.images) * spec.prevalence).round() as u32;
    let mut patients: Vec<u32> = (0..spec.images.div_ceil(PER_PATIENT)).collect();
    StreamRng::named(spec.seed, Purpose::Synthetic, "plan", &[]).shuffle(&mut patients);
    let images = patients.iter().flat_map(|&p| (0..PER_PATIENT).map(move |k| (p, p * PER_PATIENT + k)));
    let mut planned: Vec<Planned> = images
        .filter(|&(_, image)| image < spec.images)
        .zip(0..)
        .map(|((patient, image), rank)| Planned { image, patient, opacity: rank < positives })
        .collect();
    planned.sort_by_key(|p| p.image);
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(images: u32) -> SyntheticSpec {
        SyntheticSpec { images, prevalence: 0.4, contrast: 0.5, seed: 5 }
    }

    #[test]
    fn the_plan_keeps_to_prevalence_and_patients() {
        let planned = plan(&spec(101));
        assert_eq!(planned.len(), 101);
        assert_eq!(planned.iter().filter(|p| p.opacity).count(), 40);
        let mixed = planned.chunks(2).filter(|c| c.len() == 2 && c[0].opacity != c[1].opacity).count();
        assert!(mixed <= 1, "{mixed} patients have images of both classes");
        assert!(planned.chunks(2).all(|c| c.iter().all(|p| p.patient == c[0].patient)));
    }

    #[test]
    fn pixels_follow_from_the_spec_alone() {
        let planned = plan(&spec(4));
        assert_eq!(radiograph(&spec(4), &planned[1], 64), radiograph(&spec(4), &planned[1], 64));
        assert_ne!(radiograph(&spec(4), &planned[0], 64), radiograph(&spec(4), &planned[1], 64));
    }

    /// What an opacity adds lies inside the ellipses that are said to be drawn, and most of it well inside.
    #[test]
    fn opacities_are_where_they_are_said_to_be() {
        const SIDE: usize = 128;
        let spec = SyntheticSpec { contrast: 1.0, ..spec(40) };
        let mut seen = 0;
        for image in 0..40 {
            let [with, without] = [true, false].map(|opacity| Planned { image, patient: image / 2, opacity });
            assert!(drawn(&spec, &without).is_empty());
            let spots = drawn(&spec, &with);
            assert!((1..=3).contains(&spots.len()));
            let [with, without] = [&with, &without].map(|planned| radiograph(&spec, planned, SIDE));
            let (mut all, mut inner) = (0.0, 0.0);
            for (i, (&a, &b)) in with.iter().zip(&without).enumerate() {
                // Density only rises, but a pixel's noise grows with it, and may be negative.
                let added = (f64::from(a) - f64::from(b)).abs();
                let at = |i: usize| (i as f64 + 0.5) / SIDE as f64;
                let nearest =
                    spots.iter().map(|s| s.distance(at(i % SIDE), at(i / SIDE))).fold(f64::INFINITY, f64::min);
                assert!(added == 0.0 || nearest < 1.0 + 1e-4, "image {image}: {added} at {nearest}");
                all += added;
                inner += if nearest < 0.6 { added } else { 0.0 };
            }
            // An opacity behind the diaphragm adds nothing.
            if all > 200.0 {
                assert!(inner > 0.8 * all, "image {image}: {inner} of {all}");
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn an_opacity_brightens_the_lungs_in_proportion_to_contrast_and_changes_nothing_else() {
        let (with, without) = [true, false].map(|opacity| Planned { image: 3, patient: 1, opacity }).into();
        let faint = SyntheticSpec { contrast: 0.25, ..spec(4) };
        let strong = SyntheticSpec { contrast: 1.0, ..spec(4) };
        let plain = radiograph(&strong, &without, 96);
        assert_eq!(plain, radiograph(&faint, &without, 96), "contrast is a property of opacities");
        let added = |spec: &SyntheticSpec| -> f64 {
            let pixels = radiograph(spec, &with, 96);
            pixels.iter().zip(&plain).map(|(&a, &b)| f64::from(a) - f64::from(b)).sum::<f64>() / 96.0 / 96.0
        };
        assert!(added(&faint) > 0.1, "{}", added(&faint));
        assert!(added(&strong) > 2.5 * added(&faint), "{} {}", added(&strong), added(&faint));
    }
}
