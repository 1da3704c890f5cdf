//! The section on the search: history, rungs, learning curves.

use super::course::{HOW_COUNTED, course};
use super::evidence::Model;
use crate::engine::TrialState;
use crate::history::OutcomeKind;
use crate::report::draw::{Colour, Ladder, history, ladder, learning};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::{StudyRecord, TrialRecord};
use crate::report::table::{Cell, Table};
use crate::stats::kendall_tau;
use crate::wording::counted;
use std::collections::{BTreeMap, BTreeSet};

pub fn section(record: &StudyRecord) -> Section {
    let mut exhibits = vec![progress(record), learning_curves(record)];
    if record.orders.iter().any(|o| o.rung.is_some()) {
        exhibits.insert(1, rungs(record));
        exhibits.push(correlations(record));
    }
    Section {
        id: "search",
        title: "The search",
        intro: "Where the effort went, and whether more of it would pay.".into(),
        exhibits,
    }
}

/// The best value so far, with notes on the warm starts.
fn progress(record: &StudyRecord) -> Exhibit {
    record.warm_starts.iter().fold(best_so_far(record), |exhibit, (study, results)| {
        let results = counted(*results, "result");
        exhibit.note(format!("The search started warm, with {results} of study {study}; none is counted here."))
    })
}

fn best_so_far(record: &StudyRecord) -> Exhibit {
    let (slug, title, question) = ("history", "Best so far", "Is it still paying?");
    let course = match course(record) {
        Ok(course) => course,
        Err(why) => return Exhibit::missing(slug, title, question, why),
    };
    let mut table = Table::new(["trials measured", "epochs", "hours", "trial", "value", "best so far"]);
    let (mut dots, mut stairs) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
    for point in &course {
        for (i, x) in [point.trials as f64, point.epochs as f64, point.hours].into_iter().enumerate() {
            dots[i].push((x, point.value));
            stairs[i].push((x, point.best));
        }
        table.push([
            point.trials.into(),
            point.epochs.into(),
            Cell::Number(point.hours, 3),
            point.trial.0.into(),
            Cell::Number(point.value, 4),
            Cell::Number(point.best, 4),
        ]);
    }
    let mut names = ["trials measured", "epochs trained", "hours"].into_iter().zip(dots).zip(stairs);
    let panels: Vec<_> = names.by_ref().map(|((n, d), s)| (n, d, s)).collect();
    let objective = record.spec.objective.metric.to_string();
    Exhibit::new(slug, title, question, Some(history(&panels, &objective)), table)
        .note(HOW_COUNTED)
        .note("The best of many noisy values rises by luck too: see 'How lucky is the winner?'.")
}

fn rungs(record: &StudyRecord) -> Exhibit {
    let mut by: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for (i, o) in record.orders.iter().enumerate() {
        if let Some(rung) = o.rung {
            by.entry((o.bracket, rung)).or_default().push(i);
        }
    }
    let brackets = by.keys().map(|k| k.0).collect::<BTreeSet<_>>().len();
    let mut table = Table::new([
        "bracket",
        "rung",
        "to epoch",
        "trials in",
        "went on",
        "given up here",
        "failed",
        "open",
        "epochs",
    ]);
    let mut rows = Vec::new();
    for ((bracket, rung), orders) in &by {
        let next: BTreeSet<u32> =
            by.get(&(*bracket, rung + 1)).into_iter().flatten().map(|&i| record.orders[i].trial.0).collect();
        let last = by.keys().filter(|k| k.0 == *bracket).map(|k| k.1).max() == Some(*rung);
        let mut parts = [0u64; 4];
        let mut epochs = 0;
        for &i in orders {
            let o = &record.orders[i];
            let state = record.trial(o.trial).map(|t| t.state);
            let full = u64::from(o.to.0 - o.from.0);
            let part = match &o.outcome {
                None => 3,
                Some((OutcomeKind::Failed, _)) => 2,
                Some(_) if next.contains(&o.trial.0) => 0,
                // A complete trial at the top rung counts as gone on; below it, paused trials may still be promoted.
                Some(_) if last && state == Some(TrialState::Complete) => 0,
                Some(_) if matches!(state, Some(TrialState::Paused | TrialState::Waiting | TrialState::Running)) => 3,
                Some(_) => 1,
            };
            parts[part] += 1;
            epochs += match &o.outcome {
                Some((OutcomeKind::Reached, _)) => full,
                Some((OutcomeKind::Stopped, at)) => u64::from(at.0.saturating_sub(o.from.0)),
                _ => record
                    .trial(o.trial)
                    .map_or(0, |t| t.epochs.iter().filter(|e| e.epoch > o.from && e.epoch <= o.to).count() as u64),
            };
        }
        let to = orders.iter().map(|&i| record.orders[i].to.0).max().unwrap_or(0);
        let name = match brackets {
            1 => format!("rung {rung}, to epoch {to}"),
            _ => format!("bracket {bracket}, rung {rung}, to epoch {to}"),
        };
        let mut row: Vec<Cell> = vec![(*bracket).into(), (*rung).into(), to.into(), orders.len().into()];
        row.extend(parts.map(Cell::from));
        row.push(epochs.into());
        table.push(row);
        rows.push(Ladder { name, parts, epochs });
    }
    Exhibit::new("rungs", "Rung ladder", "Where did the epochs go?", Some(ladder(&rows)), table)
        .note("A rung's epochs are those trained to get there from the rung below.")
}

