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
    // HPSEARCH_ACCEPT=1 rewrites the texts; read the difference before committing it.
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
fn a_file_that_cannot_be_read_is_distinguished_from_one_with_mistakes() {
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
        fs::write(&study, format!("space = {path:?}\n[data]\nfolder = \"x\"\n[budget]\nn_trials = 10\n")).unwrap();
        let loaded = config::load(&study).unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert!(loaded.spec.space.searched().count() >= 3);
    }
}

#[test]
fn the_patient_pattern_kermany_is_that_of_the_data_module() {
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("study.toml");
    let text = "[data]\nfolder = \"x\"\npatient = \"kermany\"\n[budget]\nn_trials = 2\n[space]\ndropout = { type = \"float\", low = 0, high = 0.5 }\n";
    fs::write(&study, text).unwrap();
    let hpsearch::spec::RunnerSpec::Image { data, .. } = config::load(&study).unwrap().spec.runner else { panic!() };
    assert_eq!(data.patient.as_deref(), Some(hpsearch::data::KERMANY_PATIENT));
}

/// The lines between a marker and its end, replaced.
fn replaced(text: &str, marker: &str, lines: &str) -> String {
    let start = text.find(marker).expect("the marker is there") + marker.len();
    let end = start + text[start..].find("<!-- end -->").expect("the end is there");
    format!("{}\n{lines}{}", &text[..start], &text[end..])
}

#[test]
fn the_reference_names_every_key_with_its_type_and_default() {
    use hpsearch::config::schema::{CONDITION, PARAMETER, TABLES};
    use hpsearch::spec::{BackboneKind, SETTINGS};
    let mut keys = String::new();
    for table in TABLES.iter().chain([&PARAMETER, &CONDITION]) {
        let title = if table.name.is_empty() { "Top of the file".to_owned() } else { format!("`[{}]`", table.name) };
        keys.push_str(&format!(
            "\n### {title}\n\n{}\n\n| key | type | default | meaning |\n|---|---|---|---|\n",
            table.about
        ));
        for key in table.keys {
            keys.push_str(&format!("| `{}` | {} | {} | {} |\n", key.name, key.kind, key.default, key.meaning));
        }
    }
    keys.push('\n');
    let mut settings = String::from("\n| name | fixed value in | values |\n|---|---|---|\n");
    for setting in SETTINGS {
        let expected = setting.expected(BackboneKind::InceptionV3);
        settings
            .push_str(&format!("| `{}` | `[{}]` `{}` | {expected} |\n", setting.name, setting.section, setting.key));
        let table = TABLES.iter().find(|t| t.name == setting.section).expect("a setting stands in a table");
        assert!(table.keys.iter().any(|k| k.name == setting.key), "{} is a key", setting.name);
    }
    settings.push('\n');
    let path = "docs/study-file.md";
    let text = fs::read_to_string(path).unwrap();
    let wanted = replaced(&replaced(&text, "<!-- settings -->", &settings), "<!-- keys -->", &keys);
    if std::env::var_os("HPSEARCH_ACCEPT").is_some() {
        fs::write(path, &wanted).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), wanted, "docs/study-file.md is out of date");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    use hpsearch::config::schema::TABLES;
    use hpsearch::spec::Setting;
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("study.toml");
    let minimal = "[data]\nfolder = \"x\"\n[budget]\nn_trials = 2\n[cluster]\nkind = \"slurm\"\n\
                   [space]\ndropout = { choices = [0.1, 0.2] }\n";
    fs::write(&study, minimal).unwrap();
    let bare = config::load(&study).unwrap().spec;
    let mut tried = 0;
    for table in TABLES {
        for key in table.keys {
            // Written out, a plain documented default must change nothing.
            let Some(value) = key.default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else { continue };
            let skip = [
                "kind",
                "points",
                "n_startup",
                "n_ei_candidates",
                "cost_aware",
                "brackets",
                "epoch_ms",
                "warmup_epochs",
                "min_trials",
            ];
            if table.name == "data.synthetic"
                || (skip.contains(&key.name) && Setting::at(table.name, key.name).is_none())
            {
                continue;
            }
            let toml = if value.parse::<f64>().is_ok() { value.to_owned() } else { format!("{value:?}") };
            let line = format!("{} = {toml}\n", key.name);
            let header = format!("[{}]\n", table.name);
            let text = match (table.name, minimal.contains(&header)) {
                ("", _) => format!("{line}{minimal}"),
                (_, true) => minimal.replace(&header, &format!("{header}{line}")),
                (_, false) => format!("{minimal}{header}{line}"),
            };
            fs::write(&study, &text).unwrap();
            let spec = config::load(&study).unwrap_or_else(|e| panic!("{text}\n{e}")).spec;
            assert_eq!(spec, bare, "[{}] {} is {value} by default", table.name, key.name);
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried} defaults were tried");
}
