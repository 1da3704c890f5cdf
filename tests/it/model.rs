//! A winner that can be used: exported, loaded again, and scoring image files as its trial did.

use crate::program::{Bench, text};
use image::{GrayImage, Luma};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Output;

const STUDY: &str = r#"
name = "s"
[data]
folder = "images"
positive = "spot"
size = 75
[split]
validation = 0.3
test = 0.2
[network]
width = 0.125
weights = "random"
scaling = "unit"
tap = "Mixed_5b"
freeze = "maxpool2"
[training]
epochs = 2
batch_size = 8
[augment]
views = 2
[space]
learning_rate = 0.01
head = { choices = ["linear", "hidden"] }
hidden_units = { value = 12, when = { parameter = "head", is = "hidden" } }
[objective]
operating_point = "youden"
[sampler]
kind = "grid"
[scheduler]
kind = "none"
[run]
device = "cpu"
threads = 1
"#;

/// Small pictures with a bright spot or without one.
fn paint(folder: &Path) {
    for (class, spot) in [("plain", false), ("spot", true)] {
        let folder = folder.join("images").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..24u32 {
            let (x, y) = (10 + number * 7 % 50, 10 + number * 13 % 50);
            let picture = GrayImage::from_fn(90, 80, |px, py| {
                let near = spot && px.abs_diff(x) < 12 && py.abs_diff(y) < 12;
                let grain = ((px * 31 + py * 17 + number * 101) % 23) as u8;
                Luma([if near { 200 } else { 60 } + grain])
            });
            picture.save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

struct Exported {
    bench: Bench,
    folder: PathBuf,
}

impl Exported {
    fn new() -> Self {
        let bench = Bench::new(STUDY);
        paint(bench.study().parent().unwrap());
        bench.finish(&[]);
        let folder = bench.study().with_file_name("model");
        let exported = Self { bench, folder };
        let done = exported.export(&["--trial", "1"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(text(&done.stdout).contains("agree with those on record"), "{}", text(&done.stdout));
        exported
    }

    fn export(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.display().to_string();
        self.bench.command(&[&["export", "s", "--out", &folder], arguments].concat()).output().unwrap()
    }

    fn predict(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.display().to_string();
        self.bench.command(&[&["predict", &folder], arguments].concat()).output().unwrap()
    }

    fn images(&self) -> String {
        self.bench.study().with_file_name("images").display().to_string()
    }
}

#[test]
fn an_exported_model_scores_files_as_its_trial_did() {
    let exported = Exported::new();
    let card: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(exported.folder.join("card.json")).unwrap()).unwrap();
    assert_eq!((card["trial"].as_i64(), card["intended_use"].is_null()), (Some(1), true));
    assert!(card["validation"]["recall"]["interval"][0].is_number() && card["test"].is_null(), "{card}");
    let page = std::fs::read_to_string(exported.folder.join("card.md")).unwrap();
    assert!(page.contains("_to be filled in_") && page.contains("| roc_auc |"), "{page}");

    let table = exported.folder.join("scores.csv").display().to_string();
    let done = exported.predict(&[&exported.images(), "--csv", &table]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stderr).starts_with("48 images: "), "{}", text(&done.stderr));
    let mut scores = HashMap::new();
    for row in csv::Reader::from_path(&table).unwrap().records() {
        let row = row.unwrap();
        let name = row[0].split("images/").nth(1).unwrap().to_owned();
        scores.insert(name, (row[3].parse::<f32>().unwrap(), row[1].to_owned(), row[6].to_owned()));
    }
    assert_eq!(scores.len(), 48);
    let sets = |set: &str| scores.values().filter(|(_, _, seen)| seen == set).count();
    assert!(sets("validation") >= 10 && sets("test") >= 8 && sets("training") >= 20);
    assert_eq!(sets("validation") + sets("test") + sets("training"), 48);

    let threshold = card["threshold"].as_f64().unwrap();
    let recorded = exported.bench.dir().join("predictions/00001-0002.csv");
    let mut compared = 0;
    for row in csv::Reader::from_path(recorded).unwrap().records() {
        let row = row.unwrap();
        let (score, decision, _) = &scores[&row[0]];
        let before: f32 = row[row.len() - 1].parse().unwrap();
        assert!((score - before).abs() < 2e-3, "{}: {score} {before}", &row[0]);
        assert_eq!(decision == "spot", f64::from(*score) >= threshold);
        compared += 1;
    }
    assert!(compared >= 10);
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_else_is_lost() {
    let exported = Exported::new();
    let images = PathBuf::from(exported.images());
    std::fs::write(images.join("spot/broken.png"), b"\x89PNG\r\n\x1a\nno picture").unwrap();
    let noise = GrayImage::from_fn(75, 75, |x, y| Luma([if (x * x + y * 7) % 3 == 0 { 255 } else { 0 }]));
    noise.save(images.join("spot/noise.png")).unwrap();
    let done = exported.predict(&[&exported.images(), "--json"]);
    assert_eq!(done.status.code(), Some(1));
    let lines: Vec<serde_json::Value> =
        text(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 50);
    let of = |name: &str| lines.iter().find(|l| l["image"].as_str().unwrap().ends_with(name)).unwrap();
    assert!(of("broken.png")["error"].is_string(), "{}", of("broken.png"));
    assert!(of("noise.png")["opinion"]["seen"].is_null());
    assert_eq!(of("noise.png")["opinion"]["unlike"], true, "{}", of("noise.png"));
    assert!(text(&done.stderr).contains("1 could not be read"), "{}", text(&done.stderr));
    let people = text(&exported.predict(&[&images.join("plain/0.png").display().to_string()]).stdout);
    assert!(people.contains("plain/0.png  (was a "), "{people}");

    assert_eq!(exported.predict(&["nowhere.png"]).status.code(), Some(6));
    // A model that is not the card's, or a card that points elsewhere, is refused.
    let model = exported.folder.join("model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&model, bytes).unwrap();
    let refused = exported.predict(&[&exported.images()]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(text(&refused.stderr).contains("digest"), "{}", text(&refused.stderr));
}

#[test]
fn an_export_says_what_is_missing() {
    let exported = Exported::new();
    assert_eq!(exported.export(&["--trial", "7"]).status.code(), Some(2));
    assert_eq!(exported.export(&["--trial", "x"]).status.code(), Some(2));
    for entry in std::fs::read_dir(exported.bench.dir().join("checkpoints")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let gone = exported.export(&[]);
    assert_eq!(gone.status.code(), Some(6), "{}", text(&gone.stderr));
    // What was there before is still complete.
    assert!(exported.predict(&[&exported.images(), "--quiet"]).status.success());
    let synthetic = Bench::synthetic(2, 0, "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 1\n");
    synthetic.finish(&[]);
    let folder = exported.folder.display().to_string();
    let refused = synthetic.command(&["export", "s", "--out", &folder]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}
