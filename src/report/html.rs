//! The page: one file, no network, readable on screens of any width, in light and dark, and on paper.

use super::draw::DrawError;
use super::exhibit::{Exhibit, Section};
use super::figures::{Entry, Evidence, Model};
use super::model::{StudyRecord, TrialRecord};
use super::table::{Cell, Table};
use super::text::{printable, short};
use crate::engine::TrialState;
use crate::space::Value;
use crate::spec::{Direction, Metric};
use crate::wording::counted;
use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Rows shown on the page; the CSV has all.
const ROWS: usize = 60;

/// The whole page of a study.
pub fn page(record: &StudyRecord, sections: &[Section]) -> Result<String, DrawError> {
    let name = printable(&record.spec.name);
    let about = Some(("study", "The study", study(record)));
    document(&name, header(record, &name), sections, about, "report.json", &record.program)
}

/// A page: header, sections, and a last part that is no section (anchor, title, itself). `json`: the name of the file
/// that holds what the page shows.
pub fn document(
    name: &str,
    header: Markup,
    sections: &[Section],
    last: Option<(&str, &str, Markup)>,
    json: &str,
    program: &str,
) -> Result<String, DrawError> {
    let mut articles = Vec::new();
    for section in sections {
        articles.push(section.exhibits.iter().map(exhibit).collect::<Result<Vec<_>, _>>()?);
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (name) ": hyperparameter search" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                (header)
                nav aria-label="Sections" {
                    ul {
                        @for section in sections { li { a href={ "#" (section.id) } { (section.title) } } }
                        @if let Some((id, title, _)) = &last { li { a href={ "#" (id) } { (title) } } }
                    }
                }
                main {
                    @for (section, articles) in sections.iter().zip(&articles) {
                        section id=(section.id) {
                            h2 { (section.title) }
                            p.intro { (printable(&section.intro)) }
                            @for article in articles { (article) }
                        }
                    }
                    @if let Some((_, _, part)) = &last { (part) }
                }
                footer {
                    p {
                        "Made by " (program) ". The same record gives the same bytes. Charts as SVG and PNG lie in "
                        code { "charts/" } ", their figures as CSV in " code { "data/" } ", the record in "
                        code { (json) } "."
                    }
                }
            }
        }
    };
    Ok(page.into_string() + "\n")
}

fn header(record: &StudyRecord, name: &str) -> Markup {
    let ranked = record.ranking();
    let best = ranked.first().and_then(|trial| Some((*trial, trial.value?)));
    html! {
        header {
            p.kicker { "Hyperparameter search" }
            h1 { (name) }
            p.facts { (facts(record)) }
            @if record.data.as_ref().is_some_and(|data| data.synthetic) {
                p.banner { "The images of this study are synthetic. Nothing here says anything about patients." }
            }
            div.tiles {
                @match best {
                    None => (tile("Best trial", "none", html! { "No trial has a value yet." }, "")),
                    Some((best, value)) => (answer(record, best, value, ranked.len())),
                }
            }
        }
    }
}

/// The study in one line.
fn facts(record: &StudyRecord) -> String {
    let count = |state: TrialState| record.trials.iter().filter(|t| t.state == state).count();
    let epochs: usize = record.trials.iter().map(|t| t.epochs.len()).sum();
    let direction = match record.spec.objective.direction {
        Direction::Maximize => "largest",
        Direction::Minimize => "smallest",
    };
    let mut facts = vec![
        format!("{direction} validation {}", printable(&record.spec.objective.metric.to_string())),
        counted(record.trials.len(), "trial"),
        format!("{} complete", count(TrialState::Complete)),
    ];
    for (state, word) in [
        (TrialState::Stopped, "given up early"),
        (TrialState::Paused, "paused"),
        (TrialState::Running, "running"),
        (TrialState::Waiting, "waiting"),
        (TrialState::Failed, "failed"),
    ] {
        if count(state) > 0 {
            facts.push(format!("{} {word}", count(state)));
        }
    }
    facts.push(counted(epochs, "epoch"));
    facts.join(" · ")
}

/// The header's tiles of a study that has a best trial; `ranked` trials have a value.
fn answer(record: &StudyRecord, best: &TrialRecord, value: f64, ranked: usize) -> Markup {
    let objective = &record.spec.objective.metric;
    let metric = printable(&objective.to_string());
    let (validation, test) = (Evidence::validation(record), Evidence::test(record));
    let params = html! {
        @for (i, (name, value)) in best.params.0.iter().enumerate() {
            @if i > 0 { " " }
            span { (printable(name)) " " b { (printable(&shown(value))) } }
        }
    };
    let interval = match validation.of(Model::Trial(best.number)) {
        // The mean of the folds' figures is another quantity than the figure of all their predictions.
        Some(e) if record.spec.runner.folds().is_some() => {
            let pooled = e.objective(objective).map(|value| format!("All folds' predictions pooled: {value:.4}."));
            pooled.into_iter().chain(interval_words(record, e)).collect::<Vec<_>>().join(" ")
        }
        Some(e) if e.objective(objective).is_some() => {
            interval_words(record, e).unwrap_or_else(|| "No interval: see the finalists.".into())
        }
        _ => String::new(),
    };
    let flattering = if ranked > 1 { "Flattering: chosen by these images." } else { "" };
    let note = format!("{interval} {flattering}");
    let tested = test.as_ref().and_then(|t| t.of(Model::Trial(best.number)));
    let head = format!("Test {metric}");
    let of_test = match (tested, Evidence::why_not_tested(record, best.number)) {
        (Some(e), _) => match e.objective(objective) {
            Some(value) => {
                let interval = interval_words(record, e).unwrap_or_default();
                let fixed = e.metrics.get(objective).is_some();
                let threshold = if fixed { "" } else { "At a threshold chosen on these images." };
                let note = format!("{interval} {threshold}");
                tile(&head, &format!("{value:.4}"), html! { (note.trim()) }, "sure")
            }
            None => tile(&head, "undefined", html! { (undefined(objective)) }, ""),
        },
        (None, Some(why)) => tile(&head, "none", html! { (why) }, ""),
        (None, None) => {
            let note = html! { "The test images have not been opened. Only they can tell." };
            tile(&head, "locked", note, "locked")
        }
    };
    // Another trial's figures would be taken for those of the best.
    let own = tested.or_else(|| validation.of(Model::Trial(best.number)));
    html! {
        (tile("Best trial", &best.number.to_string(), params, "wide"))
        (tile(&format!("Validation {metric}"), &format!("{value:.4}"), html! { (note.trim()) }, ""))
        (of_test)
        @if let Some(e) = own { (operating_point(e, tested.is_some())) }
    }
}

