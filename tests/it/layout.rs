//! The source is laid out as DESIGN.md says: modules import downward only and never in a cycle, and each third-party
//! crate is used only in certain modules (its rooms).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// Layers of modules, lowest first; a module may use those of its own floor and below.
const FLOORS: [&[&str]; 17] = [
    &["ids", "rng", "digest", "fsx", "shared", "clock", "stats", "crash", "wording"],
    &["space"],
    &["spec"],
    &["config", "metrics"],
    &["ledger"],
    &["sampler", "scheduler"],
    &["engine"],
    &["history", "nn"],
    &["data"],
    &["report", "exchange"],
    &["store"],
    &["runner"],
    &["study"],
    &["audit", "model"],
    &["run"],
    &["cli"],
    &["lib", "main"],
];

/// The modules in which each third-party crate may be used; `*`: anywhere. Every dependency must be listed.
const ROOMS: [(&str, &[&str]); 52] = [
    ("annotate_snippets", &["config"]),
    ("base64", &["report"]),
    ("blake3", &["digest", "rng"]),
    ("candle_core", &["audit", "nn", "data", "runner"]),
    ("candle_nn", &["audit", "nn", "runner"]),
    ("candle_transformers", &["nn"]),
    ("clap", &["cli"]),
    ("csv", &["cli", "data", "exchange", "metrics", "model", "report"]),
    ("dicom_object", &["data::decode::dicom"]),
    ("fast_image_resize", &["data"]),
    ("flate2", &["data::decode::dicom"]),
    ("half", &["nn", "data"]),
    ("hf_hub", &["nn"]),
    ("image", &["data", "report"]),
    ("indicatif", &["cli"]),
    ("jpeg2k", &["data::decode::dicom"]),
    ("jpeg_decoder", &["data::decode::dicom"]),
    ("memmap2", &["data", "shared"]),
    ("mimalloc", &["main"]),
    ("parquet", &["exchange"]),
    ("plotters", &["report::draw"]),
    ("prost", &["nn::onnx"]),
    ("rand", &["rng"]),
    ("rand_chacha", &["rng"]),
    ("rand_distr", &["rng"]),
    ("ratatui", &["cli"]),
    ("rayon", &["audit", "nn", "data", "metrics", "model", "report", "runner", "stats"]),
    ("regex", &["config", "data"]),
    ("rustfft", &["audit"]),
    ("postgres", &["store::postgres"]),
    ("rusqlite", &["store::sqlite"]),
    ("rustls", &["store::postgres"]),
    ("rustls_native_certs", &["store::postgres"]),
    ("rustix", &["data", "fsx", "nn", "run", "runner", "shared", "store::sqlite"]),
    ("safetensors", &["nn"]),
    ("serde", &["*"]),
    ("serde_json", &["*"]),
    ("signal_hook", &["run"]),
    ("sobol_burley", &["sampler"]),
    ("strsim", &["config"]),
    ("strum", &["*"]),
    ("tempfile", &["fsx", "shared"]),
    ("tokio_postgres_rustls", &["store::postgres"]),
    ("thiserror", &["*"]),
    ("toml", &["config"]),
    ("ureq", &["run"]),
    ("walkdir", &["data"]),
    ("maud", &["report"]),
    ("jiff", &["clock"]),
    // Not ours to place.
    ("std", &["*"]),
    ("core", &["*"]),
    ("hpsearch", &["main"]),
];

type Module = Vec<String>;

/// A module's file, parsed.
struct Source {
    items: Vec<syn::Item>,
    /// Names that `use` brings in, with the paths they stand for.
    uses: BTreeMap<String, Module>,
}

/// The production modules of the crate, by path: without what only tests compile.
struct Tree {
    modules: BTreeMap<Module, Source>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test"))
}

impl Tree {
    /// The crate's own source, with text added to some files.
    fn with(planted: &[(&str, &str)]) -> Self {
        let planted: BTreeMap<PathBuf, &str> =
            planted.iter().map(|(file, text)| (root().join("src").join(file), *text)).collect();
        let mut tree = Self { modules: BTreeMap::new() };
        tree.read(&root().join("src/lib.rs"), &root().join("src"), Vec::new(), &planted);
        tree.read(&root().join("src/main.rs"), &root().join("src"), vec!["main".to_owned()], &planted);
        tree
    }

