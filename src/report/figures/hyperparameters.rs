//! The section on hyperparameters: which of them matter, and where their good values lie.

use crate::engine::TrialState;
use crate::ids::TrialNumber;
use crate::report::draw::{Axis, Colour, Span, parallel, slice_grid, whiskers};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::{StudyRecord, TrialRecord};
use crate::report::table::{Cell, Table};
use crate::rng::{Purpose, StreamRng};
use crate::space::{Domain, Parameter, Value};
use crate::stats::{Interval, midranks, percentile_interval, spearman};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// How many parameters are drawn at most.
const AXES: usize = 12;

pub fn section(record: &StudyRecord) -> Section {
    let searched: Vec<&Parameter> =
        record.spec.space.parameters.iter().filter(|p| !matches!(p.domain, Domain::Fixed { .. })).collect();
    let exhibits = match searched.is_empty() {
        true => Vec::new(),
        false => vec![importance(record, &searched), slices(record, &searched), coordinates(record, &searched)],
    };
    let intro = match searched.is_empty() {
        true => "The study searches no parameter.",
        false => "Which parameter matters, and where its good values lie.",
    };
    Section { id: "parameters", title: "The parameters", intro: intro.into(), exhibits }
}

fn axis(p: &Parameter) -> Axis {
    let names = |v: &[Value]| Axis::Choices(v.iter().map(Value::to_string).collect());
    match &p.domain {
        Domain::Float { low, high, log, .. } => Axis::Numbers(range(*low, *high, *log)),
        Domain::Int { low, high, log, .. } => Axis::Numbers(range(*low as f64, *high as f64, *log)),
        Domain::Categorical { choices } | Domain::Ordinal { choices } => names(choices),
        Domain::Fixed { value } => names(std::slice::from_ref(value)),
    }
}

fn range(low: f64, high: f64, log: bool) -> Span {
    if log { Span::log(low, high) } else { Span::linear(low, high) }
}

/// A trial's place on the axis of a parameter.
fn place(p: &Parameter, t: &TrialRecord) -> Option<f64> {
    let value = t.params.get(&p.name)?;
    match &p.domain {
        Domain::Categorical { choices } | Domain::Ordinal { choices } => {
            choices.iter().position(|c| c.same(value)).map(|i| i as f64)
        }
        _ => value.as_f64(),
    }
}

fn slices(record: &StudyRecord, searched: &[&Parameter]) -> Exhibit {
    let (slug, title, question) = ("slices", "Value against each parameter", "Where do the good values lie?");
    let ranked = record.ranking();
    if ranked.is_empty() {
        return Exhibit::missing(slug, title, question, "No trial has a value yet.");
    }
    let mut table = Table::new(["parameter", "trial", "value of parameter", "objective", "state"]);
    let mut panels = Vec::new();
    for p in searched.iter().take(AXES) {
        let mut points = Vec::new();
        for t in &ranked {
            let (Some(x), Some(v)) = (place(p, t), t.value) else { continue };
            points.push((x, v, if t.state == TrialState::Complete { 1.0 } else { 0.0 }));
            let shown = t.params.get(&p.name).map_or(Cell::Missing, |v| match v.as_f64() {
                Some(x) => Cell::Short(x),
                None => v.to_string().into(),
            });
            table.push([p.name.as_str().into(), t.number.0.into(), shown, Cell::Number(v, 4), t.state.as_ref().into()]);
        }
        panels.push((p.name.clone(), axis(p), points));
    }
    let chart = slice_grid(&panels, &record.spec.objective.metric.to_string());
    Exhibit::new(slug, title, question, Some(chart), table)
        .note("Blue: trained to the end. Grey: cut short, with the value of the latest epoch, so not on equal terms.")
        .note_if(searched.len() > AXES, format!("The first {AXES} of {} parameters are drawn.", searched.len()))
}

