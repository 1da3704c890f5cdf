//! Batches for the trained part: cached features, or pixels that pass through the frozen part on the fly.

use super::plan::Sample;
use super::resident::{self, Resident};
use super::{ImageError, Opened};
use crate::data::augment::{Renderer, View, ViewDraw};
use crate::data::features::{FeatureCache, FeatureError, FeatureRequest, Features, global_average, network_digest};
use crate::data::loader::ahead;
use crate::data::{DataSet, PixelSource, Watch};
use crate::digest::Digest;
use crate::nn::build::Built;
use crate::nn::kernel::{Arithmetic, Isa};
use crate::nn::{Backbone, cuda};
use crate::spec::{BackboneKind, CachePrecision, NetworkSpec, TrialSettings};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Batches rendered ahead of the current step.
const AHEAD: usize = 3;
/// A batch of at least this many values is gathered by several threads.
const PARALLEL: usize = 1 << 18;

/// The frozen part of a trial's network, and the images that go into it.
#[derive(Clone, Copy)]
pub struct Frozen<'a> {
    pub data: &'a DataSet,
    pub backbone: &'a dyn Backbone,
    /// Digest of the weights.
    pub weights: Digest,
    pub settings: &'a TrialSettings,
    /// Cuts of the search space's head-only networks, whose pooled features are cached in the same pass.
    pub taps: &'a [usize],
    pub seed: u64,
    pub device: &'a Device,
    /// Micro-batch size where memory is short; `None`: the whole batch.
    pub at_once: Option<usize>,
}

/// Cached features of one view, by image.
struct Shelf {
    features: Features,
    /// The same on a GPU, where they fit.
    resident: Option<Resident>,
    positions: BTreeMap<usize, usize>,
}

/// Where a trial's batches come from.
pub struct Feed<'a> {
    frozen: Frozen<'a>,
    /// By view; features of a view that is missing are computed in every pass.
    shelves: Vec<(View, Shelf)>,
}

impl<'a> Frozen<'a> {
    /// Of a trial with these settings, computing whole batches.
    pub fn new(
        opened: &'a Opened,
        built: &'a Built,
        settings: &'a TrialSettings,
        taps: &'a [usize],
        seed: u64,
    ) -> Self {
        Self {
            data: &opened.data,
            backbone: built.backbone.as_ref(),
            weights: built.weights,
            settings,
            taps,
            seed,
            device: &opened.device,
            at_once: None,
        }
    }

    fn network(&self) -> &'a NetworkSpec {
        &self.settings.network
    }

    /// Side in pixels of what the network sees.
    pub fn side(&self) -> usize {
        self.network().side(self.data.size())
    }

    /// Whether the trained part takes pooled features: if it is only a head, which begins with pooling.
    fn pooled(&self) -> bool {
        self.network().head_only()
    }

    pub fn request<'b>(&'b self, images: &'b [usize], view: View) -> FeatureRequest<'b> {
        let network = self.network();
        FeatureRequest {
            backbone: self.backbone,
            device: self.device,
            weights: network_digest(self.weights, network, &arithmetic(self.device, network.backbone)),
            cut: network.cut(),
            pooled: self.pooled(),
            also: self.taps,
            precision: network.cache,
            source: self.data,
            side: self.side(),
            scaling: network.scaling,
            images,
            view,
            augment: &self.settings.augment,
            seed: self.seed,
        }
    }

    /// The pixels of samples as input of the network, `[N, H, W, 3]`, row-major.
    fn rendered(&self, samples: &[Sample]) -> Vec<f32> {
        let side = self.side();
        let renderer = Renderer::new((self.data.size(), self.data.channels()), side, self.network().scaling);
        let mut out = vec![0f32; samples.len() * side * side * 3];
        out.chunks_exact_mut(side * side * 3).zip(samples).for_each(|(out, sample)| {
            let image = &self.data.records()[sample.image].digest;
            let draw = ViewDraw::draw(&self.settings.augment, self.seed, image, sample.view);
            renderer.render(self.data.pixels(sample.image), &draw, out);
        });
        out
    }
}

/// Names what determines the rounding of features besides their formulas: device, instruction set, precision.
pub fn arithmetic(device: &Device, network: BackboneKind) -> String {
    match device {
        Device::Cpu if network == BackboneKind::InceptionV3 => {
            format!("cpu {}", Arithmetic::frozen(Isa::best(), cuda::precision()).name())
        }
        Device::Cpu => format!("cpu {}", Isa::best().name()), // f32 in any precision
        gpu => {
            let name = cuda::device::name(gpu).unwrap_or_default();
            format!("gpu {name} {}", cuda::precision().of_frozen().into_str())
        }
    }
}

