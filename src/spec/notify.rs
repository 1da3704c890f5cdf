//! Who is told of what happens in a study.

use strum::VariantNames;

/// What people may be told of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, strum::Display, strum::EnumString, VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Occasion {
    /// A trial is better than all before it.
    Best,
    /// Nothing is left to do, or the budget is spent, and there is a best trial.
    Done,
    /// The run ended in an error, or without any trial that has a value.
    Failed,
}

/// Where a notice is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyUrl {
    /// This address, `http` or `https`.
    Given(String),
    /// The one in this environment variable: addresses of chat rooms are secrets.
    Variable(String),
}

/// Who is told of what. Not part of a study: it is not kept in the database, nor in what is exported from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifySpec {
    /// What they are told of.
    pub on: Vec<Occasion>,
    /// Program and arguments, with [`NOTICE_FIELDS`] in braces; empty: none.
    pub command: Vec<String>,
    /// Where a notice is posted as JSON.
    pub url: Option<NotifyUrl>,
}

/// What may stand in braces in the arguments of a notice's command.
pub const NOTICE_FIELDS: [&str; 6] = ["event", "study", "text", "trial", "metric", "value"];

impl NotifySpec {
    /// Whether nobody is ever told.
    pub fn is_silent(&self) -> bool {
        self.on.is_empty() || (self.command.is_empty() && self.url.is_none())
    }
}
