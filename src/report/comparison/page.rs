//! A comparison as a page.

use super::{Comparison, Side, Summary, extreme};
use crate::clock::span;
use crate::report::draw::{Colour, races, whiskers};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::figures::{DRAWS, Evidence, HOW_COUNTED, Point};
use crate::report::table::{Cell, Table};
use crate::report::text::printable;
use crate::report::{ReportError, Written, html, publish};
use crate::wording::counted;
use maud::{Markup, html};
use std::path::Path;

/// Writes a comparison into `out`: `index.html`, `charts/`, `data/` and `comparison.json`; see [`crate::report::write`].
///
/// # Errors
/// If a chart cannot be drawn or a file cannot be written.
pub fn write(sides: &[Side], comparison: &Comparison, out: &Path) -> Result<Written, ReportError> {
    let sections = [
        Section {
            id: "search",
            title: "The searches",
            intro: "What each study found, and what it spent on it.".into(),
            exhibits: vec![studies(comparison), course(comparison)],
        },
        Section {
            id: "best",
            title: "The best trials",
            intro: "The first trial of each study, on its validation images.".into(),
            exhibits: vec![finalists(sides), differences(comparison)],
        },
        Section {
            id: "studies",
            title: "The studies",
            intro: "In what the study files differ, defaults included.".into(),
            exhibits: vec![files(sides)],
        },
    ];
    let names: Vec<&str> = sides.iter().map(|side| side.label.as_str()).collect();
    let name = printable(&names.join(", "));
    let program = sides.first().map_or("hpsearch", |side| side.record.program.as_str());
    let page = html::document(&name, header(comparison, &name), &sections, None, "comparison.json", program)?;
    publish(&page, &sections, ("comparison.json", &serde_json::to_vec_pretty(comparison)?), out)
}

fn header(comparison: &Comparison, name: &str) -> Markup {
    html! {
        header {
            p.kicker { "Comparison of studies" }
            h1 { (name) }
            p.facts { (comparison.incomparable.join(" ")) }
            div.tiles { @for study in &comparison.studies { (tile(study)) } }
        }
    }
}

fn tile(study: &Summary) -> Markup {
    let spent = format!(
        "{}, {}, {} of training",
        counted(study.trials, "trial"),
        counted(study.epochs, "epoch"),
        span(study.trained_hours * 3600.0)
    );
    let value = study.best.map_or_else(|| "none".to_owned(), |best| format!("{:.4}", best.value));
    let head = format!("{}: {} of {}", study.study, extreme(study.direction), study.metric);
    html::tile(&printable(&head), &value, html! { (spent) }, "")
}

fn studies(comparison: &Comparison) -> Exhibit {
    let columns = [
        "study",
        "metric",
        "direction",
        "best",
        "trial",
        "its epochs",
        "trials",
        "complete",
        "failed",
        "epochs",
        "hours of training",
        "hours elapsed",
        "images",
    ];
    let mut table = Table::new(columns);
    for study in &comparison.studies {
        table.push([
            study.study.as_str().into(),
            study.metric.as_str().into(),
            study.direction.to_string().into(),
            Cell::number(study.best.map(|b| b.value), 4),
            study.best.map_or(Cell::Missing, |b| b.trial.0.into()),
            study.best.map_or(Cell::Missing, |b| b.epochs.into()),
            study.trials.into(),
            study.complete.into(),
            study.failed.into(),
            study.epochs.into(),
            Cell::Number(study.trained_hours, 3),
            Cell::Number(study.elapsed_hours, 3),
            study.images.as_ref().map_or(Cell::Missing, |digest| digest.short().into()),
        ]);
    }
    Exhibit::new("studies", "Studies", "What was found, and at what expense?", None, table)
        .note("The best value is that of the first trial of the ranking: the best after its latest epoch of those that were not given up.")
        .note("It is the best of many on the images that chose it: the study with more trials is flattered more.")
}

fn course(comparison: &Comparison) -> Exhibit {
    let (slug, title, question) = ("best-so-far", "Best so far", "Which search is ahead at equal effort?");
    let shown: Vec<(usize, &Summary)> = comparison
        .studies
        .iter()
        .enumerate()
        .filter(|(_, study)| study.comparable && !study.course.is_empty())
        .collect();
    if shown.is_empty() {
        return Exhibit::missing(slug, title, question, "No epoch has a defined value yet.");
    }
    let mut table = Table::new(["study", "trials measured", "epochs", "hours", "trial", "value", "best so far"]);
    for (_, study) in &shown {
        for point in &study.course {
            table.push([
                study.study.as_str().into(),
                point.trials.into(),
                point.epochs.into(),
                Cell::Number(point.hours, 3),
                point.trial.0.into(),
                Cell::Number(point.value, 4),
                Cell::Number(point.best, 4),
            ]);
        }
    }
    let lines = |effort: fn(&Point) -> f64| -> Vec<Vec<(f64, f64)>> {
        shown.iter().map(|(_, study)| study.course.iter().map(|p| (effort(p), p.best)).collect()).collect()
    };
    let panels = [("epochs trained", lines(|p| p.epochs as f64)), ("hours", lines(|p| p.hours))];
    let names: Vec<(String, Colour)> =
        shown.iter().map(|(i, study)| (study.study.clone(), Colour::series(*i))).collect();
    let chart = races(&panels, &shown[0].1.metric, &names);
    let exhibit = Exhibit::new(slug, title, question, Some(chart), table).note(HOW_COUNTED);
    comparison.incomparable.iter().fold(exhibit, |exhibit, words| exhibit.note(words.as_str()))
}