    fn read(&mut self, file: &Path, folder: &Path, module: Module, planted: &BTreeMap<PathBuf, &str>) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Planted items come before the file's own.
        let extra = planted.get(file).copied().unwrap_or_default();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut items = syn::parse_file(extra).expect("planted text is Rust").items;
        items.extend(parsed.items);
        self.add(items, folder, module, planted);
    }

    fn add(&mut self, items: Vec<syn::Item>, folder: &Path, module: Module, planted: &BTreeMap<PathBuf, &str>) {
        let mut own = Vec::new();
        for item in items {
            match item {
                syn::Item::Mod(m) if is_test(&m.attrs) => {}
                syn::Item::Mod(m) => {
                    let name = m.ident.to_string();
                    let inside = [module.clone(), vec![name.clone()]].concat();
                    if let Some((_, items)) = m.content {
                        self.add(items, &folder.join(&name), inside, planted);
                        continue;
                    }
                    let (flat, nested) = (folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs"));
                    let file = if flat.exists() { flat } else { nested };
                    self.read(&file, &folder.join(&name), inside, planted);
                }
                item => own.push(item),
            }
        }
        let mut uses = BTreeMap::new();
        for item in &own {
            if let syn::Item::Use(u) = item
                && !is_test(&u.attrs)
            {
                leaves(&u.tree, &mut Vec::new(), &mut |path, name| drop(uses.insert(name, path)));
            }
        }
        self.modules.insert(module, Source { items: own, uses });
    }

    /// The module that defines what a path names, following re-exports; `None`: not of this crate.
    fn resolve(&self, from: &Module, path: &[String], depth: u32) -> Option<Module> {
        let (mut at, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                (from[..from.len().checked_sub(up)?].to_vec(), &path[up..])
            }
            first => {
                // A child, or an imported name.
                let child = [from.clone(), vec![first.to_owned()]].concat();
                if self.modules.contains_key(&child) {
                    (from.clone(), path)
                } else {
                    let target = self.modules.get(from)?.uses.get(first).filter(|_| depth < 8)?;
                    return self.resolve(from, &[target.as_slice(), &path[1..]].concat(), depth + 1);
                }
            }
        };
        for (i, segment) in rest.iter().enumerate() {
            let child = [at.clone(), vec![segment.clone()]].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let re_exported = self.modules.get(&at).and_then(|m| m.uses.get(segment)).filter(|_| depth < 8);
            if let Some(target) = re_exported
                && let Some(found) = self.resolve(&at, &[target.as_slice(), &rest[i + 1..]].concat(), depth + 1)
            {
                return Some(found);
            }
            break;
        }
        Some(at)
    }

    /// Every path that a module names, in imports (not in `pub use`, which only re-exports) and anywhere else.
    fn paths(&self, module: &Module) -> Vec<Module> {
        let mut found = Paths::default();
        for item in &self.modules[module].items {
            match item {
                syn::Item::Use(u) if is_test(&u.attrs) => {}
                syn::Item::Use(u) if !matches!(u.vis, syn::Visibility::Inherited) => {}
                syn::Item::Use(u) => leaves(&u.tree, &mut Vec::new(), &mut |path, _| found.0.push(path)),
                item => found.visit_item(item),
            }
        }
        found.0
    }

    /// Modules of this crate that each module uses.
    fn edges(&self) -> Vec<(Module, Module)> {
        let mut edges = BTreeSet::new();
        for module in self.modules.keys() {
            for path in self.paths(module) {
                edges.extend(self.resolve(module, &path, 0).map(|used| (module.clone(), used)));
            }
        }
        edges.into_iter().filter(|(a, b)| a != b).collect()
    }

    /// Uses of a module on a floor above.
    fn upward(&self) -> Vec<String> {
        let floor = |module: &Module| {
            let name = module.first().map_or("lib", String::as_str);
            let found = FLOORS.iter().position(|floor| floor.contains(&name));
            found.unwrap_or_else(|| panic!("module `{name}` has no floor: give it one here and in DESIGN.md"))
        };
        let wrong = self.edges().into_iter().filter(|(from, to)| !to.is_empty() && floor(to) > floor(from));
        wrong.map(|(from, to)| format!("{} uses {}", from.join("::"), to.join("::"))).collect()
    }

    /// Modules that use each other in a cycle with siblings, at any level.
    fn cycles(&self) -> Vec<String> {
        let mut siblings: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (from, to) in self.edges() {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                siblings.entry(from[..shared].to_vec()).or_default().entry(a.clone()).or_default().insert(b.clone());
            }
        }
        let mut found = Vec::new();
        for (parent, graph) in siblings {
            for start in graph.keys() {
                let mut reached = BTreeSet::new();
                let mut next: Vec<&String> = graph[start].iter().collect();
                while let Some(name) = next.pop() {
                    if reached.insert(name) {
                        next.extend(graph.get(name).into_iter().flatten());
                    }
                }
                if reached.contains(start) {
                    found.push([parent.clone(), vec![start.clone()]].concat().join("::"));
                }
            }
        }
        found
    }

    /// Third-party crates used outside their modules.
    fn out_of_room(&self) -> Vec<String> {
        let rooms: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
        let mut found = BTreeSet::new();
        for module in self.modules.keys() {
            let place = module.join("::");
            let re_exported = self.modules[module].uses.values().cloned();
            for path in self.paths(module).into_iter().chain(re_exported) {
                let name = path[0].as_str();
                let Some(rooms) = rooms.get(name) else { continue };
                let own = self.modules.contains_key(&[module.clone(), vec![name.to_owned()]].concat());
                let imported = self.modules[module].uses.get(name).is_some_and(|target| target != &path[..1]);
                let inside = |room: &&&str| **room == "*" || place == **room || place.starts_with(&format!("{room}::"));
                if path.len() > 1 && !own && !imported && !rooms.iter().any(|room| inside(&room)) {
                    found.insert(format!("{place} names {name}"));
                }
            }
        }
        found.into_iter().collect()
    }

    /// Store backends named outside `store`.
    fn concrete_stores(&self) -> Vec<String> {
        let kinds = [["store", "sqlite"], ["store", "memory"], ["store", "postgres"]];
        let inside = |module: &Module| kinds.iter().any(|kind| module.len() >= 2 && module[..2] == *kind);
        let wrong =
            self.edges().into_iter().filter(|(from, to)| inside(to) && from.first().is_none_or(|m| m != "store"));
        wrong.map(|(from, to)| format!("{} names {}", from.join("::"), to.join("::"))).collect()
    }
}

