//! The unit-cube coding: every domain as the interval [0, 1).
//!
//! Discrete domains divide it into cells: of equal width for `step`, whole numbers and choices; for whole numbers
//! with `log`, the cell of `v` is [v - 1/2, v + 1/2] on the logarithmic scale, so that draws are uniform in the
//! logarithm up to rounding. [`Domain::to_unit`] gives a cell's middle.

use super::{Domain, Value};

impl Domain {
    /// The value at `u` in [0, 1); `u` outside is clamped.
    pub fn from_unit(&self, u: f64) -> Value {
        let u = if u.is_nan() { 0.0 } else { u.clamp(0.0, 1.0) };
        match *self {
            Self::Float { low, high, step: None, log: false } => {
                // Two products, so that a range wider than f64 holds does not overflow.
                Value::Float((low * (1.0 - u) + high * u).clamp(low, high))
            }
            Self::Float { low, high, step: None, log: true } => {
                let (a, b) = (low.ln(), high.ln());
                Value::Float((a * (1.0 - u) + b * u).exp().clamp(low, high))
            }
            Self::Int { low, high, log: true, .. } => {
                let (a, b) = log_edges(low, high);
                let x = (a * (1.0 - u) + b * u).exp().round();
                Value::Int((x as i64).clamp(low, high))
            }
            _ => {
                let cells = self.cells().expect("every domain without cells is handled above");
                self.nth(((u * cells as f64) as u64).min(cells - 1)).expect("the index is below the number of cells")
            }
        }
    }

