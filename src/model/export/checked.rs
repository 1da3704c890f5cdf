//! Whether what was exported scores as the trial did.

use super::ExportError;
use crate::data::{DataSet, PixelSource};
use crate::ids::TrialNumber;
use crate::metrics::{self, Predictions};
use crate::runner::image::{ExportedTrial, Scored, Scorer, mean_score};
use crate::spec::{BackboneKind, CachePrecision, Device, NetworkSpec, Precision};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// What the exported `files` of a trial say of the validation images, and by how much a score differs at most from the one on
/// record. With several folds the former is the mean, and scores are compared by the fold that judged the image.
pub(super) fn checked(
    trial: TrialNumber,
    exported: &ExportedTrial,
    files: &[PathBuf],
    images: &DataSet,
    (predictions, computed): (&Predictions, Computed),
) -> Result<(Vec<Scored>, f64), ExportError> {
    let settings = &exported.settings;
    let load = |file: &PathBuf| {
        Scorer::load(
            std::slice::from_ref(file),
            &settings.network,
            &settings.head,
            predictions.classes.len(),
            (images.size(), images.channels()),
            files.len(),
            Device::Cpu,
        )
    };
    let scorers = files.iter().map(load).collect::<Result<Vec<Scorer>, _>>()?;
    let judged = judged(images, predictions)?;
    let pixels: Vec<&[u8]> = judged.iter().map(|&i| images.pixels(i)).collect();
    let scored = mean_score(&scorers, &pixels)?;
    let difference = match scorers.as_slice() {
        [_] => largest_difference(predictions, &scored),
        folds => largest_difference(predictions, &by_own_fold(folds, images, &judged)?),
    };
    if difference > computed.tolerance(&settings.network) {
        return Err(ExportError::Differs { trial, difference });
    }
    Ok((scored, difference))
}

/// In which arithmetic the scores on record were computed. What is exported computes in f32 on the CPU.
#[derive(Clone, Copy)]
pub(super) struct Computed {
    /// Whether any on a GPU.
    pub on_gpu: bool,
    pub precision: Precision,
}

impl Computed {
    /// By how much a score may differ from the one on record: with features rounded to half precision in the cache, or in
    /// convolutions that round.
    fn tolerance(self, network: &NetworkSpec) -> f64 {
        let of_cache = if network.cache == CachePrecision::F16 { 0.05 } else { 2e-3 };
        let of_products = match self.precision {
            Precision::Bf16 | Precision::Amp if self.on_gpu || network.backbone == BackboneKind::InceptionV3 => 0.2,
            Precision::Tf32 if self.on_gpu => 0.05,
            _ => 2e-3,
        };
        f64::max(of_cache, of_products)
    }
}

/// Where the images with a score on record are among the study's.
fn judged(images: &DataSet, predictions: &Predictions) -> Result<Vec<usize>, ExportError> {
    let by_path: HashMap<&str, usize> =
        images.records().iter().enumerate().map(|(i, image)| (image.path.as_str(), i)).collect();
    let place = |row: &metrics::Prediction| {
        let i = by_path.get(row.image.as_str()).copied();
        i.ok_or_else(|| ExportError::Images(format!("`{}` is not among them", row.image)))
    };
    predictions.rows.iter().map(place).collect()
}

/// What the models of the folds say of the images `judged`, each of those that it was validated on.
fn by_own_fold(scorers: &[Scorer], images: &DataSet, judged: &[usize]) -> Result<Vec<Scored>, ExportError> {
    let mut all: Vec<Option<Scored>> = vec![None; judged.len()];
    for (scorer, fold) in scorers.iter().zip(&images.split().folds) {
        let validation: HashSet<usize> = fold.validation.iter().copied().collect();
        let own: Vec<usize> = (0..judged.len()).filter(|&row| validation.contains(&judged[row])).collect();
        let pixels: Vec<&[u8]> = own.iter().map(|&row| images.pixels(judged[row])).collect();
        for (row, scored) in own.into_iter().zip(scorer.score(&pixels)?) {
            all[row] = Some(scored);
        }
    }
    let all: Option<Vec<Scored>> = all.into_iter().collect();
    all.ok_or_else(|| ExportError::Images("some with a score on record are in no fold".to_owned()))
}

/// The largest difference between a score on record and what a model says of the same image. Infinite where one of them is no
/// number, which would pass any comparison.
fn largest_difference(predictions: &Predictions, scored: &[Scored]) -> f64 {
    let pairs = predictions.rows.iter().zip(scored).flat_map(|(row, scored)| row.scores.iter().zip(&scored.scores));
    let each = pairs.map(|(a, b)| f64::from((a - b).abs()));
    each.fold(0.0, |most, difference| if difference.is_nan() { f64::INFINITY } else { f64::max(most, difference) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_may_differ_as_far_as_what_computed_them_rounds() {
        let network = |backbone: BackboneKind, cache| {
            let kind = format!("[network]\nbackbone = \"{backbone}\"\nweights = \"random\"\ncache = \"{cache}\"\n");
            let study = format!(
                "[data]\nsynthetic = {{ images = 40 }}\n{kind}[space]\ndropout = {{ choices = [0.0, 0.5] }}\n[budget]\nn_trials = 2\n"
            );
            let loaded = crate::config::from_text(&study).map_err(|e| e.render(false)).unwrap();
            loaded.spec.runner.fixed().unwrap().network.clone()
        };
        let (inception, resnet) = (network(BackboneKind::InceptionV3, "f32"), network(BackboneKind::ResNet18, "f32"));
        let tolerance = |on_gpu, precision, network| Computed { on_gpu, precision }.tolerance(network);
        for precision in [Precision::F32, Precision::Tf32] {
            assert_eq!(tolerance(false, precision, &inception), 2e-3);
        }
        for precision in [Precision::Bf16, Precision::Amp] {
            assert_eq!(tolerance(false, precision, &inception), 0.2);
            assert_eq!(tolerance(false, precision, &resnet), 2e-3);
            assert_eq!(tolerance(true, precision, &resnet), 0.2);
        }
        assert_eq!(tolerance(true, Precision::Tf32, &inception), 0.05);
        assert_eq!(tolerance(false, Precision::F32, &network(BackboneKind::InceptionV3, "f16")), 0.05);
    }

    #[test]
    fn a_score_that_is_no_number_never_agrees() {
        let row = |scores: [f32; 2]| metrics::Prediction {
            image: String::new(),
            patient: None,
            label: 0,
            scores: scores.to_vec(),
        };
        let difference = |recorded: [f32; 2], found: [f32; 2]| {
            let rows = vec![row([0.5, 0.5]), row(recorded), row([0.5, 0.5])];
            let predictions = Predictions { classes: vec!["a".to_owned(), "b".to_owned()], positive: 1, rows };
            let scored = |scores: [f32; 2]| Scored { scores: scores.to_vec(), distance: 1.0 };
            largest_difference(&predictions, &[[0.5, 0.5], found, [0.5, 0.5]].map(scored))
        };
        assert_eq!(difference([0.25, 0.75], [0.5, 0.5]), 0.25);
        assert_eq!(difference([0.25, 0.75], [f32::NAN, 0.5]), f64::INFINITY);
        assert_eq!(difference([f32::NAN, 0.75], [0.25, 0.75]), f64::INFINITY);
        assert_eq!(difference([0.25, 0.75], [0.25, f32::INFINITY]), f64::INFINITY);
    }
}
