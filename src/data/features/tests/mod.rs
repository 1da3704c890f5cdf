//! Tests of the cache as a whole, with a network and images of their own.

mod damage;
mod keys;
mod room;
mod sharing;
mod starts;

use super::*;
use crate::data::augment::View;
use crate::data::{ImageRecord, PixelSource, Quiet};
use crate::digest::Digest;
use crate::nn::{Backbone, BackboneError, Lattice, StageInfo, Suffix, SuffixOptions};
use crate::spec::{AugmentSpec, CachePrecision, PixelScaling, Views, Window};
use candle_core::{Device, Tensor};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How much of a request is cached, and how many bytes the rest would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Shape of one row.
    pub shape: Vec<usize>,
    /// Different images requested.
    pub images: usize,
    /// How many of them are cached.
    pub cached: usize,
    /// Bytes that the others will take.
    pub missing_bytes: u64,
    /// Bytes that all cached features take now.
    pub used_bytes: u64,
    /// The disk limit.
    pub limit_bytes: Option<u64>,
    /// Free bytes of the file system, if known.
    pub free_bytes: Option<u64>,
}

impl FeatureCache {
    /// What a request would find and what it would add. Computes nothing.
    pub(super) fn coverage(&self, request: &FeatureRequest<'_>) -> Result<Coverage, FeatureError> {
        let about = request.shelved()?;
        let shape = request.shape()?;
        let images: HashSet<_> = request.wanted(request.images)?.into_iter().map(|(digest, _)| digest).collect();
        let row_bytes = shape.iter().product::<usize>() * request::value_bytes(request.precision);
        let there = shelf::Shelf::listing(&self.room.root, &about.key(), row_bytes);
        let cached = images.iter().filter(|digest| there.contains(digest)).count();
        let missing_bytes = predicted_bytes(&shape, images.len() - cached, 1, request.precision);
        Ok(Coverage {
            shape,
            images: images.len(),
            cached,
            missing_bytes,
            used_bytes: self.room.survey()?.bytes(),
            limit_bytes: self.room.limit,
            free_bytes: self.room.free(),
        })
    }
}

/// Three stages that mix channels; the first and the last halve the side. Counts the images that pass through.
struct Net {
    stages: Vec<StageInfo>,
    gain: f32,
    pause: Duration,
    images: AtomicUsize,
    calls: Mutex<Vec<(usize, usize, usize)>>,
}

impl Net {
    fn new() -> Self {
        let stage = |(name, channels): &(&str, usize)| StageInfo { name: (*name).to_owned(), channels: *channels };
        Self {
            stages: [("first", 4), ("second", 5), ("third", 6)].iter().map(stage).collect(),
            gain: 1.0,
            pause: Duration::ZERO,
            images: AtomicUsize::new(0),
            calls: Mutex::default(),
        }
    }

    /// Images computed since the last call.
    fn computed(&self) -> usize {
        self.calls.lock().unwrap().clear();
        self.images.swap(0, Ordering::SeqCst)
    }

    fn stage(&self, n: usize, x: &[f32], side: usize, channels: usize) -> Vec<f32> {
        let (step, out) = (if n == 1 { 1 } else { 2 }, self.stages[n].channels);
        let mut y = Vec::new();
        for row in (0..side).step_by(step) {
            for column in (0..side).step_by(step) {
                let pixel = &x[(row * side + column) * channels..][..channels];
                for o in 0..out {
                    let weight = |i: usize| ((o * 7 + i * 5 + n * 3) % 11) as f32 / 7.0 - 0.6;
                    let sum: f32 = pixel.iter().enumerate().map(|(i, v)| v * weight(i)).sum();
                    y.push((sum * self.gain).sin() * self.gain + 0.1 * sum);
                }
            }
        }
        y
    }
}

