//! Charts of hyperparameters: slices and parallel coordinates.

use super::axis::{Frame, Span};
use super::canvas::{Align, Chart, Colour, fitted};

/// The axis of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Axis {
    /// Numbers.
    Numbers(Span),
    /// Choices, in order.
    Choices(Vec<String>),
}

impl Axis {
    fn span(&self) -> Span {
        match self {
            Self::Numbers(s) => *s,
            Self::Choices(c) => Span::linear(-0.5, c.len().max(1) as f64 - 0.5),
        }
    }
}

/// One panel per parameter: each trial's objective against the parameter's value. Points are (position on the axis,
/// objective, strength): strength 1 marks trials trained to the end, 0 those stopped early.
pub fn slice_grid(panels: &[(String, Axis, Vec<(f64, f64, f64)>)], value: &str) -> Chart {
    let columns = panels.len().clamp(1, 3);
    let rows = panels.len().div_ceil(columns);
    let (w, h) = ((860.0 - 52.0) / columns as f64, 236.0);
    let mut chart = Chart::new(860.0, 8.0 + h * rows as f64);
    let y = Span::around(panels.iter().flat_map(|p| p.2.iter().map(|v| v.1)));
    for (i, (name, axis, points)) in panels.iter().enumerate() {
        let (column, row) = ((i % columns) as f64, (i / columns) as f64);
        let frame = Frame { left: 62.0 + w * column, top: 30.0 + h * row, w: w - 24.0, h: h - 74.0, x: axis.span(), y };
        chart.strong(frame.left, frame.top - 14.0, Align::Left, fitted(name, frame.w), Colour::INK);
        if i % columns == 0 {
            frame.y_axis(&mut chart, value);
        } else {
            for (v, _) in y.ticks(((h - 74.0) / 46.0) as usize) {
                chart.line((frame.left, frame.py(v)), (frame.right(), frame.py(v)), 1.0, Colour::GRID);
            }
        }
        match axis {
            Axis::Numbers(_) => frame.x_axis(&mut chart, ""),
            Axis::Choices(choices) => {
                chart.line((frame.left, frame.bottom()), (frame.right(), frame.bottom()), 1.0, Colour::FAINT);
                let room = frame.w / choices.len().max(1) as f64;
                // Where there is little room, every other name is one line lower.
                let lines = if room < 58.0 { 2 } else { 1 };
                for (c, name) in choices.iter().enumerate() {
                    let drop = 14.0 + 15.0 * (c % lines) as f64;
                    let name = fitted(name, room * lines as f64 - 4.0);
                    chart.words(frame.px(c as f64), frame.bottom() + drop, Align::Centre, name, Colour::MUTED);
                }
            }
        }
        for (k, (x, v, strength)) in points.iter().enumerate() {
            let scatter = match axis {
                Axis::Numbers(_) => 0.0,
                Axis::Choices(_) => (((k * 7919) % 101) as f64 / 100.0 - 0.5) * 0.34,
            };
            let (r, colour) =
                if *strength > 0.5 { (3.2, Colour::BLUE.alpha(0.7)) } else { (2.4, Colour::FAINT.alpha(0.8)) };
            chart.dot(frame.px(x + scatter), frame.py(*v), r, colour);
        }
    }
    chart
}

/// One line per trial through its parameters' values, coloured by quality; the best on top. `lines`: positions on each
/// axis (`None`: the parameter does not exist in that trial), quality 0..=1, whether among the best.
pub fn parallel(axes: &[(String, Axis)], lines: &[(Vec<Option<f64>>, f64, bool)]) -> Chart {
    let mut chart = Chart::new(860.0, 400.0);
    let (top, h) = (44.0, 276.0);
    let step = (860.0 - 130.0) / (axes.len().max(2) - 1) as f64;
    let x_of = |i: usize| 60.0 + step * i as f64;
    let y_of = |axis: &Axis, v: f64| top + h * (1.0 - axis.span().place(v));
    let absent = top + h + 26.0;
    let mut order: Vec<&(Vec<Option<f64>>, f64, bool)> = lines.iter().collect();
    order.sort_by(|a, b| a.2.cmp(&b.2).then(a.1.total_cmp(&b.1)));
    let thin = if lines.len() > 200 { 0.25 } else { 0.6 };
    let mut missing = false;
    for (values, quality, best) in order {
        let mut points = Vec::new();
        for (i, v) in values.iter().enumerate() {
            missing |= v.is_none();
            points.push((x_of(i), v.map_or(absent, |v| y_of(&axes[i].1, v))));
        }
        if *best {
            chart.path(points, 2.2, Colour::VERMILLION);
        } else {
            chart.path(points, 1.1, Colour::ramp(*quality).alpha(thin + 0.3 * quality));
        }
    }
    for (i, (name, axis)) in axes.iter().enumerate() {
        let x = x_of(i);
        chart.line((x, top), (x, top + h), 1.4, Colour::MUTED);
        let align = if i == 0 {
            Align::Left
        } else if i + 1 == axes.len() {
            Align::Right
        } else {
            Align::Centre
        };
        let nudge = match align {
            Align::Left => -50.0,
            Align::Right => 60.0,
            Align::Centre => 0.0,
        };
        let y = if axes.len() > 6 && i % 2 == 1 { 30.0 } else { 14.0 };
        chart.strong(x + nudge, y, align, fitted(name, step * 1.6), Colour::INK);
        let ticks: Vec<(f64, String)> = match axis {
            Axis::Numbers(s) => s.ticks(5),
            Axis::Choices(c) => c.iter().enumerate().map(|(i, c)| (i as f64, fitted(c, step - 12.0))).collect(),
        };
        for (v, text) in ticks {
            let y = y_of(axis, v);
            chart.line((x - 3.0, y), (x + 3.0, y), 1.2, Colour::MUTED);
            // A patch of background keeps the label readable over the lines.
            let w = super::canvas::width_of(&text) + 4.0;
            chart.rect(x + 5.0, y - 7.5, w, 15.0, Colour::PAPER.alpha(0.82));
            chart.words(x + 7.0, y, Align::Left, text, Colour::INK);
        }
    }
    if missing {
        chart.words(4.0, absent, Align::Left, "absent", Colour::MUTED);
    }
    let y = 378.0;
    for i in 0..60 {
        chart.rect(60.0 + 3.0 * f64::from(i), y - 5.0, 3.0, 10.0, Colour::ramp(f64::from(i) / 59.0));
    }
    chart.words(60.0, y - 16.0, Align::Left, "worse", Colour::MUTED);
    chart.words(240.0, y - 16.0, Align::Right, "better", Colour::MUTED);
    chart.rect(280.0, y - 2.0, 18.0, 3.0, Colour::VERMILLION);
    chart.words(304.0, y, Align::Left, "finalists", Colour::INK);
    chart
}
