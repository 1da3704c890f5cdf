//! Splits images into training, validation and locked test sets.
//!
//! Images of one patient, and images with equal bytes, form one *group*; a group is never in two sets. The split is
//! stratified by class as far as groups allow. It depends on the images, in the order of their names, and on the seed,
//! not on the order in which a folder was read.

mod assign;
mod groups;

use super::ImageRecord;
use super::manifest::GivenSet;
use crate::rng::{Purpose, StreamRng};
use crate::spec::{SplitSpec, ValidationPolicy};
use assign::assign;
pub use groups::groups;
use serde::{Deserialize, Serialize};

/// A validation set that came with the data needs this many images of every class for [`ValidationPolicy::Auto`] to
/// keep it.
pub const ENOUGH_TO_VALIDATE: usize = 30;

/// One division of the development images into training and validation. Indices are positions in the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Images to train on.
    pub train: Vec<usize>,
    /// Images to validate on.
    pub validation: Vec<usize>,
}

/// How images are divided: one fold, or `k` of them for cross-validation, and the locked test images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// At least one.
    pub folds: Vec<Fold>,
    /// Test images: locked until the study's test set is opened; may be empty.
    pub test: Vec<usize>,
    /// Images left out because their patient or their bytes are in a test or validation set that came with the data.
    pub dropped: Vec<usize>,
    /// What was done with a validation set that came with the data.
    pub given_validation: GivenValidation,
}

impl Split {
    /// The training and validation images: everything but the test images and those left out.
    pub fn development(&self) -> Vec<usize> {
        self.folds.first().map_or_else(Vec::new, |fold| [&fold.train[..], &fold.validation].concat())
    }
}

/// What was done with a validation set that came with the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenValidation {
    /// There was none.
    #[default]
    Absent,
    /// It is the validation set.
    Kept,
    /// It was merged with the training images, and all were split again.
    Merged,
}

/// Splits `records`, which must be in the order of their names. `sets[i]` is the set that the data assign to record
/// `i`; `classes` are the class names.
///
/// # Errors
/// If a class has too few images or patients to be in every set; the message says what to do.
pub fn split(
    records: &[ImageRecord],
    sets: &[Option<GivenSet>],
    classes: &[String],
    spec: &SplitSpec,
    seed: u64,
) -> Result<Split, SplitError> {
    let divider = Divider { records, classes, group: groups(records, []), seed };
    let has = |set| sets.contains(&Some(set));
    let keep = has(GivenSet::Validation) && spec.folds.is_none() && divider.keeps_validation(sets, spec.policy);
    let mut out = Split::default();
    if has(GivenSet::Validation) {
        out.given_validation = if keep { GivenValidation::Kept } else { GivenValidation::Merged };
    }

    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (i, set) in sets.iter().enumerate() {
        match set {
            Some(GivenSet::Test) => out.test.push(i),
            Some(GivenSet::Validation) if keep => validation.push(i),
            _ => train.push(i),
        }
    }
    // The data's own sets take precedence, test before validation before training: an image is dropped from a set if
    // its group is also in a higher one.
    divider.drop_shared(&mut validation, &[&out.test], &mut out.dropped);
    divider.drop_shared(&mut train, &[&out.test, &validation], &mut out.dropped);
    out.dropped.sort_unstable();
    divider.check_classes(&train, "training", 1)?;

    if out.test.is_empty() && spec.test > 0.0 {
        let sides = if keep { 2 } else { 2 + spec.folds.map_or(1, |k| k as usize - 1) };
        divider.check_groups(&train, sides)?;
        let parts = divider.divide(&train, &[spec.test, 1.0 - spec.test], Stage::Test);
        (out.test, train) = two(parts);
    }
    if keep {
        divider.check_classes(&validation, "validation", 1)?;
        out.folds = vec![Fold { train, validation }];
        return Ok(out);
    }
    if let Some(k) = spec.folds {
        let k = k as usize;
        divider.check_groups(&train, k)?;
        let parts = divider.divide(&train, &vec![1.0 / k as f64; k], Stage::Validation);
        out.folds = (0..k)
            .map(|fold| {
                let mut rest: Vec<usize> = (0..k).filter(|&p| p != fold).flat_map(|p| parts[p].clone()).collect();
                rest.sort_unstable();
                Fold { train: rest, validation: parts[fold].clone() }
            })
            .collect();
    } else {
        divider.check_groups(&train, 2)?;
        let parts = divider.divide(&train, &[spec.validation, 1.0 - spec.validation], Stage::Validation);
        let (validation, train) = two(parts);
        out.folds = vec![Fold { train, validation }];
    }
    for fold in &out.folds {
        divider.check_classes(&fold.train, "training", 1)?;
        divider.check_classes(&fold.validation, "validation", 1)?;
    }
    Ok(out)
}

