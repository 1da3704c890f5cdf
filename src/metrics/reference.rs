//! The metrics against values from scikit-learn and from a brute-force DeLong (`tests/data/make_metrics.py`).

use super::*;
use crate::spec::{Metric, OperatingPoint};
use crate::stats::Delong;
use serde_json::Value;

fn figures() -> Value {
    serde_json::from_str(include_str!("../../tests/data/metrics.json")).unwrap()
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn binary(case: &Value) -> Predictions {
    let rows = floats(&case["labels"]).into_iter().zip(floats(&case["scores"])).enumerate();
    Predictions {
        classes: vec!["no".into(), "yes".into()],
        positive: 1,
        rows: rows
            .map(|(i, (label, score))| Prediction {
                image: format!("{i}.png"),
                patient: None,
                label: label as u32,
                scores: vec![1.0 - score as f32, score as f32],
            })
            .collect(),
    }
}

fn agree(name: &str, ours: Option<f64>, theirs: &Value) {
    match (ours, theirs.as_f64()) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() < 1e-12 => {}
        (a, b) => panic!("{name}: {a:?} here, {b:?} there"),
    }
}

#[test]
fn two_classes_agree_with_scikit_learn() {
    for case in figures()["binary"].as_array().unwrap() {
        let predictions = binary(case);
        let ours = evaluate(&predictions, case["threshold"].as_f64().unwrap());
        for (metric, theirs) in case["metrics"].as_object().unwrap() {
            let (_, value) = ours.named().into_iter().find(|(name, _)| name == metric).unwrap();
            agree(&format!("{}, {metric}", case["name"]), value, theirs);
        }
    }
}

#[test]
fn curves_agree_with_scikit_learn() {
    let all = figures();
    let mut seen = 0;
    for case in all["binary"].as_array().unwrap().iter().filter(|c| c.get("roc").is_some()) {
        let curve = binary(case).ranked(1).curve();
        let roc = curve.roc();
        let near = |a: &[f64], b: &Value| {
            let b = floats(b);
            assert_eq!(a.len(), b.len(), "{}", case["name"]);
            assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-12), "{}", case["name"]);
        };
        near(&roc.iter().map(|p| p.fpr).collect::<Vec<_>>(), &case["roc"]["fpr"]);
        near(&roc.iter().map(|p| p.tpr).collect::<Vec<_>>(), &case["roc"]["tpr"]);
        near(&roc.iter().filter_map(|p| p.threshold).collect::<Vec<_>>(), &case["roc"]["threshold"]);
        let pr = curve.precision_recall();
        near(&pr.iter().map(|p| p.precision).collect::<Vec<_>>(), &case["pr"]["precision"]);
        near(&pr.iter().map(|p| p.recall).collect::<Vec<_>>(), &case["pr"]["recall"]);
        near(&pr.iter().map(|p| p.threshold).collect::<Vec<_>>(), &case["pr"]["threshold"]);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn constrained_objectives_agree_with_scikit_learns_curves() {
    for case in figures()["binary"].as_array().unwrap().iter().filter(|c| c.get("roc").is_some()) {
        let predictions = binary(case);
        let ask = |metric| objective(&predictions, &metric, &OperatingPoint::Threshold(0.5));
        let theirs = &case["constrained"];
        agree("recall", ask(Metric::RecallAtSpecificity(0.9)), &theirs["recall_at_specificity_0.9"]);
        agree("specificity", ask(Metric::SpecificityAtRecall(0.95)), &theirs["specificity_at_recall_0.95"]);
        agree("precision", ask(Metric::PrecisionAtRecall(0.8)), &theirs["precision_at_recall_0.8"]);
    }
}

#[test]
fn calibration_agrees_with_an_unpenalised_logistic_regression() {
    for case in figures()["binary"].as_array().unwrap() {
        let (scores, positive) = binary(case).versus_rest(1);
        let ours = Calibration::new(&scores, &positive, 10);
        match case.get("calibration").filter(|c| !c.is_null()) {
            None => assert_eq!(ours.slope, None, "{}", case["name"]),
            Some(theirs) => {
                let near = |a: Option<f64>, b: &Value| (a.unwrap() - b.as_f64().unwrap()).abs() < 2e-5;
                assert!(near(ours.slope, &theirs["slope"]), "{}: {ours:?} {theirs}", case["name"]);
                assert!(near(ours.intercept, &theirs["intercept"]), "{}: {ours:?} {theirs}", case["name"]);
            }
        }
    }
}

