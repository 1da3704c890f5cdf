//! Reports: charts, tables and one self-contained page about a study.
//!
//! [`write()`] turns a [`StudyRecord`] into a folder: `index.html` (everything in one file, no network),
//! `charts/NAME.svg` and `.png`, `data/NAME.csv` (the numbers behind each chart, unrounded) and
//! `report.json`. The same record gives the same bytes: nothing here reads a clock.

pub mod audit;
pub mod comparison;
mod draw;
mod exhibit;
mod figures;
mod html;
pub mod model;
mod picture;
mod table;
mod text;

pub use draw::{DrawError, contact_sheet, heat_map};
pub use figures::{Model, course_of, pictured};
pub use model::StudyRecord;

use crate::fsx;
use crate::metrics::constrained;
use crate::stats::Interval;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A chart failed.
    #[error("draw the report")]
    Draw(#[from] DrawError),
    /// A file or folder of the report cannot be written.
    #[error("write `{}`\nhint: choose another folder with --out", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A file of the report's name is there that no report wrote.
    #[error("`{}` is there, and is not of a report\nhint: choose another folder with --out", path.display())]
    Foreign { path: PathBuf },
    /// A table cannot be written as CSV.
    #[error("write the table `{name}`")]
    Csv { name: String, source: csv::Error },
    /// The record cannot be written as JSON.
    #[error("write the record as JSON")]
    Json(#[from] serde_json::Error),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub index: PathBuf,
    /// Charts drawn, each as SVG and PNG.
    pub charts: usize,
    /// Tables, each as CSV.
    pub tables: usize,
}

/// The file of a report's folder that lists what reports wrote into it: nothing else there is replaced or removed.
const LIST: &str = "files.txt";

/// Writes the report of a study into `out`, which is made if it is missing. Files of an earlier report there are
/// replaced one by one; charts and tables that no longer exist are removed, other files stay.
///
/// # Errors
/// If a file of the same name is there that no report wrote, or a file cannot be written.
pub fn write(record: &StudyRecord, out: &Path) -> Result<Written, ReportError> {
    let sections = figures::sections(record);
    let page = html::page(record, &sections)?;
    let summary = StudyRecord { pictures: Vec::new(), thumbnails: Default::default(), ..record.clone() };
    publish(&page, &sections, ("report.json", &serde_json::to_vec_pretty(&summary)?), out)
}

/// Writes a page with the charts and tables of its sections, and what it was made from as JSON.
fn publish(
    page: &str,
    sections: &[exhibit::Section],
    (name, json): (&str, &[u8]),
    out: &Path,
) -> Result<Written, ReportError> {
    let (charts, data) = (out.join("charts"), out.join("data"));
    for folder in [out, &charts, &data] {
        std::fs::create_dir_all(folder).map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
    }
    let save = |path: PathBuf, bytes: &[u8]| {
        fsx::write_atomic(&path, bytes).map_err(|source| ReportError::Io { path: path.clone(), source })
    };
    let exhibits: Vec<&exhibit::Exhibit> = sections.iter().flat_map(|s| &s.exhibits).collect();
    let drawn = exhibits.iter().filter(|e| e.chart.is_some());
    let tables = exhibits.iter().filter(|e| !e.table.rows.is_empty());
    let wanted: BTreeSet<String> = drawn
        .flat_map(|e| ["svg", "png"].map(|ending| format!("charts/{}.{ending}", e.slug)))
        .chain(tables.map(|e| format!("data/{}.csv", e.slug)))
        .chain([name.to_owned(), "index.html".to_owned()])
        .collect();
    take_over(out, &wanted)?;
    exhibits.par_iter().try_for_each(|e| -> Result<(), ReportError> {
        if let Some(chart) = &e.chart {
            save(charts.join(format!("{}.svg", e.slug)), chart.svg_file(&e.title)?.as_bytes())?;
            save(charts.join(format!("{}.png", e.slug)), &chart.png()?)?;
        }
        if !e.table.rows.is_empty() {
            let csv = e.table.csv().map_err(|source| ReportError::Csv { name: e.slug.clone(), source })?;
            save(data.join(format!("{}.csv", e.slug)), &csv)?;
        }
        Ok(())
    })?;
    save(out.join(name), json)?;
    let index = out.join("index.html");
    save(index.clone(), page.as_bytes())?;
    Ok(Written {
        index,
        charts: exhibits.iter().filter(|e| e.chart.is_some()).count(),
        tables: exhibits.iter().filter(|e| !e.table.rows.is_empty()).count(),
    })
}

/// The metrics of a finalist, or of the mean of all, on the test images.
#[derive(Clone, Debug, PartialEq)]
pub struct Tested {
    /// Whose.
    pub model: Model,
    /// The threshold that was fixed on validation images; `None`: undefined there, 0.5 was used.
    pub threshold: Option<f64>,
    /// Recall, specificity, precision, F1, ROC-AUC and average precision: name, value, 95 % interval.
    pub figures: [NamedFigure; 6],
    /// The objective, if it is one that chooses its own threshold under a constraint, on any images.
    pub constrained: Option<f64>,
}

/// A metric: name, value, 95 % interval.
pub type NamedFigure = (&'static str, Option<f64>, Option<Interval>);

/// The metrics of a finalist, or of the mean of all, on the validation images, with their intervals; empty for another trial.
pub fn validated(record: &StudyRecord, model: Model) -> Vec<NamedFigure> {
    let evidence = figures::Evidence::validation(record);
    evidence.of(model).map_or_else(Vec::new, |entry| entry.figures().into())
}

/// The metrics on the test images as the report shows them, and how their intervals were computed; `None` before the
/// test images are opened.
pub fn tested(record: &StudyRecord) -> Option<(Vec<Tested>, String)> {
    let evidence = figures::Evidence::test(record)?;
    let metric = &record.spec.objective.metric;
    let tested = |e: &figures::Entry<'_>| Tested {
        model: e.model,
        threshold: e.threshold,
        figures: e.figures(),
        constrained: constrained(&e.predictions, metric),
    };
    Some((evidence.entries.iter().map(tested).collect(), evidence.method()))
}

/// Makes `out` the folder of a report that will have the files `wanted`: removes those that an earlier report wrote and this one
/// does not have, and lists what is to come before any of it is written, so that an interrupted report can be repeated.
fn take_over(out: &Path, wanted: &BTreeSet<String>) -> Result<(), ReportError> {
    let list = out.join(LIST);
    let failed = |path: &Path, source| ReportError::Io { path: path.to_owned(), source };
    let earlier: BTreeSet<String> = match std::fs::read_to_string(&list) {
        // Only names that a report can have given: nothing outside its folders is ever removed.
        Ok(text) => text.lines().filter(|line| is_of_a_report(line)).map(str::to_owned).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
        Err(source) => return Err(failed(&list, source)),
    };
    if let Some(foreign) = wanted.difference(&earlier).map(|file| out.join(file)).find(|path| path.exists()) {
        return Err(ReportError::Foreign { path: foreign });
    }
    let text = |files: &BTreeSet<String>| files.iter().map(|file| format!("{file}\n")).collect::<String>();
    let save = |files: &BTreeSet<String>| {
        fsx::write_atomic(&list, text(files).as_bytes()).map_err(|source| failed(&list, source))
    };
    save(&earlier.union(wanted).cloned().collect())?;
    for file in earlier.difference(wanted) {
        let path = out.join(file);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(&path, source)),
            _ => {}
        }
    }
    save(wanted)
}