/// How many trials are drawn in the foreground; the others are context.
const FOREGROUND: usize = 5;
/// How many curves are drawn at most.
const CURVES: usize = 400;

fn learning_curves(record: &StudyRecord) -> Exhibit {
    let (slug, title, question) = ("learning-curves", "Learning curves", "Were the losers losers?");
    let ranked = record.ranking();
    let lead: Vec<u32> =
        ranked.iter().take(FOREGROUND.min(record.finalists.len().max(1))).map(|t| t.number.0).collect();
    let points = |t: &TrialRecord| -> Vec<(f64, f64)> {
        t.epochs.iter().filter_map(|e| Some((f64::from(e.epoch.0), e.value.filter(|v| v.is_finite())?))).collect()
    };
    let mut table =
        Table::new(["trial", "state", "epoch", "value", "train loss", "seconds", "seconds waiting for data"]);
    for t in &record.trials {
        for e in &t.epochs {
            table.push([
                t.number.0.into(),
                t.state.as_ref().into(),
                e.epoch.0.into(),
                Cell::number(e.value, 4),
                Cell::number(e.train_loss, 4),
                Cell::number(Some(e.seconds), 2),
                Cell::number(Some(e.data_wait_seconds), 2),
            ]);
        }
    }
    let fate = |t: &TrialRecord| match t.state {
        TrialState::Complete => Colour::SKY.alpha(0.75),
        TrialState::Failed => Colour::VERMILLION.alpha(0.8),
        _ => Colour::FAINT.alpha(0.7),
    };
    let level = |t: &TrialRecord| match t.state {
        TrialState::Complete => 1,
        TrialState::Failed => 2,
        _ => 0,
    };
    let mut drawn: Vec<&TrialRecord> =
        record.trials.iter().filter(|t| !lead.contains(&t.number.0) && !t.epochs.is_empty()).collect();
    let all = drawn.len();
    // Too many are thinned evenly by number: a fixed choice that does not depend on values.
    if all > CURVES {
        drawn = (0..CURVES).map(|i| drawn[i * all / CURVES]).collect();
    }
    drawn.sort_by_key(|t| (level(t), t.number));
    let mut curves: Vec<_> = drawn.iter().map(|t| (points(t), fate(t), 1.1)).collect();
    let mut keys = vec![
        ("trained to the end".to_owned(), Colour::SKY),
        ("given up or paused".to_owned(), Colour::FAINT),
        ("failed".to_owned(), Colour::VERMILLION),
    ];
    for (i, n) in lead.iter().enumerate().rev() {
        if let Some(t) = record.trials.iter().find(|t| t.number.0 == *n) {
            let colour = if i == 0 { Colour::BLUE } else { Colour::GREEN };
            curves.push((points(t), colour, if i == 0 { 2.6 } else { 1.5 }));
        }
    }
    if let Some(best) = lead.first() {
        keys.insert(0, (format!("best: {}", Model::Trial(crate::ids::TrialNumber(*best))), Colour::BLUE));
        if lead.len() > 1 {
            keys.insert(1, ("other leaders".to_owned(), Colour::GREEN));
        }
    }
    if curves.iter().all(|c| c.0.is_empty()) {
        return Exhibit::missing(slug, title, question, "No epoch has a defined value yet.");
    }
    let brackets: BTreeSet<u32> = record.orders.iter().filter(|o| o.rung.is_some()).map(|o| o.bracket).collect();
    let rungs: BTreeSet<u32> = match brackets.len() {
        // The rungs of several brackets have different epochs: their marks would confuse.
        1 => record.orders.iter().filter(|o| o.rung.is_some()).map(|o| o.to.0).collect(),
        _ => BTreeSet::new(),
    };
    let rungs: Vec<f64> = rungs.into_iter().map(f64::from).collect();
    let value = record.spec.objective.metric.to_string();
    let contradictory = super::answer::worse_than_chance(record.trials.iter());
    Exhibit::new(slug, title, question, Some(learning(&curves, &rungs, &value, &keys)), table)
        .note("Values on the validation images after each epoch.")
        .note_if(!contradictory.is_empty(), contradictory)
        .note_if(all > CURVES, format!("{CURVES} of {all} other trials are drawn, evenly by number; the CSV has all."))
}

fn correlations(record: &StudyRecord) -> Exhibit {
    let (slug, title) = ("rung-correlation", "Rank correlation between rungs");
    let question = "Can low rungs be trusted?";
    let ends: BTreeSet<u32> = record.orders.iter().filter(|o| o.rung.is_some()).map(|o| o.to.0).collect();
    let ends: Vec<u32> = ends.into_iter().collect();
    let value_at = |t: &TrialRecord, epoch: u32| t.epochs.iter().find(|e| e.epoch.0 == epoch).and_then(|e| e.value);
    let mut table = Table::new(["epoch", "later epoch", "trials at both", "Kendall's tau"]);
    for (i, &a) in ends.iter().enumerate() {
        for &b in &ends[i + 1..] {
            let (x, y): (Vec<f64>, Vec<f64>) =
                record.trials.iter().filter_map(|t| Some((value_at(t, a)?, value_at(t, b)?))).unzip();
            table.push([a.into(), b.into(), x.len().into(), Cell::number(kendall_tau(&x, &y), 3)]);
        }
    }
    if table.rows.is_empty() {
        return Exhibit::missing(slug, title, question, "There is one rung only.");
    }
    Exhibit::new(slug, title, question, None, table).note(
        "Of trials that reached both epochs. Only those promoted are seen at the later one, which makes tau look \
         smaller than it is among all trials.",
    )
}
