//! What else tells the classes apart: the border of the pictures, their brightness, their files. Whatever does is learned by a
//! network, too, and is gone at the next hospital.

use super::logistic::{Table, held_out_scores};
use crate::data::FileFacts;
use crate::metrics::Ranked;
use crate::report::audit::Shortcut;
use crate::stats::{Resampling, percentile_interval};
use candle_core::Result;
use std::collections::BTreeMap;

/// Values of an attribute that get a column of their own, if at least so many images have them.
const COMMON: usize = 5;
/// Side to which pictures are reduced, and how many of its rows and columns on each side are the border.
pub const SIDE: usize = 32;
pub const BORDER: usize = 2;
/// Bootstrap draws.
const DRAWS: usize = 1000;

/// Whose classes are to be told apart.
pub struct Question<'a> {
    pub labels: &'a [u32],
    pub classes: usize,
    /// The index of the positive class.
    pub positive: usize,
    /// The fold of each image, of so many.
    pub folds: (&'a [usize], usize),
    pub resampling: &'a Resampling,
    pub seed: u64,
}

/// Named columns with a value for each image.
pub type Columns = Vec<(String, Vec<f32>)>;

/// How well the columns tell the classes apart, and the held-out scores.
///
/// # Errors
/// If an operation fails.
pub fn measured(question: &Question<'_>, by: &str, table: &Table) -> Result<(Shortcut, Vec<Vec<f32>>)> {
    let &Question { labels, classes, folds: (folds, count), resampling, seed, .. } = question;
    let scores = held_out_scores(table, labels, classes, folds, count)?;
    let ranked: Vec<Ranked> = question.judged().into_iter().filter_map(|c| question.ranked(&scores, c)).collect();
    let mean = |areas: Vec<Option<f64>>| -> Option<f64> {
        let n = areas.len() as f64;
        (n > 0.0).then_some(())?;
        areas.into_iter().sum::<Option<f64>>().map(|sum| sum / n)
    };
    let area = mean(ranked.iter().map(|r| r.curve().roc_auc()).collect());
    let draws =
        resampling.run(seed, 1, DRAWS, |times| mean(ranked.iter().map(|r| r.resampled(times).roc_auc()).collect()));
    let interval = percentile_interval(&draws, 0.95).map(|i| [i.low, i.high]);
    let shortcut = Shortcut { by: by.to_owned(), roc_auc: area.unwrap_or(0.5), interval, most: None };
    Ok((shortcut, scores))
}

/// The same of named columns, with the one that does best by itself.
///
/// # Errors
/// If an operation fails.
pub fn named(question: &Question<'_>, by: &str, columns: &Columns) -> Result<Option<Shortcut>> {
    let varied: Vec<&(String, Vec<f32>)> = columns.iter().filter(|(_, v)| v.iter().any(|x| *x != v[0])).collect();
    if varied.is_empty() {
        return Ok(None);
    }
    let rows: Vec<Vec<f32>> =
        (0..question.labels.len()).map(|i| varied.iter().map(|(_, values)| values[i]).collect()).collect();
    let (mut shortcut, _) = measured(question, by, &Table::new(&rows))?;
    let alone = |values: &[f32]| {
        let scores: Vec<f64> = values.iter().map(|&v| v.into()).collect();
        let of = |class: usize| {
            let truth: Vec<bool> = question.labels.iter().map(|&l| l as usize == class).collect();
            Ranked::new(&scores, &truth).and_then(|r| r.curve().roc_auc()).map_or(0.5, |a| a.max(1.0 - a))
        };
        question.judged().into_iter().map(of).fold(0.5, f64::max)
    };
    let best = varied.iter().map(|(name, values)| (name.clone(), alone(values)));
    shortcut.most = best.max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(Some(shortcut))
}

