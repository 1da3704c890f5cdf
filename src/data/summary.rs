//! Summary of a study's data set: shown by plan, status and report, stored with the study.

use super::ImageRecord;
use super::split::{GivenValidation, Split};
use crate::digest::Digest;
use crate::wording::counted;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Counts and peculiarities of a data set. Vectors of counts are per class, in the order of `classes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Class names in order.
    pub classes: Vec<String>,
    /// Index of the positive class.
    pub positive: u32,
    /// Whether the images are synthetic.
    pub synthetic: bool,
    /// Side of the square images in pixels.
    pub size: usize,
    /// Channels kept: 1 or 3.
    pub channels: usize,
    /// Usable images of each class.
    pub images: Vec<u64>,
    /// Training and validation images of each fold.
    pub folds: Vec<FoldCounts>,
    /// Locked test images.
    pub test: Vec<u64>,
    /// Images left out because their patient or their bytes are in a test or validation set that came with the data.
    pub dropped: Vec<u64>,
    /// What was done with a validation set that came with the data.
    pub given_validation: GivenValidation,
    /// Patients, if file names or the manifest give them.
    pub patients: Option<PatientCounts>,
    /// Images with the same bytes as an earlier image.
    pub duplicates: u64,
    /// Files left out, and why.
    pub skipped: Vec<SkippedFile>,
    /// Notes for the user, each a sentence without a full stop.
    pub notes: Vec<String>,
    /// Digest of names, classes, patients, bytes and split: changes with anything in the data that results depend on.
    pub digest: Digest,
}

/// Images of one fold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldCounts {
    pub train: Vec<u64>,
    pub validation: Vec<u64>,
}

/// Patients of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatientCounts {
    /// Number of patients.
    pub patients: u64,
    /// Images of the patient with the most images.
    pub most_images: u64,
    /// Images whose patient is not known: each counts as its own.
    pub unknown: u64,
}

/// A file that is no usable image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SkippedFile {
    /// Its name, as in the listing.
    pub path: String,
    /// Why, in words that follow the name: `is empty`.
    pub reason: String,
}

/// Counts of each class among `images`.
pub(super) fn counts(records: &[ImageRecord], classes: usize, images: impl IntoIterator<Item = usize>) -> Vec<u64> {
    let mut counts = vec![0; classes];
    images.into_iter().for_each(|i| counts[records[i].class as usize] += 1);
    counts
}

pub(super) fn patients(records: &[ImageRecord]) -> Option<PatientCounts> {
    let mut images: BTreeMap<&str, u64> = BTreeMap::new();
    records.iter().filter_map(|r| r.patient.as_deref()).for_each(|p| *images.entry(p).or_default() += 1);
    let most_images = *images.values().max()?;
    let unknown = records.iter().filter(|r| r.patient.is_none()).count() as u64;
    Some(PatientCounts { patients: images.len() as u64, most_images, unknown })
}

pub(super) fn duplicates(records: &[ImageRecord]) -> u64 {
    let mut seen = HashSet::new();
    records.iter().filter(|r| !seen.insert(r.digest)).count() as u64
}

/// The digest of all in the data that results depend on.
pub(super) fn identity(records: &[ImageRecord], classes: &[String], split: &Split) -> Digest {
    let text = serde_json::to_vec(&(records, classes, split)).expect("plain records become JSON");
    Digest::of(&text)
}

impl DataSummary {
    /// Usable images of all classes.
    pub fn total(&self) -> u64 {
        self.images.iter().sum()
    }

    /// For each class its name, marked if it is the positive one, and its image counts in each set of the first fold.
    pub fn counts(&self) -> Vec<(String, String)> {
        let fold = self.folds.first();
        let of = |counts: Option<&Vec<u64>>, class: usize| counts.and_then(|c| c.get(class)).copied().unwrap_or(0);
        let line = |class: usize| {
            let role = if class == self.positive as usize { " (positive)" } else { "" };
            let counts = format!(
                "{} images, {} train, {} validation, {} test",
                self.images[class],
                of(fold.map(|f| &f.train), class),
                of(fold.map(|f| &f.validation), class),
                of(Some(&self.test), class),
            );
            (format!("{}{role}", self.classes[class]), counts)
        };
        (0..self.classes.len()).map(line).collect()
    }

    /// How these data differ from `before`, in words: by classes or counts if these differ.
    pub fn difference(&self, before: &Self) -> Vec<String> {
        if self.classes != before.classes {
            return vec![format!("classes {}, before {}", self.classes.join(", "), before.classes.join(", "))];
        }
        let mut found = Vec::new();
        let mut compare = |what: &str, now: &[u64], then: &[u64]| {
            for ((class, now), then) in self.classes.iter().zip(now).zip(then).filter(|((_, now), then)| now != then) {
                found.push(format!("{now} {what}{class}, before {then}"));
            }
        };
        compare("", &self.images, &before.images);
        if self.images == before.images {
            compare("test ", &self.test, &before.test);
        }
        if found.is_empty() {
            found.push("as many of each class, but other files, bytes or split".to_owned());
        }
        found
    }

    /// What to know before trusting a result: the notes, and the peculiarities of the data in words.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.notes.clone();
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        if self.given_validation == GivenValidation::Merged {
            remarks.push("the validation set that came with the data was merged with training and split anew".into());
        }
        if sum(&self.dropped) > 0 {
            remarks.push(format!(
                "{} left out: the patient or the bytes are also in a given test or validation set",
                counted(sum(&self.dropped), "image")
            ));
        }
        if self.duplicates > 0 {
            let images = counted(self.duplicates, "image");
            remarks.push(format!("{images} with the bytes of another; equal ones stay on one side"));
        }
        if !self.skipped.is_empty() {
            remarks.push(format!("{} skipped: no usable image", counted(self.skipped.len(), "file")));
        }
        if self.patients.is_none() && !self.synthetic {
            remarks.push(
                "no patient is known: each image counts as one of its own, and images of one person may be on both sides of \
                 the split; `patient` in `[data]` reads patients from names, a column `patient` in a manifest has them"
                    .into(),
            );
        }
        if self.test.contains(&0) && sum(&self.test) > 0 {
            remarks.push("the test set lacks a class: its ranking metrics will be undefined".into());
        }
        remarks
    }
}
