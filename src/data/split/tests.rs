use super::*;
use crate::digest::Digest;
use proptest::prelude::*;
use std::collections::BTreeSet;

const RULES: SplitSpec = SplitSpec { validation: 0.2, test: 0.1, policy: ValidationPolicy::Auto, folds: None };

fn classes() -> Vec<String> {
    vec!["NORMAL".into(), "PNEUMONIA".into()]
}

fn record(i: usize, class: u32, patient: Option<u32>, content: u32) -> ImageRecord {
    ImageRecord {
        path: format!("{i:05}.png"),
        class,
        patient: patient.map(|p| format!("p{p}")),
        digest: Digest::of(&content.to_le_bytes()),
    }
}

/// Single images of two classes.
fn singles(counts: [usize; 2]) -> Vec<ImageRecord> {
    let class = |i| u32::from(i >= counts[0]);
    (0..counts[0] + counts[1]).map(|i| record(i, class(i), None, i as u32)).collect()
}

fn per_class(records: &[ImageRecord], images: &[usize]) -> [usize; 2] {
    [0, 1].map(|class| images.iter().filter(|&&i| records[i].class == class).count())
}

#[test]
fn single_images_are_divided_exactly_by_class() {
    let records = singles([100, 300]);
    let split = split(&records, &[None; 400], &classes(), &RULES, 1).unwrap();
    assert_eq!(per_class(&records, &split.test), [10, 30]);
    assert_eq!(per_class(&records, &split.folds[0].validation), [18, 54]);
    assert_eq!(per_class(&records, &split.folds[0].train), [72, 216]);
}

#[test]
fn the_split_is_reproducible_and_changes_with_the_seed() {
    let records = singles([40, 60]);
    let with = |seed| split(&records, &[None; 100], &classes(), &RULES, seed).unwrap();
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn a_given_validation_set_is_kept_only_if_it_is_large_enough_or_asked_for() {
    let records = singles([100, 100]);
    let given = |n: usize| -> Vec<Option<GivenSet>> {
        let set = |i: usize| if i % 100 < n { GivenSet::Validation } else { GivenSet::Train };
        (0..200).map(|i| Some(set(i))).collect()
    };
    let outcome = |n, policy| {
        let split = split(&records, &given(n), &classes(), &SplitSpec { policy, test: 0.0, ..RULES }, 1).unwrap();
        (split.given_validation, per_class(&records, &split.folds[0].validation))
    };
    assert_eq!(outcome(8, ValidationPolicy::Auto), (GivenValidation::Merged, [20, 20]), "Kaggle's 8 and 8 images");
    assert_eq!(outcome(30, ValidationPolicy::Auto), (GivenValidation::Kept, [30, 30]));
    assert_eq!(outcome(29, ValidationPolicy::Auto), (GivenValidation::Merged, [20, 20]));
    assert_eq!(outcome(8, ValidationPolicy::Keep), (GivenValidation::Kept, [8, 8]));
    assert_eq!(outcome(50, ValidationPolicy::Merge), (GivenValidation::Merged, [20, 20]));
}

#[test]
fn training_images_of_a_given_test_patient_are_dropped_and_counted() {
    let mut records = singles([50, 50]);
    let mut sets = vec![Some(GivenSet::Train); 100];
    for i in (0..100).step_by(10) {
        sets[i] = Some(GivenSet::Test);
    }
    for i in [0, 1, 2] {
        records[i].patient = Some("p".into());
    }
    records[71].digest = records[70].digest;
    let split = split(&records, &sets, &classes(), &RULES, 1).unwrap();
    assert_eq!(split.test, (0..100).step_by(10).collect::<Vec<_>>(), "the given test set stays whole");
    assert_eq!(split.dropped, [1, 2, 71], "same patient, same bytes");
}

#[test]
fn folds_validate_every_development_image_once() {
    let records = singles([50, 75]);
    let split = split(&records, &[None; 125], &classes(), &SplitSpec { folds: Some(5), ..RULES }, 1).unwrap();
    assert_eq!(split.folds.len(), 5);
    let mut validated: Vec<usize> = split.folds.iter().flat_map(|f| f.validation.clone()).collect();
    validated.extend(&split.test);
    validated.sort_unstable();
    assert_eq!(validated, (0..125).collect::<Vec<_>>());
    for fold in &split.folds {
        assert_eq!(per_class(&records, &fold.validation)[0], 9, "45 of 50 in five parts");
    }
}

#[test]
fn too_few_images_are_an_error_that_says_what_to_do() {
    let records = singles([2, 1]);
    let message = split(&records, &[None; 3], &classes(), &RULES, 1).unwrap_err().to_string();
    assert!(message.starts_with("split class `NORMAL`: it has 2 images of 2 patients"), "{message}");
    assert!(message.contains("\nhint: add images of `NORMAL`"), "{message}");
}

fn data() -> impl Strategy<Value = (Vec<ImageRecord>, Vec<Option<GivenSet>>)> {
    let image = (0u32..2, proptest::option::of(0u32..25), 0u32..90, 0u32..4);
    (proptest::collection::vec(image, 20..150), any::<bool>()).prop_map(|(images, given)| {
        let mut records = Vec::new();
        let mut sets = Vec::new();
        for (i, (class, patient, content, set)) in images.into_iter().enumerate() {
            records.push(record(i, class, patient, content + 1000 * class));
            sets.push(given.then_some(match set {
                0 => GivenSet::Test,
                1 => GivenSet::Validation,
                _ => GivenSet::Train,
            }));
        }
        (records, sets)
    })
}

proptest! {
    #[test]
    fn no_patient_and_no_bytes_are_in_two_sets_and_no_image_is_lost(
        (records, sets) in data(),
        folds in proptest::option::of(2u32..4),
        policy in prop_oneof![
            Just(ValidationPolicy::Auto), Just(ValidationPolicy::Keep), Just(ValidationPolicy::Merge)
        ],
        seed: u64,
    ) {
        let rules = SplitSpec { folds, policy, ..RULES };
        // There may be too few groups for every set; other tests check that error.
        let Ok(split) = split(&records, &sets, &classes(), &rules, seed) else { return Ok(()) };
        for fold in &split.folds {
            let sides = [&fold.train, &fold.validation, &split.test];
            let mut all: Vec<usize> = sides.into_iter().flatten().copied().chain(split.dropped.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..records.len()).collect::<Vec<_>>());
            let patients = sides.map(|s| s.iter().filter_map(|&i| records[i].patient.clone()).collect::<BTreeSet<_>>());
            let contents = sides.map(|s| s.iter().map(|&i| records[i].digest).collect::<BTreeSet<_>>());
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                prop_assert!(patients[a].is_disjoint(&patients[b]));
                prop_assert!(contents[a].is_disjoint(&contents[b]));
            }
            prop_assert!(per_class(&records, &fold.train).iter().all(|&n| n > 0));
            prop_assert!(per_class(&records, &fold.validation).iter().all(|&n| n > 0));
        }
        let given = |set| (0..sets.len()).filter(|&i| sets[i] == Some(set)).collect::<Vec<_>>();
        if sets[0].is_some() && !given(GivenSet::Test).is_empty() {
            prop_assert_eq!(&split.test, &given(GivenSet::Test));
        }
    }
}
