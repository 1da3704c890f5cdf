//! Lines that a program prints: reports, and text for the log.

use crate::engine::EpochReport;
use crate::ids::Epoch;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Read};

/// Longer lines are delivered in pieces: a program that never ends its line must not fill our memory.
pub const MAX_LINE: u64 = 1 << 20;

/// A line that is a report or looks like one.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Report(Box<EpochReport>),
    /// A JSON object with an epoch that is not a valid report, and why.
    Unreadable(String),
}

#[derive(serde::Deserialize)]
struct Wire {
    epoch: u32,
    /// `null`: undefined; absent: taken from the metrics.
    #[serde(default, deserialize_with = "given")]
    value: Option<Option<f64>>,
    #[serde(default)]
    metrics: BTreeMap<String, Option<f64>>,
    train_loss: Option<f64>,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    data_wait_seconds: f64,
    #[serde(default)]
    images: u64,
}

/// Tells `null` (`Some(None)`) from an absent field (`None`).
fn given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<f64>>, D::Error> {
    serde::Deserialize::deserialize(value).map(Some)
}

impl Line {
    /// Parses a line; `None` if it is no report and belongs in the log. `metric`: the objective's name.
    pub(super) fn parse(text: &str, metric: &str) -> Option<Self> {
        let text = text.trim();
        if !text.starts_with('{') || !text.ends_with('}') {
            return None;
        }
        let text = without_bare_words(text);
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        json.get("epoch")?;
        let wire = match serde_json::from_value::<Wire>(json) {
            Ok(wire) => wire,
            Err(error) => {
                return Some(Self::Unreadable(format!("understand the report `{}`: {error}", shortened(&text))));
            }
        };
        let objective = wire.value.or_else(|| wire.metrics.get(metric).copied());
        Some(match objective {
            Some(value) => Self::Report(Box::new(EpochReport {
                epoch: Epoch(wire.epoch),
                value,
                metrics: wire.metrics.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
                train_loss: wire.train_loss,
                seconds: if wire.seconds.is_finite() { wire.seconds.max(0.0) } else { 0.0 },
                data_wait_seconds: wire.data_wait_seconds.max(0.0),
                images: wire.images,
                ..EpochReport::default()
            })),
            None => Self::Unreadable(format!(
                "find the objective in the report `{}`: it has no `value`\nhint: print `value`, or `{metric}` among the `metrics`",
                shortened(&text)
            )),
        })
    }
}

/// Replaces NaN and infinities by `null`: Python's `json` writes them as bare words, which are not JSON.
fn without_bare_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if in_string && c == '\\' {
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        if c == '"' {
            in_string = !in_string;
        }
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = word.map_or(c.len_utf8(), str::len);
        out.push_str(if word.is_some() { "null" } else { &rest[..taken] });
        rest = &rest[taken..];
    }
    out
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Calls `take` with every line, without its line ending, until it returns `false` or the input ends.
pub(super) fn each(input: &mut dyn BufRead, take: &mut dyn FnMut(&str) -> bool) {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        if !take(text.trim_end_matches(['\n', '\r'])) {
            // Discard the rest, so that the program is not killed by a closed pipe.
            let _ = std::io::copy(input, &mut std::io::sink());
            return;
        }
    }
}

/// The last lines that a program wrote to standard error.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    const LINES: usize = 8;

    pub(super) fn push(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == Self::LINES {
            self.0.pop_front();
        }
        self.0.push_back(shortened(line));
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}
