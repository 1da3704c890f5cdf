//! The sections on the data and on the run: images, workers, failures.

use crate::engine::{FailureClass, TrialState};
use crate::report::draw::{Colour, Lane, bars, timeline};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::StudyRecord;
use crate::report::table::{Cell, Table};
use crate::wording::counted;
use std::collections::{BTreeMap, BTreeSet};

/// A failure class in words.
pub fn class(c: FailureClass) -> &'static str {
    match c {
        FailureClass::Oom => "out of memory",
        FailureClass::Diverged => "diverged",
        FailureClass::Timeout => "timeout",
        FailureClass::Crashed => "crashed",
        FailureClass::Lost => "worker lost",
        FailureClass::BadInput => "bad input",
    }
}

pub fn data(record: &StudyRecord) -> Section {
    let mut exhibits = vec![classes(record)];
    for (i, picture) in record.pictures.iter().enumerate() {
        let slug = format!("picture-{}", i + 1);
        let mut e = Exhibit::new(&slug, &picture.title, &picture.caption, None, Table::default());
        e.pictures.push((picture.title.clone(), picture.png.0.clone()));
        exhibits.push(e);
    }
    let intro = match &record.data {
        Some(d) if d.synthetic => "The images are synthetic: drawn by this program, taken from no patient.",
        Some(_) => "The images, and how they were divided.",
        None => "",
    };
    Section { id: "data", title: "What went in", intro: intro.into(), exhibits }
}

fn classes(record: &StudyRecord) -> Exhibit {
    let (slug, title, question) = ("classes", "Images of each class", "What went in?");
    let Some(data) = &record.data else {
        let why = match record.spec.runner {
            crate::spec::RunnerSpec::Image { .. } => "The record does not say how the images were divided.",
            _ => "This study has no images of its own: its runner brings the data.",
        };
        return Exhibit::missing(slug, title, question, why);
    };
    let mut table =
        Table::new(["split".to_owned()].into_iter().chain(data.classes.iter().cloned()).chain(["images".into()]));
    let mut values = Vec::new();
    for s in &data.splits {
        let mut row: Vec<Cell> = vec![s.name.as_str().into()];
        row.extend(s.counts.iter().map(|&n| Cell::from(n)));
        row.push(s.counts.iter().sum::<u64>().into());
        table.push(row);
        values.push((0..data.classes.len()).map(|c| s.counts.get(c).copied().unwrap_or(0) as f64).collect());
    }
    let groups: Vec<String> = data.splits.iter().map(|s| s.name.clone()).collect();
    let series: Vec<_> = data
        .classes
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let positive = data.classes.len() == 2 && i == data.positive as usize;
            (if positive { format!("{c} (positive)") } else { c.clone() }, Colour::series(i))
        })
        .collect();
    let mut e = Exhibit::new(slug, title, question, Some(bars(&groups, &series, &values, "images")), table)
        .note_if(
            data.patients.is_some(),
            format!("{} patients; none is in two splits.", data.patients.unwrap_or_default()),
        )
        .note_if(
            data.patients.is_none() && !data.synthetic,
            "Patients are not known here: images of one person may lie on both sides of a split.",
        );
    for note in &data.notes {
        e = e.note(format!("{note}."));
    }
    if !data.skipped.is_empty() {
        let named: Vec<String> = data.skipped.iter().take(5).map(|(p, why)| format!("{p} ({why})")).collect();
        let more = data.skipped.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        e = e.note(format!("{} left out: {}{more}.", counted(data.skipped.len(), "file"), named.join(", ")));
    }
    e
}

pub fn machine(record: &StudyRecord) -> Section {
    Section {
        id: "machine",
        title: "The run",
        intro: "Workers, failures, and what they cost.".into(),
        exhibits: vec![workers(record), failures(record)],
    }
}

