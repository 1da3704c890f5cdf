//! An audit of a study's images, before anything is trained on them: pictures that appear twice, labels that the images
//! contradict, and what beside the picture gives a label away.
//!
//! Labels and scores of test images are not looked at; their pictures are, for those that appear elsewhere too.

mod duplicates;
mod grey;
mod labels;
mod logistic;
mod pictures;
mod shortcuts;

use crate::data::{DataSet, ManifestError, PixelSource, file_facts, groups};
use crate::digest::Digest;
use crate::ids::TrialNumber;
use crate::metrics::{Predictions, evaluate};
use crate::report::DrawError;
use crate::report::audit::{Audit, Duplicate, Judge, Labels, Place, Suspect, TrialsJudged};
use crate::rng::{Purpose, StreamRng};
use crate::runner::image::{ImageError, ImageRunner};
use crate::runner::{DeviceSlot, EpochSink};
use crate::spec::{RunnerSpec, StudySpec};
use crate::stats::Resampling;
use grey::grey;
use logistic::Table;
use shortcuts::Question;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Folds of the development images, each scored by a model of the others.
const FOLDS: usize = 5;

/// From this area under the ROC curve on, scores tell the classes apart well enough to doubt labels: with features at .92 two in five
/// named labels were wrong (docs/audit.md), and with less most of them would not be.
const JUDGED_FROM: f64 = 0.85;

/// Why images cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Images or network cannot be had.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// The study's trials are of another kind.
    #[error("audit its images: its trials are not trained on images")]
    NotImages,
    /// The files cannot be listed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A class has too few images to be looked at from outside.
    #[error("audit its images: class `{class}` has {images} outside the test set, and {FOLDS} are needed")]
    TooFew { class: String, images: usize },
    /// An operation fails.
    #[error("compare images")]
    Operation(#[from] candle_core::Error),
    /// A picture cannot be drawn.
    #[error("draw what the audit found")]
    Draw(#[from] DrawError),
}

impl From<ImageError> for AuditError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

/// What the leading trials of a study say of images that they were not trained on.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// Digest of the images and their split.
    pub images: Digest,
    /// The trials.
    pub trials: Vec<TrialNumber>,
    /// The mean of their scores.
    pub scores: Predictions,
}

/// Audits the images of a study, whose relative paths start at `base`. `verdicts`: what trials of the study said of the images,
/// if any did; where they tell the classes apart better than the features do, they judge the labels of these images. All else
/// depends on the study file alone.
///
/// # Errors
/// If the study has no images, they or its network cannot be had, or a class has too few.
pub fn audit(
    spec: &StudySpec,
    base: &Path,
    verdicts: Option<&Verdicts>,
    slot: &DeviceSlot,
    sink: &mut dyn EpochSink,
) -> Result<Audit, AuditError> {
    let RunnerSpec::Image { data, .. } = &spec.runner else { return Err(AuditError::NotImages) };
    let mut runner = ImageRunner::new(spec, base);
    let developed = developed(runner.images(slot, sink)?)?;
    let pooled = runner.pooled(slot, sink)?;
    let features = Table { values: pooled.values, width: pooled.width };
    let images = runner.images(slot, sink)?;

    let grey = |i: usize| grey(images, i);
    let found = duplicates::duplicates(images.records().len(), images.size(), grey, &features, spec.seed)?;
    let records = images.records();
    let classes = images.classes();
    let labels: Vec<u32> = developed.iter().map(|&i| records[i].class).collect();
    let folds = folds(images, &developed, &found.pairs, spec.seed);
    let patients: Vec<Option<&str>> = developed.iter().map(|&i| records[i].patient.as_deref()).collect();
    let question = Question {
        labels: &labels,
        classes: classes.len(),
        positive: images.positive() as usize,
        folds: (&folds, FOLDS),
        resampling: &Resampling::by_patient(&labels, &patients),
        seed: spec.seed,
    };
    let own: Vec<Vec<f32>> =
        developed.iter().map(|&i| features.values[i * features.width..][..features.width].to_vec()).collect();
    let (whole, scores) = shortcuts::measured(&question, "the picture", &Table::new(&own))?;
    let small: Vec<Vec<f32>> =
        developed.iter().map(|&i| duplicates::reduced(&grey(i), images.size(), shortcuts::SIDE)).collect();
    let borders: Vec<Vec<f32>> = small.iter().map(|picture| shortcuts::border(picture)).collect();
    let mut all = vec![whole, shortcuts::measured(&question, "its border alone", &Table::new(&borders))?.0];
    all.extend(shortcuts::named(&question, "its brightness alone", &brightness(images, &developed))?);
    if let Some(facts) = file_facts(data, base, images, &developed)? {
        all.extend(shortcuts::named(&question, "its file alone", &shortcuts::columns(&facts))?);
    }
    let verdicts = verdicts.filter(|verdicts| verdicts.images == images.summary().digest);
    let features = (scores, all[0].roc_auc);
    let places = Places::of(images);
    let mut audit = Audit {
        images: images.summary().digest,
        looked_at: records.len(),
        developed: developed.len(),
        duplicates: found.pairs.iter().map(|pair| places.duplicate(pair)).collect(),
        control: found.control,
        labels: doubted(images, &developed, features, verdicts),
        shortcuts: all,
        pictures: Vec::new(),
    };
    audit.pictures = pictures::pictures(&audit, images, &developed)?;
    Ok(audit)
}

