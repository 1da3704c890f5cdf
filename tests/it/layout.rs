//! The source is laid out as DESIGN.md says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lower floors first; a module may use those of its own floor and below.
const FLOORS: [&[&str]; 15] = [
    &["ids", "rng", "digest", "fsx", "clock", "stats", "crash"],
    &["space"],
    &["spec"],
    &["config", "metrics"],
    &["ledger"],
    &["sampler", "scheduler"],
    &["engine"],
    &["history", "nn"],
    &["store"],
    &["data"],
    &["runner"],
    &["report"],
    &["study"],
    &["run"],
    &["cli"],
];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("module `{module}` has no floor: give it one here and in DESIGN.md"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the source").map(|e| e.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// Relative to the package, with `/`.
fn name(path: &Path) -> String {
    let parts = path.strip_prefix(root()).expect("inside the package").iter();
    parts.map(|part| part.to_str().expect("a plain name")).collect::<Vec<_>>().join("/")
}

/// First segments behind `crate::`, those of a group in braces as well.
fn used(source: &str) -> BTreeSet<&str> {
    let mut modules = BTreeSet::new();
    for (at, prefix) in source.match_indices("crate::") {
        let rest = &source[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
            continue;
        };
        let mut depth = 1;
        let mut begins = true;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if depth == 1 && begins && c.is_alphabetic() => {
                    begins = false;
                    modules.insert(
                        group[i..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
                    );
                }
                _ => (),
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules.retain(|name| !name.is_empty());
    modules
}

#[test]
fn used_modules_are_found() {
    let source = "use crate::{ids::{A, B}, rng,\n store};\nuse crate::spec::C; let x = crate::run::go();";
    assert_eq!(used(source), BTreeSet::from(["ids", "rng", "run", "spec", "store"]));
}

#[test]
fn nothing_imports_from_a_floor_above() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let file = name(&path);
        let module = file["src/".len()..].split(['/', '.']).next().expect("a first part").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let source = fs::read_to_string(&path).expect("source is text");
        let above = used(&source).into_iter().filter(|used| floor(used) > floor(&module));
        wrong.extend(above.map(|used| format!("{file} uses `{used}`")));
    }
    assert!(wrong.is_empty(), "floors import downward only:\n{}", wrong.join("\n"));
}

#[test]
fn the_design_has_a_sentence_for_every_module() {
    let design = fs::read_to_string(root().join("DESIGN.md")).expect("DESIGN.md");
    let rows = design.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let named: BTreeSet<_> = rows.flat_map(|row| row.split('`').filter(|name| !name.trim().is_empty())).collect();
    let known: BTreeSet<_> = FLOORS.concat().into_iter().collect();
    assert_eq!(named, known);
}
