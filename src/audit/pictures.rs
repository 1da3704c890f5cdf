//! Pictures of what an audit found.

use super::grey::grey;
use crate::data::augment::ViewDraw;
use crate::data::sheet::{Strip, Tile, tile};
use crate::data::{DataSet, PixelSource};
use crate::report::audit::Audit;
use crate::report::model::{Picture, Png};
use crate::report::{DrawError, contact_sheet};
use std::collections::HashMap;

/// Pairs and suspects that are shown.
const PAIRS: usize = 12;
const SUSPECTS: usize = 12;
/// Pictures in a row.
const COLUMNS: usize = 6;

/// What is drawn of an audit: file name and picture.
pub fn pictures(audit: &Audit, images: &DataSet, developed: &[usize]) -> Result<Vec<(String, Picture)>, DrawError> {
    let index: HashMap<&str, usize> = images.records().iter().enumerate().map(|(i, r)| (r.path.as_str(), i)).collect();
    let shown = |path: &str, caption: String| {
        index.get(path).map(|&i| tile(images, (i, images.size()), &ViewDraw::original(), caption))
    };
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut pictures = Vec::new();
    // Those across sets first: they matter most.
    let across = audit.duplicates.iter().filter(|d| d.across);
    let within = audit.duplicates.iter().filter(|d| !d.across);
    let tiles: Vec<Tile> = across
        .chain(within)
        .take(PAIRS)
        .flat_map(|d| [&d.first, &d.second])
        .filter_map(|place| shown(&place.image, format!("{}: {}", place.set, name(&place.image))))
        .collect();
    if !tiles.is_empty() {
        let strip =
            |(k, tiles): (usize, &[Tile])| Strip { heading: pairs_of(k, tiles.len() / 2), tiles: tiles.to_vec() };
        let strips: Vec<Strip> = tiles.chunks(COLUMNS).enumerate().map(strip).collect();
        let caption = "Pairs of neighbours are the same picture, or nearly; those in different sets first.";
        pictures.push(picture("duplicates.png", "Pictures that appear twice", caption, &strips)?);
    }
    let suspects = audit.labels.suspects.iter().take(SUSPECTS);
    let tiles: Vec<Tile> = suspects.filter_map(|s| shown(&s.image, format!("{} {:.2}", s.label, s.score))).collect();
    if !tiles.is_empty() {
        let strips: Vec<Strip> = tiles
            .chunks(COLUMNS)
            .enumerate()
            .map(|(k, tiles)| Strip {
                heading: format!("From the {}", ordinal(k * COLUMNS + 1)),
                tiles: tiles.to_vec(),
            })
            .collect();
        let caption = "Each with its label and the score that other images give it; most suspect first.";
        pictures.push(picture("labels.png", "Labels that the images contradict", caption, &strips)?);
    }
    let tiles: Vec<Tile> = (0..images.classes().len()).map(|class| mean(images, developed, class)).collect();
    let strip = Strip { heading: "Where they differ, the difference can be learned".to_owned(), tiles };
    let caption = "The mean picture of each class: look at corners and borders.";
    pictures.push(picture("means.png", "Mean pictures", caption, &[strip])?);
    Ok(pictures)
}

fn picture(file: &str, title: &str, caption: &str, strips: &[Strip]) -> Result<(String, Picture), DrawError> {
    let png = Png(contact_sheet(title, strips)?);
    Ok((file.to_owned(), Picture { title: title.to_owned(), caption: caption.to_owned(), png }))
}

fn pairs_of(row: usize, pairs: usize) -> String {
    let first = row * COLUMNS / 2 + 1;
    if pairs == 1 { format!("Pair {first}") } else { format!("Pairs {first} to {}", first + pairs - 1) }
}

fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// The mean of a class's development images, as a tile.
fn mean(images: &DataSet, developed: &[usize], class: usize) -> Tile {
    let side = images.size();
    let own: Vec<usize> = developed.iter().copied().filter(|&i| images.records()[i].class as usize == class).collect();
    let mut sums = vec![0u64; side * side];
    for &i in &own {
        sums.iter_mut().zip(grey(images, i)).for_each(|(sum, v)| *sum += u64::from(v));
    }
    let n = own.len().max(1) as u64;
    let rgb = sums.iter().flat_map(|sum| [((sum + n / 2) / n) as u8; 3]).collect();
    Tile { caption: format!("{}: {} images", images.classes()[class], own.len()), side, rgb }
}
