//! Charts of one model's decisions: ROC and precision-recall curves, confusion, thresholds, reliability.

use super::axis::{Frame, Span, legend};
use super::canvas::{Align, Chart, Colour, fitted, width_of};
use crate::metrics::ReliabilityBin;
use crate::stats::Interval;

/// One panel of curves.
pub struct Panel<'a> {
    /// Title, above the panel.
    pub title: &'a str,
    /// Horizontal axis: name and upper end.
    pub x: (&'a str, f64),
    /// Vertical axis: name, lower and upper end.
    pub y: (&'a str, f64, f64),
    /// Series, best first; drawn in reverse so that the best lies on top.
    pub series: &'a [Vec<(f64, f64)>],
    /// Pointwise band (x, low, high) of the first series.
    pub band: &'a [(f64, f64, f64)],
    /// A dashed reference line: its two ends and its name.
    pub reference: Option<((f64, f64), (f64, f64), &'a str)>,
    /// The operating point, with its label.
    pub mark: Option<(f64, f64, String)>,
}

/// Panels of curves side by side with one legend below.
pub fn curves(panels: &[Panel], keys: &[(String, Colour)]) -> Chart {
    let width = if panels.len() > 1 { 860.0 } else { 520.0 };
    let each = width / panels.len().max(1) as f64;
    let side = (each - 84.0).min(420.0);
    let rows = 1.0 + (keys.iter().map(|k| width_of(&k.0) + 38.0).sum::<f64>() / (width - 80.0)).floor();
    let mut chart = Chart::new(width, 40.0 + side + 56.0 + 18.0 * rows + 8.0);
    for (i, panel) in panels.iter().enumerate() {
        let x = Span::linear(0.0, panel.x.1);
        let y = Span::linear(panel.y.1, panel.y.2);
        let frame = Frame { left: each * i as f64 + 60.0, top: 36.0, w: side, h: side, x, y };
        chart.strong(frame.left, 14.0, Align::Left, panel.title, Colour::INK);
        frame.x_grid(&mut chart);
        frame.axes(&mut chart, panel.x.0, panel.y.0);
        if let Some((from, to, name)) = panel.reference {
            chart.dashes(frame.at(from), frame.at(to), 1.2, Colour::MUTED);
            if from.1 == to.1 {
                let (x, y) = frame.at(from);
                let above = y - frame.top > 30.0;
                chart.words(x + 8.0, if above { y - 10.0 } else { y + 10.0 }, Align::Left, name, Colour::MUTED);
            }
        }
        let inside = |p: &(f64, f64)| p.0 <= panel.x.1 + 1e-12;
        if !panel.band.is_empty() {
            let clip = |v: f64| v.clamp(panel.y.1, panel.y.2);
            let band = || panel.band.iter().filter(|b| b.0 <= panel.x.1 + 1e-12);
            let upper = band().map(|b| frame.at((b.0, clip(b.2))));
            let lower = band().rev().map(|b| frame.at((b.0, clip(b.1))));
            chart.area(upper.chain(lower).collect(), Colour::series(0).alpha(0.16));
        }
        for (s, points) in panel.series.iter().enumerate().rev() {
            let mut shown: Vec<(f64, f64)> = points.iter().filter(|p| inside(p)).copied().collect();
            // A line that leaves the panel is cut at its edge.
            if let (Some(&a), Some(&b)) = (shown.last(), points.iter().find(|p| !inside(p)))
                && a.0 < panel.x.1
            {
                shown.push((panel.x.1, a.1 + (b.1 - a.1) * (panel.x.1 - a.0) / (b.0 - a.0)));
            }
            let shown = shown.into_iter().filter(|p| p.1 >= panel.y.1 - 1e-9).map(|p| frame.at(p));
            let (width, alpha) = if s == 0 { (2.4, 1.0) } else { (1.4, 0.85) };
            chart.path(shown, width, keys.get(s).map_or(Colour::FAINT, |k| k.1).alpha(alpha));
        }
        if let Some((x, y, words)) = &panel.mark
            && *x <= panel.x.1
            && *y >= panel.y.1
        {
            let (px, py) = frame.at((*x, *y));
            chart.dot(px, py, 6.5, Colour::INK);
            chart.dot(px, py, 4.5, Colour::PAPER);
            chart.dot(px, py, 3.0, Colour::INK);
            let roomy = frame.right() - px > width_of(words) + 14.0;
            let (dx, align) = if roomy { (11.0, Align::Left) } else { (-11.0, Align::Right) };
            let dy = if py > frame.bottom() - 24.0 { -14.0 } else { 16.0 };
            chart.strong(px + dx, py + dy, align, words, Colour::INK);
        }
    }
    legend(&mut chart, 60.0, 36.0 + side + 58.0, width - 80.0, keys);
    chart
}

/// A confusion matrix: in each cell the count, and its share of the true class with the interval.
pub fn confusion(classes: &[String], counts: &[Vec<u64>], intervals: &[Vec<Option<Interval>>]) -> Chart {
    let k = classes.len().max(1);
    let cell = (560.0 / k as f64).clamp(44.0, 190.0);
    let tall = (cell * 0.62).max(40.0);
    let left = classes.iter().map(|c| width_of(c)).fold(60.0, f64::max).min(200.0) + 60.0;
    let mut chart = Chart::new((left + cell * k as f64 + 24.0).max(520.0), 64.0 + tall * k as f64 + 18.0);
    chart.words(left + cell * k as f64 / 2.0, 14.0, Align::Centre, "called", Colour::MUTED);
    chart.upwards(14.0, 58.0 + tall * k as f64 / 2.0, "truth", Colour::MUTED);
    for (i, truth) in classes.iter().enumerate() {
        let y = 58.0 + tall * i as f64;
        chart.strong(left + cell * (i as f64 + 0.5), 38.0, Align::Centre, fitted(truth, cell - 4.0), Colour::INK);
        chart.strong(left - 14.0, y + tall / 2.0, Align::Right, fitted(truth, 200.0), Colour::INK);
        let row: u64 = counts[i].iter().sum();
        for (j, &n) in counts[i].iter().enumerate() {
            let x = left + cell * j as f64;
            let share = if row > 0 { n as f64 / row as f64 } else { 0.0 };
            let hue = if i == j { Colour::BLUE } else { Colour::VERMILLION };
            chart.rect(x + 1.5, y + 1.5, cell - 3.0, tall - 3.0, Colour::GRID.alpha(0.6));
            chart.rect(x + 1.5, y + 1.5, cell - 3.0, tall - 3.0, hue.alpha(0.06 + 0.5 * share));
            let middle = x + cell / 2.0;
            if cell < 120.0 {
                chart.strong(middle, y + tall / 2.0, Align::Centre, n.to_string(), Colour::INK);
                continue;
            }
            chart.sized(middle, y + tall * 0.29, Align::Centre, n.to_string(), 22.0, true, Colour::INK);
            if row > 0 {
                chart.words(
                    middle,
                    y + tall * 0.57,
                    Align::Centre,
                    format!("{:.1} % of {row}", 100.0 * share),
                    Colour::INK,
                );
            }
            if let Some(i) = intervals[i][j] {
                let words = format!("95 %: {:.1} to {:.1} %", 100.0 * i.low, 100.0 * i.high);
                chart.words(middle, y + tall * 0.76, Align::Centre, words, Colour::INK);
            }
        }
    }
    chart
}

/// Metrics against the threshold, with the operating point.
pub fn sweep(series: &[(String, Vec<(f64, f64)>)], threshold: Option<f64>) -> Chart {
    let mut chart = Chart::new(860.0, 372.0);
    let (x, y) = (Span::linear(0.0, 1.0), Span::linear(0.0, 1.0));
    let frame = Frame { left: 60.0, top: 30.0, w: 780.0, h: 260.0, x, y };
    frame.x_grid(&mut chart);
    frame.axes(&mut chart, "threshold on the score", "share");
    for (i, (_, points)) in series.iter().enumerate() {
        chart.path(points.iter().map(|p| frame.at(*p)), 2.0, Colour::series(i));
    }
    if let Some(t) = threshold.filter(|t| (0.0..=1.0).contains(t)) {
        let x = frame.px(t);
        chart.dashes((x, frame.top), (x, frame.bottom()), 1.6, Colour::INK);
        let (dx, align) = if t < 0.7 { (6.0, Align::Left) } else { (-6.0, Align::Right) };
        chart.strong(x + dx, 15.0, align, format!("operating point {t:.3}"), Colour::INK);
    }
    let keys: Vec<_> = series.iter().enumerate().map(|(i, s)| (s.0.clone(), Colour::series(i))).collect();
    legend(&mut chart, 60.0, 352.0, 780.0, &keys);
    chart
}

/// A bin of the reliability diagram with the interval of its rate.
pub struct ReliabilityBand {
    /// The bin.
    pub bin: ReliabilityBin,
    /// Interval of the observed rate.
    pub interval: Option<Interval>,
}

/// Observed rate against mean score, with intervals, and the number of images in each bin below.
pub fn reliability(bands: &[ReliabilityBand], positive: &str) -> Chart {
    let mut chart = Chart::new(560.0, 520.0);
    let (x, y) = (Span::linear(0.0, 1.0), Span::linear(0.0, 1.0));
    let frame = Frame { left: 70.0, top: 12.0, w: 460.0, h: 340.0, x, y };
    frame.x_grid(&mut chart);
    frame.y_axis(&mut chart, &fitted(&format!("share that is {positive}"), 320.0));
    chart.dashes(frame.at((0.0, 0.0)), frame.at((1.0, 1.0)), 1.2, Colour::MUTED);
    let most = bands.iter().map(|b| b.bin.count).max().unwrap_or(0).max(1);
    let counts = Frame { top: 382.0, h: 84.0, y: Span::linear(0.0, most as f64), ..frame };
    let rated = bands.iter().filter_map(|b| {
        let m = b.bin.mean_score?;
        Some((m, b.bin.positives as f64 / b.bin.count as f64, b.interval))
    });
    for (m, rate, interval) in rated.clone() {
        if let Some(i) = interval {
            chart.line(frame.at((m, i.low)), frame.at((m, i.high)), 1.6, Colour::BLUE.alpha(0.7));
        }
        chart.point(frame.px(m), frame.py(rate), 4.5, Colour::BLUE);
    }
    chart.path(rated.map(|(m, rate, _)| frame.at((m, rate))), 1.4, Colour::BLUE.alpha(0.6));
    for b in bands {
        let (l, r) = (counts.px(b.bin.low), counts.px(b.bin.high));
        let top = counts.py(b.bin.count as f64);
        chart.rect(l + 1.5, top, r - l - 3.0, counts.bottom() - top, Colour::FAINT);
        if b.bin.count > 0 {
            chart.words((l + r) / 2.0, top - 9.0, Align::Centre, b.bin.count.to_string(), Colour::MUTED);
        }
    }
    counts.x_axis(&mut chart, "mean score of the bin, and images in it");
    chart
}