fn workers(record: &StudyRecord) -> Exhibit {
    let (slug, title, question) = ("timeline", "Timeline of workers", "Was the hardware used?");
    let attempts: Vec<_> =
        record.orders.iter().flat_map(|o| o.attempts.iter().enumerate().map(move |(i, a)| (o, i, a))).collect();
    let Some(start) = attempts.iter().map(|a| a.2.started_ms).min() else {
        return Exhibit::missing(slug, title, question, "No worker has begun anything yet.");
    };
    let end = attempts.iter().map(|a| a.2.ended_ms.max(a.2.started_ms)).max().unwrap_or(start);
    let span = (end - start) as f64 / 1000.0;
    let (unit, scale) = match span {
        s if s > 7200.0 => ("hours since the first start", 3600.0),
        s if s > 180.0 => ("minutes since the first start", 60.0),
        _ => ("seconds since the first start", 1.0),
    };
    let at = |ms: u64| ms.saturating_sub(start) as f64 / 1000.0 / scale;
    let mut lanes: BTreeMap<u32, Lane> = BTreeMap::new();
    let mut table = Table::new([
        "worker",
        "order",
        "trial",
        "attempt",
        "start (s)",
        "end (s)",
        "from epoch",
        "to epoch",
        "ended by",
    ]);
    let mut busy = 0.0;
    for (o, i, a) in &attempts {
        let colour = match (&a.lost, &o.outcome) {
            (Some(_), _) => Colour::VERMILLION,
            (None, None) => Colour::ORANGE,
            _ => Colour::BLUE,
        };
        let lane =
            lanes.entry(a.worker).or_insert_with(|| Lane { name: format!("worker {}", a.worker), spans: Vec::new() });
        lane.spans.push((at(a.started_ms), at(a.ended_ms), colour, o.trial.to_string()));
        busy += a.ended_ms.saturating_sub(a.started_ms) as f64 / 1000.0;
        table.push([
            a.worker.into(),
            o.order.0.into(),
            o.trial.0.into(),
            (*i + 1).into(),
            Cell::Number(a.started_ms.saturating_sub(start) as f64 / 1000.0, 1),
            Cell::Number(a.ended_ms.saturating_sub(start) as f64 / 1000.0, 1),
            o.from.0.into(),
            o.to.0.into(),
            a.lost
                .as_ref()
                .map_or_else(|| if o.outcome.is_some() { "done" } else { "open" }.into(), |f| class(f.class).into()),
        ]);
    }
    let lanes: Vec<Lane> = lanes.into_values().collect();
    let keys = [
        ("attempt that counted".to_owned(), Colour::BLUE),
        ("attempt lost".to_owned(), Colour::VERMILLION),
        ("open".to_owned(), Colour::ORANGE),
    ];
    let used = if span > 0.0 { 100.0 * busy / (span * lanes.len() as f64) } else { 100.0 };
    let (seconds, waited) = record
        .trials
        .iter()
        .flat_map(|t| &t.epochs)
        .fold((0.0, 0.0), |(s, w), e| (s + e.seconds, w + e.data_wait_seconds));
    let chart = timeline(&lanes, at(end), unit, &keys);
    Exhibit::new(slug, title, question, Some(chart), table)
        .note(format!("Workers were busy {used:.0} % of the time from first start to last end, pauses between runs included. Numbers are trials."))
        .note_if(
            seconds > 0.0,
            format!("{:.1} % of training time was spent waiting for pixels.", 100.0 * waited / seconds.max(1e-9)),
        )
}

fn failures(record: &StudyRecord) -> Exhibit {
    let (slug, title, question) = ("failures", "Failures by class", "What went wrong?");
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut table = Table::new(["trial", "class", "ended the trial", "reason"]);
    for o in &record.orders {
        for lost in o.attempts.iter().filter_map(|a| a.lost.as_ref()) {
            counts.entry(class(lost.class)).or_default().0 += 1;
            table.push([o.trial.0.into(), class(lost.class).into(), "no".into(), lost.reason.as_str().into()]);
        }
    }
    for t in record.trials.iter().filter(|t| t.state == TrialState::Failed) {
        let Some(f) = &t.failure else { continue };
        counts.entry(class(f.class)).or_default().1 += 1;
        table.push([t.number.0.into(), class(f.class).into(), "yes".into(), f.reason.as_str().into()]);
    }
    if counts.is_empty() {
        return Exhibit::missing(slug, title, question, "Nothing failed.");
    }
    let groups: Vec<String> = counts.keys().map(|k| (*k).to_owned()).collect();
    let series = [("attempts lost".to_owned(), Colour::ORANGE), ("trials ended".to_owned(), Colour::VERMILLION)];
    let values: Vec<Vec<f64>> = counts.values().map(|c| vec![c.0 as f64, c.1 as f64]).collect();
    let trials: BTreeSet<u32> =
        record.trials.iter().filter(|t| t.state == TrialState::Failed).map(|t| t.number.0).collect();
    Exhibit::new(slug, title, question, Some(bars(&groups, &series, &values, "number")), table).note(format!(
        "{} of {} failed. A failed trial has no value and is never the best.",
        trials.len(),
        counted(record.trials.len(), "trial")
    ))
}
