//! Renders marks as SVG and as PNG with plotters.

use super::canvas::{Align, Chart, Colour, Mark};
use crate::report::text::printable;
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontFamily, FontStyle, FontTransform, RGBAColor, ShapeStyle, TextStyle, register_font};
use std::sync::Once;

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// The drawing library failed.
    #[error("draw a chart: {0}")]
    Plotters(String),
    /// The picture could not be encoded.
    #[error("encode a chart as PNG")]
    Png(#[source] image::ImageError),
}

/// The backends' error types differ, so only their message is kept.
fn flat(e: impl std::error::Error) -> DrawError {
    DrawError::Plotters(e.to_string())
}

/// Plotters takes whole pixels only, so marks are placed in quarters of a logical pixel.
const FINE: f64 = 4.0;
/// PNG pixels per logical pixel; the quarter pixels are averaged down to it.
const DENSITY: u32 = 2;
/// The family that plotters looks up; a generic name, so that an SVG looks right without our font.
const FAMILY: &str = "sans-serif";

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A subset of Inter; its licence is beside the files. Both files parse: a test would show missing text.
        let regular = include_bytes!("font/Inter-Regular.subset.otf");
        let bold = include_bytes!("font/Inter-SemiBold.subset.otf");
        let _ = register_font(FAMILY, FontStyle::Normal, regular);
        let _ = register_font(FAMILY, FontStyle::Bold, bold);
    });
}

fn rgba(c: Colour) -> RGBAColor {
    RGBAColor(c.rgb.0, c.rgb.1, c.rgb.2, c.alpha)
}

fn fine(x: f64, y: f64) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn replay<B: DrawingBackend>(chart: &Chart, backend: &mut B) -> Result<(), DrawError> {
    register();
    for mark in &chart.marks {
        match mark {
            Mark::Path { points, width, colour } => {
                let style = ShapeStyle {
                    color: rgba(*colour),
                    filled: false,
                    stroke_width: (width * FINE).round().max(1.0) as u32,
                };
                backend.draw_path(points.iter().map(|p| fine(p.0, p.1)), &style).map_err(flat)?;
            }
            Mark::Area { points, colour } => {
                backend.fill_polygon(points.iter().map(|p| fine(p.0, p.1)), &rgba(*colour)).map_err(flat)?;
            }
            Mark::Rect { x, y, w, h, colour } => {
                backend.draw_rect(fine(*x, *y), fine(x + w, y + h), &rgba(*colour), true).map_err(flat)?;
            }
            Mark::Dot { x, y, r, colour } => {
                let radius = (r * FINE).round().max(1.0) as u32;
                backend.draw_circle(fine(*x, *y), radius, &rgba(*colour), true).map_err(flat)?;
            }
            Mark::Text { x, y, words, size, bold, align, up, colour } => {
                let h_pos = match align {
                    Align::Left => HPos::Left,
                    Align::Centre => HPos::Center,
                    Align::Right => HPos::Right,
                };
                let weight = if *bold { FontStyle::Bold } else { FontStyle::Normal };
                let font = plotters::style::FontDesc::new(FontFamily::SansSerif, size * 1.24 * FINE, weight);
                let font = if *up { font.transform(FontTransform::Rotate270) } else { font };
                let style =
                    TextStyle { font, color: rgba(*colour).to_backend_color(), pos: Pos::new(h_pos, VPos::Center) };
                backend.draw_text(words, &style, fine(*x, *y)).map_err(flat)?;
            }
        }
    }
    backend.present().map_err(flat)
}

impl Chart {
    /// The chart as SVG text, without a background: the page has one, and so has [`Self::svg_file`].
    pub fn svg(&self, title: &str) -> Result<String, DrawError> {
        let size = ((self.width * FINE) as u32, (self.height * FINE) as u32);
        let mut text = String::new();
        replay(self, &mut SVGBackend::with_string(&mut text, size))?;
        let escaped = maud::html! { (printable(title)) }.into_string();
        // Our own opening tag: logical size outside, quarter pixels inside, and a title for screen readers.
        let body = text.split_once('\n').map_or("", |t| t.1);
        Ok(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" \
             aria-label=\"{title}\" stroke-linejoin=\"round\" stroke-linecap=\"round\">\n<title>{title}</title>\n{body}",
            self.width,
            self.height,
            size.0,
            size.1,
            title = escaped,
        ))
    }

    /// The chart as a stand-alone SVG file, with a background.
    pub fn svg_file(&self, title: &str) -> Result<String, DrawError> {
        self.on_paper().svg(title)
    }

    /// The chart as a PNG file, two pixels per logical pixel.
    pub fn png(&self) -> Result<Vec<u8>, DrawError> {
        let size = ((self.width * FINE) as u32, (self.height * FINE) as u32);
        let mut pixels = vec![255u8; size.0 as usize * size.1 as usize * 3];
        replay(&self.on_paper(), &mut BitMapBackend::with_buffer(&mut pixels, size))?;
        let (picture, w, h) = shrink(&pixels, size.0, size.1, FINE as u32 / DENSITY);
        let mut png = Vec::new();
        image::ImageEncoder::write_image(
            image::codecs::png::PngEncoder::new(&mut png),
            &picture,
            w,
            h,
            image::ExtendedColorType::Rgb8,
        )
        .map_err(DrawError::Png)?;
        Ok(png)
    }

    fn on_paper(&self) -> Self {
        let mut chart = Self::new(self.width, self.height);
        chart.rect(0.0, 0.0, self.width, self.height, Colour::PAPER);
        chart.marks.extend_from_slice(&self.marks);
        chart
    }
}

/// Averages squares of `by` x `by` pixels: plotters does not anti-alias polygons and thick lines itself.
fn shrink(pixels: &[u8], width: u32, height: u32, by: u32) -> (Vec<u8>, u32, u32) {
    let (w, h, by, row) = ((width / by) as usize, (height / by) as usize, by as usize, width as usize * 3);
    let mut out = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        for x in 0..w {
            for c in 0..3 {
                let mut sum = 0u32;
                for dy in 0..by {
                    for dx in 0..by {
                        sum += u32::from(pixels[(y * by + dy) * row + (x * by + dx) * 3 + c]);
                    }
                }
                out.push((sum / (by * by) as u32) as u8);
            }
        }
    }
    (out, w as u32, h as u32)
}