/// Labels that are contradicted: by the scores of trials where they scored the image and tell the classes apart better, else by
/// those of the features. `features`: their scores of the images `developed`, and the area under the curve.
fn doubted(
    images: &DataSet,
    developed: &[usize],
    (features, area): (Vec<Vec<f32>>, f64),
    verdicts: Option<&Verdicts>,
) -> Labels {
    let (records, classes) = (images.records(), images.classes());
    let trials = verdicts.map(|verdicts| {
        let place: HashMap<&str, usize> =
            developed.iter().enumerate().map(|(k, &i)| (records[i].path.as_str(), k)).collect();
        let mut same = verdicts.scores.clone();
        same.rows.retain(|row| place.contains_key(row.image.as_str()));
        same.rows.iter_mut().for_each(|row| row.scores.clone_from(&features[place[row.image.as_str()]]));
        let area = |scores| evaluate(scores, 0.5).roc_auc.unwrap_or(0.0);
        TrialsJudged {
            trials: verdicts.trials.clone(),
            images: same.rows.len(),
            roc_auc: area(&verdicts.scores),
            features: area(&same),
        }
    });
    let judging = verdicts.filter(|_| trials.as_ref().is_some_and(TrialsJudged::is_better));
    let by_path: HashMap<&str, &[f32]> =
        judging.iter().flat_map(|v| &v.scores.rows).map(|row| (row.image.as_str(), row.scores.as_slice())).collect();
    let mut labels = Labels { wrong: None, judged: Some(0), trials, suspects: Vec::new() };
    for (by, area) in [(Judge::Trials, labels.trials.as_ref().map_or(0.0, |t| t.roc_auc)), (Judge::Features, area)] {
        let own = |k: &usize| by_path.contains_key(records[developed[*k]].path.as_str()) == (by == Judge::Trials);
        let group: Vec<usize> = (0..developed.len()).filter(own).collect();
        if group.is_empty() || area < JUDGED_FROM {
            continue;
        }
        let scores: Vec<Vec<f32>> = group
            .iter()
            .map(|&k| {
                by_path.get(records[developed[k]].path.as_str()).map_or_else(|| features[k].clone(), |s| s.to_vec())
            })
            .collect();
        let given: Vec<u32> = group.iter().map(|&k| records[developed[k]].class).collect();
        let (wrong, doubts) = labels::doubts(&scores, &given, classes.len());
        labels.wrong = Some(labels.wrong.unwrap_or(0) + wrong);
        labels.judged = labels.judged.map(|judged| judged + group.len());
        labels.suspects.extend(doubts.into_iter().map(|doubt| {
            let (label, scores) = (given[doubt.image] as usize, &scores[doubt.image]);
            Suspect {
                image: records[developed[group[doubt.image]]].path.clone(),
                label: classes[label].clone(),
                instead: classes[doubt.instead].clone(),
                by,
                score: scores[label].into(),
                score_instead: scores[doubt.instead].into(),
            }
        }));
    }
    labels.suspects.sort_by(|a, b| a.score.total_cmp(&b.score)); // stable: in order of images among equals
    labels
}

