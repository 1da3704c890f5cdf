//! How fast cached features are read into a batch, and opened (which reads and verifies all of them).
//!
//! `cargo bench --bench features`. Sizes as in InceptionV3 at 299 px: pooled features of the last stage, feature maps
//! of `Mixed_6e`.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hpsearch::data::augment::View;
use hpsearch::data::features::{FeatureCache, FeatureRequest};
use hpsearch::data::{ImageRecord, PixelSource, Quiet};
use hpsearch::digest::Digest;
use hpsearch::nn::{Backbone, BackboneError, Lattice, StageInfo, Suffix, SuffixOptions};
use hpsearch::spec::{AugmentSpec, CachePrecision, PixelScaling, Window};
use std::hint::black_box;

const IMAGES: usize = 256;
const BATCH: usize = 32;

/// One stage that returns feature maps of a given shape at no cost.
struct Shape {
    side: usize,
    stage: [StageInfo; 1],
}

impl Backbone for Shape {
    fn stages(&self) -> &[StageInfo] {
        &self.stage
    }
    fn side_at(&self, position: usize, side: usize) -> Option<usize> {
        Some(if position == 0 { side } else { self.side })
    }
    fn lattice(&self, _: usize) -> Option<Lattice> {
        None
    }
    fn prefix(&self, _: usize, _: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let (images, length) = (x.dim(0)?, self.side * self.side * self.stage[0].channels);
        let values: Vec<f32> = (0..images * length).map(|i| (i % 1000) as f32 / 100.0).collect();
        Tensor::from_vec(values, (images, self.side, self.side, self.stage[0].channels), &Device::Cpu)
    }
    fn suffix(&self, _: usize, _: usize, _: SuffixOptions) -> Result<Box<dyn Suffix>, BackboneError> {
        Err(BackboneError::CannotTrain { network: "shape".into(), first: "none".into(), asked: "any".into() })
    }
}

/// Images of one pixel.
struct Dots(Vec<ImageRecord>);

impl PixelSource for Dots {
    fn records(&self) -> &[ImageRecord] {
        &self.0
    }
    fn size(&self) -> usize {
        1
    }
    fn channels(&self) -> usize {
        1
    }
    fn window(&self) -> Window {
        Window::File
    }
    fn pixels(&self, _: usize) -> &[u8] {
        &[7]
    }
}

fn reading(c: &mut Criterion) {
    let record =
        |n: usize| ImageRecord { path: format!("{n}"), class: 0, patient: None, digest: Digest::of(&n.to_le_bytes()) };
    let source = Dots((0..IMAGES).map(record).collect());
    let images: Vec<usize> = (0..IMAGES).collect();
    let augment =
        AugmentSpec { strength: 0.0, flip: 0.0, rotation: 0.0, brightness: 0.0, edges: 0.0, ..AugmentSpec::default() };
    // Rows far apart, as a shuffled epoch asks for them.
    let batch: Vec<usize> = (0..BATCH).map(|i| i * 167 % IMAGES).collect();
    for (name, side, channels, precision, memory) in [
        ("pooled_f32_in_memory", 1, 2048, CachePrecision::F32, u64::MAX),
        ("pooled_f32_mapped", 1, 2048, CachePrecision::F32, 0),
        ("pooled_f16_mapped", 1, 2048, CachePrecision::F16, 0),
        ("mixed_6e_f32", 17, 768, CachePrecision::F32, 0),
        ("mixed_6e_f16", 17, 768, CachePrecision::F16, 0),
    ] {
        let net = Shape { side, stage: [StageInfo { name: "stage".to_owned(), channels }] };
        let folder = tempfile::tempdir().expect("a folder for the cache");
        let request = FeatureRequest {
            backbone: &net,
            device: &Device::Cpu,
            weights: Digest::of(name.as_bytes()),
            cut: 1,
            pooled: side == 1,
            also: &[],
            precision,
            source: &source,
            side: source.size(),
            scaling: PixelScaling::Unit,
            images: &images,
            view: View::Original,
            augment: &augment,
            seed: 0,
        };
        let open = || FeatureCache::open(folder.path(), None).expect("a cache").with_memory(memory);
        let features = open().features(&request, &Quiet).expect("features");
        let mut out = vec![0f32; BATCH * features.row_len()];
        let mut group = c.benchmark_group("features");
        group.sample_size(20);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(BenchmarkId::new("read_rows", name), |b| {
            b.iter(|| features.read_batch(black_box(&batch), black_box(&mut out)));
        });
        group.throughput(Throughput::Elements(IMAGES as u64));
        group.bench_function(BenchmarkId::new("open_rows", name), |b| {
            b.iter(|| open().features(&request, &Quiet).expect("features"));
        });
        group.finish();
    }
}

criterion_group!(benches, reading);
criterion_main!(benches);
