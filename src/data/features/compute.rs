//! Computes features from pixels, or from the rows of a shallower cut.

use super::FeatureError;
use super::claim::Wanted;
use super::number;
use super::request::FeatureRequest;
use super::shelf::Shelf;
use crate::data::augment::{Renderer, ViewDraw};
use crate::spec::CachePrecision;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Images that go through the network together.
pub(super) const BATCH: usize = 16;

/// Mean over height and width of one feature map `[H, W, C]`, summed in f64 in row-major order, so that it is the same
/// wherever it is computed.
///
/// # Panics
/// If `out` is empty, or its length does not divide that of `map`.
pub fn global_average(map: &[f32], out: &mut [f32]) {
    let channels = out.len();
    assert!(channels > 0 && map.len().is_multiple_of(channels), "a map of {channels} channels");
    let mut sums = vec![0f64; channels];
    for pixel in map.chunks_exact(channels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += f64::from(*value);
        }
    }
    let pixels = (map.len() / channels) as f64;
    for (mean, sum) in out.iter_mut().zip(&sums) {
        *mean = (sum / pixels) as f32;
    }
}

/// Rows of one batch at several cuts, each with its cut.
pub(super) type Stops = Vec<(usize, Vec<f32>)>;

/// A shelf whose rows are the input for computing a deeper cut's.
pub(super) struct Start {
    pub(super) shelf: Shelf,
    pub(super) cut: usize,
    pub(super) pooled: bool,
}

impl FeatureRequest<'_> {
    /// Computes features of `images` without the cache, bit-identical to what the cache would return: for views that
    /// cannot be cached, and if there is no room. The request's own `images` are ignored.
    ///
    /// # Errors
    /// If an image or stage does not exist, or the network fails.
    pub fn compute(&self, images: &[usize]) -> Result<Vec<f32>, FeatureError> {
        let wanted = self.wanted(images)?;
        let mut all = Vec::with_capacity(images.len() * self.shape()?.iter().product::<usize>());
        for batch in wanted.chunks(BATCH) {
            for (_, mut rows) in self.rows_from_pixels(batch, &[self.cut])? {
                number::round(&mut rows, self.precision);
                all.append(&mut rows);
            }
        }
        Ok(all)
    }

    /// Digests and indices of images.
    pub(super) fn wanted(&self, images: &[usize]) -> Result<Vec<Wanted>, FeatureError> {
        images.iter().map(|&index| Ok((self.record(index)?.digest, index))).collect()
    }

    /// Rows of one batch, computed from its pixels, at each of the cuts `stops` (ascending).
    pub(super) fn rows_from_pixels(&self, batch: &[Wanted], stops: &[usize]) -> Result<Stops, FeatureError> {
        let side = self.side;
        let renderer = Renderer::new((self.source.size(), self.source.channels()), side, self.scaling);
        let mut pictures = vec![0f32; batch.len() * side * side * 3];
        pictures.par_chunks_exact_mut(side * side * 3).zip(batch).for_each(|(out, (digest, index))| {
            let draw = ViewDraw::draw(self.augment, self.seed, digest, self.view);
            renderer.render(self.source.pixels(*index), &draw, out);
        });
        self.onward((0, [side, side, 3]), pictures, batch.len(), stops)
    }

    /// Rows of one batch, computed from those of a shallower cut, at each of the cuts `stops` (ascending) that are not
    /// shallower still. `start` must have a row for every image.
    pub(super) fn rows_from_shelf(
        &self,
        start: &Start,
        batch: &[Wanted],
        stops: &[usize],
    ) -> Result<Stops, FeatureError> {
        let [height, width, channels] = self.map_at(start.cut)?;
        let length = if start.pooled { channels } else { height * width * channels };
        let mut values = vec![0f32; batch.len() * length];
        values.par_chunks_exact_mut(length).zip(batch).for_each(|(out, (digest, _))| {
            if let Some(row) = start.shelf.row(digest) {
                number::decode(row.bytes(), CachePrecision::F32, out);
            }
        });
        if start.pooled {
            return Ok(vec![(start.cut, values)]);
        }
        let ahead = &stops[stops.partition_point(|&stop| stop < start.cut)..];
        self.onward((start.cut, [height, width, channels]), values, batch.len(), ahead)
    }

    /// Runs the network from a cut onward. Returns the feature maps, or their averages if `pooled`, at each stop.
    fn onward(
        &self,
        (from, map): (usize, [usize; 3]),
        values: Vec<f32>,
        count: usize,
        stops: &[usize],
    ) -> Result<Stops, FeatureError> {
        if stops == [from] && !self.pooled {
            return Ok(vec![(from, values)]);
        }
        let [height, width, channels] = map;
        let mut x = Tensor::from_vec(values, (count, height, width, channels), self.device)?;
        let mut at = from;
        let mut found = Vec::with_capacity(stops.len());
        for &stop in stops {
            let [height, width, channels] = self.map_at(stop)?;
            if stop > at {
                x = self.backbone.prefix(at, stop, &x)?;
                at = stop;
                let expected = [count, height, width, channels];
                if x.dims() != expected {
                    return Err(FeatureError::Shape { expected: expected.to_vec(), found: x.dims().to_vec() });
                }
            }
            let maps = x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            if !self.pooled {
                found.push((stop, maps));
                continue;
            }
            let mut means = vec![0f32; count * channels];
            means
                .par_chunks_exact_mut(channels)
                .zip(maps.par_chunks_exact(height * width * channels))
                .for_each(|(out, map)| global_average(map, out));
            found.push((stop, means));
        }
        Ok(found)
    }
}