/// Whether a line of the list is a chart, a table or a page.
fn is_of_a_report(file: &str) -> bool {
    match file.split_once('/') {
        Some(("charts" | "data", name)) => !name.contains(['/', '\\']) && name.contains('.'),
        Some(_) => false,
        None => file.ends_with(".json") || file.ends_with(".html"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_and_removes_only_what_reports_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        for inner in ["charts", "data"] {
            std::fs::create_dir(out.join(inner)).unwrap();
        }
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let write =
            |names: &BTreeSet<String>| names.iter().for_each(|name| std::fs::write(out.join(name), "x").unwrap());
        std::fs::write(out.join("data/films.csv"), "mine").unwrap();
        let first = files(&["charts/a.svg", "data/a.csv", "report.json"]);
        take_over(out, &first).unwrap();
        write(&first);
        // As if it had been killed: the same once more.
        take_over(out, &first).unwrap();
        let second = files(&["charts/b.svg", "report.json"]);
        take_over(out, &second).unwrap();
        let there = |name: &str| out.join(name).exists();
        assert!(!there("charts/a.svg") && !there("data/a.csv") && there("report.json") && there("data/films.csv"));
        let third = files(&["data/films.csv"]);
        assert!(matches!(take_over(out, &third), Err(ReportError::Foreign { .. })));
        // A list that somebody changed reaches nothing beyond.
        std::fs::write(out.join(LIST), "../secret.json\ncharts/../../secret.svg\n").unwrap();
        take_over(out, &files(&["index.html"])).unwrap();
        assert_eq!(std::fs::read_to_string(out.join("data/films.csv")).unwrap(), "mine");
    }
}