impl Backbone for Net {
    fn stages(&self) -> &[StageInfo] {
        &self.stages
    }
    fn side_at(&self, position: usize, side: usize) -> Option<usize> {
        (side >= 4).then_some([side, side / 2, side / 2, side / 4][position])
    }
    fn lattice(&self, _: usize) -> Option<Lattice> {
        None
    }
    fn prefix(&self, from: usize, to: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let (count, mut side, _, mut channels) = x.dims4()?;
        self.images.fetch_add(count, Ordering::SeqCst);
        self.calls.lock().unwrap().push((from, to, count));
        std::thread::sleep(self.pause);
        let mut maps: Vec<Vec<f32>> = x.flatten_from(1)?.to_vec2()?;
        for n in from..to {
            maps = maps.iter().map(|map| self.stage(n, map, side, channels)).collect();
            (side, channels) = (if n == 1 { side } else { side / 2 }, self.stages[n].channels);
        }
        Tensor::from_vec(maps.concat(), (count, side, side, channels), &Device::Cpu)
    }
    fn suffix(&self, _: usize, _: usize, _: SuffixOptions) -> Result<Box<dyn Suffix>, BackboneError> {
        unreachable!("the cache never trains")
    }
}

/// Grey images of 8 px.
struct Images(Vec<(ImageRecord, Vec<u8>)>, Vec<ImageRecord>);

const SIDE: usize = 8;

impl Images {
    fn new(count: usize) -> Self {
        let image = |n: usize| -> Vec<u8> {
            (0..SIDE * SIDE).map(|i| ((i * 13 + n * 31 + n * i + n / 256 * i * i) % 256) as u8).collect()
        };
        let record = |pixels: &[u8], n| {
            let path = format!("image{n}.png");
            ImageRecord { path, class: 0, patient: None, digest: Digest::of(pixels) }
        };
        let all: Vec<_> = (0..count).map(|n| (record(&image(n), n), image(n))).collect();
        let records = all.iter().map(|(r, _)| r.clone()).collect();
        Self(all, records)
    }
}

impl PixelSource for Images {
    fn records(&self) -> &[ImageRecord] {
        &self.1
    }
    fn size(&self) -> usize {
        SIDE
    }
    fn channels(&self) -> usize {
        1
    }
    fn window(&self) -> Window {
        Window::File
    }
    fn pixels(&self, index: usize) -> &[u8] {
        &self.0[index].1
    }
}