impl<'a> Feed<'a> {
    /// Prepares the batches of a range of epochs: frozen features that can be shared are read from the cache, or
    /// computed and cached. Where the cache has no room, they are computed in every pass.
    pub fn prepare(
        frozen: Frozen<'a>,
        cache: &FeatureCache,
        samples: impl IntoIterator<Item = Sample>,
        watch: &dyn Watch,
    ) -> Result<Self, ImageError> {
        let mut wanted: Vec<(View, BTreeSet<usize>)> = Vec::new();
        if frozen.network().cut() > 0 {
            for Sample { image, view } in samples {
                match wanted.iter_mut().find(|(v, _)| *v == view) {
                    _ if matches!(view, View::Fresh { .. }) => {}
                    Some((_, images)) => drop(images.insert(image)),
                    None => wanted.push((view, BTreeSet::from([image]))),
                }
            }
        }
        let mut shelves = Vec::new();
        for (view, images) in wanted {
            let images: Vec<usize> = images.into_iter().collect();
            match cache.features(&frozen.request(&images, view), watch) {
                Ok(features) => {
                    let positions = images.into_iter().enumerate().map(|(position, image)| (image, position)).collect();
                    let resident = Resident::new(&features, frozen.device, cuda::device::memory(frozen.device))?;
                    shelves.push((view, Shelf { features, resident, positions }));
                }
                Err(e) if e.is_lack_of_room() => watch.warn(&format!("features are not cached: {e}")),
                Err(FeatureError::Interrupted) => return Err(ImageError::Interrupted),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Self { frozen, shelves })
    }

    /// Calls `each` with every batch in turn, as input of the trained part. Returns how long it waited for data;
    /// computing frozen layers on the fly does not count as waiting.
    pub fn pass(
        &self,
        batches: &[Vec<Sample>],
        mut each: impl FnMut(usize, Tensor) -> Result<(), ImageError>,
    ) -> Result<Duration, ImageError> {
        if batches.iter().flatten().all(|sample| self.row(sample).is_some()) {
            let mut waited = Duration::ZERO;
            for (step, batch) in batches.iter().enumerate() {
                let began = Instant::now();
                let x = self.gathered(batch)?;
                waited += began.elapsed();
                each(step, x)?;
            }
            return Ok(waited);
        }
        let (frozen, side) = (self.frozen, self.frozen.side());
        let threads = rayon::current_num_threads().min(AHEAD);
        ahead(
            batches.len(),
            AHEAD,
            threads,
            |step| frozen.rendered(&batches[step]),
            |step, pixels| {
                let x = Tensor::from_vec(pixels, (batches[step].len(), side, side, 3), frozen.device)?;
                each(step, self.through_prefix(x)?)
            },
        )
    }

    fn row(&self, sample: &Sample) -> Option<(&Features, usize)> {
        let (_, shelf) = self.shelves.iter().find(|(view, _)| *view == sample.view)?;
        Some((&shelf.features, *shelf.positions.get(&sample.image)?))
    }

    /// The rows of a batch gathered in GPU memory, if all of them are there.
    fn gathered_on_gpu(&self, batch: &[Sample]) -> Option<candle_core::Result<Tensor>> {
        let shelf = |sample: &Sample| self.shelves.iter().position(|(view, _)| *view == sample.view);
        let mut wanted = Vec::with_capacity(batch.len());
        for sample in batch {
            let shelf = shelf(sample)?;
            let position = *self.shelves[shelf].1.positions.get(&sample.image)?;
            self.shelves[shelf].1.resident.as_ref()?;
            wanted.push((shelf, position));
        }
        let gather = |shelf: usize, positions: &[usize]| {
            let resident = self.shelves.get(shelf).and_then(|(_, shelf)| shelf.resident.as_ref());
            resident.map_or_else(|| candle_core::bail!("a view has left the GPU"), |r| r.gather(positions))
        };
        Some(resident::gather(&wanted, gather))
    }

    /// One tensor from the cached rows of a batch.
    fn gathered(&self, batch: &[Sample]) -> Result<Tensor, ImageError> {
        if let Some(x) = self.gathered_on_gpu(batch) {
            return Ok(x?);
        }
        let rows: Vec<_> = batch.iter().filter_map(|sample| self.row(sample)).collect();
        let shape = rows.first().map_or(&[][..], |(features, _)| features.shape());
        let length: usize = shape.iter().product();
        let mut values = vec![0f32; rows.len() * length];
        let read = |(out, (features, position)): (&mut [f32], &(&Features, usize))| features.read(*position, out);
        if values.len() >= PARALLEL {
            values.par_chunks_exact_mut(length).zip(&rows).for_each(read);
        } else {
            values.chunks_exact_mut(length).zip(&rows).for_each(read);
        }
        let shape: Vec<usize> = std::iter::once(rows.len()).chain(shape.iter().copied()).collect();
        Ok(Tensor::from_vec(values, shape, self.frozen.device)?)
    }

    /// Runs the frozen layers, in micro-batches where memory is short.
    fn prefix(&self, cut: usize, x: &Tensor) -> Result<Tensor, ImageError> {
        let (n, at_once) = (x.dim(0)?, self.frozen.at_once.unwrap_or(usize::MAX).max(1));
        if n <= at_once {
            return Ok(self.frozen.backbone.prefix(0, cut, x)?);
        }
        let pieces = (0..n).step_by(at_once).map(|from| x.narrow(0, from, at_once.min(n - from)));
        let maps = pieces.map(|piece| self.frozen.backbone.prefix(0, cut, &piece?));
        Ok(Tensor::cat(&maps.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    }

    fn through_prefix(&self, x: Tensor) -> Result<Tensor, ImageError> {
        let cut = self.frozen.network().cut();
        if cut == 0 {
            return Ok(x);
        }
        let x = self.prefix(cut, &x)?;
        // As the cache does it, bit for bit.
        let x = if self.frozen.pooled() { averaged(&x)? } else { x };
        match self.frozen.network().cache {
            CachePrecision::F32 => Ok(x),
            CachePrecision::F16 => Ok(x.to_dtype(DType::F16)?.to_dtype(DType::F32)?),
        }
    }
}

/// Averages of feature maps `[N, H, W, C]` over height and width.
fn averaged(x: &Tensor) -> Result<Tensor, ImageError> {
    let (n, h, w, c) = x.dims4()?;
    let maps: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let mut means = vec![0f32; n * c];
    for (map, mean) in maps.chunks_exact(h * w * c).zip(means.chunks_exact_mut(c)) {
        global_average(map, mean);
    }
    Ok(Tensor::from_vec(means, (n, c), x.device())?)
}