/// Why the objective has no value on the test images.
fn undefined(objective: &Metric) -> &'static str {
    match objective {
        Metric::Custom(_) => "The objective is not a figure of the test predictions.",
        _ => "Undefined on these images: a class is missing, or nothing is called positive.",
    }
}

fn operating_point(entry: &Entry, tested: bool) -> Markup {
    let (set, class) = if tested { ("test", "sure") } else { ("validation", "") };
    let show = |v: Option<f64>| v.map_or("undefined".to_owned(), |v| format!("{v:.3}"));
    let m = &entry.metrics;
    let note = format!("specificity {}, precision {}, F1 {}", show(m.specificity), show(m.precision), show(m.f1));
    let head =
        if entry.predictions.classes.len() == 2 { "Recall at the operating point" } else { "Mean recall of classes" };
    tile(&format!("{head}, {set}"), &show(m.recall), html! { (note) }, class)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Float(x) => short(*x),
        other => other.to_string(),
    }
}

fn interval_words(record: &StudyRecord, e: &Entry) -> Option<String> {
    let i = e.interval(&record.spec.objective.metric, record.spec.seed)?;
    Some(format!("95 %: {:.3} to {:.3}.", i.low, i.high))
}

/// A figure of the header with its heading and a note.
pub fn tile(head: &str, value: &str, note: Markup, class: &str) -> Markup {
    html! {
        div class={ "tile " (class) } {
            p.head { (head) }
            p.value { (value) }
            p.note { (note) }
        }
    }
}

fn exhibit(e: &Exhibit) -> Result<Markup, DrawError> {
    let chart = e.chart.as_ref().map(|chart| Ok::<_, DrawError>((chart.width, chart.svg(&e.title)?))).transpose()?;
    let slug = &e.slug;
    Ok(html! {
        article id=(slug) {
            h3 { (printable(&e.title)) }
            p.question { (printable(&e.question)) }
            @if let Some((width, svg)) = &chart {
                figure { div.chart style={ "--w:" (width) "px" } { (PreEscaped(svg.trim_end())) } }
            }
            @if !e.pictures.is_empty() {
                div class=(if e.pictures.len() > 1 { "gallery" } else { "sheet" }) {
                    @for (caption, png) in &e.pictures {
                        figure {
                            img alt=(printable(caption)) src={
                                "data:image/png;base64," (base64::engine::general_purpose::STANDARD.encode(png))
                            };
                            figcaption { (printable(caption)) }
                        }
                    }
                }
            }
            @if !e.notes.is_empty() {
                ul.notes { @for note in &e.notes { li { (printable(note)) } } }
            }
            @if !e.table.rows.is_empty() {
                details open[e.chart.is_none()] {
                    summary { "Table (" (count(e.table.rows.len())) ")" }
                    (table(&e.table))
                    p.files {
                        "All figures: " a href={ "data/" (slug) ".csv" } { "CSV" }
                        @if chart.is_some() {
                            "; chart: " a href={ "charts/" (slug) ".svg" } { "SVG" } ", "
                            a href={ "charts/" (slug) ".png" } { "PNG" }
                        }
                    }
                }
            }
        }
    })
}

fn count(rows: usize) -> String {
    counted(rows, "row")
}

fn table(t: &Table) -> Markup {
    let numeric = |c: usize| t.rows.iter().all(|row| row.get(c).is_none_or(Cell::numeric));
    let class: Vec<Option<&str>> = (0..t.columns.len()).map(|c| numeric(c).then_some("n")).collect();
    let class = |c: usize| class.get(c).copied().flatten();
    html! {
        div.table {
            table {
                thead { tr { @for (c, name) in t.columns.iter().enumerate() { th class=[class(c)] { (printable(name)) } } } }
                tbody {
                    @for row in t.rows.iter().take(ROWS) {
                        tr { @for (c, cell) in row.iter().enumerate() { td class=[class(c)] { (printable(&cell.shown())) } } }
                    }
                }
            }
        }
        @if t.rows.len() > ROWS {
            p.files { "The first " (ROWS) " of " (t.rows.len()) " rows." }
        }
    }
}

fn study(record: &StudyRecord) -> Markup {
    // A spec consists of maps, numbers and texts, whose serialisation as JSON cannot fail.
    let spec = serde_json::to_string_pretty(&record.spec).unwrap_or_default();
    html! {
        section id="study" {
            h2 { "The study" }
            p.intro { "Everything the study file said, with its defaults; seed " (record.spec.seed) "." }
            article { details { summary { "As JSON" } pre { (spec) } } }
        }
    }
}
