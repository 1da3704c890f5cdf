//! Charts of a search's progress: history, rungs, learning curves, workers.

use super::axis::{Frame, Span, legend};
use super::canvas::{Align, Chart, Colour, fitted, width_of};
use crate::wording::counted;

/// Each trial's value as a dot and the best so far as a step line, against several measures of effort.
pub fn history(panels: &[(&str, Vec<(f64, f64)>, Vec<(f64, f64)>)], value: &str) -> Chart {
    let mut chart = Chart::new(860.0, 330.0);
    let each = (860.0 - 50.0) / panels.len().max(1) as f64;
    let all: Vec<f64> = panels.first().map_or(Vec::new(), |p| p.1.iter().map(|v| v.1).collect());
    let bests = panels.first().map_or(Vec::new(), |p| p.2.iter().map(|v| v.1).collect::<Vec<_>>());
    let y = Span::around(all.iter().chain(&bests).copied());
    for (i, (name, dots, best)) in panels.iter().enumerate() {
        let end = dots.iter().chain(best).map(|p| p.0).fold(0.0, f64::max);
        let x = Span::linear(0.0, if end > 0.0 { end * 1.02 } else { 1.0 });
        let frame = Frame { left: 62.0 + each * i as f64, top: 16.0, w: each - 22.0, h: 234.0, x, y };
        if i == 0 {
            frame.y_axis(&mut chart, value);
        } else {
            for (v, _) in y.ticks(5) {
                chart.line((frame.left, frame.py(v)), (frame.right(), frame.py(v)), 1.0, Colour::GRID);
            }
        }
        frame.x_axis(&mut chart, name);
        let r = if dots.len() > 300 { 1.6 } else { 2.8 };
        for p in dots {
            chart.dot(frame.px(p.0), frame.py(p.1), r, Colour::BLUE.alpha(0.5));
        }
        chart.path(staircase(&frame, best, end), 2.2, Colour::VERMILLION);
    }
    let keys = [("value of a trial".to_owned(), Colour::BLUE), ("best so far".to_owned(), Colour::VERMILLION)];
    legend(&mut chart, 62.0, 312.0, 700.0, &keys);
    chart
}

/// A step line through points, drawn on to `end`.
fn staircase(frame: &Frame, points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let mut stairs = Vec::new();
    for (k, p) in points.iter().enumerate() {
        if k > 0 {
            stairs.push(frame.at((p.0, points[k - 1].1)));
        }
        stairs.push(frame.at(*p));
    }
    stairs.extend(points.last().map(|last| frame.at((end, last.1))));
    stairs
}

/// The best so far of several studies as step lines, against several measures of effort. Each line ends with its study.
pub fn races(panels: &[(&str, Vec<Vec<(f64, f64)>>)], value: &str, names: &[(String, Colour)]) -> Chart {
    let mut chart = Chart::new(860.0, 366.0);
    let each = (860.0 - 50.0) / panels.len().max(1) as f64;
    let y = Span::around(panels.iter().flat_map(|p| p.1.iter().flatten()).map(|p| p.1));
    for (i, (name, lines)) in panels.iter().enumerate() {
        let end = lines.iter().flatten().map(|p| p.0).fold(0.0, f64::max);
        let x = Span::linear(0.0, if end > 0.0 { end * 1.02 } else { 1.0 });
        let frame = Frame { left: 62.0 + each * i as f64, top: 16.0, w: each - 22.0, h: 254.0, x, y };
        if i == 0 {
            frame.y_axis(&mut chart, value);
        } else {
            for (v, _) in y.ticks(5) {
                chart.line((frame.left, frame.py(v)), (frame.right(), frame.py(v)), 1.0, Colour::GRID);
            }
        }
        frame.x_axis(&mut chart, name);
        for (line, (_, colour)) in lines.iter().zip(names) {
            let Some(last) = line.last() else { continue };
            chart.path(staircase(&frame, line, last.0), 2.2, *colour);
            chart.dot(frame.px(last.0), frame.py(last.1), 3.2, *colour);
        }
    }
    legend(&mut chart, 62.0, 332.0, 780.0, names);
    chart
}

/// One rung: a row of the chart.
pub struct Ladder {
    /// Label: bracket, rung and epochs.
    pub name: String,
    /// Trials that reached it, counted by their outcome there, in the order of [`FATES`].
    pub parts: [u64; 4],
    /// Epochs spent on it.
    pub epochs: u64,
}

/// Outcomes of a trial at a rung, and their colours.
pub const FATES: [(&str, Colour); 4] = [
    ("went on", Colour::BLUE),
    ("given up here", Colour::FAINT),
    ("failed", Colour::VERMILLION),
    ("open", Colour::ORANGE),
];

