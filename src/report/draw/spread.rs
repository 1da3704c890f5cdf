//! Charts of estimates with intervals, of bars, and of the winner's luck (selection bias).

use super::axis::{Frame, Span, legend};
use super::canvas::{Align, Chart, Colour, fitted, width_of};
use crate::stats::Interval;

/// Dot-and-whisker panels side by side, one row per name. `values[row][panel]` is the estimate with its interval; a
/// second estimate (drawn hollow) may be given for comparison, such as validation beside test.
pub fn whiskers(
    names: &[String],
    panels: &[(&str, Option<f64>)],
    values: &[Vec<(Option<f64>, Option<Interval>)>],
    second: Option<&[Vec<Option<f64>>]>,
    keys: &[(String, Colour)],
    shares: bool,
) -> Chart {
    let widest = names.iter().map(|n| width_of(n)).fold(40.0, f64::max).min(220.0);
    let (left, row) = (widest + 24.0, if names.len() > 24 { 16.0 } else { 26.0 });
    let height = 40.0 + row * names.len() as f64 + 34.0 + if keys.is_empty() { 0.0 } else { 26.0 };
    let mut chart = Chart::new(860.0, height);
    let each = (860.0 - left) / panels.len().max(1) as f64;
    for (p, (title, reference)) in panels.iter().enumerate() {
        let seconds = second.into_iter().flatten().filter_map(|v| v[p]);
        let all = values.iter().flat_map(|v| {
            let (value, interval) = v[p];
            [value, interval.map(|i| i.low), interval.map(|i| i.high)].into_iter().flatten()
        });
        let all = all.chain(seconds).chain(*reference);
        let x = if shares { Span::shares(all) } else { Span::around(all) };
        let frame = Frame {
            left: left + each * p as f64 + 10.0,
            top: 34.0,
            w: each - 34.0,
            h: row * names.len() as f64,
            x,
            y: Span::linear(0.0, names.len() as f64),
        };
        chart.strong(frame.left, 14.0, Align::Left, *title, Colour::INK);
        frame.x_grid(&mut chart);
        frame.x_axis(&mut chart, "");
        if let Some(r) = reference {
            chart.dashes((frame.px(*r), frame.top), (frame.px(*r), frame.bottom()), 1.2, Colour::MUTED);
        }
        for (i, row_values) in values.iter().enumerate() {
            let y = frame.top + row * (i as f64 + 0.5);
            let colour = Colour::series(if names.len() > 6 { 0 } else { i });
            let (value, interval) = row_values[p];
            if let Some(Interval { low, high }) = interval {
                chart.line((frame.px(low), y), (frame.px(high), y), 2.0, colour);
                for end in [low, high] {
                    chart.line((frame.px(end), y - 4.0), (frame.px(end), y + 4.0), 2.0, colour);
                }
            }
            if let Some(v) = second.and_then(|s| s[i][p]) {
                chart.dot(frame.px(v), y, 4.5, colour);
                chart.dot(frame.px(v), y, 2.8, Colour::PAPER);
            }
            match value {
                Some(v) => chart.point(frame.px(v), y, 4.5, colour),
                None => chart.words(frame.left + 4.0, y, Align::Left, "undefined", Colour::MUTED),
            }
        }
    }
    for (i, name) in names.iter().enumerate() {
        let y = 34.0 + row * (i as f64 + 0.5);
        chart.words(left - 12.0, y, Align::Right, fitted(name, 220.0), Colour::INK);
    }
    legend(&mut chart, left + 10.0, height - 12.0, 860.0 - left - 20.0, keys);
    chart
}

/// Horizontal bars in groups: `values[group][series]`, each followed by its number.
pub fn bars(groups: &[String], series: &[(String, Colour)], values: &[Vec<f64>], unit: &str) -> Chart {
    let bar = 16.0;
    let band = bar * series.len() as f64 + 14.0;
    let widest = groups.iter().map(|n| width_of(n)).fold(40.0, f64::max).min(260.0);
    let legend_height = if series.len() > 1 { 30.0 } else { 6.0 };
    let mut chart = Chart::new(860.0, legend_height + band * groups.len() as f64 + 46.0);
    let largest = values.iter().flatten().copied().fold(0.0, f64::max);
    let frame = Frame {
        left: widest + 24.0,
        top: legend_height,
        w: 860.0 - widest - 24.0 - 70.0,
        h: band * groups.len() as f64,
        x: Span::linear(0.0, largest.max(1.0)),
        y: Span::linear(0.0, 1.0),
    };
    if series.len() > 1 {
        legend(&mut chart, frame.left, 10.0, frame.w, series);
    }
    frame.x_grid(&mut chart);
    frame.x_axis(&mut chart, unit);
    for (g, name) in groups.iter().enumerate() {
        let top = frame.top + band * g as f64;
        chart.words(frame.left - 12.0, top + band / 2.0, Align::Right, fitted(name, 260.0), Colour::INK);
        for (s, (_, colour)) in series.iter().enumerate() {
            let (v, y) = (values[g][s], top + 7.0 + bar * s as f64);
            chart.rect(frame.left, y + 1.0, frame.px(v) - frame.left, bar - 2.0, *colour);
            chart.words(frame.px(v) + 6.0, y + bar / 2.0, Align::Left, crate::report::text::short(v), Colour::MUTED);
        }
    }
    chart
}

