//! The section on the result: the finalists side by side, whether they differ, and how lucky the winner is.

use super::evidence::{Entry, Evidence, Model};
use crate::engine::TrialState;
use crate::report::draw::{Colour, luck, whiskers};
use crate::report::exhibit::{Exhibit, Section};
use crate::report::model::{StudyRecord, TrialRecord};
use crate::report::table::{Cell, Table};
use crate::spec::{Direction, Metric};
use crate::stats::{Interval, expected_maximum, hanley_mcneil, holm, quantile};
use crate::wording::counted;

pub fn section(record: &StudyRecord, validation: &Evidence, test: Option<&Evidence>) -> Section {
    // Without predictions of the test images there is nothing to show of them.
    let shown = test.filter(|test| !test.entries.is_empty());
    let mut exhibits = vec![finalists(record, validation, shown)];
    exhibits.push(selection(record, validation, test));
    exhibits.push(differences(shown.unwrap_or(validation)));
    exhibits.push(trials(record));
    Section {
        id: "answer",
        title: "The answer",
        intro: "Which configuration to take, whether the leaders differ at all, and how much of the lead is luck."
            .into(),
        exhibits,
    }
}

/// A model in a column of trials.
fn whose(model: Model) -> Cell {
    model.trial().map_or_else(|| model.short().into(), |trial| trial.0.into())
}

/// How many trials a warning names at most.
const NAMED: usize = 8;

/// How many finalists are compared pair by pair at most, the mean not counted: more pairs cannot be read.
const COMPARED: usize = 8;

const WHY_NONE: &str = "Nothing to compare: no trial left validation predictions (none has finished an epoch yet, \
                        or this kind of runner gives none).";

fn finalists(record: &StudyRecord, validation: &Evidence, test: Option<&Evidence>) -> Exhibit {
    let (slug, title) = ("finalists", "Finalists side by side");
    let question = "Are the leaders different at all?";
    let main = test.unwrap_or(validation);
    if main.entries.is_empty() {
        return Exhibit::missing(slug, title, question, WHY_NONE);
    }
    let figures = |e: &Entry| [e.metrics.recall, e.metrics.f1, e.metrics.roc_auc];
    let mut table = Table::new(["set", "trial", "metric", "value", "low", "high", "threshold"]);
    for evidence in std::iter::once(validation).chain(test) {
        for e in &evidence.entries {
            let all = [
                ("recall", e.metrics.recall),
                ("f1", e.metrics.f1),
                ("roc_auc", e.metrics.roc_auc),
                ("pr_auc", e.metrics.pr_auc),
            ];
            for ((metric, value), interval) in all.into_iter().zip(e.intervals) {
                table.push([
                    evidence.set.into(),
                    whose(e.model),
                    metric.into(),
                    Cell::number(value, 4),
                    Cell::number(interval.map(|i| i.low), 4),
                    Cell::number(interval.map(|i| i.high), 4),
                    Cell::number(e.threshold, 4),
                ]);
            }
        }
    }
    let names: Vec<String> = main.entries.iter().map(|e| e.model.to_string()).collect();
    let values: Vec<_> =
        main.entries.iter().map(|e| figures(e).into_iter().zip(e.intervals).collect::<Vec<_>>()).collect();
    let second: Option<Vec<Vec<Option<f64>>>> = test.map(|t| {
        let of = |model| validation.entries.iter().find(|v| v.model == model);
        t.entries.iter().map(|e| of(e.model).map_or(vec![None; 3], |v| figures(v).to_vec())).collect()
    });
    let panels = if main.entries[0].predictions.classes.len() == 2 {
        [("Recall", None), ("F1", None), ("ROC-AUC", None)]
    } else {
        [("Recall, macro", None), ("F1, macro", None), ("ROC-AUC, macro", None)]
    };
    let keys = match test {
        Some(_) => vec![
            ("filled: test images".to_owned(), Colour::INK),
            ("hollow: the same trial on validation images".to_owned(), Colour::FAINT),
        ],
        None => Vec::new(),
    };
    let chart = whiskers(&names, &panels, &values, second.as_deref(), &keys, true);
    let warning = worse_than_chance(main.entries.iter().filter_map(|e| record.trial(e.model.trial()?)));
    let exact = main.entries.iter().any(|e| e.metrics.roc_auc == Some(1.0));
    let rows = &main.entries[0].predictions.rows;
    let unknown = rows.iter().filter(|row| row.patient.is_none()).count();
    let best = record.ranking().first().map(|t| t.number);
    let untested = best.filter(|best| test.is_some_and(|test| test.of(Model::Trial(*best)).is_none()));
    Exhibit::new(slug, title, question, Some(chart), table)
        .note(main.method())
        .note_if(
            record.spec.runner.folds().is_some(),
            "A trial's value is the mean of its folds' figures. Figures, intervals and charts of validation images are of all \
             folds' predictions together, each by the model that was not trained on the image. On test images the \
             scores of the folds' models are averaged: such means are less spread than the single scores by which the \
             threshold was chosen, so its recall and specificity need not carry over.",
        )
        .note_if(
            main.clustered && unknown > 0,
            format!(
                "Of {unknown} of these {} the patient is not known: each counts as a patient of its own.",
                counted(rows.len(), "image")
            ),
        )
        .note(match main.entries[0].predictions.classes.len() {
            2 => "Recall and F1 are taken at each trial's operating point, which is fixed on validation images.",
            _ => "Figures are means over classes; the class with the highest score is called.",
        })
        .note_if(
            main.entries.iter().any(|e| e.model.trial().is_none()),
            "The mean is that of the finalists' scores, image by image, at a threshold that is fixed on validation images like \
             theirs. No choice is made among them, so it is not the lucky one of several.",
        )
        .note_if(!warning.is_empty(), warning)
        .note_if(
            test.is_none(),
            format!(
                "These are the validation images by which the finalists were chosen: the figures flatter the best ones. {}",
                match &record.test {
                    None => "The test images are still locked.",
                    Some(opening) if opening.results.is_empty() => {
                        "The opening of the test images was interrupted: it has no results."
                    }
                    Some(_) => "The test images were opened, but their predictions are gone.",
                }
            ),
        )
        .note_if(
            untested.is_some(),
            format!(
                "The best on validation is not among them. {}",
                untested.and_then(|best| Evidence::why_not_tested(record, best)).unwrap_or_default()
            ),
        )
        .note_if(
            exact,
            "An area of exactly 1 means that these images are separated without error; it has no interval, \
             because resampling perfect separation shows no spread. More images would.",
        )
}

