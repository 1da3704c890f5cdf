//! What the images of a study looked like before its network saw them, and what of another image is unlike that.

use crate::data::decode::{Appearance, QUANTILES};
use serde::{Deserialize, Serialize};

/// By how much a size, a shape or a colour may lie outside what was seen.
const SLACK: f64 = 1.1;
/// The same for colour, whose smallest value is 0.
const TINT: f64 = 0.02;

/// What of an image is unlike those that the model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Unlike {
    /// The network's features are farther from those of the training images than any validation image's.
    Features,
    /// Its shorter side is more than a tenth smaller than any, or its longer side more than a tenth larger.
    Size,
    /// It is more than a tenth wider for its height than any, or narrower.
    Shape,
    /// It has more colour than any.
    Colour,
    /// The distribution of its grey levels is farther from the mean one than any.
    Brightness,
}

/// How far images are from what a model knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unlikeness {
    /// The median.
    pub median: f64,
    /// The largest: images beyond it are unlike all of them.
    pub largest: f64,
}

/// What training and validation images looked like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// How many were looked at, evenly spaced among all.
    pub images: usize,
    /// The smallest and the largest side in pixels.
    pub sides: [u32; 2],
    /// The smallest and the largest width over height.
    pub aspect: [f64; 2],
    /// The most colour: see [`Appearance::colour`].
    pub colour: f64,
    /// The mean over images of each quantile of the grey level: their barycentre under Wasserstein's distance.
    pub grey: [f32; QUANTILES],
    /// Their distances from it, in grey levels.
    pub shift: Unlikeness,
}

impl Inputs {
    /// Of these images; `None` if there are none.
    pub(super) fn of(seen: &[Appearance]) -> Option<Self> {
        let first = seen.first()?;
        let grey: [f32; QUANTILES] =
            std::array::from_fn(|i| seen.iter().map(|a| a.grey[i]).sum::<f32>() / seen.len() as f32);
        let mut shifts: Vec<f64> = seen.iter().map(|a| a.shift(&grey)).collect();
        shifts.sort_by(f64::total_cmp);
        let mut inputs = Self {
            images: seen.len(),
            sides: first.size,
            aspect: [first.aspect(); 2],
            colour: 0.0,
            grey,
            shift: Unlikeness { median: shifts[shifts.len() / 2], largest: shifts[shifts.len() - 1] },
        };
        inputs.sides.sort_unstable();
        for a in seen {
            let [w, h] = a.size;
            inputs.sides = [inputs.sides[0].min(w.min(h)), inputs.sides[1].max(w.max(h))];
            inputs.aspect = [inputs.aspect[0].min(a.aspect()), inputs.aspect[1].max(a.aspect())];
            inputs.colour = inputs.colour.max(a.colour);
        }
        Some(inputs)
    }

    /// In what an image is unlike these.
    pub fn unlike(&self, image: &Appearance) -> Vec<Unlike> {
        let [small, large] = self.sides.map(f64::from);
        let [w, h] = image.size.map(f64::from);
        let [narrow, wide] = self.aspect;
        let tests = [
            (Unlike::Size, w.min(h) * SLACK < small || w.max(h) > large * SLACK),
            (Unlike::Shape, image.aspect() * SLACK < narrow || image.aspect() > wide * SLACK),
            (Unlike::Colour, image.colour > self.colour * SLACK + TINT),
            (Unlike::Brightness, image.shift(&self.grey) > self.shift.largest),
        ];
        tests.into_iter().filter_map(|(what, is)| is.then_some(what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_named_and_what_was_seen_is_not() {
        let image = |size, colour, level: f32| Appearance { size, colour, grey: [level; QUANTILES] };
        let seen = [image([300, 200], 0.0, 100.0), image([600, 500], 0.01, 140.0), image([250, 240], 0.0, 120.0)];
        let inputs = Inputs::of(&seen).unwrap();
        assert_eq!((inputs.sides, inputs.aspect), ([200, 600], [250.0 / 240.0, 1.5]));
        assert_eq!((inputs.shift.median, inputs.shift.largest), (20.0, 20.0));
        assert!(seen.iter().all(|a| inputs.unlike(a).is_empty()));
        assert_eq!(inputs.unlike(&image([150, 120], 0.0, 120.0)), [Unlike::Size]);
        assert_eq!(inputs.unlike(&image([700, 650], 0.0, 120.0)), [Unlike::Size]);
        assert_eq!(inputs.unlike(&image([240, 400], 0.0, 120.0)), [Unlike::Shape]);
        assert_eq!(inputs.unlike(&image([300, 250], 0.2, 141.0)), [Unlike::Colour, Unlike::Brightness]);
        assert_eq!(inputs.unlike(&image([210, 195], 0.03, 101.0)), []);
        assert!(Inputs::of(&[]).is_none());
    }
}
