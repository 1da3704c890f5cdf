//! Decoding, resizing and augmentation against Pillow, numpy and scipy (`tests/data/make_pipeline.py`).

use hpsearch::data::augment::{ViewDraw, render};
use hpsearch::data::decode::decode;
use hpsearch::spec::{ColourMode, PixelScaling, Window};
use image::{DynamicImage, ImageFormat};
use serde::Deserialize;
use std::io::Cursor;

#[derive(Deserialize)]
struct Figures {
    resized: Vec<Resized>,
    augmented: Vec<Augmented>,
}

#[derive(Deserialize)]
struct Resized {
    width: u32,
    height: u32,
    size: usize,
    grey: Vec<u8>,
    luminance: Vec<u8>,
    rgb: Vec<u8>,
}

#[derive(Deserialize)]
struct Augmented {
    flip: bool,
    angle: f64,
    brightness: f64,
    edges: f64,
    zoom: f64,
    shift: [f64; 2],
    contrast: f64,
    size: usize,
    view: Vec<f64>,
}

fn figures() -> Figures {
    serde_json::from_str(include_str!("../data/pipeline.json")).unwrap()
}

/// The same whole numbers as `picture` in make_pipeline.py.
fn picture(width: u32, height: u32, channels: u32) -> Vec<u8> {
    let value = |x: u32, y: u32, c: u32| (x * 7 + y * 13 + (x * y) % 31 * 3 + c * 50 + (x / 9 + y / 7) % 2 * 90) % 256;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    places.flat_map(|(x, y)| (0..channels).map(move |c| value(x, y, c) as u8)).collect()
}

fn png(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn farthest(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn resizing_agrees_with_pillow() {
    for case in figures().resized {
        let (w, h) = (case.width, case.height);
        let grey = DynamicImage::from(image::GrayImage::from_raw(w, h, picture(w, h, 1)).unwrap());
        let rgb = DynamicImage::from(image::RgbImage::from_raw(w, h, picture(w, h, 3)).unwrap());
        let decoded = |image: &DynamicImage, colour| decode(&png(image), case.size, colour, Window::File).unwrap();
        // Both round twice, in 8-bit intermediates whose order and precision differ: one level of 256.
        assert!(farthest(&decoded(&grey, ColourMode::Grey), &case.grey) <= 1, "{w} x {h} grey");
        assert!(farthest(&decoded(&rgb, ColourMode::Grey), &case.luminance) <= 1, "{w} x {h} luminance");
        assert!(farthest(&decoded(&rgb, ColourMode::Rgb), &case.rgb) <= 1, "{w} x {h} rgb");
    }
}

#[test]
fn sixteen_bits_are_scaled_over_their_full_range() {
    for case in figures().resized {
        let wide: Vec<u16> = picture(case.width, case.height, 1).into_iter().map(|v| u16::from(v) * 257).collect();
        let image = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(case.width, case.height, wide).unwrap();
        let decoded = decode(&png(&image.into()), case.size, ColourMode::Grey, Window::File).unwrap();
        assert!(farthest(&decoded, &case.grey) <= 1, "{} x {}", case.width, case.height);
    }
}

#[test]
fn augmented_views_agree_with_scipy() {
    for case in figures().augmented {
        let draw = ViewDraw {
            flip: case.flip,
            angle: case.angle,
            zoom: case.zoom,
            shift: case.shift,
            brightness: case.brightness,
            edges: case.edges,
            contrast: case.contrast,
            ..ViewDraw::original()
        };
        let grey = picture(case.size as u32, case.size as u32, 1);
        let mut view = vec![0f32; grey.len() * 3];
        render(&grey, case.size, 1, &draw, PixelScaling::Unit, &mut view);
        // Rounding may shift a sampled point by 1e-5 pixels, over a step of 255 levels: at a border that a rotation
        // by 90 or 180 degrees just reaches, and within the picture.
        for (pixel, &expected) in view.chunks_exact(3).zip(&case.view) {
            assert!((f64::from(pixel[0]) * 255.0 - expected).abs() < 0.02, "{draw:?}: {} {expected}", pixel[0] * 255.0);
            assert!(pixel[1] == pixel[0] && pixel[2] == pixel[0], "grey fills three channels alike");
        }
    }
}

#[test]
fn right_angles_only_move_pixels() {
    let size = 17;
    let grey = picture(size as u32, size as u32, 1);
    let view = |flip, angle| {
        let mut out = vec![0f32; size * size * 3];
        let draw = ViewDraw { flip, angle, ..ViewDraw::original() };
        render(&grey, size, 1, &draw, PixelScaling::Unit, &mut out);
        out.iter().step_by(3).map(|v| (v * 255.0).round() as u8).collect::<Vec<u8>>()
    };
    let end = size - 1;
    let moved = |from: fn(usize, usize, usize) -> (usize, usize)| {
        let places = (0..size).flat_map(|y| (0..size).map(move |x| (x, y)));
        places.map(|(x, y)| from(x, y, end)).map(|(x, y)| grey[y * size + x]).collect::<Vec<u8>>()
    };
    // Counter-clockwise as seen: the right edge becomes the upper one.
    assert_eq!(view(false, 90.0), moved(|x, y, end| (end - y, x)));
    assert_eq!(view(false, 180.0), moved(|x, y, end| (end - x, end - y)));
    assert_eq!(view(false, -90.0), moved(|x, y, end| (y, end - x)));
    assert_eq!(view(true, 180.0), moved(|x, y, end| (x, end - y)), "a vertical flip");
    assert_eq!(view(false, 360.0), grey);
}

#[test]
fn noise_has_its_deviation_and_belongs_to_its_seed() {
    let size = 64;
    let view = |noise, noise_seed, level, channels: usize| {
        let mut out = vec![0f32; size * size * 3];
        let draw = ViewDraw { noise, noise_seed, ..ViewDraw::original() };
        render(&vec![level; size * size * channels], size, channels, &draw, PixelScaling::Unit, &mut out);
        out
    };
    let grey = view(0.1, 5, 128, 1);
    assert_eq!(grey, view(0.1, 5, 128, 1));
    assert_ne!(grey, view(0.1, 6, 128, 1));
    assert!(grey.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]), "grey stays grey");
    assert!(view(0.1, 5, 128, 3).chunks_exact(3).all(|p| p[0] != p[1] && p[1] != p[2]));
    let (n, level) = ((size * size) as f64, 128.0 / 255.0);
    let far: Vec<f64> = grey.iter().step_by(3).map(|&v| f64::from(v) - level).collect();
    // Four standard errors: of the mean 0.1 / 64, of the deviation 0.1 / sqrt(2 n).
    assert!((far.iter().sum::<f64>() / n).abs() < 0.00625);
    assert!(((far.iter().map(|x| x * x).sum::<f64>() / n).sqrt() - 0.1).abs() < 0.0045);
    assert!(view(1.0, 5, 250, 1).iter().all(|v| (0.0..=1.0).contains(v)), "clipped");
}

