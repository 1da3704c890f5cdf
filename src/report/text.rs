//! Numbers and texts as pages and charts show them.

/// A number in few characters.
pub fn short(v: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&v.abs()) {
        let text = format!("{v:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa =
            if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
        return format!("{mantissa}e{exponent}");
    }
    let digits = (2 - v.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text with its control characters replaced: neither HTML nor SVG may contain them.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_short() {
        for (v, text) in [(0.000123, "1.23e-4"), (0.5, "0.5"), (12345.0, "12345"), (1e6, "1e6"), (0.1 + 0.2, "0.3")] {
            assert_eq!(short(v), text);
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{0}b\nc\u{1b}"), "a\u{FFFD}b\nc\u{FFFD}");
    }
}
