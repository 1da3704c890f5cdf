//! Durations and sizes as people write them.

/// Seconds of `90s`, `90m`, `8h`, `2d`, `1h30m`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let unit = |name: &str| match name {
        "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        total += number * unit(after[..end].trim())?;
        rest = &after[end..];
    }
    (total > 0.0 && total <= LONGEST).then_some(total)
}

/// The longest duration accepted: ten years.
const LONGEST: f64 = 3650.0 * 86_400.0;

/// Bytes of `500 MB`, `2 GiB`, `1024`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        "tib" => 1024f64.powi(4),
        _ => return None,
    };
    let total = (number * factor).round();
    (total >= 1.0 && total < u64::MAX as f64).then_some(total as u64)
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read() {
        assert_eq!(seconds("8h"), Some(28_800.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("90 s"), Some(90.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("3650d"), Some(315_360_000.0));
        for wrong in ["", "8", "h", "8 hours", "-1h", "0s", "1h 30", "3651d", "999999999999999999999d"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        assert_eq!(bytes("500MB"), Some(500_000_000));
        assert_eq!(bytes("1024"), Some(1024));
        for wrong in ["", "0", "2 GB/s", "-1", "1e99 TB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
