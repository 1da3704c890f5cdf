//! Scores of images: what every metric and every chart is made from.

use super::Ranked;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// One image's true class and scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The image's path as the manifest has it.
    pub image: String,
    /// Its patient, where known.
    pub patient: Option<String>,
    /// Index of the true class.
    pub label: u32,
    /// Softmax score of each class.
    pub scores: Vec<f32>,
}

/// The predictions of one model on one set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Class names; indices are those of `label` and `scores`.
    pub classes: Vec<String>,
    /// Index of the positive class (binary metrics); with more than two classes metrics are macro averages of
    /// one-vs-rest.
    pub positive: u32,
    /// One row per image.
    pub rows: Vec<Prediction>,
}

/// Why predictions cannot be used, read or written.
#[derive(Debug, thiserror::Error)]
pub enum PredictionsError {
    /// Fewer than two classes.
    #[error("use predictions of {0} classes: at least two are needed")]
    TooFewClasses(usize),
    /// The positive class is not one of the classes.
    #[error("use predictions: the positive class {positive} is none of the {classes}")]
    Positive { positive: u32, classes: usize },
    /// A row's label or number of scores does not fit the classes.
    #[error("use the prediction of `{image}`: its label or its scores do not fit {classes} classes")]
    Shape { image: String, classes: usize },
    /// A score is NaN or outside 0..=1.
    #[error("use the prediction of `{image}`: score {score} is not between 0 and 1")]
    Score { image: String, score: f32 },
    /// The file cannot be read or written.
    #[error("access predictions in `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The file is not CSV.
    #[error("read predictions from `{}`", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    /// The file is CSV, but not of predictions.
    #[error("read predictions from `{}`, line {line}: {what}", path.display())]
    Content { path: PathBuf, line: u64, what: String },
}

impl Predictions {
    /// The mean scores of several models on the same images, in the order of the first; `None` if there are none, or they are
    /// of other images or classes.
    pub fn mean(models: &[&Self]) -> Option<Self> {
        let (first, others) = models.split_first()?;
        if others.iter().any(|other| !other.same_images(first)) {
            return None;
        }
        let n = models.len() as f64;
        let mean = |row: usize, class: usize| {
            let sum: f64 = models.iter().map(|m| f64::from(m.rows[row].scores[class])).sum();
            (sum / n) as f32
        };
        let scores = |row| (0..first.classes.len()).map(|class| mean(row, class)).collect();
        let rows = first.rows.iter().enumerate().map(|(i, row)| Prediction { scores: scores(i), ..row.clone() });
        Some(Self { rows: rows.collect(), ..(*first).clone() })
    }

    /// Checks what the metrics rely on: at least two classes, labels and scores that fit them, scores in 0..=1.
    pub fn check(&self) -> Result<(), PredictionsError> {
        let classes = self.classes.len();
        if classes < 2 {
            return Err(PredictionsError::TooFewClasses(classes));
        }
        if self.positive as usize >= classes {
            return Err(PredictionsError::Positive { positive: self.positive, classes });
        }
        for row in &self.rows {
            if row.label as usize >= classes || row.scores.len() != classes {
                return Err(PredictionsError::Shape { image: row.image.clone(), classes });
            }
            if let Some(&score) = row.scores.iter().find(|s| !(0.0..=1.0).contains(*s)) {
                return Err(PredictionsError::Score { image: row.image.clone(), score });
            }
        }
        Ok(())
    }

    /// Scores and truth of one class against the rest. Rows must have passed [`Self::check`].
    pub fn versus_rest(&self, class: usize) -> (Vec<f64>, Vec<bool>) {
        self.rows.iter().map(|r| (f64::from(r.scores[class]), r.label as usize == class)).unzip()
    }

    /// The ranking of one class against the rest. Rows must have passed [`Self::check`].
    pub fn ranked(&self, class: usize) -> Ranked {
        let (scores, positive) = self.versus_rest(class);
        Ranked::new(&scores, &positive).expect("checked scores are numbers")
    }

    /// The class called for a row: with two classes, by the threshold on the positive class's score; with more, by the
    /// largest score, the earlier class among equals.
    pub fn called(&self, row: &Prediction, threshold: f64) -> usize {
        if let [_, _] = row.scores[..] {
            let positive = self.positive as usize;
            return if f64::from(row.scores[positive]) >= threshold { positive } else { 1 - positive };
        }
        (0..row.scores.len()).fold(0, |best, i| if row.scores[i] > row.scores[best] { i } else { best })
    }

