//! The page: one file, no network, readable on screens of any width, in light and dark, and on paper.

use super::draw::DrawError;
use super::exhibit::{Exhibit, Section};
use super::figures::Evidence;
use super::model::StudyRecord;
use super::table::Table;
use crate::engine::TrialState;
use base64::Engine as _;
use std::fmt::Write as _;

/// Rows shown on the page; the CSV has all.
const ROWS: usize = 60;

/// Text with HTML's five characters escaped.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in SVG, and say nothing.
            c if c.is_control() && c != '\n' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub fn page(record: &StudyRecord, sections: &[Section]) -> Result<String, DrawError> {
    let name = escape(&record.spec.name);
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{name}: hyperparameter search</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n",
        include_str!("page.css")
    );
    header(&mut out, record, &name);
    let _ = write!(out, "<nav aria-label=\"Sections\"><ul>");
    for s in sections {
        let _ = write!(out, "<li><a href=\"#{}\">{}</a></li>", s.id, escape(s.title));
    }
    let _ = writeln!(out, "<li><a href=\"#study\">The study</a></li></ul></nav>\n<main>");
    for s in sections {
        let _ = writeln!(
            out,
            "<section id=\"{}\">\n<h2>{}</h2>\n<p class=\"intro\">{}</p>",
            s.id,
            escape(s.title),
            escape(&s.intro)
        );
        for e in &s.exhibits {
            exhibit(&mut out, e)?;
        }
        out.push_str("</section>\n");
    }
    study(&mut out, record);
    let _ = write!(
        out,
        "</main>\n<footer><p>Made by {}. The same record gives the same bytes. Charts as SVG and PNG lie in <code>charts/</code>, \
         their figures as CSV in <code>data/</code>, the record in <code>report.json</code>.</p></footer>\n</body>\n</html>\n",
        escape(&record.program)
    );
    Ok(out)
}

