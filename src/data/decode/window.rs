//! Values of interest: which part of a wide range of values becomes the greys from black to white.

/// From values to brightness, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Curve {
    /// PS3.3 C.11.2.1.2.1: the half and the 1 in it count values as pixels, not as a continuum.
    Linear { center: f64, width: f64 },
    /// PS3.3 C.11.2.1.3.2.
    LinearExact { center: f64, width: f64 },
    /// PS3.3 C.11.2.1.3.1.
    Sigmoid { center: f64, width: f64 },
    /// From `low` (black) to `high` (white); all black if they are the same.
    Span { low: f64, high: f64 },
    /// A lookup table from the value `first` on; beyond its ends, its ends.
    Table { first: i32, entries: Vec<u16>, bits: u32 },
}

impl Curve {
    /// From the smallest to the largest of some values.
    pub fn spanning(values: impl IntoIterator<Item = f64>) -> Self {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        let (low, high) = values.into_iter().fold(ends, |(low, high), v| (low.min(v), high.max(v)));
        Self::Span { low, high }
    }

    fn brightness(&self, x: f64) -> f64 {
        let ramp = |center: f64, width: f64| {
            if x <= center - width / 2.0 {
                0.0
            } else if x > center + width / 2.0 {
                1.0
            } else {
                (x - center) / width + 0.5
            }
        };
        match self {
            Self::Linear { center, width } => ramp(center - 0.5, width - 1.0),
            Self::LinearExact { center, width } => ramp(*center, *width),
            Self::Sigmoid { center, width } => 1.0 / (1.0 + (-4.0 * (x - center) / width).exp()),
            Self::Span { low, high } if high > low => (x - low) / (high - low),
            Self::Span { .. } => 0.0,
            Self::Table { first, entries, bits } => {
                let index = (x.round() - f64::from(*first)).clamp(0.0, entries.len() as f64 - 1.0);
                f64::from(entries[index as usize]) / f64::from((1u32 << bits) - 1)
            }
        }
    }
}

/// Codes of `bits` bits as 16-bit greys. `value`: what a code stands for; `None`: nothing, it becomes black. Without a
/// curve, from the smallest to the largest value that occurs.
pub(super) fn grey16(
    codes: &[u16],
    bits: u32,
    value: impl Fn(u16) -> Option<f64>,
    curve: Option<Curve>,
    inverted: bool,
) -> Vec<u16> {
    let all = 0..1u32 << bits;
    let curve = curve.unwrap_or_else(|| {
        let mut occurs = vec![false; all.len()];
        codes.iter().for_each(|&code| occurs[usize::from(code)] = true);
        Curve::spanning(all.clone().filter(|&c| occurs[c as usize]).filter_map(|c| value(c as u16)))
    });
    let grey = |code: u32| {
        let Some(x) = value(code as u16) else { return 0 };
        let brightness = curve.brightness(x).clamp(0.0, 1.0);
        let brightness = if inverted { 1.0 - brightness } else { brightness };
        (brightness * 65535.0).round() as u16
    };
    let greys: Vec<u16> = all.map(grey).collect();
    codes.iter().map(|&code| greys[usize::from(code)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_agree_with_the_examples_of_the_standard() {
        // PS3.3 C.11.2.1.2.1, examples 1 and 2, of outputs from 0 to 255.
        let output = |center, width, x| 255.0 * Curve::Linear { center, width }.brightness(x).clamp(0.0, 1.0);
        assert_eq!([0.0, 4095.0].map(|x| output(2048.0, 4096.0, x)), [0.0, 255.0]);
        assert!((output(2048.0, 4096.0, 2048.0) - (0.5 / 4095.0 + 0.5) * 255.0).abs() < 1e-9);
        // A width of 1 is a threshold.
        assert_eq!([2047.0, 2048.0].map(|x| output(2048.0, 1.0, x)), [0.0, 255.0]);
        let half = Curve::Sigmoid { center: 10.0, width: 4.0 };
        assert_eq!(half.brightness(10.0), 0.5);
        assert!((half.brightness(12.0) - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-15);
        let exact = Curve::LinearExact { center: 10.0, width: 4.0 };
        assert_eq!([8.0, 9.0, 10.0, 12.0].map(|x| exact.brightness(x)), [0.0, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn without_a_curve_the_values_that_occur_fill_the_range_and_padding_is_black() {
        let value = |code: u16| (code != 0).then_some(f64::from(code));
        let greys = grey16(&[0, 10, 20, 30], 8, value, None, false);
        assert_eq!(greys, [0, 0, 32768, 65535]);
        assert_eq!(grey16(&[0, 10, 20, 30], 8, value, None, true), [0, 65535, 32768, 0]);
        assert_eq!(grey16(&[7, 7], 8, value, None, false), [0, 0], "one value has no contrast");
        assert_eq!(grey16(&[0, 0], 8, value, None, false), [0, 0], "nothing but padding");
    }
}