#[test]
fn a_colour_image_is_augmented_channel_by_channel() {
    let size = 24;
    let rgb = picture(size as u32, size as u32, 3);
    let draw = ViewDraw { flip: true, angle: 11.0, brightness: 1.1, edges: 0.3, ..ViewDraw::original() };
    let mut view = vec![0f32; rgb.len()];
    render(&rgb, size, 3, &draw, PixelScaling::Imagenet, &mut view);
    for c in 0..3 {
        let channel: Vec<u8> = rgb.iter().skip(c).step_by(3).copied().collect();
        let mut alone = vec![0f32; rgb.len()];
        render(&channel, size, 1, &draw, PixelScaling::Imagenet, &mut alone);
        assert!(view.iter().zip(&alone).skip(c).step_by(3).all(|(a, b)| a == b), "channel {c}");
    }
}

#[test]
fn the_original_view_is_only_scaled() {
    let grey: Vec<u8> = (0..=255).collect();
    for (scaling, expected) in [
        (PixelScaling::Unit, (|v, _| v / 255.0) as fn(f32, usize) -> f32),
        (PixelScaling::Symmetric, |v, _| v / 127.5 - 1.0),
        (PixelScaling::Imagenet, |v, c| (v / 255.0 - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c]),
    ] {
        let mut view = vec![0f32; 256 * 3];
        render(&grey, 16, 1, &ViewDraw::original(), scaling, &mut view);
        for (i, &v) in view.iter().enumerate() {
            assert_eq!(v, expected((i / 3) as f32, i % 3), "{scaling:?}");
        }
    }
}

#[test]
fn flipping_twice_changes_nothing_and_once_mirrors() {
    let size = 15;
    let grey = picture(size as u32, size as u32, 1);
    let mirrored: Vec<u8> = grey.chunks(size).flat_map(|row| row.iter().rev().copied()).collect();
    for angle in [0.0, 12.0] {
        let view = |pixels: &[u8], flip| {
            let mut out = vec![0f32; size * size * 3];
            let draw = ViewDraw { flip, angle, brightness: 0.9, edges: 0.2, ..ViewDraw::original() };
            render(pixels, size, 1, &draw, PixelScaling::Symmetric, &mut out);
            out
        };
        let (once, twice) = (view(&grey, true), view(&mirrored, true));
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(&once, &view(&mirrored, false)) < 1e-4, "at {angle} degrees");
        assert!(far(&twice, &view(&grey, false)) < 1e-4, "at {angle} degrees");
    }
}

#[test]
fn a_single_pixel_survives_every_augmentation() {
    let mut out = [0f32; 3];
    let draw = ViewDraw { flip: true, angle: 33.0, brightness: 1.5, edges: 0.5, ..ViewDraw::original() };
    render(&[100], 1, 1, &draw, PixelScaling::Unit, &mut out);
    assert_eq!(out, [150.0 / 255.0; 3]);
}