/// The training and validation images.
fn developed(images: &DataSet) -> Result<Vec<usize>, AuditError> {
    let mut developed = images.split().development();
    developed.sort_unstable();
    for (class, name) in images.classes().iter().enumerate() {
        let count = developed.iter().filter(|&&i| images.records()[i].class as usize == class).count();
        if count < FOLDS {
            return Err(AuditError::TooFew { class: name.clone(), images: count });
        }
    }
    Ok(developed)
}

/// Quantiles of the grey level, and the share of pixels that are black or white.
fn brightness(images: &DataSet, developed: &[usize]) -> shortcuts::Columns {
    const SHARES: [usize; 9] = [1, 5, 10, 25, 50, 75, 90, 95, 99];
    let rows: Vec<Vec<f32>> = developed
        .iter()
        .map(|&i| {
            let mut levels = grey(images, i);
            levels.sort_unstable();
            let n = levels.len();
            let share = |test: &dyn Fn(&u8) -> bool| levels.iter().filter(|v| test(v)).count() as f32 / n as f32;
            let ends = [share(&|v| *v == 0), share(&|v| *v == 255)];
            SHARES.iter().map(|s| f32::from(levels[(n - 1) * s / 100])).chain(ends).collect()
        })
        .collect();
    let names = SHARES.iter().map(|s| format!("grey level of {s} % of the pixels"));
    let names = names.chain(["share of black pixels".to_owned(), "share of white pixels".to_owned()]);
    names.enumerate().map(|(c, name)| (name, rows.iter().map(|row| row[c]).collect())).collect()
}

/// Divides the development images into folds, by class. Images of one patient, and those of one picture, stay together.
fn folds(images: &DataSet, developed: &[usize], pairs: &[duplicates::Pair], seed: u64) -> Vec<usize> {
    let records = images.records();
    let inside = |image: &usize| developed.binary_search(image).is_ok();
    let pairs = pairs.iter().filter(|p| inside(&p.first) && inside(&p.second)).map(|p| (p.first, p.second));
    let group = groups(records, pairs);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (k, &i) in developed.iter().enumerate() {
        members.entry(group[i]).or_default().push(k);
    }
    let mut groups: Vec<Vec<usize>> = members.into_values().collect();
    StreamRng::named(seed, Purpose::Split, "audit", &[]).shuffle(&mut groups);
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut sizes = vec![vec![0usize; images.classes().len()]; FOLDS];
    let mut folds = vec![0; developed.len()];
    for group in groups {
        let class = |k: &usize| records[developed[*k]].class as usize;
        // The fold that has least of the group's classes.
        let load = |fold: &usize| group.iter().map(|k| sizes[*fold][class(k)]).sum::<usize>();
        let fold = (0..FOLDS).min_by_key(load).unwrap_or(0);
        for k in &group {
            sizes[fold][class(k)] += 1;
            folds[*k] = fold;
        }
    }
    folds
}

/// Where each image is.
struct Places<'a> {
    images: &'a DataSet,
    sets: Vec<&'static str>,
}

impl<'a> Places<'a> {
    fn of(images: &'a DataSet) -> Self {
        let sets = crate::runner::image::sets(images).into_iter().map(|set| set.unwrap_or("left out")).collect();
        Self { images, sets }
    }

    fn place(&self, i: usize) -> Place {
        let record = &self.images.records()[i];
        let class = (self.sets[i] != "test").then(|| self.images.classes()[record.class as usize].clone());
        Place { image: record.path.clone(), set: self.sets[i].to_owned(), class }
    }

    fn duplicate(&self, pair: &duplicates::Pair) -> Duplicate {
        let fold = |i: usize| self.images.split().folds.iter().position(|f| f.validation.contains(&i));
        let (a, b) = (pair.first, pair.second);
        let used = self.sets[a] != "left out" && self.sets[b] != "left out";
        Duplicate {
            first: self.place(a),
            second: self.place(b),
            similarity: pair.similarity,
            mirrored: pair.mirrored,
            across: used && (self.sets[a] != self.sets[b] || fold(a) != fold(b)),
        }
    }
}
