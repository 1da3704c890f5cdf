//! Contact sheets: strips of pictures under headings, as one PNG.

use super::canvas::{Align, Chart, Colour, Mark};
use super::render::DrawError;
use crate::data::sheet::Strip;
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use std::io::Cursor;

/// Side of a picture on the sheet, and the space around it, in logical pixels.
const SIDE: f64 = 150.0;
const GAP: f64 = 12.0;
/// Room for a heading, a caption, and the sheet's title.
const HEADING: f64 = 30.0;
const CAPTION: f64 = 20.0;
const TITLE: f64 = 44.0;
/// Letters of a caption that fit under a picture.
const LETTERS: usize = 24;
/// PNG pixels per logical pixel of a [`Chart`].
const DENSITY: f64 = 2.0;

/// Draws strips below each other under a title.
///
/// # Errors
/// If drawing or encoding fails.
pub fn contact_sheet(title: &str, strips: &[Strip]) -> Result<Vec<u8>, DrawError> {
    let columns = strips.iter().map(|s| s.tiles.len()).max().unwrap_or(0).max(4);
    let row = HEADING + SIDE + CAPTION + GAP;
    let width = GAP + columns as f64 * (SIDE + GAP);
    let mut chart = Chart::new(width, TITLE + strips.len() as f64 * row);
    let mut words = |x: f64, y: f64, text: String, size: f64, bold: bool, align: Align, colour: Colour| {
        chart.marks.push(Mark::Text { x, y, words: text, size, bold, align, up: false, colour });
    };
    words(GAP, TITLE / 2.0, title.to_owned(), 17.0, true, Align::Left, Colour::INK);
    for (i, strip) in strips.iter().enumerate() {
        let top = TITLE + i as f64 * row;
        words(GAP, top + HEADING / 2.0, strip.heading.clone(), 13.0, true, Align::Left, Colour::INK);
        for (k, tile) in strip.tiles.iter().enumerate() {
            let (x, y) = (GAP + k as f64 * (SIDE + GAP) + SIDE / 2.0, top + HEADING + SIDE + CAPTION / 2.0);
            words(x, y, shortened(&tile.caption), 10.5, false, Align::Centre, Colour::MUTED);
        }
    }
    let mut sheet = image::load_from_memory(&chart.png()?).map_err(DrawError::Png)?.into_rgb8();
    for (i, strip) in strips.iter().enumerate() {
        let top = TITLE + i as f64 * row + HEADING;
        for (k, tile) in strip.tiles.iter().enumerate() {
            let side = tile.side as u32;
            let Some(picture) = RgbImage::from_raw(side, side, tile.rgb.clone()) else { continue };
            let shown = (SIDE * DENSITY) as u32;
            let picture = imageops::resize(&picture, shown, shown, FilterType::Triangle);
            let x = (GAP + k as f64 * (SIDE + GAP)) * DENSITY;
            imageops::replace(&mut sheet, &picture, x as i64, (top * DENSITY) as i64);
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(DrawError::Png)?;
    Ok(png.into_inner())
}

/// Shortens a caption at its beginning: file names differ at their ends.
fn shortened(caption: &str) -> String {
    let letters = caption.chars().count();
    if letters <= LETTERS {
        return caption.to_owned();
    }
    format!("...{}", caption.chars().skip(letters - LETTERS + 3).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sheet::Tile;

    #[test]
    fn pictures_are_placed_below_their_headings() {
        let tile = |v: u8| Tile { caption: "an image of some long name.png".into(), side: 4, rgb: vec![v; 48] };
        let strips = [
            Strip { heading: "A".into(), tiles: vec![tile(10), tile(20)] },
            Strip { heading: "B".into(), tiles: vec![tile(30)] },
        ];
        let sheet = image::load_from_memory(&contact_sheet("Samples", &strips).unwrap()).unwrap().into_rgb8();
        let at = |column: f64, row: f64| {
            let x = (GAP + column * (SIDE + GAP) + SIDE / 2.0) * DENSITY;
            let y = (TITLE + row * (HEADING + SIDE + CAPTION + GAP) + HEADING + SIDE / 2.0) * DENSITY;
            sheet.get_pixel(x as u32, y as u32).0
        };
        assert_eq!([at(0.0, 0.0), at(1.0, 0.0), at(0.0, 1.0), at(1.0, 1.0)], [[10; 3], [20; 3], [30; 3], [255; 3]]);
        let title = imageops::crop_imm(&sheet, 0, 0, sheet.width(), (TITLE * DENSITY) as u32).to_image();
        assert!(title.pixels().any(|p| p.0[0] < 100), "the title is written");
        assert_eq!(shortened("person1_bacteria_1234567.jpeg").chars().count(), LETTERS);
    }
}
