//! The pixel pipeline: decoding with resizing, and rendering of views. `benches/compare/decode.py` measures the same in
//! Python.

use criterion::{Criterion, criterion_group, criterion_main};
use hpsearch::data::augment::{ViewDraw, render};
use hpsearch::data::decode::decode;
use hpsearch::spec::{ColourMode, PixelScaling, Window};
use image::{GrayImage, Luma, codecs::jpeg::JpegEncoder};
use std::hint::black_box;

/// A smooth picture with grain: compresses as a radiograph does. The same formula as in decode.py.
fn radiograph(side: u32) -> GrayImage {
    GrayImage::from_fn(side, side, |x, y| {
        let wave = 128.0 + 60.0 * (f64::from(x) / 90.0).sin() + 40.0 * (f64::from(y) / 37.0).cos();
        let grain = (x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)) % 13;
        Luma([(wave + f64::from(grain)) as u8])
    })
}

fn decoding(c: &mut Criterion) {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&radiograph(1500)).expect("a JPEG in memory");
    // decode.py reads the same file.
    let place = concat!(env!("CARGO_TARGET_TMPDIR"), "/radiograph.jpg");
    std::fs::write(place, &jpeg).expect("the folder for temporary files can be written");
    c.bench_function("decode and resize a grey JPEG of 1500 px to 299", |b| {
        b.iter(|| decode(black_box(&jpeg), 299, ColourMode::Grey, Window::File))
    });
}

fn rendering(c: &mut Criterion) {
    let size = 299;
    let grey = radiograph(size as u32).into_raw();
    let mut out = vec![0f32; size * size * 3];
    for (name, draw) in [
        ("original", ViewDraw::original()),
        ("flip", ViewDraw { flip: true, ..ViewDraw::original() }),
        ("rotation and brightness", ViewDraw { flip: false, angle: 12.0, brightness: 1.1, ..ViewDraw::original() }),
        ("everything", ViewDraw { flip: true, angle: 12.0, brightness: 1.1, edges: 0.3, ..ViewDraw::original() }),
    ] {
        c.bench_function(&format!("render 299 px grey: {name}"), |b| {
            b.iter(|| render(black_box(&grey), size, 1, &draw, PixelScaling::Symmetric, &mut out))
        });
    }
}

criterion_group!(benches, decoding, rendering);
criterion_main!(benches);
