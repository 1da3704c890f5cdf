//! Axes: from values to pixels, with ticks at round numbers.

use super::canvas::{Align, Chart, Colour, WORDS, width_of};
use crate::report::text::short;

/// A range of values along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Value at the beginning.
    pub low: f64,
    /// Value at the end.
    pub high: f64,
    /// Logarithmic: equal ratios take equal lengths.
    pub log: bool,
}

impl Span {
    /// A linear range; one without width is widened by 0.5 on either side.
    pub fn linear(low: f64, high: f64) -> Self {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        Self { low, high, log: false }
    }

    /// A logarithmic range; a linear one where `low` is not above 0 or the range has no width.
    pub fn log(low: f64, high: f64) -> Self {
        if low > 0.0 && high > low { Self { low, high, log: true } } else { Self::linear(low, high) }
    }

    /// A linear range around some values, with a margin of 6 % on both sides.
    pub fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Self::linear(0.0, 1.0);
        }
        let margin = if high > low { (high - low) * 0.06 } else { low.abs().max(0.1) * 0.1 };
        Self::linear(low - margin, high + margin)
    }

    /// A range around proportions, kept within 0..=1.
    pub fn shares(values: impl IntoIterator<Item = f64>) -> Self {
        let s = Self::around(values);
        Self::linear(s.low.clamp(0.0, 0.98), s.high.clamp(0.02, 1.0))
    }

    /// Position of a value along the axis: 0 at `low`, 1 at `high`.
    pub fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Ticks: about `n` round values inside the range, with their labels.
    pub fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        if self.log {
            return self.log_ticks(n);
        }
        let raw = (self.high - self.low) / n.max(1) as f64;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.9).unwrap_or(raw);
        let digits = (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
        let first = (self.low / step - 1e-6).ceil();
        (0..200)
            .map(|i| (first + f64::from(i)) * step)
            .take_while(|v| *v <= self.high + step * 1e-6)
            .map(|v| {
                let v = if v.abs() < step * 1e-9 { 0.0 } else { v };
                let long = v.abs() >= 1e6 || (v != 0.0 && digits > 5);
                (v, if long { format!("{v:.0e}") } else { format!("{v:.digits$}") })
            })
            .collect()
    }

    fn log_ticks(&self, n: usize) -> Vec<(f64, String)> {
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let steps: &[f64] = if (self.high / self.low).log10() < n as f64 / 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = ((to - from) as usize / n.max(1)).max(1);
        (from..=to)
            .step_by(every)
            .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
            .filter(|v| *v >= self.low * 0.999 && *v <= self.high * 1.001)
            .map(|v| (v, short(v)))
            .collect()
    }
}

/// A plotting area: a rectangle of the chart with a range for each axis.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
    /// Values from left to right.
    pub x: Span,
    /// Values from bottom to top.
    pub y: Span,
}

impl Frame {
    /// Pixel of a value on the horizontal axis.
    pub fn px(&self, v: f64) -> f64 {
        self.left + self.w * self.x.place(v)
    }

    /// Pixel of a value on the vertical axis.
    pub fn py(&self, v: f64) -> f64 {
        self.top + self.h * (1.0 - self.y.place(v))
    }

    /// Pixel of a pair of values.
    pub fn at(&self, p: (f64, f64)) -> (f64, f64) {
        (self.px(p.0), self.py(p.1))
    }

    /// Lower edge.
    pub fn bottom(&self) -> f64 {
        self.top + self.h
    }

    /// Right edge.
    pub fn right(&self) -> f64 {
        self.left + self.w
    }

    /// Horizontal grid lines with their values, and the axis title, rotated, beside them.
    pub fn y_axis(&self, chart: &mut Chart, name: &str) {
        let ticks = self.y.ticks((self.h / 46.0).max(2.0) as usize);
        let widest = ticks.iter().map(|t| width_of(&t.1)).fold(0.0, f64::max);
        for (v, text) in &ticks {
            let y = self.py(*v);
            chart.line((self.left, y), (self.right(), y), 1.0, Colour::GRID);
            chart.words(self.left - 8.0, y, Align::Right, text, Colour::MUTED);
        }
        if !name.is_empty() {
            chart.upwards(self.left - 8.0 - widest - 14.0, self.top + self.h / 2.0, name, Colour::INK);
        }
    }

    /// Ticks with their values, and the axis title below them.
    pub fn x_axis(&self, chart: &mut Chart, name: &str) {
        let ticks = self.x.ticks((self.w / 60.0).max(2.0) as usize);
        chart.line((self.left, self.bottom()), (self.right(), self.bottom()), 1.0, Colour::FAINT);
        for (v, text) in &ticks {
            let x = self.px(*v);
            chart.line((x, self.bottom()), (x, self.bottom() + 4.0), 1.0, Colour::FAINT);
            chart.words(x, self.bottom() + 14.0, Align::Centre, text, Colour::MUTED);
        }
        if !name.is_empty() {
            chart.words(self.left + self.w / 2.0, self.bottom() + 34.0, Align::Centre, name, Colour::INK);
        }
    }

    /// Vertical grid lines.
    pub fn x_grid(&self, chart: &mut Chart) {
        for (v, _) in self.x.ticks((self.w / 60.0).max(2.0) as usize) {
            chart.line((self.px(v), self.top), (self.px(v), self.bottom()), 1.0, Colour::GRID);
        }
    }

    /// Both axes.
    pub fn axes(&self, chart: &mut Chart, x_name: &str, y_name: &str) {
        self.y_axis(chart, y_name);
        self.x_axis(chart, x_name);
    }
}

/// A row of coloured keys with names, wrapped to a width; returns the height used.
pub fn legend(chart: &mut Chart, left: f64, top: f64, width: f64, keys: &[(String, Colour)]) -> f64 {
    let (mut x, mut y) = (left, top);
    for (name, colour) in keys {
        let name = super::canvas::fitted(name, width - 24.0);
        let w = width_of(&name) + 38.0;
        if x > left && x + w > left + width {
            (x, y) = (left, y + 18.0);
        }
        chart.rect(x, y - 5.0, 14.0, 10.0, *colour);
        chart.sized(x + 20.0, y, Align::Left, name, WORDS, false, Colour::INK);
        x += w;
    }
    y - top + 18.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let texts = |s: Span, n| s.ticks(n).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(texts(Span::linear(0.0, 1.0), 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Span::linear(0.871, 0.953), 4), ["0.88", "0.90", "0.92", "0.94"]);
        assert_eq!(texts(Span::log(1e-5, 1e-2), 6), ["1e-5", "1e-4", "0.001", "0.01"]);
        assert!((3..=5).contains(&texts(Span::linear(3.0, 3.0), 4).len()));
    }
}
