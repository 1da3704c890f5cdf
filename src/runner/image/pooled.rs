//! What the study's frozen network makes of its images, for looking at them rather than training on them.

use super::feed::Frozen;
use super::watch::watched;
use super::{ImageError, ImageRunner};
use crate::data::PixelSource;
use crate::data::augment::View;
use crate::runner::{DeviceSlot, EpochSink};
use crate::space::Params;
use crate::spec::FreezeTo;

/// Resolutions whose features are taken.
const RESOLUTIONS: usize = 3;

/// Pooled features of images.
pub struct Pooled {
    /// Row after row, in the order of the data set's records.
    pub values: Vec<f32>,
    /// Values in a row.
    pub width: usize,
}

impl ImageRunner {
    /// The averages over height and width of every image after the last layers of each of the three coarsest resolutions up to
    /// the study's tap, side by side, all layers frozen, from the cache that the trials use. Test images are among them:
    /// their labels are not looked at.
    ///
    /// # Errors
    /// If images or network cannot be had, or the cache has no room.
    pub fn pooled(&mut self, slot: &DeviceSlot, sink: &mut dyn EpochSink) -> Result<Pooled, ImageError> {
        let mut settings = self.study.runner.settings(&Params::default()).map_err(ImageError::Settings)?;
        settings.network.freeze = FreezeTo::All;
        self.open(&settings, slot, sink)?;
        let (opened, built) = self.parts(&settings)?;
        let (tap, size) = (settings.network.tap_position(), settings.network.side(opened.data.size()));
        let side = |position: usize| built.backbone.side_at(position, size);
        let mut taps: Vec<usize> = (1..=tap).filter(|&p| p == tap || side(p + 1) < side(p)).collect();
        taps.drain(..taps.len().saturating_sub(RESOLUTIONS));
        let images: Vec<usize> = (0..opened.data.records().len()).collect();
        let mut parts: Vec<(Vec<f32>, usize)> = Vec::new();
        for &tap in &taps {
            let mut own = settings.clone();
            own.network.tap = built.backbone.stages()[tap - 1].name.to_owned();
            let frozen = Frozen::new(opened, built, &own, &taps, self.study.seed);
            let features = watched(sink, |watch| {
                opened.cache.features(&frozen.request(&images, View::Original), watch).map(|features| {
                    let mut values = vec![0.0; features.len() * features.row_len()];
                    features.read_batch(&images, &mut values);
                    (values, features.row_len())
                })
            });
            if sink.interrupted() {
                return Err(ImageError::Interrupted);
            }
            parts.push(features?);
        }
        let width = parts.iter().map(|(_, width)| width).sum();
        let row =
            |i: usize| parts.iter().flat_map(move |(values, width)| values[i * width..][..*width].iter().copied());
        Ok(Pooled { values: images.iter().flat_map(|&i| row(i)).collect(), width })
    }
}