/// A warning about trials whose ROC-AUC was no better than chance while their training loss fell; empty without any.
pub fn worse_than_chance<'a>(trials: impl Iterator<Item = &'a TrialRecord>) -> String {
    let found: Vec<String> = trials
        .filter_map(|t| {
            let (epoch, roc_auc) = t.worse_than_chance?;
            Some(format!("trial {} after epoch {epoch} ({roc_auc:.3})", t.number))
        })
        .collect();
    if found.is_empty() {
        return String::new();
    }
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "Warning: while the training loss fell, the ROC-AUC on validation images was no better than chance for {}{more}. \
         Training of this kind is not to be trusted: lower the learning rates.",
        found[..found.len().min(NAMED)].join(", ")
    )
}

/// The standard error of the best finalist's objective and the method behind it: for ROC-AUC DeLong's where images are
/// independent, for accuracy the binomial one, else the bootstrap's, where the report resamples the objective.
fn standard_error(record: &StudyRecord, validation: &Evidence) -> Option<(f64, &'static str)> {
    let best = validation.entries.first()?;
    let metric = &record.spec.objective.metric;
    let width = || {
        let interval = best.interval(metric, record.spec.seed)?;
        Some(((interval.high - interval.low) / (2.0 * quantile(0.975)), "bootstrap"))
    };
    match metric {
        Metric::RocAuc => {
            if !validation.clustered
                && let Some(delong) = validation.delong()
                && delong.estimate(0).se > 0.0
            {
                return Some((delong.estimate(0).se, "DeLong"));
            }
            let (_, positive) = best.predictions.versus_rest(best.predictions.positive as usize);
            let m = positive.iter().filter(|p| **p).count() as u64;
            let n = positive.len() as u64 - m;
            // There is no interval if the area is 1: the standard error at 0.99 is used instead.
            width().or_else(|| hanley_mcneil(best.metrics.roc_auc?.min(0.99), m, n).map(|se| (se, "Hanley and McNeil")))
        }
        Metric::Accuracy => {
            let (p, n) = (best.metrics.accuracy?, best.predictions.rows.len() as f64);
            Some(((p * (1.0 - p) / n).sqrt(), "binomial")).filter(|se| se.0 > 0.0)
        }
        _ => width(),
    }
}

/// Why no standard error of the objective is known, as part of a sentence.
fn without_standard_error(record: &StudyRecord, validation: &Evidence) -> String {
    let metric = &record.spec.objective.metric;
    match metric {
        Metric::Custom(_) => "it is not a figure of predictions".to_owned(),
        _ if validation.entries.is_empty() => "no validation predictions are there".to_owned(),
        Metric::BalancedAccuracy | Metric::Brier | Metric::LogLoss => format!("the report does not resample {metric}"),
        _ => "it is undefined on these images, or does not vary when they are resampled".to_owned(),
    }
}

