//! Every diagnostic of a study file against its committed text, and every study file that we ship.

use hpsearch::config;
use std::fs;
use std::path::{Path, PathBuf};

/// Study files in a folder, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect();
    files.sort();
    files
}

/// What `check` would print.
fn diagnostics(path: &Path) -> String {
    match config::load(path) {
        Ok(loaded) if loaded.warnings.is_empty() => String::from("sound\n"),
        Ok(loaded) => format!("sound, but:\n\n{}", loaded.warnings.render(false)),
        Err(mistakes) => mistakes.render(false),
    }
    .replace('\\', "/")
}

#[test]
fn every_diagnostic_reads_as_committed() {
    // HPSEARCH_ACCEPT=1 writes the texts anew; read the difference before committing it.
    let accept = std::env::var_os("HPSEARCH_ACCEPT").is_some();
    let mut wrong = Vec::new();
    let cases: Vec<PathBuf> =
        files("tests/data/config", "toml").into_iter().filter(|p| !p.ends_with("space_with_mistakes.toml")).collect();
    assert!(cases.len() > 15, "the cases are there");
    for study in cases {
        let expected = study.with_extension("txt");
        let text = diagnostics(&study);
        assert_ne!(text, "sound\n", "{} has nothing to show", study.display());
        if accept {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", study.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_from_one_with_mistakes() {
    let missing = config::load(Path::new("tests/data/config/nowhere.toml")).unwrap_err();
    assert!(missing.unreadable());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"name = \"\xe4\"\n").unwrap();
    let garbled = config::load(&path).unwrap_err();
    assert!(!garbled.unreadable());
    assert!(garbled.titles().next().unwrap().contains("UTF-8"));
}

#[test]
fn every_study_we_ship_is_sound_and_without_warnings() {
    let studies = files("studies", "toml");
    assert!(studies.len() >= 4);
    for study in studies {
        let loaded = config::load(&study).unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert_eq!(Some(loaded.spec.name.as_str()), study.file_stem().and_then(|s| s.to_str()));
        let json = serde_json::to_string(&loaded.spec).unwrap();
        let back: hpsearch::spec::StudySpec = serde_json::from_str(&json).unwrap();
        assert_eq!(back, loaded.spec, "the stored form of {} is the study", study.display());
        assert!(back.difference(&loaded.spec).is_empty());
    }
}

#[test]
fn every_search_space_we_ship_loads_in_a_study() {
    let folder = tempfile::tempdir().unwrap();
    let spaces = files("search_spaces", "toml");
    assert!(spaces.len() >= 3);
    for space in spaces {
        let study = folder.path().join("study.toml");
        let path = fs::canonicalize(&space).unwrap();
        let augment = if space.ends_with("augmentation.toml") { "" } else { "[augment]\nstrength = 0.5\n" };
        fs::write(&study, format!("space = {path:?}\n[data]\nfolder = \"x\"\n{augment}[budget]\nn_trials = 10\n"))
            .unwrap();
        let loaded = config::load(&study).unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert!(loaded.spec.space.searched().count() >= 3);
    }
}

#[test]
fn the_named_pattern_of_patients_is_the_one_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("study.toml");
    let text = "[data]\nfolder = \"x\"\npatient = \"kermany\"\n[budget]\nn_trials = 2\n[space]\ndropout = { type = \"float\", low = 0, high = 0.5 }\n";
    fs::write(&study, text).unwrap();
    let hpsearch::spec::RunnerSpec::Image { data, .. } = config::load(&study).unwrap().spec.runner else { panic!() };
    assert_eq!(data.patient.as_deref(), Some(hpsearch::data::KERMANY_PATIENT));
}
