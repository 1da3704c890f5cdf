//! `hpsearch audit`, through the real binary, on images with planted faults.

use crate::program::{Bench, text};
use image::imageops;
use image::{GrayImage, Luma};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;

const STUDY: &str = r#"
name = "s"
[data]
folder = "images"
positive = "spot"
size = 75
[split]
validation = 0.2
[network]
width = 0.125
weights = "random"
scaling = "unit"
tap = "Mixed_5b"
[training]
epochs = 1
[space]
learning_rate = 0.01
[sampler]
kind = "grid"
[scheduler]
kind = "none"
[run]
device = "cpu"
threads = 1
"#;

/// Cheap noise that is the same everywhere: 0..256.
fn noise(n: u32) -> u32 {
    let mut x = n.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
    x = (x ^ (x >> 12)).wrapping_mul(0x297A_2D39);
    (x ^ (x >> 15)) & 255
}

/// A cloudy picture of its own; with a bright spot, and a mark in a corner.
fn picture(number: u32, spot: bool, mark: bool) -> GrayImage {
    let cell = |x: u32, y: u32, size: u32, salt: u32| {
        // Bilinear between random values on a grid.
        let value = |cx: u32, cy: u32| noise(number * 7919 + salt * 104_729 + cx * 131 + cy * 17) as f32;
        let (cx, cy, fx, fy) = (x / size, y / size, (x % size) as f32 / size as f32, (y % size) as f32 / size as f32);
        let upper = value(cx, cy) * (1.0 - fx) + value(cx + 1, cy) * fx;
        let lower = value(cx, cy + 1) * (1.0 - fx) + value(cx + 1, cy + 1) * fx;
        upper * (1.0 - fy) + lower * fy
    };
    let (sx, sy) = (30 + noise(number) % 40, 30 + noise(number + 5000) % 30);
    let [rx, ry] = [6000, 7000].map(|salt| 10.0 + (noise(number + salt) % 8) as f32);
    GrayImage::from_fn(100, 90, |x, y| {
        let cloud = 0.2 * cell(x, y, 23, 1) + 0.15 * cell(x, y, 9, 2) + 0.1 * cell(x, y, 4, 3);
        let r = (x.abs_diff(sx) as f32 / rx).powi(2) + (y.abs_diff(sy) as f32 / ry).powi(2);
        let glow = if spot { 110.0 * (1.0 - r).max(0.0) } else { 0.0 };
        let marked = mark && x < 12 && y < 8;
        Luma([if marked { 250 } else { (20.0 + cloud + glow) as u8 }])
    })
}

const EACH: u32 = 60;
/// Images whose label is wrong.
const FLIPPED: [u32; 5] = [3, 20, 41, 70, 99];

/// Writes the images: numbers below [`EACH`] are plain, the others have a spot.
fn paint(folder: &Path, marks: bool, flips: bool) {
    for number in 0..2 * EACH {
        let spot = number >= EACH;
        let labelled = spot != (flips && FLIPPED.contains(&number));
        let folder = folder.join("images/train").join(if labelled { "spot" } else { "plain" });
        std::fs::create_dir_all(&folder).unwrap();
        picture(number, spot, marks && spot).save(folder.join(format!("{number}.png"))).unwrap();
    }
    for number in 0..20 {
        let spot = number >= 10;
        let folder = folder.join("images/test").join(if spot { "spot" } else { "plain" });
        std::fs::create_dir_all(&folder).unwrap();
        // Four are pictures of the training set: mirrored, brighter, cropped, saved as JPEG.
        let target = folder.join(format!("t{number}.png"));
        match number {
            2 => imageops::flip_horizontal(&picture(7, spot, false)).save(target).unwrap(),
            5 => imageops::brighten(&picture(9, spot, false), 20).save(target).unwrap(),
            12 => imageops::crop_imm(&picture(64, spot, false), 3, 2, 94, 85).to_image().save(target).unwrap(),
            15 => picture(80, spot, false).save(folder.join("t15.jpg")).unwrap(),
            _ => picture(1000 + number, spot, false).save(target).unwrap(),
        }
    }
}

fn audited(bench: &Bench) -> Json {
    let done = bench.command(&["audit", "--json"]).arg(bench.study()).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let json: Json = serde_json::from_slice(&done.stdout).unwrap();
    json["audit"].clone()
}