/// A network, images, and a folder for the cache.
struct Bench {
    net: Net,
    images: Images,
    all: Vec<usize>,
    augment: AugmentSpec,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(images: usize) -> Self {
        let augment = AugmentSpec {
            strength: 0.5,
            flip: 0.5,
            rotation: 20.0,
            brightness: 0.3,
            edges: 0.4,
            views: Views::Bank(8),
            ..AugmentSpec::default()
        };
        Self {
            net: Net::new(),
            images: Images::new(images),
            all: (0..images).collect(),
            augment,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A cache as another process would open it.
    fn cache(&self) -> FeatureCache {
        self.limited(None)
    }

    fn limited(&self, limit: Option<u64>) -> FeatureCache {
        FeatureCache::open(self.folder.path(), limit).unwrap()
    }

    /// Whole feature maps after all stages, of the original images.
    fn request(&self) -> FeatureRequest<'_> {
        FeatureRequest {
            backbone: &self.net,
            device: &Device::Cpu,
            weights: Digest::of(b"weights"),
            cut: 3,
            pooled: false,
            also: &[],
            precision: CachePrecision::F32,
            source: &self.images,
            side: self.images.size(),
            scaling: PixelScaling::Symmetric,
            images: &self.all,
            view: View::Original,
            augment: &self.augment,
            seed: 7,
        }
    }

    /// The files of rows, sorted.
    fn segments(&self) -> Vec<PathBuf> {
        let walk = walkdir::WalkDir::new(self.folder.path()).sort_by_file_name();
        let files = walk.into_iter().map(|entry| entry.unwrap().into_path());
        files.filter(|path| path.extension().is_some_and(|e| e == "rows")).collect()
    }
}

/// All values as bits, for exact comparison.
fn bits(features: &Features) -> Vec<u32> {
    let mut values = vec![0.0; features.len() * features.row_len()];
    let positions: Vec<usize> = (0..features.len()).collect();
    features.read_batch(&positions, &mut values);
    values.iter().map(|v| v.to_bits()).collect()
}

/// The same, computed without the cache.
fn uncached(request: &FeatureRequest<'_>) -> Vec<u32> {
    request.compute(request.images).unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn cached_features_are_bit_identical_to_uncached_ones() {
    let bench = Bench::new(37);
    let base = bench.request();
    for cut in 0..=3 {
        for pooled in [false, true] {
            for precision in [CachePrecision::F32, CachePrecision::F16] {
                for view in [View::Original, View::Bank { view: 0 }, View::Bank { view: 5 }] {
                    let request = FeatureRequest { cut, pooled, precision, view, ..base };
                    let expected = uncached(&request);
                    for round in ["computed", "read"] {
                        let found = bench.cache().features(&request, &Quiet).unwrap();
                        assert_eq!(found.shape(), request.shape().unwrap());
                        assert_eq!(bits(&found), expected, "{round}: cut {cut}, {pooled}, {precision:?}, {view:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn features_of_an_image_do_not_depend_on_the_other_images() {
    let bench = Bench::new(40);
    let together = uncached(&bench.request());
    let row = together.len() / 40;
    for images in [&[39, 0, 17][..], &[5], &[5, 5, 21, 5]] {
        let fresh = tempfile::tempdir().unwrap();
        let cache = FeatureCache::open(fresh.path(), None).unwrap();
        let found = cache.features(&FeatureRequest { images, ..bench.request() }, &Quiet).unwrap();
        let expected: Vec<u32> = images.iter().flat_map(|&i| together[i * row..][..row].to_vec()).collect();
        assert_eq!(bits(&found), expected);
    }
}

#[test]
fn the_average_is_taken_over_height_and_width() {
    // Two channels, 1x3 pixels: means (1+2+6)/3 and (10+20-3)/3.
    let mut out = [0.0; 2];
    global_average(&[1.0, 10.0, 2.0, 20.0, 6.0, -3.0], &mut out);
    assert_eq!(out, [3.0, 9.0]);
}

#[test]
fn small_rows_are_held_in_memory_within_the_budget() {
    let bench = Bench::new(20);
    let request = FeatureRequest { pooled: true, ..bench.request() };
    let bytes = 20 * 6 * 4;
    let cache = bench.cache().with_memory(bytes + 10);
    let first = cache.features(&request, &Quiet).unwrap();
    assert!(first.in_memory());
    assert_eq!(cache.memory_used(), bytes);
    let second = cache.features(&request, &Quiet).unwrap();
    assert!(!second.in_memory(), "there is memory for one only");
    assert_eq!(bits(&first), bits(&second));
    drop(first);
    assert_eq!(cache.memory_used(), 0);
    assert!(cache.features(&request, &Quiet).unwrap().in_memory());
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let bench = Bench::new(2);
    let cache = bench.cache();
    let refused = |request: FeatureRequest<'_>| cache.features(&request, &Quiet).unwrap_err().to_string();
    assert_eq!(refused(FeatureRequest { cut: 4, ..bench.request() }), "cut the network after 4 stages: it has 3");
    assert_eq!(refused(FeatureRequest { images: &[0, 2], ..bench.request() }), "find image 2: the data set has 2");
    assert_eq!(bench.segments().len(), 0);
}

#[test]
fn a_network_whose_output_has_an_undeclared_shape_is_an_error() {
    let mut bench = Bench::new(2);
    bench.net.stages[2].channels = 7;
    struct Liar<'a>(&'a Net, Vec<StageInfo>);
    impl Backbone for Liar<'_> {
        fn stages(&self) -> &[StageInfo] {
            &self.1
        }
        fn side_at(&self, position: usize, side: usize) -> Option<usize> {
            self.0.side_at(position, side)
        }
        fn lattice(&self, position: usize) -> Option<Lattice> {
            self.0.lattice(position)
        }
        fn prefix(&self, from: usize, to: usize, x: &Tensor) -> candle_core::Result<Tensor> {
            self.0.prefix(from, to, x)
        }
        fn suffix(&self, a: usize, b: usize, o: SuffixOptions) -> Result<Box<dyn Suffix>, BackboneError> {
            self.0.suffix(a, b, o)
        }
    }
    let liar = Liar(&bench.net, Net::new().stages);
    let error = bench.cache().features(&FeatureRequest { backbone: &liar, ..bench.request() }, &Quiet).unwrap_err();
    assert!(matches!(error, FeatureError::Shape { .. }), "{error}");
}