fn selection(record: &StudyRecord, validation: &Evidence, test: Option<&Evidence>) -> Exhibit {
    let (slug, title) = ("selection", "How lucky is the winner?");
    let question = "How much of the best value is skill, and how much is having tried many?";
    let ranked = record.ranking();
    let Some((best, value)) = ranked.first().and_then(|t| Some((*t, t.value?))) else {
        return Exhibit::missing(slug, title, question, "No trial has a value yet.");
    };
    let full: Vec<f64> = ranked.iter().filter(|t| t.state == TrialState::Complete).filter_map(|t| t.value).collect();
    // Trials stopped early were candidates too: every measured trial counts.
    let tried = ranked.len();
    let Some((se, how)) = standard_error(record, validation) else {
        let why = format!(
            "No standard error of the objective is known here ({}), so the luck of the best of several trials cannot be \
             estimated.",
            without_standard_error(record, validation)
        );
        return Exhibit::missing(slug, title, question, &why);
    };
    let gain = expected_maximum(tried) * se;
    let higher = record.spec.objective.direction == Direction::Maximize;
    let deflated = if higher { value - gain } else { value + gain };
    let metric = &record.spec.objective.metric;
    let entry = test.and_then(|t| t.of(Model::Trial(best.number)));
    let tested = entry.and_then(|e| e.objective(metric));
    let values: Vec<f64> = ranked.iter().filter_map(|t| t.value).collect();
    let chart = luck(&values, value, gain, se, higher, tested, &metric.to_string());
    let mut table = Table::new(["figure", "value"]);
    let mut row = |name: &str, cell: Cell| table.push([name.into(), cell]);
    row("trials measured", tried.into());
    row("of them trained to the end", full.len().into());
    row("best on validation", Cell::Number(value, 4));
    row("standard error of one value", Cell::Number(se, 4));
    row("expected best of that many equal trials, in standard errors", Cell::Number(expected_maximum(tried), 3));
    row("gain by luck alone, if all were equal", Cell::Number(gain, 4));
    row("best, less that luck", Cell::Number(deflated, 4));
    row("the same trial on test images", Cell::number(tested, 4));
    Exhibit::new(slug, title, question, Some(chart), table)
        .note(match tried {
            1 => "One trial was measured: nothing was chosen, so there is no luck of the choice to subtract.".to_owned(),
            _ => format!(
            "If all {tried} trials were equally good, the best would still show {gain:.4} above the truth: the \
             expected largest of {tried} normal numbers is {:.2} standard errors, and one value has a standard error of \
             {se:.4} ({how}). That is an upper estimate: trials on the same images vary together, and \
             truly better trials win more by merit.",
            expected_maximum(tried)
        ),
        })
        .note(match (tested, entry, Evidence::why_not_tested(record, best.number)) {
            (Some(t), ..) => {
                format!("On the test images, which played no part in the choice, the winner reaches {t:.4}.")
            }
            (None, Some(_), _) => format!("On the test images {metric} of the winner is undefined."),
            (None, None, Some(why)) => why,
            (None, None, None) => {
                "Only the locked test images can tell. `hpsearch test` opens them once, on record.".to_owned()
            }
        })
}