/// How lucky the winner is: every trial's value as a dot, the winner's value, how much of it luck alone explains if all
/// trials are equal, and the value on the test images.
pub fn luck(
    values: &[f64],
    best: f64,
    expected_gain: f64,
    se: f64,
    higher: bool,
    test: Option<f64>,
    name: &str,
) -> Chart {
    let mut chart = Chart::new(860.0, 212.0);
    let sign = if higher { 1.0 } else { -1.0 };
    let deflated = best - sign * expected_gain;
    // Trials far from the best are not drawn, only counted in a line below.
    let far = 12.0 * se.max(expected_gain / 2.0);
    let near = |v: &&f64| (best - **v).abs() <= far;
    let hidden = values.len() - values.iter().filter(near).count();
    let x = Span::around(values.iter().filter(near).copied().chain([best + se, best - se, deflated]).chain(test));
    let frame = Frame { left: 20.0, top: 78.0, w: 820.0, h: 72.0, x, y: Span::linear(0.0, 1.0) };
    let (l, h) = (frame.px(deflated).min(frame.px(best)), frame.px(deflated).max(frame.px(best)));
    frame.x_grid(&mut chart);
    chart.rect(l, frame.top, h - l, frame.h, Colour::ORANGE.alpha(0.25));
    for (i, v) in values.iter().filter(near).enumerate() {
        // A fixed vertical scatter keeps equal values apart.
        let y = frame.top + frame.h * (0.16 + 0.68 * ((i * 7919) % 101) as f64 / 100.0);
        chart.dot(frame.px(*v), y, 3.2, Colour::BLUE.alpha(0.55));
    }
    let mut tall = vec![
        (best, format!("best on validation {best:.4}"), Colour::BLUE),
        (deflated, format!("less the luck of the best {deflated:.4}"), Colour::VERMILLION),
    ];
    tall.extend(test.map(|t| (t, format!("on test images {t:.4}"), Colour::GREEN)));
    let labels: Vec<_> = tall.iter().map(|(v, words, _)| (frame.px(*v), width_of(words) * 1.1)).collect();
    for ((v, words, colour), (level, leftward)) in tall.into_iter().zip(placed(&labels, 860.0)) {
        let (x, y) = (frame.px(v), 14.0 + 19.0 * level as f64);
        chart.line((x, y - 5.0), (x, frame.bottom()), 1.8, colour);
        let (shift, align) = if leftward { (-GAP, Align::Right) } else { (GAP, Align::Left) };
        chart.strong(x + shift, y, align, words, colour);
    }
    frame.x_axis(&mut chart, name);
    if hidden > 0 {
        let words = format!("{hidden} of {} trials lie beyond this range", values.len());
        chart.words(840.0, frame.bottom() + 52.0, Align::Right, words, Colour::MUTED);
    }
    chart
}

/// Space between a line and its label.
const GAP: f64 = 7.0;

/// Places the labels at the tops of vertical lines, given each line's `x` and its label's width: returns the level at
/// which each line begins (0 is the top), and whether its label is to its left. Of all arrangements, the first with the
/// fewest labels cut off at an edge and crossings by lines that begin higher up.
fn placed(lines: &[(f64, f64)], width: f64) -> Vec<(usize, bool)> {
    let n = lines.len();
    let faults = |way: &Vec<(usize, bool)>| {
        let fault = |i: usize| {
            let (x, w) = lines[i];
            let (from, to) = if way[i].1 { (x - GAP - w, x - GAP) } else { (x + GAP, x + GAP + w) };
            let crossed = |j: &usize| way[*j].0 < way[i].0 && (from - 2.0..=to + 2.0).contains(&lines[*j].0);
            usize::from(from < 0.0 || to > width) + (0..n).filter(crossed).count()
        };
        let same = |i: usize| (0..i).any(|j| way[i].0 == way[j].0);
        if (0..n).any(same) { usize::MAX } else { (0..n).map(fault).sum() }
    };
    let choices = (2 * n).pow(n as u32);
    let way =
        |code: usize| (0..n).map(|i| code / (2 * n).pow(i as u32) % (2 * n)).map(|c| (c / 2, c % 2 == 1)).collect();
    (0..choices).map(way).min_by_key(faults).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_neither_cut_nor_crossed_wherever_the_lines_are() {
        for (a, b, c) in (0..20).flat_map(|a| (0..20).flat_map(move |b| (0..20).map(move |c| (a, b, c)))) {
            let lines = [a, b, c].map(|at| 20.0 + 820.0 * f64::from(at) / 19.0).map(|x| (x, 210.0));
            let ways = placed(&lines, 860.0);
            let mut levels: Vec<usize> = ways.iter().map(|way| way.0).collect();
            levels.sort_unstable();
            assert_eq!(levels, [0, 1, 2]);
            for (i, &(level, leftward)) in ways.iter().enumerate() {
                let x = lines[i].0;
                let words = if leftward { x - 217.0..x - 7.0 } else { x + 7.0..x + 217.0 };
                assert!(words.start >= 0.0 && words.end <= 860.0, "{lines:?}: {ways:?}");
                let crossed = (0..3).any(|j| ways[j].0 < level && words.contains(&lines[j].0));
                assert!(!crossed, "{lines:?}: {ways:?}");
            }
        }
    }
}