impl Question<'_> {
    /// The classes whose areas are averaged.
    fn judged(&self) -> Vec<usize> {
        if self.classes == 2 { vec![self.positive] } else { (0..self.classes).collect() }
    }

    fn ranked(&self, scores: &[Vec<f32>], class: usize) -> Option<Ranked> {
        let own: Vec<f64> = scores.iter().map(|row| row[class].into()).collect();
        let truth: Vec<bool> = self.labels.iter().map(|&l| l as usize == class).collect();
        Ranked::new(&own, &truth)
    }
}

/// The facts of files as columns: numbers as they are and as logarithms, words as one column for each common one.
pub fn columns(facts: &[FileFacts]) -> Columns {
    let mut columns: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut common: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    facts.iter().flat_map(|f| &f.words).for_each(|(n, w)| *common.entry((n, w)).or_default() += 1);
    for (i, fact) in facts.iter().enumerate() {
        let mut put = |name: String, value: f64| {
            columns.entry(name).or_insert_with(|| vec![0.0; facts.len()])[i] = value as f32;
        };
        for (name, value) in &fact.numbers {
            put((*name).to_owned(), *value);
            put(format!("logarithm of {name}"), value.max(1e-9).ln());
        }
        for (name, word) in &fact.words {
            if common.get(&(*name, word.as_str())).is_some_and(|&n| n >= COMMON) {
                put(format!("{name} `{word}`"), 1.0);
            }
        }
    }
    columns.into_iter().collect()
}

/// The border of a picture of [`SIDE`] pixels.
pub fn border(picture: &[f32]) -> Vec<f32> {
    let outside = |p: usize| {
        let (y, x) = (p / SIDE, p % SIDE);
        x.min(y).min(SIDE - 1 - x).min(SIDE - 1 - y) < BORDER
    };
    picture.iter().enumerate().filter(|(p, _)| outside(*p)).map(|(_, v)| *v).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, StreamRng};

    #[test]
    fn what_gives_a_label_away_is_found_and_named() {
        let mut rng = StreamRng::keyed(4, Purpose::Test, &[]);
        let labels: Vec<u32> = (0..400).map(|i| u32::from(i % 4 == 0)).collect();
        let folds: Vec<usize> = (0..400).map(|i| i / 3 % 5).collect();
        let resampling = Resampling::stratified(&labels);
        let question =
            Question { labels: &labels, classes: 2, positive: 1, folds: (&folds, 5), resampling: &resampling, seed: 0 };
        let facts: Vec<FileFacts> = labels
            .iter()
            .map(|&label| FileFacts {
                numbers: vec![("bytes", 1e4 + 1e3 * f64::from(rng.normal())), ("width", 600.0)],
                // Half of the positive ones come from another machine.
                words: vec![("modality", if label == 1 && rng.unit() < 0.5 { "CR" } else { "DX" }.to_owned())],
            })
            .collect();
        let found = named(&question, "the file", &columns(&facts)).unwrap().unwrap();
        assert!((0.65..0.85).contains(&found.roc_auc) && found.better_than_chance(), "{found:?}");
        assert!(found.most.as_ref().unwrap().0.starts_with("modality"), "{found:?}");
        let innocent: Vec<FileFacts> =
            facts.iter().map(|f| FileFacts { numbers: f.numbers.clone(), words: Vec::new() }).collect();
        let found = named(&question, "the file", &columns(&innocent)).unwrap().unwrap();
        assert!(!found.better_than_chance(), "{found:?}");
        let same = vec![FileFacts { numbers: vec![("width", 600.0)], words: Vec::new() }; 400];
        assert!(named(&question, "the file", &columns(&same)).unwrap().is_none());
    }

    #[test]
    fn the_border_is_a_frame() {
        let picture: Vec<f32> = (0..SIDE * SIDE).map(|p| p as f32).collect();
        let frame = border(&picture);
        assert_eq!(frame.len(), SIDE * SIDE - (SIDE - 4) * (SIDE - 4));
        assert!(!frame.contains(&((2 * SIDE + 2) as f32)) && frame.contains(&((2 * SIDE + 1) as f32)));
    }
}
