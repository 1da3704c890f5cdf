//! Preview pictures of a data set: samples of each class, and one image at rising strengths of augmentation.

use super::augment::{Renderer, View, ViewDraw};
use super::{DataSet, PixelSource};
use crate::rng::{Purpose, StreamRng};
use crate::spec::{AugmentSpec, PixelScaling};

/// A picture with a caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The caption.
    pub caption: String,
    /// Side in pixels.
    pub side: usize,
    /// `side * side * 3` values, row-major.
    pub rgb: Vec<u8>,
}

/// A row of pictures with a heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strip {
    /// The heading.
    pub heading: String,
    /// The pictures.
    pub tiles: Vec<Tile>,
}

/// Augmentation strengths that [`strengths`] shows.
pub const STRENGTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// At most `each` training images of every class, `side` pixels wide, chosen by the study's `seed`, with the class's counts. Test
/// images stay locked: they are counted, never shown.
pub fn samples(data: &DataSet, each: usize, side: usize, seed: u64) -> Vec<Strip> {
    let counts = data.summary().counts();
    let train = training(data);
    (0..data.classes().len())
        .map(|class| {
            let mut images: Vec<usize> =
                train.iter().copied().filter(|&i| data.records()[i].class as usize == class).collect();
            StreamRng::named(seed, Purpose::Split, "preview", &[class as u64]).shuffle(&mut images);
            images.truncate(each);
            let (name, counts) = &counts[class];
            let heading = format!("{name}: {counts}");
            let sample = |i| tile(data, (i, side), &ViewDraw::original(), file_name(data, i));
            let tiles = images.into_iter().map(sample).collect();
            Strip { heading, tiles }
        })
        .collect()
}

/// `rows` views, `side` pixels wide, of one training image of the positive class, each at [`STRENGTHS`]: from left to right only the strength
/// changes.
pub fn strengths(data: &DataSet, augment: &AugmentSpec, rows: u32, side: usize, seed: u64) -> Vec<Strip> {
    let class = data.positive();
    let train = training(data);
    let Some(image) = train.iter().copied().find(|&i| data.records()[i].class == class) else { return Vec::new() };
    (0..rows)
        .map(|view| {
            let at = |strength: f64| {
                let spec = AugmentSpec { strength, ..augment.clone() };
                let draw = ViewDraw::draw(&spec, seed, &data.records()[image].digest, View::Bank { view });
                tile(data, (image, side), &draw, format!("strength {strength}"))
            };
            let heading = format!("View {view} of {}", file_name(data, image));
            Strip { heading, tiles: STRENGTHS.into_iter().map(at).collect() }
        })
        .collect()
}

/// One image of the set as a tile, at most as wide as it is kept.
///
/// # Panics
/// If the tile would be wider, or there is no such image.
pub fn tile(data: &DataSet, (image, side): (usize, usize), draw: &ViewDraw, caption: String) -> Tile {
    let mut view = vec![0f32; side * side * 3];
    let renderer = Renderer::new((data.size(), data.channels()), side, PixelScaling::Unit);
    renderer.render(data.pixels(image), draw, &mut view);
    Tile { caption, side, rgb: view.into_iter().map(|v| (v * 255.0).round() as u8).collect() }
}

/// A small PNG picture, `side` pixels wide, of an image by its path in the records; `None` if there is none.
pub fn thumbnail(data: &DataSet, path: &str, side: u32) -> Option<Vec<u8>> {
    let image = data.records().iter().position(|r| r.path == path)?;
    let tile = tile(data, (image, data.size()), &ViewDraw::original(), String::new());
    let picture = image::RgbImage::from_raw(tile.side as u32, tile.side as u32, tile.rgb)?;
    let small = image::imageops::resize(&picture, side, side, image::imageops::FilterType::Triangle);
    let mut png = std::io::Cursor::new(Vec::new());
    small.write_to(&mut png, image::ImageFormat::Png).ok()?;
    Some(png.into_inner())
}

fn training(data: &DataSet) -> &[usize] {
    data.split().folds.first().map_or(&[], |fold| &fold.train)
}

fn file_name(data: &DataSet, image: usize) -> String {
    let path = &data.records()[image].path;
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