fn coordinates(record: &StudyRecord, searched: &[&Parameter]) -> Exhibit {
    let (slug, title) = ("parallel", "Parallel coordinates");
    let question = "Which combinations do well?";
    let ranked = record.ranking();
    if ranked.is_empty() {
        return Exhibit::missing(slug, title, question, "No trial has a value yet.");
    }
    let shown = &searched[..searched.len().min(AXES)];
    let mut axes: Vec<(String, Axis)> = shown.iter().map(|p| (p.name.clone(), axis(p))).collect();
    let values: Vec<f64> = ranked.iter().filter_map(|t| t.value).collect();
    axes.push((record.spec.objective.metric.to_string(), Axis::Numbers(Span::around(values.iter().copied()))));
    let finalists: BTreeSet<TrialNumber> = match record.finalists.is_empty() {
        true => ranked.iter().take(3).map(|t| t.number).collect(),
        false => record.finalists.iter().take(3).map(|f| f.trial).collect(),
    };
    let n = ranked.len();
    let lines: Vec<_> = ranked
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let places = shown.iter().map(|p| place(p, t)).chain([t.value]).collect();
            let quality = if n > 1 { 1.0 - i as f64 / (n - 1) as f64 } else { 1.0 };
            (places, quality, finalists.contains(&t.number))
        })
        .collect();
    let names = shown.iter().map(|p| p.name.clone()).chain([axes[axes.len() - 1].0.clone()]);
    let mut table = Table::new(["trial".to_owned(), "rank".to_owned()].into_iter().chain(names));
    for (i, t) in ranked.iter().enumerate() {
        let mut row: Vec<Cell> = vec![t.number.0.into(), (i + 1).into()];
        row.extend(shown.iter().map(|p| match t.params.get(&p.name) {
            None => Cell::Missing,
            Some(v) => v.as_f64().map_or_else(|| v.to_string().into(), Cell::Short),
        }));
        row.push(Cell::number(t.value, 4));
        table.push(row);
    }
    Exhibit::new(slug, title, question, Some(parallel(&axes, &lines)), table).note(
        "Lines are coloured by rank. A line in the lowest row passes a parameter that does not exist in that trial.",
    )
}

/// Trials needed before importance can be estimated.
const ENOUGH: usize = 10;

/// Shufflings of the values among the trials.
const SHUFFLINGS: u64 = 1000;

fn importance(record: &StudyRecord, searched: &[&Parameter]) -> Exhibit {
    let (slug, title) = ("importance", "What each parameter explains");
    let question = "Which hyperparameter matters?";
    let live = || record.trials.iter().filter(|t| t.state != TrialState::Failed);
    let value_at = |t: &TrialRecord, epoch: u32| {
        t.epochs.iter().find(|e| e.epoch.0 == epoch).and_then(|e| e.value).filter(|v| v.is_finite())
    };
    // Values after different numbers of epochs are not comparable, so all are taken at one epoch: the latest that at
    // least half of the trials reached, so that not only the winners are compared.
    let epochs: BTreeSet<u32> = live().flat_map(|t| t.epochs.iter().map(|e| e.epoch.0)).collect();
    let measured = live().filter(|t| !t.epochs.is_empty()).count();
    let reached = |epoch: u32| live().filter(|t| value_at(t, epoch).is_some()).count();
    let Some(epoch) = epochs.into_iter().rev().find(|e| reached(*e) * 2 >= measured && reached(*e) >= ENOUGH) else {
        let why = format!("Fewer than {ENOUGH} trials share an epoch: too few to tell parameters apart.");
        return Exhibit::missing(slug, title, question, &why);
    };
    let trials: Vec<(&TrialRecord, f64)> = live().filter_map(|t| Some((t, value_at(t, epoch)?))).collect();
    let values: Vec<f64> = trials.iter().map(|t| t.1).collect();
    let ranks = midranks(&values);
    let mut rows = Vec::new();
    for p in searched.iter().take(24) {
        let places: Vec<Option<f64>> = trials.iter().map(|t| place(p, t.0)).collect();
        let groups = groups(&places, matches!(p.domain, Domain::Categorical { .. } | Domain::Ordinal { .. }));
        let estimate = explained(&groups, &ranks);
        let chance = estimate.and_then(|_| without_effect(&groups, &ranks, record.spec.seed));
        let rho = match p.domain {
            Domain::Categorical { .. } => None,
            _ => {
                let (x, y): (Vec<f64>, Vec<f64>) =
                    places.iter().zip(&values).filter_map(|(p, v)| Some(((*p)?, *v))).unzip();
                spearman(&x, &y)
            }
        };
        rows.push((p.name.clone(), estimate, chance, rho));
    }
    rows.sort_by(|a, b| b.1.unwrap_or(-1.0).total_cmp(&a.1.unwrap_or(-1.0)).then_with(|| a.0.cmp(&b.0)));
    let mut table = Table::new([
        "parameter",
        "share of rank variance",
        "without effect, from",
        "without effect, to",
        "rank correlation with the value",
    ]);
    for (name, estimate, chance, rho) in &rows {
        table.push([
            name.as_str().into(),
            Cell::number(*estimate, 3),
            Cell::number(chance.map(|i| i.low), 3),
            Cell::number(chance.map(|i| i.high), 3),
            Cell::number(*rho, 3),
        ]);
    }
    let names: Vec<String> = rows.iter().map(|r| r.0.clone()).collect();
    let points: Vec<_> = rows.iter().map(|r| vec![(r.1, r.2)]).collect();
    let panel = ("Share of rank variance explained by one parameter alone", Some(0.0));
    let keys = [("dot: explained; line: what a parameter without effect explains by chance".to_owned(), Colour::INK)];
    let chart = whiskers(&names, &[panel], &points, None, &keys, false);
    Exhibit::new(slug, title, question, Some(chart), table).note(format!(
        "Of the ranks of {} trials after epoch {epoch}: variance between groups of like values (numbers in four groups \
         of equal size), corrected for the number of groups (epsilon squared; about 0, even below, for a parameter without \
         effect). Interactions between parameters are not seen; with samplers that learn, good regions are visited more \
         often.",
        trials.len()
    ))
    .note(format!(
        "The line is no interval of the dot: it is where a parameter without effect lies in 95 % of {SHUFFLINGS} shufflings \
         of the values among the trials. A dot to the right of its line explains more than chance does; of forty \
         parameters without effect, one lies there all the same."
    ))
}