/// Trials in each rung by their outcome, with the epochs spent.
pub fn ladder(rungs: &[Ladder]) -> Chart {
    let row = 30.0;
    let widest = rungs.iter().map(|r| width_of(&r.name)).fold(40.0, f64::max).min(260.0);
    let mut chart = Chart::new(860.0, 30.0 + row * rungs.len() as f64 + 50.0);
    let keys: Vec<_> = FATES.iter().map(|f| (f.0.to_owned(), f.1)).collect();
    let most = rungs.iter().map(|r| r.parts.iter().sum::<u64>()).max().unwrap_or(0).max(1);
    let frame = Frame {
        left: widest + 24.0,
        top: 28.0,
        w: 860.0 - widest - 24.0 - 150.0,
        h: row * rungs.len() as f64,
        x: Span::linear(0.0, most as f64),
        y: Span::linear(0.0, 1.0),
    };
    legend(&mut chart, frame.left, 10.0, 600.0, &keys);
    frame.x_grid(&mut chart);
    frame.x_axis(&mut chart, "trials");
    for (i, rung) in rungs.iter().enumerate() {
        let y = frame.top + row * i as f64;
        chart.words(frame.left - 12.0, y + row / 2.0, Align::Right, fitted(&rung.name, 260.0), Colour::INK);
        let mut x = 0.0;
        for (part, (_, colour)) in rung.parts.iter().zip(FATES) {
            let (l, r) = (frame.px(x), frame.px(x + *part as f64));
            chart.rect(l, y + 5.0, r - l, row - 10.0, colour);
            if r - l > 22.0 {
                let ink =
                    if colour == Colour::BLUE || colour == Colour::VERMILLION { Colour::PAPER } else { Colour::INK };
                // Text on coloured bars keeps its colour in dark mode: a shade that the style sheet does not replace.
                let ink = Colour { rgb: (ink.rgb.0.saturating_sub(1), ink.rgb.1, ink.rgb.2), alpha: 1.0 };
                chart.words((l + r) / 2.0, y + row / 2.0, Align::Centre, part.to_string(), ink);
            }
            x += *part as f64;
        }
        let words = counted(rung.epochs, "epoch");
        chart.words(frame.px(x) + 10.0, y + row / 2.0, Align::Left, words, Colour::MUTED);
    }
    chart
}

/// Learning curves (points, colour, width), drawn in the order given: context first, foreground last.
pub fn learning(
    curves: &[(Vec<(f64, f64)>, Colour, f64)],
    rungs: &[f64],
    value: &str,
    keys: &[(String, Colour)],
) -> Chart {
    let mut chart = Chart::new(860.0, 390.0);
    let points = || curves.iter().flat_map(|c| &c.0);
    let end = points().map(|p| p.0).fold(1.0, f64::max);
    let x = Span::linear(0.0, end);
    let frame = Frame { left: 64.0, top: 26.0, w: 780.0, h: 286.0, x, y: Span::around(points().map(|p| p.1)) };
    frame.axes(&mut chart, "epochs", value);
    for (i, r) in rungs.iter().enumerate() {
        let x = frame.px(*r);
        chart.dashes((x, frame.top), (x, frame.bottom()), 1.0, Colour::MUTED);
        let align = if x > frame.right() - 20.0 { Align::Right } else { Align::Centre };
        chart.words(x, 13.0, align, format!("rung {i}"), Colour::MUTED);
    }
    for (points, colour, width) in curves {
        match points[..] {
            [p] => chart.dot(frame.px(p.0), frame.py(p.1), 2.4, *colour),
            _ => chart.path(points.iter().map(|p| frame.at(*p)), *width, *colour),
        }
        if let Some(p) = points.last() {
            chart.dot(frame.px(p.0), frame.py(p.1), width + 0.8, *colour);
        }
    }
    legend(&mut chart, 64.0, 372.0, 780.0, keys);
    chart
}

/// A worker's row of the timeline.
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Attempts: start, end, colour, label (shown if it fits).
    pub spans: Vec<(f64, f64, Colour, String)>,
}

/// What each worker did when. `unit` names the unit of time.
pub fn timeline(lanes: &[Lane], end: f64, unit: &str, keys: &[(String, Colour)]) -> Chart {
    let row = if lanes.len() > 24 { 16.0 } else { 28.0 };
    let mut chart = Chart::new(860.0, 8.0 + row * lanes.len() as f64 + 78.0);
    let (x, y) = (Span::linear(0.0, end.max(1e-6)), Span::linear(0.0, 1.0));
    let frame = Frame { left: 86.0, top: 8.0, w: 754.0, h: row * lanes.len() as f64, x, y };
    frame.x_grid(&mut chart);
    frame.x_axis(&mut chart, unit);
    for (i, lane) in lanes.iter().enumerate() {
        let y = frame.top + row * i as f64;
        chart.words(frame.left - 10.0, y + row / 2.0, Align::Right, &lane.name, Colour::INK);
        for (from, to, colour, words) in &lane.spans {
            let (l, r) = (frame.px(*from), frame.px(*to));
            chart.rect(l, y + 3.0, (r - l - 0.75).max(0.75), row - 6.0, *colour);
            if r - l > width_of(words) + 6.0 && row > 20.0 {
                let white = Colour { rgb: (0xFE, 0xFF, 0xFF), alpha: 1.0 };
                chart.words((l + r) / 2.0, y + row / 2.0, Align::Centre, words, white);
            }
        }
    }
    legend(&mut chart, frame.left, frame.bottom() + 60.0, 754.0, keys);
    chart
}
