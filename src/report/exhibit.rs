//! The parts of a report: an exhibit answers one question with a chart, its table and its caveats.

use super::draw::Chart;
use super::table::Table;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Exhibit {
    /// Name of its files and its anchor.
    pub slug: String,
    /// Heading.
    pub title: String,
    /// The question it answers.
    pub question: String,
    /// What a reader must know: how it was computed, and what is missing.
    pub notes: Vec<String>,
    /// The chart; `None` where there is nothing to draw (the notes say why).
    pub chart: Option<Chart>,
    /// Pictures shown unchanged, with their captions: (caption, PNG).
    pub pictures: Vec<(String, Vec<u8>)>,
    /// The numbers behind the chart.
    pub table: Table,
}

impl Exhibit {
    /// An exhibit without notes.
    pub fn new(slug: &str, title: &str, question: &str, chart: Option<Chart>, table: Table) -> Self {
        Self {
            slug: slug.into(),
            title: title.into(),
            question: question.into(),
            notes: Vec::new(),
            chart,
            pictures: Vec::new(),
            table,
        }
    }

    /// An exhibit that can only say why it is empty.
    pub fn missing(slug: &str, title: &str, question: &str, why: &str) -> Self {
        Self::new(slug, title, question, None, Table::default()).note(why)
    }

    /// Adds a note.
    pub fn note(mut self, words: impl Into<String>) -> Self {
        self.notes.push(words.into());
        self
    }

    /// Adds a note if a condition holds.
    pub fn note_if(self, condition: bool, words: impl Into<String>) -> Self {
        if condition { self.note(words) } else { self }
    }
}

/// Exhibits that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Anchor.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// One sentence of introduction.
    pub intro: String,
    /// Its exhibits.
    pub exhibits: Vec<Exhibit>,
}
