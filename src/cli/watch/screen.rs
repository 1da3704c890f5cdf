//! Draws a [`View`] into a grid of characters, of any size; meant for 80 columns and 24 lines.

use super::super::progress::short;
use super::super::status::Worker;
use super::view::{Rungs, View};
use crate::clock;
use crate::engine::{Certainty, TrialState};
use crate::history::TrialRow;
use crate::ids::TrialNumber;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, GraphType, LineGauge, Paragraph, Widget, Wrap};

/// What the user has chosen to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The trial under the cursor; `None`: no cursor.
    pub selected: Option<TrialNumber>,
    /// The first trial in sight.
    pub first: usize,
    /// Lines of trials in sight when last drawn.
    pub lines: usize,
    pub chart: Shown,
    pub color: bool,
}

/// Which chart is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// How the best value rose with the epochs trained.
    Best,
    /// The course of the trial under the cursor beside the best one's.
    Curve,
}

/// A table of trials needs so many columns.
const TABLE: u16 = 38;
/// A chart beside it needs at least so many.
const CHART: u16 = 28;

impl Look {
    pub fn new(color: bool) -> Self {
        Self { selected: None, first: 0, lines: 1, chart: Shown::Best, color }
    }

    /// Where the cursor is in the list.
    pub fn position(&self, view: &View) -> Option<usize> {
        let selected = self.selected?;
        view.trials.iter().position(|trial| trial.trial == selected)
    }

    /// Moves the cursor to a place in the list, or as near as there is one.
    pub fn select(&mut self, view: &View, place: usize) {
        self.selected = view.trials.get(place.min(view.trials.len().saturating_sub(1))).map(|trial| trial.trial);
    }

    fn accent(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Draws the study into `area`.
pub(super) fn draw(view: &View, look: &mut Look, now_ms: u64, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (area.width, area.height);
    let workers = worker_lines(view, usize::from(height / 5).max(1), now_ms);
    let rungs = rung_lines(&view.rungs, usize::from(width), usize::from(height / 8).max(1));
    // What is left out first where there is little room: the chosen trial, workers, rungs.
    let detail = if height >= 14 { 3 } else { 0 };
    let shown = |lines: &[Line<'_>], least: u16| if height >= least { lines.len() as u16 } else { 0 };
    let [head, gauge, working, rung, middle, detail_area] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(u16::from(height > 2)),
        Constraint::Length(shown(&workers, 10)),
        Constraint::Length(shown(&rungs, 8)),
        Constraint::Min(0),
        Constraint::Length(detail),
    ])
    .areas(area);
    header(view, look, head, buffer);
    progress(view, look, now_ms, gauge, buffer);
    Paragraph::new(workers).render(working, buffer);
    Paragraph::new(rungs).render(rung, buffer);
    let beside = width >= TABLE + CHART;
    let [table, chart] =
        Layout::horizontal([if beside { Constraint::Length(TABLE) } else { Constraint::Min(0) }, Constraint::Fill(1)])
            .spacing(u16::from(beside) * 2)
            .areas(middle);
    trials(view, look, if beside { table } else { middle }, buffer);
    if beside {
        draw_chart(view, look, chart, buffer);
    }
    detail_of(view, look, detail_area, buffer);
}

fn header(view: &View, look: &Look, area: Rect, buffer: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let standing = match (&view.holder, &view.run) {
        (Some(holder), Some(run)) => {
            let workers = crate::wording::counted(run.workers, "worker");
            format!("running: {workers} on {}, process {} on {}", run.device, holder.pid, holder.host)
        }
        (Some(holder), None) => format!("in use by process {} on {}", holder.pid, holder.host),
        (None, _) => format!("not running; {}", view.last_run),
    };
    let lines = vec![
        Line::from(vec![
            Span::styled(view.name.clone(), bold.patch(look.accent(Color::Cyan))),
            Span::raw(format!("  {standing}")),
        ]),
        Line::raw(view.counts()),
    ];
    Paragraph::new(lines).render(area, buffer);
}

fn progress(view: &View, look: &Look, now_ms: u64, area: Rect, buffer: &mut Buffer) {
    let spent = clock::span(view.elapsed(now_ms));
    let left = view.left(now_ms).map_or_else(String::new, |(seconds, certainty)| {
        let about = match certainty {
            Certainty::Exact => "about",
            Certainty::AtLeast => "at least about",
            Certainty::AtMost => "at most about",
        };
        format!(", {about} {} left", clock::span(seconds))
    });
    let Some(planned) = view.planned_epochs.filter(|&n| n > 0) else {
        return Paragraph::new(format!("{} epochs in {spent}{left}", view.epochs)).render(area, buffer);
    };
    LineGauge::default()
        .ratio((view.epochs as f64 / planned as f64).clamp(0.0, 1.0))
        .label(format!("{}/{planned} epochs in {spent}{left}", view.epochs))
        .filled_style(look.accent(Color::Cyan))
        .filled_symbol("█")
        .unfilled_symbol("░")
        .render(area, buffer);
}

fn worker_lines(view: &View, most: usize, now_ms: u64) -> Vec<Line<'static>> {
    let line = |worker: &Worker| {
        let value = worker.value.map_or_else(String::new, |v| format!("  {} {v:.4}", view.metric));
        let since = clock::span(now_ms.saturating_sub(worker.started_ms) as f64 / 1000.0);
        let place = worker.place.as_ref().map_or_else(String::new, |place| format!("  on {place}"));
        let Worker { worker, trial, epochs, to, .. } = worker;
        Line::raw(format!("worker {worker}  trial {trial}  epoch {epochs}/{to}{value}  for {since}{place}"))
    };
    let mut lines: Vec<Line<'_>> = view.workers.iter().map(line).collect();
    if lines.len() > most {
        lines.truncate(most.saturating_sub(1));
        lines.push(Line::raw(format!("and {} more workers", view.workers.len() - lines.len())));
    }
    lines
}