#[test]
fn more_classes_are_macro_averages_as_in_scikit_learn() {
    let all = figures();
    let case = &all["multiclass"];
    let predictions = Predictions {
        classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
        positive: 0,
        rows: floats(&case["labels"])
            .into_iter()
            .zip(case["scores"].as_array().unwrap())
            .map(|(label, scores)| Prediction {
                image: String::new(),
                patient: None,
                label: label as u32,
                scores: floats(scores).into_iter().map(|s| s as f32).collect(),
            })
            .collect(),
    };
    let ours = evaluate(&predictions, 0.5);
    for (metric, theirs) in case["metrics"].as_object().unwrap() {
        let (_, value) = ours.named().into_iter().find(|(name, _)| name == metric).unwrap();
        agree(metric, value, theirs);
    }
    let matrix = ConfusionMatrix::new(&predictions, 0.5).unwrap();
    assert_eq!(serde_json::to_value(matrix.counts).unwrap(), case["confusion"]);
    assert_eq!(threshold_at(&predictions, &OperatingPoint::Youden), None);
}

#[test]
fn delong_by_midranks_agrees_with_brute_force_over_all_pairs() {
    let all = figures();
    let case = &all["delong"];
    let positive: Vec<bool> = floats(&case["labels"]).iter().map(|&l| l == 1.0).collect();
    let scores: Vec<Vec<f64>> = case["scores"].as_array().unwrap().iter().map(floats).collect();
    let ours = Delong::new(&scores, &positive).unwrap();
    let covariance: Vec<Vec<f64>> = case["covariance"].as_array().unwrap().iter().map(floats).collect();
    for i in 0..3 {
        agree("area", Some(ours.estimate(i).auc), &case["auc"][i]);
        assert!((ours.estimate(i).se - covariance[i][i].sqrt()).abs() < 1e-12);
        for j in 0..3 {
            let variance = covariance[i][i] + covariance[j][j] - 2.0 * covariance[i][j];
            assert!((ours.difference(i, j).1 - variance.max(0.0).sqrt()).abs() < 1e-9);
        }
    }
    assert_eq!(ours.test(1, 1), None);
    let (z, p) = ours.test(0, 2).unwrap();
    assert!((p - 2.0 * (1.0 - crate::stats::cdf(z.abs()))).abs() < 1e-12);
}

#[test]
fn thresholded_objectives_follow_the_operating_point() {
    let case = &figures()["binary"][0];
    let predictions = binary(case);
    let at = |point| objective(&predictions, &Metric::Recall, &point).unwrap();
    agree("at one half", Some(at(OperatingPoint::Threshold(0.5))), &case["metrics"]["recall"]);
    assert!(at(OperatingPoint::Recall(0.95)) >= 0.95);
    assert_eq!(objective(&predictions, &Metric::Custom("x".into()), &OperatingPoint::Youden), None);
}

#[test]
fn a_nan_score_is_refused_and_leaves_every_metric_undefined() {
    let mut predictions = binary(&figures()["binary"][0]);
    predictions.rows[3].scores[1] = f32::NAN;
    assert!(matches!(predictions.check(), Err(PredictionsError::Score { .. })));
    assert!(evaluate(&predictions, 0.5).defined().is_empty());
    assert_eq!(objective(&predictions, &Metric::RocAuc, &OperatingPoint::Threshold(0.5)), None);
    assert_eq!(threshold_at(&predictions, &OperatingPoint::Youden), None);
}

#[test]
fn predictions_are_written_and_read_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.csv");
    let mut predictions = binary(&figures()["binary"][0]);
    predictions.classes[1] = "yes, \"really\"".into();
    predictions.rows[0].patient = Some("person 7".into());
    predictions.rows[1].scores = vec![1.0, 1e-38];
    std::fs::write(&path, predictions::to_csv(&predictions).unwrap()).unwrap();
    assert_eq!(predictions::read_csv(&path).unwrap(), predictions);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_file_that_holds_no_predictions_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.csv");
    for (text, said) in [
        ("a,b,c\n", "first columns"),
        ("image,patient,label,score:a,score:b\n", "exactly one"),
        ("image,patient,label,score:a,positive:b\nx,,c,0,1\n", "line 2: label `c`"),
        ("image,patient,label,score:a,positive:b\nx,,b,0,one\n", "score `one`"),
        ("image,patient,label,score:a,positive:b\nx,,b,NaN,1\n", "not between 0 and 1"),
        ("image,patient,label,positive:b\nx,,b,1\n", "at least two"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = predictions::read_csv(&path).unwrap_err().to_string();
        assert!(error.contains(said), "{text:?}: {error}");
    }
    assert!(predictions::read_csv(&dir.path().join("absent.csv")).is_err());
}
