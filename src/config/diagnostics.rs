//! Mistakes and warnings with their places, and how they are shown.

use crate::wording::counted;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// As the user wrote it.
    pub path: String,
    pub text: String,
}

/// A study with a mistake cannot be run; one with a warning can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One mistake, or one warning.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub severity: Severity,
    /// Index into the files.
    pub file: usize,
    /// Bytes of that file; `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub title: String,
    /// The text beside the caret.
    pub label: String,
    /// What to do.
    pub help: Vec<String>,
}

/// Everything that was found in a study file and in the files it names.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    pub(super) files: Vec<SourceFile>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) unreadable: bool,
}

impl Diagnostics {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Whether a file could not be read at all, as opposed to one with mistakes.
    pub fn unreadable(&self) -> bool {
        self.unreadable
    }

    /// What was found, one sentence each, without places.
    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.mistakes.iter().map(|m| m.title.as_str())
    }

    /// For programs: severity, file, line and column (both from 1), message and help of each.
    pub fn to_json(&self) -> Vec<serde_json::Value> {
        self.mistakes
            .iter()
            .map(|m| {
                let file = &self.files[m.file];
                let place = m.span.as_ref().map(|span| position(&file.text, span.start));
                serde_json::json!({
                    "severity": if m.severity == Severity::Error { "error" } else { "warning" },
                    "file": file.path,
                    "line": place.map(|p| p.0),
                    "column": place.map(|p| p.1),
                    "message": m.title,
                    "help": m.help,
                })
            })
            .collect()
    }

    /// The text for people: each with its file, line and caret, errors before warnings, each in
    /// the order of the files, and their numbers at the end.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut order: Vec<&Mistake> = self.mistakes.iter().collect();
        order.sort_by_key(|m| (m.severity == Severity::Warning, m.file, m.span.as_ref().map_or(0, |s| s.start)));
        let mut text = String::new();
        for mistake in order {
            text.push_str(&renderer.render(&[self.group(mistake)]));
            text.push_str("\n\n");
        }
        let count = |severity, one: &str| {
            let n = self.mistakes.iter().filter(|m| m.severity == severity).count();
            (n > 0).then(|| counted(n, one))
        };
        let counts: Vec<String> =
            [count(Severity::Error, "mistake"), count(Severity::Warning, "warning")].into_iter().flatten().collect();
        if let Some(file) = self.files.first() {
            text.push_str(&format!("{}: {}\n", file.path, counts.join(", ")));
        }
        text
    }

    fn group<'a>(&'a self, mistake: &'a Mistake) -> Group<'a> {
        let level = match mistake.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = &self.files[mistake.file];
        let title = level.primary_title(mistake.title.as_str());
        let mut group = match &mistake.span {
            Some(span) => {
                let span = clamp(&file.text, span);
                title.element(
                    Snippet::source(file.text.as_str())
                        .path(file.path.as_str())
                        .annotation(AnnotationKind::Primary.span(span).label(mistake.label.as_str())),
                )
            }
            None => title.element(Level::NOTE.message(format!("in {}", file.path))),
        };
        for help in &mistake.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }
}

/// A span inside the text that does not go beyond its line.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |i: usize| (0..=i.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let start = floor(span.start);
    let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let line_end = if text[..line_end].ends_with('\r') { line_end - 1 } else { line_end };
    let end = floor(span.end).min(line_end).max(start);
    start..end
}

/// Line and column, both from 1, columns in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let at = clamp(text, &(at..at)).start;
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "a = 1\nü = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find('2').unwrap()), (2, 5));
        assert_eq!(position(text, 999), (3, 1));
        // Not into the middle of a letter, nor onto the last line feed.
        assert_eq!(clamp(text, &(7..99)), 6..12);
    }
}