fn header(out: &mut String, record: &StudyRecord, name: &str) {
    let metric = record.spec.objective.metric.to_string();
    let ranked = record.ranking();
    let count = |s: TrialState| record.trials.iter().filter(|t| t.state == s).count();
    let epochs: usize = record.trials.iter().map(|t| t.epochs.len()).sum();
    let _ = write!(out, "<header>\n<p class=\"kicker\">Hyperparameter search</p>\n<h1>{name}</h1>\n");
    let direction = match record.spec.objective.direction {
        crate::spec::Direction::Maximize => "largest",
        crate::spec::Direction::Minimize => "smallest",
    };
    let mut facts = vec![
        format!("{direction} validation {}", escape(&metric)),
        if record.trials.len() == 1 { "1 trial".to_owned() } else { format!("{} trials", record.trials.len()) },
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
    facts.push(format!("{epochs} epochs"));
    let _ = writeln!(out, "<p class=\"facts\">{}</p>", facts.join(" · "));
    if record.data.as_ref().is_some_and(|d| d.synthetic) {
        out.push_str("<p class=\"banner\">The images of this study are synthetic. Nothing here says anything about patients.</p>\n");
    }
    out.push_str("<div class=\"tiles\">\n");
    let validation = Evidence::validation(record);
    let test = Evidence::test(record);
    match ranked.first().and_then(|t| Some((t, t.value?))) {
        None => tile(out, "Best trial", "none", "No trial has a value yet.", ""),
        Some((best, value)) => {
            let shown = |v: &crate::space::Value| match v {
                crate::space::Value::Float(x) => super::draw::short(*x),
                other => other.to_string(),
            };
            let params: Vec<String> = best
                .params
                .0
                .iter()
                .map(|(k, v)| format!("<span>{} <b>{}</b></span>", escape(k), escape(&shown(v))))
                .collect();
            tile(out, "Best trial", &best.number.to_string(), &params.join(" "), "wide");
            let note = match validation.entries.iter().find(|e| e.trial == best.number) {
                Some(e) if e.metrics.get(&record.spec.objective.metric).is_some() => {
                    interval_words(record, e).unwrap_or_else(|| "No interval: see the finalists.".into())
                }
                _ => String::new(),
            };
            let flattering = if ranked.len() > 1 { "Flattering: chosen by these images." } else { "" };
            let note = format!("{note} {flattering}");
            tile(out, &format!("Validation {}", escape(&metric)), &format!("{value:.4}"), note.trim(), "");
            let tested = test.as_ref().and_then(|t| t.entries.iter().find(|e| e.trial == best.number));
            match (&test, tested.and_then(|e| e.metrics.get(&record.spec.objective.metric).map(|v| (e, v)))) {
                (_, Some((e, v))) => {
                    let note = interval_words(record, e).unwrap_or_default();
                    tile(out, &format!("Test {}", escape(&metric)), &format!("{v:.4}"), &note, "sure");
                }
                (Some(_), None) => {
                    tile(out, "Test", "undefined", "The objective is not a figure of the test predictions.", "")
                }
                (None, None) => {
                    tile(
                        out,
                        &format!("Test {}", escape(&metric)),
                        "locked",
                        "The test images have not been opened. Only they can tell.",
                        "locked",
                    );
                }
            }
            if let Some(e) = test.as_ref().and_then(|t| t.entries.first()).or(validation.entries.first()) {
                let set = if test.is_some() { "test" } else { "validation" };
                let show = |v: Option<f64>| v.map_or("undefined".to_owned(), |v| format!("{v:.3}"));
                let note = format!(
                    "specificity {}, precision {}, F1 {}",
                    show(e.metrics.specificity),
                    show(e.metrics.precision),
                    show(e.metrics.f1)
                );
                let class = if test.is_some() { "sure" } else { "" };
                let head = format!("Recall at the operating point, {set}");
                tile(out, &head, &show(e.metrics.recall), &note, class);
            }
        }
    }
    out.push_str("</div>\n</header>\n");
}

fn interval_words(record: &StudyRecord, e: &super::figures::Entry) -> Option<String> {
    use crate::spec::Metric;
    let i = match record.spec.objective.metric {
        Metric::Recall => e.intervals[0],
        Metric::F1 => e.intervals[1],
        Metric::RocAuc => e.intervals[2],
        Metric::PrAuc => e.intervals[3],
        _ => None,
    }?;
    Some(format!("95 %: {:.3} to {:.3}.", i.low, i.high))
}

fn tile(out: &mut String, head: &str, value: &str, note: &str, class: &str) {
    let _ = writeln!(
        out,
        "<div class=\"tile {class}\"><p class=\"head\">{head}</p><p class=\"value\">{value}</p><p class=\"note\">{note}</p></div>"
    );
}

fn exhibit(out: &mut String, e: &Exhibit) -> Result<(), DrawError> {
    let slug = &e.slug;
    let _ = writeln!(
        out,
        "<article id=\"{slug}\">\n<h3>{}</h3>\n<p class=\"question\">{}</p>",
        escape(&e.title),
        escape(&e.question)
    );
    if let Some(chart) = &e.chart {
        let svg = chart.svg(&e.title)?;
        let _ = writeln!(
            out,
            "<figure><div class=\"chart\" style=\"--w:{}px\">{}</div></figure>",
            chart.width,
            svg.trim_end()
        );
    }
    if !e.pictures.is_empty() {
        let class = if e.pictures.len() > 1 { "gallery" } else { "sheet" };
        let _ = writeln!(out, "<div class=\"{class}\">");
        for (caption, png) in &e.pictures {
            let data = base64::engine::general_purpose::STANDARD.encode(png);
            let caption = escape(caption);
            let _ = writeln!(
                out,
                "<figure><img alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>"
            );
        }
        out.push_str("</div>\n");
    }
    if !e.notes.is_empty() {
        out.push_str("<ul class=\"notes\">");
        for n in &e.notes {
            let _ = write!(out, "<li>{}</li>", escape(n));
        }
        out.push_str("</ul>\n");
    }
    if !e.table.rows.is_empty() {
        let open = if e.chart.is_none() { " open" } else { "" };
        let n = e.table.rows.len();
        let rows = if n == 1 { "1 row".to_owned() } else { format!("{n} rows") };
        let _ = write!(out, "<details{open}><summary>Table ({rows})</summary>");
        table(out, &e.table);
        let _ = write!(out, "<p class=\"files\">All figures: <a href=\"data/{slug}.csv\">CSV</a>");
        if e.chart.is_some() {
            let _ =
                write!(out, "; chart: <a href=\"charts/{slug}.svg\">SVG</a>, <a href=\"charts/{slug}.png\">PNG</a>");
        }
        out.push_str("</p></details>\n");
    }
    out.push_str("</article>\n");
    Ok(())
}

fn table(out: &mut String, t: &Table) {
    out.push_str("<div class=\"table\"><table><thead><tr>");
    let numeric: Vec<bool> =
        (0..t.columns.len()).map(|c| t.rows.iter().all(|r| r.get(c).is_none_or(super::table::Cell::numeric))).collect();
    let class = |c: usize| if numeric.get(c) == Some(&true) { " class=\"n\"" } else { "" };
    for (c, name) in t.columns.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(c), escape(name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in t.rows.iter().take(ROWS) {
        out.push_str("<tr>");
        for (c, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(c), escape(&cell.shown()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>");
    if t.rows.len() > ROWS {
        let _ = write!(out, "<p class=\"files\">The first {ROWS} of {} rows.</p>", t.rows.len());
    }
}

fn study(out: &mut String, record: &StudyRecord) {
    // A spec is maps, numbers and texts: its JSON cannot fail.
    let spec = serde_json::to_string_pretty(&record.spec).unwrap_or_default();
    let _ = writeln!(
        out,
        "<section id=\"study\">\n<h2>The study</h2>\n<p class=\"intro\">Everything the study file said, with its defaults; seed {}.</p>\n\
         <article><details><summary>As JSON</summary><pre>{}</pre></details></article>\n</section>",
        record.spec.seed,
        escape(&spec)
    );
}
