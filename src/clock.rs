//! The wall clock: for records that people read. No result depends on it.

use jiff::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC; 0 if the clock is set to before that.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-03-01 14:05:09 UTC`, from milliseconds since 1970; the number itself if it is beyond the calendar's range.
pub fn utc(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| format!("{unix_ms} ms"), |moment| moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `2026-03-01T14:05:09.120000+00:00`, as Python's `datetime.isoformat` writes it, from milliseconds since 1970; the
/// latest moment of the calendar if it is beyond its range.
pub fn iso(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// A duration for people: `4.2 s`, `3 min 20 s`, `2 h 05 min`.
pub fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if 0.0005 < seconds && seconds < 0.095 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        // From `date -u -d @N`.
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
        assert_eq!(utc(u64::MAX), "18446744073709551615 ms");
        // From Python's datetime.fromtimestamp(951782400.12, timezone.utc).isoformat(timespec="microseconds").
        assert_eq!(iso(951_782_400_120), "2000-02-29T00:00:00.120000+00:00");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(4.21), "4.2 s");
        assert_eq!(span(59.96), "1 min 00 s");
        assert_eq!(span(200.0), "3 min 20 s");
        assert_eq!(span(7500.0), "2 h 05 min");
        assert_eq!(span(f64::NAN), "?");
    }
}