#[test]
fn planted_duplicates_and_wrong_labels_are_found_and_shown() {
    let bench = Bench::new(STUDY);
    paint(bench.study().parent().unwrap(), false, true);
    let audit = audited(&bench);
    let pairs: BTreeSet<[&str; 2]> = audit["duplicates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| [&d["first"], &d["second"]].map(|p| p["image"].as_str().unwrap().rsplit('/').next().unwrap()))
        .map(|[a, b]| if a.starts_with('t') { [b, a] } else { [a, b] })
        .collect();
    assert_eq!(
        pairs,
        BTreeSet::from([["7.png", "t2.png"], ["9.png", "t5.png"], ["64.png", "t12.png"], ["80.png", "t15.jpg"]])
    );
    for d in audit["duplicates"].as_array().unwrap() {
        assert_eq!(d["across"], true);
        // Labels of test images are locked.
        assert!([&d["first"], &d["second"]].iter().all(|p| (p["set"] == "test") == p["class"].is_null()), "{d}");
    }
    let suspects: Vec<u32> = audit["labels"]["suspects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["image"].as_str().unwrap().rsplit('/').next().unwrap().trim_end_matches(".png").parse().unwrap())
        .collect();
    let right = suspects.iter().filter(|s| FLIPPED.contains(s)).count();
    assert!(right >= 4 && right * 10 >= suspects.len() * 7, "{suspects:?}");
    assert!((3..=9).contains(&audit["labels"]["wrong"].as_u64().unwrap()), "{}", audit["labels"]);
    assert_eq!(audit, audited(&bench), "the same images are audited the same");

    // People, a table, the report.
    let done = bench.command(&["audit"]).arg(bench.study()).output().unwrap();
    let said = text(&done.stdout);
    assert!(said.contains("4 pairs, 4 across sets") && said.contains("mirrored"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let done = bench.command(&["audit", "--csv", "-"]).arg(bench.study()).output().unwrap();
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_reader(done.stdout.as_slice()).records().map(|row| row.unwrap()).collect();
    let shortcuts = audit["shortcuts"].as_array().unwrap();
    assert_eq!(rows.len(), 4 + suspects.len() + shortcuts.len());
    for (i, (row, found)) in rows[4 + suspects.len()..].iter().zip(shortcuts).enumerate() {
        let low = found["interval"][0].as_f64();
        let better = if low.is_some_and(|low| low > 0.5) { "shortcut" } else { "no shortcut" };
        assert_eq!((&row[0], &row[4]), (if i == 0 { "picture" } else { better }, found["by"].as_str().unwrap()));
        assert_eq!((row[7].parse::<f64>().ok(), row[8].parse::<f64>().ok()), (found["roc_auc"].as_f64(), low));
    }
    bench.finish(&[]);
    let out = bench.study().with_file_name("report").display().to_string();
    assert!(bench.command(&["report", "s", "--out", &out]).output().unwrap().status.success());
    let page = std::fs::read_to_string(Path::new(&out).join("index.html")).unwrap();
    assert!(page.contains("The images, audited") && page.contains("id=\"audit-labels\""));
    // Of other images it says nothing.
    let dir = bench.dir().join("audit/audit.json");
    let digest = audit["images"].as_str().unwrap();
    let kept = std::fs::read_to_string(&dir).unwrap();
    std::fs::write(&dir, kept.replace(digest, &"0".repeat(digest.len()))).unwrap();
    assert!(bench.command(&["report", "s", "--out", &out]).output().unwrap().status.success());
    assert!(!std::fs::read_to_string(Path::new(&out).join("index.html")).unwrap().contains("The images, audited"));
}

/// Once trials of the study have scored images that they were not trained on, these judge their labels, if they can do it better.
#[test]
fn trials_judge_the_labels_of_what_they_were_not_trained_on() {
    let study = STUDY
        .replace("validation = 0.2", "folds = 3")
        .replace("epochs = 1", "epochs = 12\nbatch_size = 8")
        .replace("learning_rate = 0.01", "learning_rate = { choices = [0.01, 0.02] }");
    let bench = Bench::new(&study);
    paint(bench.study().parent().unwrap(), false, true);
    assert!(audited(&bench)["labels"]["trials"].is_null());
    bench.finish(&[]);
    let audit = audited(&bench);
    let labels = &audit["labels"];
    assert_eq!((labels["judged"].as_u64(), labels["trials"]["images"].as_u64()), (Some(120), Some(120)), "{labels}");
    assert_eq!(labels["trials"]["trials"].as_array().unwrap().len(), 2);
    let suspects = labels["suspects"].as_array().unwrap();
    // Whoever tells the classes apart better judges.
    let area = |of: &str| labels["trials"][of].as_f64().unwrap();
    let better = area("roc_auc") > area("features");
    assert!(area("features") > 0.8, "{labels}");
    assert!(suspects.iter().all(|s| s["by"] == if better { "trials" } else { "features" }), "{labels}");
    let number = |s: &Json| -> u32 {
        s["image"].as_str().unwrap().rsplit('/').next().unwrap().trim_end_matches(".png").parse().unwrap()
    };
    let right = suspects.iter().filter(|s| FLIPPED.contains(&number(s))).count();
    assert!(right >= 4 && right * 10 >= suspects.len() * 7, "{labels}");
    let said = text(&bench.command(&["audit"]).arg(bench.study()).output().unwrap().stdout);
    assert!(
        said.contains(if better { "  120 scored by the mean of trials " } else { "  not by the mean of trials " }),
        "{said}"
    );
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let out = bench.study().with_file_name("report").display().to_string();
    assert!(bench.command(&["report", "s", "--out", &out]).output().unwrap().status.success());
    let page = std::fs::read_to_string(Path::new(&out).join("index.html")).unwrap();
    let said =
        if better { "for 120 images that they were not trained on" } else { "which tell the classes apart better" };
    assert!(page.contains(said), "{page}");
}

#[test]
fn a_mark_at_the_border_is_a_shortcut_and_clean_images_have_none() {
    let of = |audit: &Json, by: &str| {
        let all = audit["shortcuts"].as_array().unwrap();
        let found = all.iter().find(|s| s["by"] == by).unwrap_or_else(|| panic!("{by}: {all:?}"));
        (found["roc_auc"].as_f64().unwrap(), found["interval"][0].as_f64().unwrap())
    };
    let clean = Bench::new(STUDY);
    paint(clean.study().parent().unwrap(), false, false);
    let audit = audited(&clean);
    let (_, low) = of(&audit, "its border alone");
    assert!(low <= 0.5, "{}", audit["shortcuts"]);
    let marked = Bench::new(STUDY);
    paint(marked.study().parent().unwrap(), true, false);
    let audit = audited(&marked);
    let (area, low) = of(&audit, "its border alone");
    assert!(area > 0.95 && low > 0.9, "{}", audit["shortcuts"]);
    assert!(audit["labels"]["suspects"].as_array().unwrap().len() <= 2, "{}", audit["labels"]);
}

/// Where the features know nothing of the classes, no label is doubted.
#[test]
fn labels_are_not_judged_by_features_that_cannot_tell() {
    let bench = Bench::new(STUDY);
    let folder = bench.study().parent().unwrap().join("images");
    for number in 0..40 {
        let folder = folder.join(if number % 2 == 0 { "spot" } else { "plain" });
        std::fs::create_dir_all(&folder).unwrap();
        picture(number, false, false).save(folder.join(format!("{number}.png"))).unwrap();
    }
    let audit = audited(&bench);
    assert!(audit["labels"]["wrong"].is_null(), "{}", audit["labels"]);
    assert_eq!(audit["labels"]["suspects"], serde_json::json!([]));
    let said = text(&bench.command(&["audit"]).arg(bench.study()).output().unwrap().stdout);
    assert!(said.contains("not judged: the features tell the classes apart too badly"), "{said}");
}

#[test]
fn what_cannot_be_audited_is_refused() {
    let synthetic = Bench::synthetic(1, 0, "[budget]\nn_trials = 1\n");
    let refused = synthetic.command(&["audit"]).arg(synthetic.study()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let twice = synthetic.command(&["audit", "--json", "--csv", "-"]).arg(synthetic.study()).output().unwrap();
    assert_eq!(twice.status.code(), Some(2));
    assert!(text(&twice.stderr).contains("both write to standard output"), "{}", text(&twice.stderr));
    let gone = Bench::new(STUDY);
    let refused = gone.command(&["audit"]).arg(gone.study()).output().unwrap();
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
}