fn finalists(sides: &[Side]) -> Exhibit {
    let (slug, title, question) = ("finalists", "Best trials side by side", "How good is the best of each?");
    let mut table = Table::new(["study", "trial", "metric", "value", "low", "high", "threshold"]);
    let (mut names, mut values, mut methods) = (Vec::new(), Vec::new(), Vec::new());
    for side in sides {
        let evidence = Evidence::validation(&side.record);
        let Some(entry) = evidence.entries.first() else { continue };
        names.push(format!("{}, {}", side.label, entry.model));
        let chosen = ["recall", "f1", "roc_auc"];
        let figures = entry.figures();
        let figure = |name: &str| figures.iter().find(|f| f.0 == name).map_or((None, None), |f| (f.1, f.2));
        values.push(chosen.map(figure).to_vec());
        for (metric, value, interval) in figures {
            table.push([
                side.label.as_str().into(),
                entry.model.short().into(),
                metric.into(),
                Cell::number(value, 4),
                Cell::number(interval.map(|i| i.low), 4),
                Cell::number(interval.map(|i| i.high), 4),
                Cell::number(entry.threshold, 4),
            ]);
        }
        let method = evidence.method();
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    if names.is_empty() {
        return Exhibit::missing(slug, title, question, "No study has a best trial with validation predictions.");
    }
    let chart = whiskers(&names, &[("Recall", None), ("F1", None), ("ROC-AUC", None)], &values, None, &[], true);
    let exhibit = Exhibit::new(slug, title, question, Some(chart), table)
        .note("Whether two of them differ is not to be read off these intervals: see the paired differences.");
    methods.into_iter().fold(exhibit, Exhibit::note)
}

fn differences(comparison: &Comparison) -> Exhibit {
    let (slug, title) = ("differences", "Paired differences");
    let question = "Are the best trials different, on the same images?";
    let mut table = Table::new(["study", "other", "figure", "difference", "low", "high", "p, Holm-adjusted"]);
    let (mut names, mut values, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for pair in &comparison.pairs {
        if let Some(why) = &pair.refused {
            refused.push(format!("{} and {} are not compared: {why}.", pair.a, pair.b));
            continue;
        }
        names.push(format!("{} – {}", pair.a, pair.b));
        values.push(pair.differences.iter().take(3).map(|d| (d.difference, d.interval)).collect::<Vec<_>>());
        for d in &pair.differences {
            table.push([
                pair.a.as_str().into(),
                pair.b.as_str().into(),
                d.metric.into(),
                Cell::number(d.difference, 4),
                Cell::number(d.interval.map(|i| i.low), 4),
                Cell::number(d.interval.map(|i| i.high), 4),
                Cell::p(d.p),
            ]);
        }
    }
    let panels = [("ROC-AUC", Some(0.0)), ("Recall", Some(0.0)), ("F1", Some(0.0))];
    let chart = (!names.is_empty()).then(|| whiskers(&names, &panels, &values, None, &[], false));
    let some = chart.is_some();
    let exhibit = Exhibit::new(slug, title, question, chart, table)
        .note_if(
            some,
            format!(
                "95 % intervals from {DRAWS} paired bootstrap draws of the images (of whole patients where they are known), \
                 stratified by class. p: DeLong's test of the ROC-AUC, where there are two classes and images are independent."
            ),
        )
        .note_if(some, "Each trial was chosen by these images, so the figures are for orientation only.");
    refused.into_iter().fold(exhibit, Exhibit::note)
}

/// How many differences of study files are listed for each study.
const DIFFERENCES: usize = 40;

fn files(sides: &[Side]) -> Exhibit {
    let (slug, title, question) = ("study-files", "Differences of the study files", "What was done differently?");
    let Some((first, others)) = sides.split_first() else {
        return Exhibit::missing(slug, title, question, "There is no study.");
    };
    let mut table = Table::new(["study", "key", "here", "in the first"]);
    let mut more = Vec::new();
    for side in others {
        let differences = side.record.spec.difference(&first.record.spec);
        let differences: Vec<_> = differences.into_iter().filter(|d| d.path != "name").collect();
        for d in differences.iter().take(DIFFERENCES) {
            let cell = |value: &Option<String>| value.clone().map_or(Cell::Missing, Cell::from);
            table.push([side.label.as_str().into(), d.path.as_str().into(), cell(&d.after), cell(&d.before)]);
        }
        if differences.len() > DIFFERENCES {
            let more_words = format!("{} more of study {} are left out.", differences.len() - DIFFERENCES, side.label);
            more.push(more_words);
        }
    }
    if table.rows.is_empty() {
        return Exhibit::missing(slug, title, question, "The study files say the same.");
    }
    let exhibit =
        Exhibit::new(slug, title, question, None, table).note(format!("Each study beside {}, the first.", first.label));
    more.into_iter().fold(exhibit, Exhibit::note)
}