    /// Whether both have the same classes, the same positive class, and the same images with the same labels in the
    /// same order.
    pub fn same_images(&self, other: &Self) -> bool {
        self.classes == other.classes
            && self.positive == other.positive
            && self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(|(a, b)| a.image == b.image && a.label == b.label)
    }
}

const POSITIVE: &str = "positive:";
const SCORE: &str = "score:";

/// Predictions as CSV: columns `image`, `patient` (empty: unknown), `label` (a class name), then one column per class
/// in the order of the indices, `positive:NAME` for the positive class and `score:NAME` for the others. Scores are the
/// shortest decimals that give the same f32 again.
pub fn to_csv(predictions: &Predictions) -> Result<Vec<u8>, PredictionsError> {
    predictions.check()?;
    let failed = |source| PredictionsError::Csv { path: PathBuf::new(), source };
    let mut out = csv::Writer::from_writer(Vec::new());
    let columns = predictions.classes.iter().enumerate().map(|(i, name)| {
        let role = if i == predictions.positive as usize { POSITIVE } else { SCORE };
        format!("{role}{name}")
    });
    out.write_record(["image", "patient", "label"].map(str::to_owned).into_iter().chain(columns)).map_err(failed)?;
    for row in &predictions.rows {
        let fixed = [
            row.image.clone(),
            row.patient.clone().unwrap_or_default(),
            predictions.classes[row.label as usize].clone(),
        ];
        out.write_record(fixed.into_iter().chain(row.scores.iter().map(f32::to_string))).map_err(failed)?;
    }
    out.into_inner().map_err(|e| PredictionsError::Io { path: PathBuf::new(), source: e.into_error() })
}

/// Reads what [`to_csv`] made, and checks it.
pub fn read_csv(path: &Path) -> Result<Predictions, PredictionsError> {
    let file = File::open(path).map_err(|source| PredictionsError::Io { path: path.to_owned(), source })?;
    let failed = |source| PredictionsError::Csv { path: path.to_owned(), source };
    let content = |line, what: String| PredictionsError::Content { path: path.to_owned(), line, what };
    let mut reader = csv::Reader::from_reader(io::BufReader::new(file));
    let header = reader.headers().map_err(failed)?.clone();
    if header.iter().take(3).ne(["image", "patient", "label"]) {
        return Err(content(1, "the first columns are not image, patient, label".into()));
    }
    let (mut classes, mut positive) = (Vec::new(), Vec::new());
    for column in header.iter().skip(3) {
        if let Some(name) = column.strip_prefix(POSITIVE) {
            positive.push(classes.len() as u32);
            classes.push(name.to_owned());
        } else if let Some(name) = column.strip_prefix(SCORE) {
            classes.push(name.to_owned());
        } else {
            return Err(content(1, format!("column `{column}` is neither `positive:...` nor `score:...`")));
        }
    }
    let [positive] = positive[..] else {
        return Err(content(1, "there must be exactly one column `positive:...`".into()));
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let label = classes
            .iter()
            .position(|c| *c == record[2])
            .ok_or_else(|| content(line, format!("label `{}` is not a class", &record[2])))?;
        let scores = record.iter().skip(3).map(|s| s.parse().map_err(|_| s));
        rows.push(Prediction {
            image: record[0].to_owned(),
            patient: Some(record[1].to_owned()).filter(|p| !p.is_empty()),
            label: label as u32,
            scores: scores
                .collect::<Result<_, _>>()
                .map_err(|s: &str| content(line, format!("score `{s}` is not a number")))?,
        });
    }
    let predictions = Predictions { classes, positive, rows };
    predictions.check()?;
    Ok(predictions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_taken_image_by_image() {
        let model = |scores: [f32; 2]| {
            let row = |image: &str, score: f32| Prediction {
                image: image.to_owned(),
                patient: None,
                label: 0,
                scores: vec![score, 1.0 - score],
            };
            let classes = vec!["a".to_owned(), "b".to_owned()];
            Predictions { classes, positive: 1, rows: vec![row("x", scores[0]), row("y", scores[1])] }
        };
        let (one, two) = (model([0.25, 0.5]), model([0.75, 1.0]));
        assert_eq!(Predictions::mean(&[&one, &two]), Some(model([0.5, 0.75])));
        assert_eq!(Predictions::mean(&[&one]), Some(one.clone()));
        assert_eq!(Predictions::mean(&[]), None);
        let mut other = two.clone();
        other.rows[1].image = "z".to_owned();
        assert_eq!(Predictions::mean(&[&one, &other]), None, "other images");
    }
}
