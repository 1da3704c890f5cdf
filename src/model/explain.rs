//! Heat maps of image files.

use super::{Card, Decoded, Model, ModelError, Opinion};
use crate::data::decode::channels;
use crate::nn::attribution::{HeatMap, Weighing};
use crate::report::{DrawError, heat_map};
use crate::runner::image::{self, Scorer};
use std::path::PathBuf;

/// Scores image files and says which places of them speak for a class.
pub struct Explainer<'a> {
    model: &'a Model,
    /// For each trial.
    maps: Vec<image::Explainer<'a>>,
    stage: String,
    weighing: Weighing,
}

/// What speaks for a class in an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The class.
    pub class: String,
    /// The contributions.
    pub map: HeatMap,
    /// The image as the model takes it, before any reduction: side in pixels, channels, and pixels, row by row.
    pub image: (usize, usize, Vec<u8>),
}

impl Model {
    /// What makes heat maps at a stage of the network, weighed by a method; `None`: at the stage that fits the size of the
    /// images, and by the method that fits the stage. Of several trials the mean of their maps is taken, by default at the
    /// earliest of their stages, which all of them have.
    ///
    /// # Errors
    /// If the network gives no heat maps, or has no such stage, or the trials have different networks, or see
    /// images of different sizes.
    pub fn explainer(&self, stage: Option<&str>, weighing: Option<Weighing>) -> Result<Explainer<'_>, ModelError> {
        let Some((first, others)) = self.scorers.split_first() else { return Err(ModelError::Mixed) };
        let kind = first.network().backbone;
        let seen = |scorer: &Scorer| (scorer.network().backbone, scorer.side());
        if others.iter().any(|other| seen(other) != seen(first)) {
            return Err(ModelError::Mixed);
        }
        let own = |scorer: &Scorer| scorer.explained_stage().and_then(|stage| Some((kind.position(stage)?, stage)));
        let fitting = || self.scorers.iter().filter_map(own).min().map(|(_, stage)| stage);
        let stage = stage.or_else(fitting).unwrap_or(&first.network().tap);
        let mut maps = vec![first.explainer(stage, weighing)?];
        let weighing = maps[0].weighing();
        for other in others {
            maps.push(other.explainer(stage, Some(weighing))?);
        }
        Ok(Explainer { model: self, maps, stage: stage.to_owned(), weighing })
    }
}

impl Explainer<'_> {
    /// The stage whose activations are weighed.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// How its activations are weighed.
    pub fn weighing(&self) -> Weighing {
        self.weighing
    }

    /// Scores image files as [`Model::predict`] does, each with a map for the positive class; where there are more than two
    /// classes, for the class that is decided for. All maps and images are kept: call it with a few hundred files at a
    /// time.
    ///
    /// # Errors
    /// If the network fails.
    pub fn explain(&self, files: &[PathBuf]) -> Result<Vec<Result<(Opinion, Explanation), String>>, ModelError> {
        let Card { classes, positive, preprocessing, .. } = &self.model.card;
        let images = self.model.decoded(files);
        let opinions = self.model.opinions(&images)?;
        let pixels: Vec<&[u8]> = images.iter().flatten().map(|image| image.pixels.as_slice()).collect();
        let class = |opinion: &Opinion| match classes.len() {
            2 => *positive as usize,
            _ => self.model.decided(&opinion.scores),
        };
        let explained: Vec<usize> = opinions.iter().flatten().map(class).collect();
        let each = self.maps.iter().map(|maps| maps.maps(&pixels, &explained)).collect::<Result<Vec<_>, _>>()?;
        let mut maps = mean_of(each).into_iter().zip(&explained);
        let both = |(image, opinion): (Result<Decoded, String>, Result<Opinion, String>)| {
            let (image, opinion) = (image?, opinion?);
            let (map, &class) = maps.next().ok_or_else(|| "it has no map".to_owned())?;
            let image = (preprocessing.size, channels(preprocessing.colour), image.pixels);
            Ok((opinion, Explanation { class: classes[class].clone(), map, image }))
        };
        Ok(images.into_iter().zip(opinions).map(both).collect())
    }
}

impl Explanation {
    /// Where the largest contribution is, as shares of the image's width and height from its upper left corner; `None` if
    /// nothing speaks for the class.
    pub fn peak(&self) -> Option<[f64; 2]> {
        self.map.peak().map(|(place, _)| place.map(|v| v / self.image.0 as f64))
    }

    /// The image, and beside it the map over it, as a PNG file: see [`heat_map`].
    ///
    /// # Errors
    /// If encoding fails.
    pub fn png(&self) -> Result<Vec<u8>, DrawError> {
        let (side, channels, pixels) = &self.image;
        heat_map(pixels, (*side, *channels), &self.map)
    }
}

/// The mean of several networks' maps of the same images at the same stage.
fn mean_of(networks: Vec<Vec<HeatMap>>) -> Vec<HeatMap> {
    let n = networks.len() as f32;
    let mut sums = image::summed(networks, |sum: &mut HeatMap, map| {
        sum.values.iter_mut().zip(map.values).for_each(|(sum, value)| *sum += value);
    });
    sums.iter_mut().for_each(|sum| sum.values.iter_mut().for_each(|value| *value /= n));
    sums
}