/// The paths at the leaves of a `use`, each with the name under which it is imported.
fn leaves(tree: &syn::UseTree, path: &mut Module, each: &mut dyn FnMut(Module, String)) {
    match tree {
        syn::UseTree::Path(p) => {
            path.push(p.ident.to_string());
            leaves(&p.tree, path, each);
            path.pop();
        }
        syn::UseTree::Name(n) if n.ident == "self" => {
            each(path.clone(), path.last().cloned().unwrap_or_default());
        }
        syn::UseTree::Name(n) => {
            let name = n.ident.to_string();
            each([path.clone(), vec![name.clone()]].concat(), name);
        }
        syn::UseTree::Rename(r) => each([path.clone(), vec![r.ident.to_string()]].concat(), r.rename.to_string()),
        syn::UseTree::Glob(_) => each(path.clone(), format!("{}::*", path.join("::"))),
        syn::UseTree::Group(g) => g.items.iter().for_each(|tree| leaves(tree, path, each)),
    }
}

/// Paths of several segments, in code and in the tokens of macros.
#[derive(Default)]
struct Paths(Vec<Module>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(i) => &i.attrs,
            syn::Item::Impl(i) => &i.attrs,
            syn::Item::Struct(i) => &i.attrs,
            syn::Item::Const(i) => &i.attrs,
            syn::Item::Static(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        if !is_test(&f.attrs) {
            visit::visit_impl_item_fn(self, f);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, m: &'ast syn::Macro) {
        self.visit_path(&m.path);
        // A macro's tokens are not parsed, but paths like `a::b::c` are found in their text.
        let text = m.tokens.to_string().replace(" :: ", "::");
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !is_word(c)).filter(|word| word.contains("::")) {
            self.0.push(word.split("::").filter(|s| !s.is_empty()).map(str::to_owned).collect());
        }
        self.0.retain(|path| !path.is_empty());
    }
}