/// Group of each trial: its choice, or the quartile of its number; trials without the parameter are a group too.
fn groups(places: &[Option<f64>], choices: bool) -> Vec<usize> {
    let present: Vec<f64> = places.iter().copied().flatten().collect();
    let ranks = midranks(&present);
    let mut rank = ranks.iter();
    places
        .iter()
        .map(|p| match p {
            None => 0,
            Some(v) if choices => {
                let _ = rank.next();
                1 + *v as usize
            }
            Some(_) => {
                let r = rank.next().copied().unwrap_or(1.0);
                1 + (((r - 0.5) / present.len() as f64 * 4.0) as usize).min(3)
            }
        })
        .collect()
}

/// Where the share of a parameter without effect lies in 95 % of shufflings of the values among the trials: a permutation
/// test (Fisher 1935), exact for any number of trials, as every rank, every tie and the size of every group stays. It
/// stands in place of a bootstrap interval of the share, which would be wrong: a trial that is drawn twice ties with itself
/// in the same group, so that the shares of draws lie about the uncorrected share instead of the corrected one, and a
/// parameter without effect would seem to have one.
fn without_effect(groups: &[usize], ranks: &[f64], seed: u64) -> Option<Interval> {
    let shares: Vec<Option<f64>> = (0..SHUFFLINGS)
        .into_par_iter()
        .map(|draw| {
            let mut shuffled = ranks.to_vec();
            StreamRng::keyed(seed, Purpose::Bootstrap, &[1, draw]).shuffle(&mut shuffled);
            explained(groups, &shuffled)
        })
        .collect();
    percentile_interval(&shares, 0.95)
}

/// Epsilon squared (Kelley 1935) of ranks between groups.
fn explained(groups: &[usize], ranks: &[f64]) -> Option<f64> {
    let n = ranks.len() as f64;
    let mean = (n + 1.0) / 2.0;
    let total: f64 = ranks.iter().map(|r| (r - mean).powi(2)).sum();
    let size = groups.iter().max()? + 1;
    let mut sums = vec![(0.0, 0.0); size];
    for (&group, r) in groups.iter().zip(ranks) {
        sums[group].0 += 1.0;
        sums[group].1 += r - mean;
    }
    let filled = sums.iter().filter(|s| s.0 > 0.0);
    let k = filled.clone().count() as f64;
    if total <= 0.0 || k < 2.0 || n <= k {
        return None;
    }
    let between: f64 = filled.map(|s| s.1 * s.1 / s.0).sum();
    let within = (total - between) / (n - k);
    Some((between - (k - 1.0) * within) / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_decides_explains_all_and_noise_explains_nothing() {
        let values: Vec<f64> = (0..40).map(f64::from).collect();
        let ranks = midranks(&values);
        let decides: Vec<Option<f64>> = values.iter().map(|v| Some(*v)).collect();
        let noise: Vec<Option<f64>> = (0..40).map(|i| Some(f64::from((i * 17) % 40))).collect();
        let share = explained(&groups(&decides, false), &ranks).unwrap();
        assert!(share > 0.9 && share > without_effect(&groups(&decides, false), &ranks, 1).unwrap().high);
        assert!(explained(&groups(&noise, false), &ranks).unwrap() < 0.15);
        assert_eq!(explained(&[1; 40], &ranks), None);
        assert_eq!(without_effect(&[1; 40], &ranks, 1), None);
    }

    #[test]
    fn a_parameter_without_effect_lies_in_the_band_of_chance_in_19_of_20_studies() {
        let groups: Vec<usize> = (0..20).map(|i| i % 4).collect();
        let (mut inside, mut beyond) = (0, 0);
        for seed in 0..200 {
            let mut rng = StreamRng::keyed(seed, Purpose::Test, &[]);
            let values: Vec<f64> = groups.iter().map(|_| rng.unit()).collect();
            let ranks = midranks(&values);
            let share = explained(&groups, &ranks).unwrap();
            let Interval { low, high } = without_effect(&groups, &ranks, seed).unwrap();
            assert!(low < 0.0 && high > 0.0, "{low} to {high}: about 0, not about the uncorrected 3/19");
            inside += u32::from((low..=high).contains(&share));
            beyond += u32::from(share > high);
        }
        // 190 and 5 are expected, with standard deviations of 3 and 2.
        assert!((178..=199).contains(&inside), "{inside}");
        assert!(beyond <= 13, "{beyond}");
    }
}