    /// Where a value lies in [0, 1): the middle of its cell where values are discrete. `None` if the domain does
    /// not contain it.
    pub fn to_unit(&self, value: &Value) -> Option<f64> {
        match self {
            Self::Float { low, high, step: None, log } => {
                let x = self.coerce(value)?.as_f64()?;
                if low == high {
                    return Some(0.5);
                }
                let u = if *log {
                    (x.ln() - low.ln()) / (high.ln() - low.ln())
                } else {
                    // Halves, so that a range wider than f64 holds does not overflow.
                    (x / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
                };
                Some(u.clamp(0.0, BELOW_ONE))
            }
            Self::Int { low, high, log: true, .. } => {
                let (a, b) = log_edges(*low, *high);
                let x = self.coerce(value)?.as_i64()? as f64;
                let middle = ((x - 0.5).ln() + (x + 0.5).ln()) / 2.0;
                Some(((middle - a) / (b - a)).clamp(0.0, BELOW_ONE))
            }
            _ => {
                let cells = self.cells()?;
                let index = self.index_of(value)?;
                Some(((index as f64 + 0.5) / cells as f64).min(BELOW_ONE))
            }
        }
    }

    /// The number of distinct values; `None` if infinite. A float range of one point counts as 1.
    pub fn cells(&self) -> Option<u64> {
        match self {
            Self::Float { low, high, .. } if low == high => Some(1),
            Self::Float { low, high, step: Some(step), .. } => {
                // A little slack: (0.7 - 0.1) / 0.1 is a hair below 6.
                let steps = (high - low) / step;
                Some((steps + 1e-9 * steps.max(1.0)).floor().min(u64::MAX as f64 / 2.0) as u64 + 1)
            }
            Self::Float { .. } => None,
            Self::Int { low, high, step, log } => {
                let width = i128::from(*high) - i128::from(*low);
                let step = if *log { 1 } else { i128::from(*step) };
                Some(u64::try_from(width / step + 1).unwrap_or(u64::MAX))
            }
            Self::Categorical { choices } | Self::Ordinal { choices } => Some(choices.len() as u64),
            Self::Fixed { .. } => Some(1),
        }
    }

    /// The `index`-th value in the domain's order; `None` beyond the last or where values cannot be counted.
    pub fn nth(&self, index: u64) -> Option<Value> {
        if index >= self.cells()? {
            return None;
        }
        Some(match self {
            Self::Float { low, step: None, .. } => Value::Float(*low),
            Self::Float { low, high, step: Some(step), .. } => {
                Value::Float(tidy(low + index as f64 * step).clamp(*low, *high))
            }
            Self::Int { low, step, log, .. } => {
                let step = if *log { 1 } else { i128::from(*step) };
                Value::Int((i128::from(*low) + i128::from(index) * step) as i64)
            }
            Self::Categorical { choices } | Self::Ordinal { choices } => choices[index as usize].clone(),
            Self::Fixed { value } => value.clone(),
        })
    }

    /// The position of a value in the domain's order; `None` if it is not one of the values, or they cannot be
    /// counted.
    pub fn index_of(&self, value: &Value) -> Option<u64> {
        if let Self::Categorical { choices } | Self::Ordinal { choices } = self {
            return choices.iter().position(|choice| choice.same(value)).map(|i| i as u64);
        }
        let value = self.coerce(value)?;
        match (self, &value) {
            (Self::Float { low, step, .. }, Value::Float(x)) => match step {
                None => (self.cells()? == 1).then_some(0),
                Some(step) => Some(((x - low) / step).round() as u64),
            },
            (Self::Int { low, step, log, .. }, Value::Int(v)) => {
                let step = if *log { 1 } else { i128::from(*step) };
                u64::try_from((i128::from(*v) - i128::from(*low)) / step).ok()
            }
            (Self::Fixed { .. }, _) => Some(0),
            _ => None,
        }
    }

    /// Whether the value belongs to the domain (a whole number counts as a float where a float is wanted).
    pub fn contains(&self, value: &Value) -> bool {
        self.coerce(value).is_some()
    }

    /// The value in the domain's own type and exact form: 3 becomes 3.0 for a float, and 0.30000000000000004 becomes
    /// the nearest step. `None` if the domain does not contain it.
    pub fn coerce(&self, value: &Value) -> Option<Value> {
        match self {
            Self::Float { low, high, step, .. } => {
                let x = value.as_f64().filter(|x| x.is_finite() && (low..=high).contains(&x))?;
                let x = if x == 0.0 { 0.0 } else { x };
                let Some(step) = step else { return Some(Value::Float(x)) };
                let index = ((x - low) / step).round();
                let near = self.nth(index as u64)?;
                ((near.as_f64()? - x).abs() <= 1e-9 * step).then_some(near)
            }
            Self::Int { low, high, step, log } => {
                let v = value.as_i64().filter(|v| (low..=high).contains(&v))?;
                let on_step = *log || (i128::from(v) - i128::from(*low)) % i128::from(*step) == 0;
                on_step.then_some(Value::Int(v))
            }
            Self::Categorical { choices } | Self::Ordinal { choices } => {
                choices.iter().find(|c| c.same(value)).cloned()
            }
            Self::Fixed { value: only } => only.same(value).then(|| only.clone()),
        }
    }
}

/// The largest number below 1.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

/// Logarithms of the outer edges of the cells of `low..=high`.
fn log_edges(low: i64, high: i64) -> (f64, f64) {
    ((low as f64 - 0.5).ln(), (high as f64 + 0.5).ln())
}

/// Rounds to 12 significant digits, so that steps of 0.1 read 0.3 and not 0.30000000000000004.
fn tidy(x: f64) -> f64 {
    format!("{x:.11e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains() -> impl Strategy<Value = Domain> {
        let float = (-1e6..1e6f64, 0.0..1e6f64).prop_map(|(low, width)| Domain::Float {
            low,
            high: low + width,
            step: None,
            log: false,
        });
        let log_float = (1e-9..1e3f64, 1.0..1e6f64).prop_map(|(low, ratio)| Domain::Float {
            low,
            high: low * ratio,
            step: None,
            log: true,
        });
        let step_float = (-100..100i32, 1..50u32, 1..200u32).prop_map(|(low, tenths, n)| {
            let step = f64::from(tenths) / 10.0;
            let low = f64::from(low) / 10.0;
            Domain::Float { low, high: low + step * f64::from(n), step: Some(step), log: false }
        });
        let int = (-1000..1000i64, 0..1000i64, 1..9i64).prop_map(|(low, width, step)| Domain::Int {
            low,
            high: low + width,
            step,
            log: false,
        });
        let log_int = (1..1000i64, 0..5000i64).prop_map(|(low, width)| Domain::Int {
            low,
            high: low + width,
            step: 1,
            log: true,
        });
        let choices = (1..20i64).prop_map(|n| Domain::Categorical { choices: (0..n).map(Value::Int).collect() });
        prop_oneof![float, log_float, step_float, int, log_int, choices]
    }

    proptest! {
        #[test]
        fn every_draw_belongs_to_the_domain_and_survives_a_round_trip(domain in domains(), u in 0.0..1.0f64) {
            let value = domain.from_unit(u);
            prop_assert!(domain.contains(&value), "{value} not in {domain:?}");
            let there = domain.to_unit(&value).unwrap();
            prop_assert!((0.0..1.0).contains(&there));
            let back = domain.from_unit(there);
            if domain.cells().is_some() {
                prop_assert_eq!(&back, &value);
            } else {
                let (a, b) = (back.as_f64().unwrap(), value.as_f64().unwrap());
                prop_assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3), "{a} {b}");
            }
        }

