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
use crate::stats::Interval;
use rayon::prelude::*;
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

/// Writes the report of a study into `out`, which is made if it is missing. Files of an earlier report there are
/// replaced one by one; charts that no longer exist are removed, other files stay.
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
    sweep_out(&charts, &exhibits, &["svg", "png"])?;
    sweep_out(&data, &exhibits, &["csv"])?;
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
    let tested = |e: &figures::Entry<'_>| Tested { model: e.model, threshold: e.threshold, figures: e.figures() };
    Some((evidence.entries.iter().map(tested).collect(), evidence.method()))
}

/// Removes charts and tables of an earlier report that this one does not have.
fn sweep_out(folder: &Path, exhibits: &[&exhibit::Exhibit], extensions: &[&str]) -> Result<(), ReportError> {
    let failed = |source| ReportError::Io { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ours = path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x));
        let known = exhibits.iter().any(|e| {
            path.file_stem().is_some_and(|s| s == e.slug.as_str())
                && (if extensions.contains(&"csv") { !e.table.rows.is_empty() } else { e.chart.is_some() })
        });
        if ours && !known {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}
