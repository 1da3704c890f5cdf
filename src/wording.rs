//! Wording of messages.

/// A number with its noun: `1 file`, `2 files`. Only for nouns whose plural is formed with `s`.
pub fn counted(n: impl TryInto<u64>, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A size: `512 B`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Things one after another: `1`, `1 and 2`, `1, 2 and 3`.
pub fn listed<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, counted, listed};

    #[test]
    fn the_last_of_several_has_an_and() {
        let first = |n: u32| listed(1..=n);
        assert_eq!([0, 1, 2, 3].map(first), ["", "1", "1 and 2", "1, 2 and 3"]);
    }

    #[test]
    fn only_one_is_singular() {
        assert_eq!([0u32, 1, 2].map(|n| counted(n, "file")), ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        assert_eq!([512, 3 << 29].map(bytes), ["512 B", "1.5 GiB"]);
    }
}