/// `rungs  1 epoch 27/27  3 epochs 9/9`: the brackets that began last, where there are too many.
fn rung_lines(rungs: &[Rungs], width: usize, most: usize) -> Vec<Line<'static>> {
    let line = |bracket: &Rungs| {
        let name = if rungs.len() > 1 { format!("bracket {}", bracket.bracket) } else { "rungs".to_owned() };
        bracket.rungs.iter().fold(name, |line, rung| {
            let seats = rung.seats.map_or_else(String::new, |seats| format!("/{seats}"));
            format!("{line}  {} {}{seats}", crate::wording::counted(rung.epochs, "epoch"), rung.done)
        })
    };
    let hidden = rungs.len().saturating_sub(most);
    let fitted = |mut line: String| {
        if line.chars().count() > width {
            line = line.chars().take(width.saturating_sub(1)).chain(['…']).collect();
        }
        Line::raw(line)
    };
    rungs.iter().skip(hidden).map(line).map(fitted).collect()
}

fn trials(view: &View, look: &mut Look, area: Rect, buffer: &mut Buffer) {
    let block = Block::new().borders(Borders::TOP).title(format!(" trials by {} ", view.metric));
    let inner = block.inner(area);
    block.render(area, buffer);
    if inner.is_empty() {
        return;
    }
    look.lines = usize::from(inner.height.saturating_sub(1)).max(1);
    let cursor = look.position(view);
    let last = view.trials.len().saturating_sub(look.lines);
    look.first = match cursor {
        Some(cursor) => look.first.clamp((cursor + 1).saturating_sub(look.lines), cursor).min(last),
        None => look.first.min(last),
    };
    let mut lines = vec![Line::styled(
        format!("{:>5} {:>6} {:>9} {:>6} {:<8}", "place", "trial", "value", "epochs", "state"),
        Style::new().add_modifier(Modifier::DIM),
    )];
    for (place, trial) in view.trials.iter().enumerate().skip(look.first).take(look.lines) {
        let style = if cursor == Some(place) { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        lines.push(Line::styled(row(place, trial, place < view.ranked), style.patch(look.accent(hue(trial.state)))));
    }
    Paragraph::new(lines).render(inner, buffer);
}

fn row(place: usize, trial: &TrialRow, ranked: bool) -> String {
    let place = if ranked { (place + 1).to_string() } else { "–".to_owned() };
    let value = trial.value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    format!("{place:>5} {:>6} {value:>9} {:>6} {:<8}", trial.trial.0, trial.epochs, trial.state.as_ref())
}

fn hue(state: TrialState) -> Color {
    match state {
        TrialState::Running => Color::Cyan,
        TrialState::Failed => Color::Red,
        TrialState::Complete => Color::Green,
        TrialState::Waiting | TrialState::Paused | TrialState::Stopped => Color::Reset,
    }
}

fn draw_chart(view: &View, look: &Look, area: Rect, buffer: &mut Buffer) {
    let chosen = look.selected.or_else(|| view.trials.first().map(|trial| trial.trial));
    let (title, unit, lines): (String, &str, Vec<(String, Vec<(f64, f64)>, Color)>) = match (look.chart, chosen) {
        (Shown::Curve, Some(chosen)) => {
            let best = view.trials.first().filter(|best| view.ranked > 0 && best.trial != chosen);
            let mut lines: Vec<(String, Vec<(f64, f64)>, Color)> = best
                .map(|best| (format!("trial {}", best.trial), view.curve(best.trial), Color::Green))
                .into_iter()
                .collect();
            lines.push((format!("trial {chosen}"), view.curve(chosen), Color::Cyan));
            let besides = best.map_or_else(String::new, |best| format!(" beside trial {}", best.trial));
            (format!(" trial {chosen}{besides} "), "epochs", lines)
        }
        _ => {
            let mut steps: Vec<(f64, f64)> = Vec::new();
            for point in &view.course {
                let x = point.epochs as f64;
                let before = steps.last().map_or(point.best, |last| last.1);
                steps.extend([(x, before), (x, point.best)]);
            }
            // The best value stands until now.
            steps.extend(steps.last().map(|last| ((view.epochs as f64).max(last.0), last.1)));
            (" best so far ".to_owned(), "epochs", vec![(String::new(), steps, Color::Cyan)])
        }
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    let points = || lines.iter().flat_map(|(_, points, _)| points);
    if points().next().is_none() {
        let inner = block.inner(area);
        block.render(area, buffer);
        return Paragraph::new("no value yet").render(inner, buffer);
    }
    let bounds = |each: fn(&(f64, f64)) -> f64| {
        let (low, high) =
            points().map(each).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if high > low { [low, high] } else { [low - 0.5, high + 0.5] }
    };
    let (x, y) = (bounds(|p| p.0), bounds(|p| p.1));
    // One marker for all would tell lines apart by colour only.
    let datasets = lines.iter().enumerate().map(|(i, (name, points, color))| {
        let marker = if i > 0 || lines.len() == 1 { Marker::Braille } else { Marker::Dot };
        let graph = if marker == Marker::Dot { GraphType::Scatter } else { GraphType::Line };
        Dataset::default().name(name.clone()).data(points).marker(marker).graph_type(graph).style(look.accent(*color))
    });
    let decimals = if y[1] - y[0] < 0.02 { 4 } else { 3 };
    let ends = |bounds: [f64; 2]| bounds.map(|v| format!("{v:.decimals$}"));
    let xs = if (x[1] - x[0] - 1.0).abs() < 1e-9 && x[0].fract() != 0.0 {
        // A single point.
        vec![format!("{:.0} {unit}", x[0] + 0.5)]
    } else {
        vec![format!("{:.0}", x[0]), format!("{:.0} {unit}", x[1])]
    };
    Chart::new(datasets.collect())
        .block(block)
        .legend_position(None)
        .x_axis(Axis::default().bounds(x).labels(xs))
        .y_axis(Axis::default().bounds(y).labels(ends(y)))
        .render(area, buffer);
}

/// The configuration of the trial under the cursor, or the best one's, and why it failed, if it did.
fn detail_of(view: &View, look: &Look, area: Rect, buffer: &mut Buffer) {
    let chosen = look.position(view).or((view.ranked > 0).then_some(0)).and_then(|place| view.trials.get(place));
    let Some(trial) = chosen.filter(|_| !area.is_empty()) else { return };
    let params = view.tables.configurations.get(&trial.trial);
    let params: Vec<String> =
        params.iter().flat_map(|p| p.0.iter()).map(|(name, value)| format!("{name}={}", short(value))).collect();
    let failure = view.tables.failure_of(trial.trial).map_or_else(String::new, |failure| {
        format!("failed ({}): {}; ", failure.class, failure.reason.lines().next().unwrap_or_default())
    });
    let text = format!("trial {}: {failure}{}", trial.trial, params.join(" "));
    let block = Block::new().borders(Borders::TOP);
    Paragraph::new(text).wrap(Wrap { trim: true }).block(block).render(area, buffer);
}