fn two(mut parts: Vec<Vec<usize>>) -> (Vec<usize>, Vec<usize>) {
    let second = parts.pop().unwrap_or_default();
    (parts.pop().unwrap_or_default(), second)
}

/// Counter of the random stream that shuffles groups. Changing a value would change the split of every study.
#[derive(Clone, Copy)]
enum Stage {
    Test = 0,
    Validation = 1,
}

struct Divider<'a> {
    records: &'a [ImageRecord],
    classes: &'a [String],
    /// The group of each record.
    group: Vec<usize>,
    seed: u64,
}

impl Divider<'_> {
    fn counts(&self, images: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        images.into_iter().for_each(|i| counts[self.records[i].class as usize] += 1);
        counts
    }

    fn keeps_validation(&self, sets: &[Option<GivenSet>], policy: ValidationPolicy) -> bool {
        let given = (0..sets.len()).filter(|&i| sets[i] == Some(GivenSet::Validation));
        match policy {
            ValidationPolicy::Keep => true,
            ValidationPolicy::Merge => false,
            ValidationPolicy::Auto => self.counts(given).iter().all(|&n| n >= ENOUGH_TO_VALIDATE),
        }
    }

    /// Moves the images of `from` whose group is also in one of `higher` to `dropped`.
    fn drop_shared(&self, from: &mut Vec<usize>, higher: &[&[usize]], dropped: &mut Vec<usize>) {
        let mut taken = vec![false; self.records.len()];
        higher.iter().copied().flatten().for_each(|&i| taken[self.group[i]] = true);
        dropped.extend(from.iter().copied().filter(|&i| taken[self.group[i]]));
        from.retain(|&i| !taken[self.group[i]]);
    }

    fn divide(&self, images: &[usize], shares: &[f64], stage: Stage) -> Vec<Vec<usize>> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.records.len()];
        images.iter().for_each(|&i| members[self.group[i]].push(i));
        members.retain(|m| !m.is_empty());
        StreamRng::keyed(self.seed, Purpose::Split, &[stage as u64]).shuffle(&mut members);
        // Large groups first, while there is room for them; the sort is stable, so groups of equal size stay shuffled.
        members.sort_by_key(|m| std::cmp::Reverse(m.len()));
        let sizes: Vec<Vec<usize>> = members.iter().map(|m| self.counts(m.iter().copied())).collect();
        let mut parts = vec![Vec::new(); shares.len()];
        for (group, part) in members.into_iter().zip(assign(&sizes, shares)) {
            parts[part].extend(group);
        }
        parts.iter_mut().for_each(|p| p.sort_unstable());
        parts
    }

    fn check_classes(&self, images: &[usize], side: &'static str, least: usize) -> Result<(), SplitError> {
        let counts = self.counts(images.iter().copied());
        match counts.iter().position(|&n| n < least) {
            Some(class) => Err(SplitError::ClassMissing { class: self.classes[class].clone(), side }),
            None => Ok(()),
        }
    }

    /// Checks that every class has a group for each of `sides` sets.
    fn check_groups(&self, images: &[usize], sides: usize) -> Result<(), SplitError> {
        for (class, name) in self.classes.iter().enumerate() {
            let of_class = || images.iter().copied().filter(|&i| self.records[i].class as usize == class);
            let mut groups: Vec<usize> = of_class().map(|i| self.group[i]).collect();
            groups.sort_unstable();
            groups.dedup();
            if groups.len() < sides {
                let (images, groups) = (of_class().count(), groups.len());
                return Err(SplitError::TooFew { class: name.clone(), images, groups, sides });
            }
        }
        Ok(())
    }
}

/// Why images cannot be divided.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// A class has too few groups to be in every set.
    #[error(
        "split class `{class}`: it has {images} images of {groups} patients (or single images), and {sides} sides \
         need one each\nhint: add images of `{class}`, ask for fewer folds, or check the pattern for patients"
    )]
    TooFew { class: String, images: usize, groups: usize, sides: usize },
    /// A class is missing from a set.
    #[error(
        "split the images: class `{class}` has none left for {side}\n\
         hint: add images of `{class}`, or merge the given validation set: `policy = \"merge\"` in `[split]`"
    )]
    ClassMissing { class: String, side: &'static str },
}

#[cfg(test)]
mod tests;
