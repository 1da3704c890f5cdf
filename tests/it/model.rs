//! A winner that can be used: exported, loaded again, and scoring image files as its trial did.

use crate::program::{Bench, text};
use image::{GrayImage, Luma, Rgb, RgbImage};
use std::collections::{BTreeSet, HashMap};
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

/// Pictures with a plain bright square, and in class `spot` a striped one beside it.
fn paint_decoys(folder: &Path) {
    for (class, spot) in [("plain", false), ("spot", true)] {
        let folder = folder.join("images").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..24u32 {
            let at = |offset: u32| (10 + (number * 7 + offset) % 50, 10 + (number * 13 + offset) % 50);
            let near = |px: u32, py: u32, (x, y): (u32, u32)| px.abs_diff(x) < 12 && py.abs_diff(y) < 12;
            let picture = GrayImage::from_fn(90, 80, |px, py| {
                let grain = ((px * 31 + py * 17 + number * 101) % 23) as u8;
                match (spot && near(px, py, at(0)), near(px, py, at(25))) {
                    (true, _) => Luma([if px / 3 % 2 == 0 { 220 } else { 20 } + grain]),
                    (_, true) => Luma([200 + grain]),
                    _ => Luma([80 + grain]),
                }
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
        Self::of(STUDY, paint)
    }

    fn of(study: &str, paint: fn(&Path)) -> Self {
        let bench = Bench::new(study);
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
    assert_eq!((card["members"][0]["trial"].as_i64(), card["intended_use"].is_null()), (Some(1), true));
    assert!(card["validation"]["recall"]["interval"][0].is_number() && card["test"].is_null(), "{card}");
    let page = std::fs::read_to_string(exported.folder.join("card.md")).unwrap();
    assert!(page.contains("_to be filled in_") && page.contains("| roc_auc |"), "{page}");

    let table = exported.folder.join("scores.csv").display().to_string();
    let done = exported.predict(&[&exported.images(), "--csv", &table]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stderr).starts_with("48 images: "), "{}", text(&done.stderr));
    let mut scores = HashMap::new();
    for row in csv::Reader::from_path(&table).unwrap().deserialize::<HashMap<String, String>>() {
        let row = row.unwrap();
        let name = row["image"].split("images/").nth(1).unwrap().to_owned();
        let score = row["score.spot"].parse::<f32>().unwrap();
        assert_eq!((row["width"].as_str(), row["height"].as_str(), row["colour"].as_str()), ("90", "80", "0"));
        scores.insert(name, (score, row["decision"].clone(), row["seen"].clone()));
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

/// Where the spot of an image of class `spot` is, in pixels of the network's input: its middle and half its sides.
fn spot(name: &str) -> [f64; 4] {
    let number: f64 = name.rsplit('/').next().unwrap().strip_suffix(".png").unwrap().parse().unwrap();
    let (x, y) = (10.0 + (number * 7.0) % 50.0, 10.0 + (number * 13.0) % 50.0);
    let (wide, high) = (75.0 / 90.0, 75.0 / 80.0);
    [(x + 0.5) * wide, (y + 0.5) * high, 11.5 * wide, 11.5 * high]
}

/// How many images of class `spot` are decided to be so, and of how many of these the heat map peaks within 4 pixels of it.
fn peaks(exported: &Exported, folder: &str) -> (usize, usize) {
    let maps = exported.folder.with_file_name(folder).display().to_string();
    let done = exported.predict(&[&format!("{}/spot", exported.images()), "--explain", &maps, "--json"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (mut found, mut inside) = (0, 0);
    for line in text(&done.stdout).lines() {
        let image: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = image["map"]["file"].as_str().unwrap();
        assert_eq!(image::open(file).unwrap().into_rgb8().height(), 300, "75 pixels enlarged fourfold");
        if image["opinion"]["decision"] == "spot" {
            found += 1;
            let [x, y, wide, high] = spot(image["image"].as_str().unwrap());
            let at = |axis: usize| image["map"]["peak"][axis].as_f64().map(|share| 75.0 * share);
            let Some((px, py)) = at(0).zip(at(1)) else { continue };
            inside += usize::from((px - x).abs() <= wide + 4.0 && (py - y).abs() <= high + 4.0);
        }
    }
    (found, inside)
}

#[test]
fn heat_maps_peak_where_the_spot_is_and_not_so_without_training() {
    let trained = STUDY.replace("epochs = 2", "epochs = 40").replace("\"maxpool2\"", "\"none\"");
    let (found, inside) = peaks(&Exported::of(&trained, paint_decoys), "maps");
    let untrained = STUDY.replace("epochs = 2", "epochs = 1").replace("learning_rate = 0.01", "learning_rate = 1e-9");
    let (taken, by_chance) = peaks(&Exported::of(&untrained, paint_decoys), "maps");
    // A place within reach of the stripes by chance: 14 %.
    assert!(found >= 20 && 5 * inside >= 3 * found, "{inside} of {found}");
    assert!(2 * by_chance < taken, "{by_chance} of {taken}");

    let exported = Exported::new();
    let maps = exported.folder.with_file_name("maps").display().to_string();
    let image = format!("{}/spot/3.png", exported.images());
    let refused = |arguments: &[&str], said: &str| {
        let done = exported.predict(&[&[image.as_str(), "--explain", &maps], arguments].concat());
        assert!(done.status.code() == Some(2) && text(&done.stderr).contains(said), "{}", text(&done.stderr));
    };
    refused(&["--explain-stage", "Mixed_9z"], "Mixed_9z");
    refused(&["--explain-stage", "Mixed_7c"], "Mixed_7c");
    let table = exported.folder.with_file_name("table.csv").display().to_string();
    assert!(exported.predict(&[&image, "--explain", &maps, "--csv", &table]).status.success());
    let head = csv::Reader::from_path(table).unwrap().headers().unwrap().iter().collect::<Vec<_>>().join(",");
    assert!(head.contains("map,map.class,map.stage,map.method,map.x,map.y"), "{head}");
    assert!(PathBuf::from(&maps).join("3.png").exists());
    refused(&[], "not empty");
}

#[test]
fn the_stage_and_method_of_a_heat_map_fit_the_network_and_the_size() {
    for (size, tap, expected) in [
        (75, "Mixed_5b", ["Mixed_5b", "hirescam"]),
        (75, "Mixed_6a", ["Mixed_5c", "layercam"]),
        (288, "Mixed_6d", ["Mixed_6d", "gradcam"]),
    ] {
        let study = STUDY
            .replace("epochs = 2", "epochs = 1")
            .replace("size = 75", &format!("size = {size}"))
            .replace("\"Mixed_5b\"", &format!("\"{tap}\""))
            .replace("\"maxpool2\"", "\"all\"");
        let exported = Exported::of(&study, paint);
        let maps = exported.folder.with_file_name("maps").display().to_string();
        let image = format!("{}/spot/3.png", exported.images());
        let done = exported.predict(&[&image, "--explain", &maps, "--json"]);
        let line: serde_json::Value = serde_json::from_str(&text(&done.stdout)).unwrap();
        assert_eq!(["stage", "method"].map(|key| line["map"][key].as_str().unwrap()), expected);
    }
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
    let unlike = serde_json::json!(["features", "shape", "brightness"]);
    assert_eq!(of("noise.png")["opinion"]["unlike"], unlike, "{}", of("noise.png"));
    let known: Vec<_> = lines.iter().filter(|l| l["opinion"]["seen"].is_string()).collect();
    // The farthest of the images that were looked at set the limit; test images were not.
    assert!(known.iter().filter(|l| l["opinion"]["unlike"] == serde_json::json!([])).count() >= 40);
    let red = RgbImage::from_fn(90, 80, |x, y| Rgb([200, (x + y) as u8, 20]));
    let red_file = images.join("red.png");
    red.save(&red_file).unwrap();
    let people = text(&exported.predict(&[&red_file.display().to_string()]).stdout);
    assert!(people.contains("colour (0.7"), "{people}");
    assert!(text(&done.stderr).contains("1 could not be read"), "{}", text(&done.stderr));
    let people = text(&exported.predict(&[&images.join("plain/0.png").display().to_string()]).stdout);
    assert!(people.contains("plain/0.png  (was a "), "{people}");

    // A name that is no UTF-8 is shown as well as it can be.
    #[cfg(target_os = "linux")]
    {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let file = images.join(OsStr::from_bytes(b"\xff.png"));
        let maps = exported.folder.with_file_name(OsStr::from_bytes(b"maps\xff"));
        std::fs::copy(&red_file, &file).unwrap();
        let mut command = exported.bench.command(&["predict", "--json"]);
        let done = command.arg(&exported.folder).arg(&file).arg("--explain").arg(&maps).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        let line: serde_json::Value = serde_json::from_str(&text(&done.stdout)).unwrap();
        for name in [&line["image"], &line["map"]["file"]] {
            assert!(name.as_str().unwrap().ends_with("\u{fffd}.png"), "{line}");
        }
    }

    assert_eq!(exported.predict(&["nowhere.png"]).status.code(), Some(6));
    // Where the table cannot be written, that is said before the model is even looked for.
    let table = exported.folder.with_file_name("out").join("scores.csv").display().to_string();
    let refused =
        exported.bench.command(&["predict", "nothing", &exported.images(), "--csv", &table]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is no folder"), "{}", text(&refused.stderr));
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
fn the_models_of_folds_are_checked_each_on_its_own_images() {
    let study = STUDY.replace("epochs = 2", "epochs = 1").replace("validation = 0.3", "folds = 2");
    let exported = Exported::of(&study, paint);
    let card = std::fs::read_to_string(exported.folder.join("card.json")).unwrap();
    let card: serde_json::Value = serde_json::from_str(&card).unwrap();
    let member = &card["members"][0];
    assert_eq!(member["models"].as_array().unwrap().len(), 2);
    assert!(member["largest_difference"].as_f64().unwrap() < 1e-4, "{member}");
    let page = exported.folder.with_file_name("page");
    let report = exported.bench.command(&["report", "--out"]).arg(&page).output().unwrap();
    assert!(report.status.success(), "{}", text(&report.stderr));
    let page = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert!(page.contains("All folds' predictions pooled: ") && page.contains("the mean of its folds' figures"));

    // What an earlier export left is not kept beside the card of another model; other files are.
    let names = || {
        let entries = std::fs::read_dir(&exported.folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    std::fs::write(exported.folder.join("notes.txt"), "mine").unwrap();
    let before = names();
    assert!(exported.export(&["--trial", "mean", "--onnx"]).status.success());
    let added: Vec<String> = names().difference(&before).cloned().collect();
    assert_eq!(added, ["model-3.safetensors", "model-4.safetensors", "model.onnx"]);
    assert!(exported.export(&["--trial", "1"]).status.success());
    assert_eq!(names(), before);
    assert!(exported.predict(&[&exported.images(), "--quiet"]).status.success());
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

#[test]
fn a_study_predicts_with_its_best_trial() {
    let exported = Exported::new();
    let best = exported.bench.study().with_file_name("best").display().to_string();
    assert!(exported.bench.command(&["export", "s", "--out", &best]).output().unwrap().status.success());
    let scores = |model: &str| {
        let done = exported.bench.command(&["predict", model, &exported.images(), "--csv", "-"]).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        (text(&done.stdout), text(&done.stderr))
    };
    let (from_folder, _) = scores(&best);
    let (by_name, said) = scores("s");
    assert!(said.contains("taking the best trial of study `s`"), "{said}");
    let (by_file, _) = scores(&exported.bench.study().display().to_string());
    assert_eq!(from_folder, by_name);
    assert_eq!(from_folder, by_file);
    let refused = exported.bench.command(&["predict", "nothing", &exported.images()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(6));
    assert!(text(&refused.stderr).contains("or a study"), "{}", text(&refused.stderr));
}

/// The last column of a file of predictions, by image.
fn recorded(file: &Path) -> HashMap<String, f32> {
    let rows = csv::Reader::from_path(file).unwrap().into_records().map(|row| row.unwrap());
    rows.map(|row| (row[0].to_owned(), row[row.len() - 1].parse().unwrap())).collect()
}

/// In bf16 a trial computes otherwise than what is exported of it.
#[test]
fn a_trial_in_bf16_is_exported_in_f32() {
    let exact = Exported::new();
    let narrow = Exported::of(&format!("{STUDY}precision = \"amp\"\n"), paint);
    let scores = |of: &Exported| recorded(&of.bench.dir().join("predictions/00001-0002.csv"));
    let (before, after) = (scores(&exact), scores(&narrow));
    let apart = before.iter().map(|(image, score)| (score - after[image]).abs()).fold(0f32, f32::max);
    assert!(apart > 1e-5 && apart < 0.2, "{apart}");

    let difference = |of: &Exported| {
        let card = std::fs::read_to_string(of.folder.join("card.json")).unwrap();
        let card: serde_json::Value = serde_json::from_str(&card).unwrap();
        card["members"][0]["largest_difference"].as_f64().unwrap()
    };
    assert!(difference(&exact) < 1e-4, "{}", difference(&exact));
    assert!((1e-6..0.2).contains(&difference(&narrow)), "{}", difference(&narrow));

    let arithmetic = |of: &Exported| format!("{:?}", of.bench.ask("SELECT DISTINCT arithmetic FROM worker"));
    assert!(!arithmetic(&exact).contains("bf16"), "{}", arithmetic(&exact));
    assert!(arithmetic(&narrow).contains("bf16"), "{}", arithmetic(&narrow));

    // Frozen features of both are kept apart.
    let features = narrow.bench.dir().with_file_name("cache").join("features");
    let kept = || std::fs::read_dir(&features).unwrap().count();
    let of_narrow = kept();
    std::fs::remove_dir_all(narrow.bench.dir()).unwrap();
    narrow.bench.write(STUDY);
    narrow.bench.finish(&[]);
    assert!(kept() > of_narrow, "{of_narrow}");
}

#[test]
fn the_mean_of_the_finalists_is_exported_and_predicts() {
    let exported = Exported::new();
    let bench = &exported.bench;
    let folder = bench.study().with_file_name("mean");
    let out = folder.display().to_string();
    let export = || bench.command(&["export", "s", "--trial", "mean", "--onnx", "--out", &out]).output().unwrap();
    let done = export();
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("; their scores of "), "{}", text(&done.stdout));
    let card = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join("card.json")).unwrap()).unwrap()
    };
    let of_members =
        |key: &str| card()["members"].as_array().unwrap().iter().map(|m| m[key].clone()).collect::<Vec<_>>();
    let mut trials: Vec<i64> = of_members("trial").iter().map(|trial| trial.as_i64().unwrap()).collect();
    trials.sort_unstable();
    assert_eq!(trials, [0, 1]);
    assert!(of_members("largest_difference").iter().all(|d| d.as_f64().unwrap() < 1e-4), "{}", card());
    assert!(folder.join("model-2.safetensors").exists() && folder.join("model.onnx").exists());

    // Its scores are the means of those on record.
    let scores = |arguments: &[&str]| {
        let done =
            bench.command(&[&["predict"], arguments, &[&exported.images(), "--csv", "-"]].concat()).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        done.stdout
    };
    let from_folder = scores(&[&out]);
    let predicted: HashMap<String, f32> = csv::Reader::from_reader(from_folder.as_slice())
        .deserialize::<HashMap<String, String>>()
        .map(|row| row.unwrap())
        .map(|row| (row["image"].split("images/").nth(1).unwrap().to_owned(), row["score.spot"].parse().unwrap()))
        .collect();
    let by_trial = [0, 1].map(|trial| recorded(&bench.dir().join(format!("predictions/{trial:05}-0002.csv"))));
    assert!(by_trial[0].len() >= 10);
    let mut apart = 0.0f32;
    for (image, first) in &by_trial[0] {
        let second = by_trial[1][image];
        assert!((predicted[image] - (first + second) / 2.0).abs() < 2e-3, "{image}: {}", predicted[image]);
        apart = apart.max((first - second).abs());
    }
    assert!(apart > 0.02, "the trials differ");
    assert_eq!(from_folder, scores(&["s", "--trial", "mean"]));
    let best = scores(&["s"]);
    assert!(from_folder != best && best == scores(&["s", "--trial", "best"]));
    let refused = bench.command(&["predict", &out, "--trial", "mean", &exported.images()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("no study"), "{}", text(&refused.stderr));
    let maps = bench.study().with_file_name("mean-maps").display().to_string();
    let image = format!("{}/spot/3.png", exported.images());
    let explained = bench.command(&["predict", &out, &image, "--explain", &maps]).output().unwrap();
    assert!(explained.status.success() && Path::new(&maps).join("3.png").exists(), "{}", text(&explained.stderr));

    // After the test images were opened, the card has what was found there.
    assert!(card()["test"].is_null());
    let tested = bench.command(&["test", "s", "--json"]).output().unwrap();
    let line = text(&tested.stdout).lines().last().unwrap().to_owned();
    let mean: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(export().status.success());
    assert_eq!(card()["test"], mean["metrics"]);
    assert_eq!(card()["threshold"], mean["threshold"]);

    // One that was tested and is gone is not left out in silence; of a single trial there is no mean.
    let checkpoints = || std::fs::read_dir(bench.dir().join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("00000");
    checkpoints().filter(of).for_each(|path| std::fs::remove_file(path).unwrap());
    let gone = export();
    assert_eq!(gone.status.code(), Some(6), "{}", text(&gone.stderr));
    assert!(text(&gone.stderr).contains("trial 0"), "{}", text(&gone.stderr));
    let single = Bench::new(&format!("{STUDY}[budget]\nn_trials = 1\n"));
    paint(single.study().parent().unwrap());
    let run = single.command(&["run", "--device", "auto"]).arg(single.study()).output().unwrap();
    assert!(run.status.success() && text(&run.stdout).contains("device auto: "), "{}", text(&run.stdout));
    let refused = single.command(&["export", "s", "--trial", "mean", "--out", &out]).output().unwrap();
    assert_eq!(refused.status.code(), Some(6));
    assert!(text(&refused.stderr).contains("a mean takes two"), "{}", text(&refused.stderr));
}

#[test]
fn more_than_two_classes_have_words_of_their_own() {
    let paint_three = |folder: &Path| {
        paint(folder);
        let folder = folder.join("images/dark");
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..24u32 {
            let picture = GrayImage::from_fn(90, 80, |x, y| Luma([((x * 31 + y * 17 + number * 101) % 23) as u8]));
            picture.save(folder.join(format!("{number}.png"))).unwrap();
        }
    };
    let study = STUDY.replace("positive = \"spot\"\n", "").replace("operating_point = \"youden\"", "");
    let bench = Bench::new(&study);
    paint_three(bench.study().parent().unwrap());
    bench.finish(&[]);
    let tested = bench.command(&["test", "s"]).output().unwrap();
    let said = text(&tested.stdout);
    assert!(said.contains("15 test images, 5 of each of 3 classes\n"), "{said}");
    assert!(!said.contains("threshold"), "{said}");
    let folder = bench.study().with_file_name("model");
    let out = folder.display().to_string();
    assert!(bench.command(&["export", "s", "--out", &out]).output().unwrap().status.success());
    let page = std::fs::read_to_string(folder.join("card.md")).unwrap();
    assert!(page.contains("the one with the highest score is decided for") && !page.contains("Threshold"), "{page}");
    let images = bench.study().with_file_name("images").display().to_string();
    let lines = text(&bench.command(&["predict", &out, &images]).output().unwrap().stdout);
    let first = |line: &str| line.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    // The score of the class that is named is the largest of three.
    assert!(lines.lines().all(|line| first(line) >= 1.0 / 3.0), "{lines}");
    let report = bench.study().with_file_name("report").display().to_string();
    assert!(bench.command(&["report", "s", "--out", &report]).output().unwrap().status.success());
    let page = std::fs::read_to_string(Path::new(&report).join("index.html")).unwrap();
    assert!(page.contains("Mean recall of classes, test"));
    assert!(page.contains("none: the class of the largest score is called"));
}