        #[test]
        fn the_coding_is_monotone(domain in domains(), a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let at = |u: f64| domain.from_unit(u).as_f64().unwrap();
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
        }

        #[test]
        fn every_counted_value_has_its_index(domain in domains(), u in 0.0..1.0f64) {
            if let Some(cells) = domain.cells() {
                let index = (u * cells as f64) as u64;
                let value = domain.nth(index).unwrap();
                prop_assert!(domain.contains(&value), "{value} of {domain:?}");
                prop_assert_eq!(domain.index_of(&value), Some(index));
                prop_assert_eq!(domain.nth(cells), None);
            }
        }
    }

    #[test]
    fn cells_of_choices_steps_and_whole_numbers_are_equally_probable() {
        let n = 60_000;
        let linear = [
            Domain::Int { low: -1, high: 8, step: 3, log: false },
            Domain::Float { low: 0.1, high: 0.4, step: Some(0.1), log: false },
            Domain::Ordinal { choices: ["a", "b", "c", "d"].map(|t| Value::Text(t.into())).to_vec() },
        ];
        for domain in linear {
            let mut counts = vec![0; domain.cells().unwrap() as usize];
            for i in 0..n {
                let value = domain.from_unit((f64::from(i) + 0.5) / f64::from(n));
                counts[domain.index_of(&value).unwrap() as usize] += 1;
            }
            assert_eq!(counts, vec![n / 4; 4], "{domain:?}");
        }
    }

    #[test]
    fn log_whole_numbers_are_drawn_uniformly_in_the_logarithm() {
        let domain = Domain::Int { low: 1, high: 1000, step: 1, log: true };
        let n = 200_000;
        let hits = |v: i64| {
            let ones = (0..n).filter(|i| domain.from_unit((f64::from(*i) + 0.5) / f64::from(n)) == Value::Int(v));
            ones.count() as f64 / f64::from(n)
        };
        let whole = (1000.5f64).ln() - (0.5f64).ln();
        for v in [1, 2, 10, 100] {
            let share = ((v as f64 + 0.5).ln() - (v as f64 - 0.5).ln()) / whole;
            assert!((hits(v) - share).abs() < 2e-5, "{v}: {} {share}", hits(v));
        }
    }

    #[test]
    fn steps_read_as_people_write_them() {
        let domain = Domain::Float { low: 0.1, high: 0.5, step: Some(0.1), log: false };
        let all: Vec<_> = (0..domain.cells().unwrap()).map(|i| domain.nth(i).unwrap()).collect();
        assert_eq!(all, [0.1, 0.2, 0.3, 0.4, 0.5].map(Value::Float));
        assert_eq!(domain.coerce(&Value::Float(0.1 + 0.2)), Some(Value::Float(0.3)));
        assert!(!domain.contains(&Value::Float(0.25)));
    }

    #[test]
    fn extremes_stay_inside() {
        let wide = Domain::Float { low: f64::MIN, high: f64::MAX, step: None, log: false };
        assert!(wide.contains(&wide.from_unit(1.0)));
        assert!(wide.contains(&wide.from_unit(0.5)));
        assert_eq!(wide.to_unit(&Value::Float(0.0)), Some(0.5));
        let ints = Domain::Int { low: i64::MIN, high: i64::MAX, step: 1, log: false };
        assert!(ints.contains(&ints.from_unit(1.0)));
        assert!(ints.contains(&ints.from_unit(f64::NAN)));
        let log = Domain::Float { low: 1e-5, high: 1e-1, step: None, log: true };
        assert_eq!(log.from_unit(1.0), Value::Float(1e-1));
        assert_eq!(log.from_unit(0.0), Value::Float(1e-5));
    }
}
