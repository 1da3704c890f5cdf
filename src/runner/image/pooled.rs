//! What the study's frozen network makes of its images, for looking at them rather than training on them.

use super::watch::watched;
use super::{ImageError, ImageRunner, frozen};
use crate::data::PixelSource;
use crate::data::augment::View;
use crate::runner::{DeviceSlot, EpochSink};
use crate::spec::FreezeTo;

/// Pooled features of images.
pub struct Pooled {
    /// Row after row, in the order of the data set's records.
    pub values: Vec<f32>,
    /// Values in a row.
    pub width: usize,
}

impl ImageRunner {
    /// The averages over height and width of every image at the study's tap, all layers frozen, from the cache that the
    /// trials use. Test images are among them: their labels are not looked at.
    ///
    /// # Errors
    /// If images or network cannot be had, or the cache has no room.
    pub fn pooled(&mut self, slot: &DeviceSlot, sink: &mut dyn EpochSink) -> Result<Pooled, ImageError> {
        let mut settings = self.study.runner.fixed().ok_or(ImageError::NotImages)?;
        settings.network.freeze = FreezeTo::All;
        self.open(&settings, slot, sink)?;
        let taps = self.taps(&settings);
        let (opened, built) = self.parts(&settings)?;
        let frozen = frozen(opened, built, &settings, &taps, self.study.seed);
        let images: Vec<usize> = (0..opened.data.records().len()).collect();
        let features = watched(sink, |watch| {
            opened.cache.features(&frozen.request(&images, View::Original), watch).map(|features| {
                let mut values = vec![0.0; features.len() * features.row_len()];
                features.read_batch(&images, &mut values);
                Pooled { values, width: features.row_len() }
            })
        });
        if sink.interrupted() {
            return Err(ImageError::Interrupted);
        }
        Ok(features?)
    }
}