fn differences(evidence: &Evidence) -> Exhibit {
    let (slug, title) = ("differences", "Differences between finalists");
    let question = "Which differences in ROC-AUC are real?";
    if evidence.entries.len() < 2 {
        return Exhibit::missing(
            slug,
            title,
            question,
            "Fewer than two finalists with predictions: nothing to compare.",
        );
    }
    let Some(delong) = evidence.delong() else {
        return Exhibit::missing(
            slug,
            title,
            question,
            "DeLong's test needs two classes, at least two images of each, and the same images for every finalist.",
        );
    };
    let (trials, mean): (Vec<usize>, Vec<usize>) =
        (0..evidence.entries.len()).partition(|&i| evidence.entries[i].model.trial().is_some());
    let finalists = trials.len();
    let shown: Vec<usize> = trials.into_iter().take(COMPARED).chain(mean).collect();
    let mut pairs = Vec::new();
    for (at, &a) in shown.iter().enumerate() {
        for &b in &shown[at + 1..] {
            let (difference, se) = delong.difference(a, b);
            pairs.push((a, b, difference, se, delong.test(a, b)));
        }
    }
    let tested: Vec<f64> = pairs.iter().filter_map(|p| p.4.map(|t| t.1)).collect();
    let without_p = pairs.len() - tested.len();
    let mut adjusted = holm(&tested).into_iter();
    let z = quantile(0.975);
    let mut table =
        Table::new(["better-ranked", "other", "difference in ROC-AUC", "low", "high", "z", "p", "p, Holm-adjusted"]);
    let (mut names, mut values, mut real) = (Vec::new(), Vec::new(), 0);
    for (a, b, difference, se, test) in pairs {
        let (low, high) = (difference - z * se, difference + z * se);
        let holm = test.and_then(|_| adjusted.next());
        real += usize::from(holm.is_some_and(|p| p < 0.05));
        let (a, b) = (evidence.entries[a].model, evidence.entries[b].model);
        table.push([
            whose(a),
            whose(b),
            Cell::Number(difference, 4),
            Cell::Number(low, 4),
            Cell::Number(high, 4),
            Cell::number(test.map(|t| t.0), 2),
            Cell::p(test.map(|t| t.1)),
            Cell::p(holm),
        ]);
        names.push(format!("{} – {}{}", a.short(), b.short(), if holm.is_some_and(|p| p < 0.05) { "  *" } else { "" }));
        values.push(vec![(Some(difference), (se > 0.0).then_some(Interval { low, high }))]);
    }
    let chart = whiskers(&names, &[("Difference in ROC-AUC", Some(0.0))], &values, None, &[], false);
    Exhibit::new(slug, title, question, Some(chart), table)
        .note(format!(
            "DeLong's test of correlated areas on the {} images (by midranks, Sun and Xu 2014); 95 % intervals of single \
             differences. After Holm's adjustment for {}, {} below 0.05{}.",
            evidence.set,
            counted(tested.len(), "comparison"),
            match real {
                0 => "none is".to_owned(),
                1 => "one is".to_owned(),
                k => format!("{k} are"),
            },
            if real > 0 { " (marked *)" } else { "" },
        ))
        .note_if(
            without_p > 0,
            format!(
                "{} of models that rank the images alike, whose areas cannot be told apart: without p, and not counted.",
                counted(without_p, "pair")
            ),
        )
        .note_if(
            finalists > COMPARED,
            format!("The first {COMPARED} of {finalists} finalists are compared, and the mean where there is one."),
        )
        .note_if(
            evidence.clustered,
            "Several images may come from one patient, which this test takes for independent: true p-values are larger.",
        )
        .note_if(
            evidence.set == "validation",
            "The finalists were chosen by these images, so the p-values are for orientation only.",
        )
}

fn trials(record: &StudyRecord) -> Exhibit {
    let hyperparameters: Vec<&str> = record.spec.space.parameters.iter().map(|p| p.name.as_str()).collect();
    let mut metrics: Vec<&str> = Vec::new();
    for t in &record.trials {
        for m in t.epochs.last().into_iter().flat_map(|e| e.metrics.keys()) {
            if !metrics.contains(&m.as_str()) {
                metrics.push(m);
            }
        }
    }
    metrics.sort_unstable();
    let objective = record.spec.objective.metric.to_string();
    metrics.retain(|m| *m != objective);
    let head = ["trial", "state", "epochs", objective.as_str()];
    let mut table = Table::new(
        head.into_iter().chain(hyperparameters.iter().copied()).chain(metrics.iter().copied()).chain(["failure"]),
    );
    let ranked = record.ranking();
    let known: std::collections::HashSet<u32> = ranked.iter().map(|trial| trial.number.0).collect();
    let rest = record.trials.iter().filter(|t| !known.contains(&t.number.0));
    for t in ranked.iter().copied().chain(rest) {
        let mut row = vec![
            t.number.0.into(),
            Cell::from(t.state.as_ref()),
            t.epochs.last().map_or(0, |e| e.epoch.0).into(),
            Cell::number(t.value, 4),
        ];
        row.extend(hyperparameters.iter().map(|k| match t.params.get(k) {
            None => Cell::Missing,
            Some(v) => v.as_f64().map_or_else(|| v.to_string().into(), Cell::Short),
        }));
        let last = t.epochs.last();
        row.extend(metrics.iter().map(|m| Cell::number(last.and_then(|e| e.metrics.get(*m).copied()), 4)));
        row.push(t.failure.as_ref().map_or(Cell::Missing, |f| super::machine::class(f.class).into()));
        table.push(row);
    }
    Exhibit::new("trials", "All trials", "What was tried, and what came of it?", None, table)
        .note("Best first. Figures are those of the validation images after a trial's latest epoch.")
}