#[test]
fn modules_import_downward_only() {
    let wrong = Tree::with(&[]).upward();
    assert!(wrong.is_empty(), "floors import downward only:\n{}", wrong.join("\n"));
}

#[test]
fn modules_form_no_cycle() {
    let cycles = Tree::with(&[]).cycles();
    assert!(cycles.is_empty(), "modules that use each other:\n{}", cycles.join("\n"));
}

#[test]
fn third_party_crates_are_used_in_their_modules_only() {
    let wrong = Tree::with(&[]).out_of_room();
    assert!(wrong.is_empty(), "crates out of their rooms:\n{}", wrong.join("\n"));
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let dependencies = cargo.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or("");
    let names = dependencies.lines().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
    let without: Vec<String> = names.filter(|name| ROOMS.iter().all(|(known, _)| known != name)).collect();
    assert!(without.is_empty(), "give these crates a room: {without:?}");
}

#[test]
fn store_backends_are_named_inside_store_only() {
    let wrong = Tree::with(&[]).concrete_stores();
    assert!(
        wrong.is_empty(),
        "stores are opened by `store::in_folder`, `in_server` and `in_memory`:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_planted_violation_of_each_rule_is_found() {
    let planted = |file, text| Tree::with(&[(file, text)]);
    let upward = planted("report/mod.rs", "use crate::store::Reader;").upward();
    assert_eq!(upward, ["report uses store"]);
    let upward = planted("report/figures/answer.rs", "fn f() { crate::runner::image::usable(); }").upward();
    assert_eq!(upward, ["report::figures::answer uses runner::image"]);
    let through_a_name = planted("engine/plan.rs", "use crate::history; fn f(row: history::Row) {}").upward();
    assert_eq!(through_a_name, ["engine::plan uses history", "engine::plan uses history::row"]);
    let in_a_macro = planted("space/value.rs", "fn f() { println!(\"{}\", crate::spec::SETTINGS.len()); }").upward();
    assert_eq!(in_a_macro, ["space::value uses spec::settings"]);

    let cycle = planted("sampler/mod.rs", "use crate::scheduler::Next;");
    assert!(cycle.cycles().is_empty(), "one way is no circle");
    let cycle = Tree::with(&[
        ("sampler/mod.rs", "use crate::scheduler::Next;"),
        ("scheduler/sha.rs", "use crate::sampler::Lattice;"),
    ]);
    assert_eq!(cycle.cycles(), ["sampler", "scheduler"]);
    let within = planted("ledger/rung.rs", "use super::Ledger;").cycles();
    assert!(within.is_empty(), "a child may use its parent: {within:?}");
    let within = Tree::with(&[("ledger/score.rs", "use super::rung::Rung;")]).cycles();
    assert_eq!(within, ["ledger::rung", "ledger::score"]);

    let rooms = planted("study.rs", "use rusqlite::Connection;").out_of_room();
    assert_eq!(rooms, ["study names rusqlite"]);
    let rooms = planted("engine/mod.rs", "fn f(x: &candle_core::Tensor) {}").out_of_room();
    assert_eq!(rooms, ["engine names candle_core"]);

    let store = planted("study.rs", "use crate::store::sqlite::Folder;").concrete_stores();
    assert_eq!(store, ["study names store::sqlite::folder"]);
}

#[test]
fn design_md_describes_every_module() {
    let design = fs::read_to_string(root().join("DESIGN.md")).expect("DESIGN.md");
    let rows = design.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let named: BTreeSet<_> = rows.flat_map(|row| row.split('`').filter(|name| !name.trim().is_empty())).collect();
    let known: BTreeSet<_> = FLOORS[..FLOORS.len() - 1].concat().into_iter().collect();
    assert_eq!(named, known);
}
