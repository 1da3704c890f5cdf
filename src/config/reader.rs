//! Reading tables of a parsed TOML document without stopping at the first mistake.
//!
//! The document is walked as toml's own spanned tree instead of through `serde`: derived structures stop at the
//! first value of a wrong type and lose spans inside enums, and all mistakes of a study file are to be shown at once.

use super::diagnostics::{Mistake, Severity, SourceFile};
use super::schema::Table;
use super::units;
use crate::space::Value;
use crate::spec::{Bounds, CommandSpec, FillError};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::str::FromStr;
use strum::VariantNames;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Collects what is found.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub files: RefCell<Vec<SourceFile>>,
    pub mistakes: RefCell<Vec<Mistake>>,
    pub unreadable: Cell<bool>,
}

/// A place in the input: a file and a range of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: usize,
    pub span: Option<Range<usize>>,
}

/// A mistake or warning that is already recorded; [`Report::help`] adds help to it.
pub(super) struct Report<'a> {
    log: &'a Log,
    index: usize,
}

impl Report<'_> {
    /// Adds what the user can do.
    pub fn help(self, help: impl Into<String>) -> Self {
        self.log.mistakes.borrow_mut()[self.index].help.push(help.into());
        self
    }
}

impl Log {
    /// Registers a file; [`Place::file`] is its index.
    pub fn file(&self, path: String, text: String) -> usize {
        let mut files = self.files.borrow_mut();
        files.push(SourceFile { path, text });
        files.len() - 1
    }

    /// Records a mistake.
    pub fn error(&self, place: &Place, title: impl Into<String>, label: impl Into<String>) -> Report<'_> {
        self.add(Severity::Error, place, title.into(), label.into())
    }

    /// Records something unwise.
    pub fn warn(&self, place: &Place, title: impl Into<String>, label: impl Into<String>) -> Report<'_> {
        self.add(Severity::Warning, place, title.into(), label.into())
    }

    /// The number of mistakes so far, warnings left out.
    pub fn errors(&self) -> usize {
        self.mistakes.borrow().iter().filter(|m| m.severity == Severity::Error).count()
    }

    /// The latest mistake again, to add help. Only after one was recorded.
    pub fn last(&self) -> Report<'_> {
        Report { log: self, index: self.mistakes.borrow().len().saturating_sub(1) }
    }

    fn add(&self, severity: Severity, place: &Place, title: String, label: String) -> Report<'_> {
        let mut mistakes = self.mistakes.borrow_mut();
        mistakes.push(Mistake { severity, file: place.file, span: place.span.clone(), title, label, help: Vec::new() });
        Report { log: self, index: mistakes.len() - 1 }
    }
}

/// A value with its place and the place of its key.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub log: &'a Log,
    pub key: &'a str,
    pub key_place: Place,
    pub place: Place,
    pub value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    /// Records that another kind of value was expected here.
    pub fn wanted(&self, expected: &str) -> Report<'a> {
        self.log.error(
            &self.place,
            format!("`{}` must be {expected}", self.key),
            format!("this is {}", describe(self.value)),
        )
    }

    pub fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wanted("a text in quotes");
        }
        text
    }

    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wanted("true or false");
        }
        flag
    }

    pub fn real(&self, bounds: Bounds) -> Option<f64> {
        let x = number(self.value).filter(|x| bounds.contains(*x));
        if x.is_none() {
            self.wanted(&bounds.to_string());
        }
        x
    }

    pub fn whole(&self, low: u64, high: u64) -> Option<u64> {
        let n = integer(self.value).and_then(|n| u64::try_from(n).ok()).filter(|n| (low..=high).contains(n));
        if n.is_none() {
            let range = if high >= u64::from(u32::MAX) {
                format!("a whole number of at least {low}")
            } else {
                format!("a whole number from {low} to {high}")
            };
            self.wanted(&range);
        }
        n
    }

    pub fn choice<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let text = self.value.as_str();
        let found = text.and_then(|t| names.iter().copied().find(|n| *n == t));
        if found.is_none() {
            let report = self.log.error(
                &self.place,
                format!("`{}` must be one of {}", self.key, names.join(", ")),
                text.map_or_else(|| format!("this is {}", describe(self.value)), |_| String::from("unknown")),
            );
            suggest(report, text, names.iter().copied());
        }
        found
    }

    pub fn seconds(&self) -> Option<f64> {
        let seconds = self.value.as_str().and_then(units::seconds);
        if seconds.is_none() {
            self.wanted("a duration of at most ten years")
                .help("write it like \"90s\", \"45m\", \"8h\", \"2d\" or \"1h30m\": the units are s, m, h and d");
        }
        seconds
    }

    pub fn bytes(&self) -> Option<u64> {
        let plain = integer(self.value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let bytes = plain.or_else(|| self.value.as_str().and_then(units::bytes));
        if bytes.is_none() {
            self.wanted("a size").help("write it like \"500 MB\" or \"2 GiB\"");
        }
        bytes
    }

    /// A value that a parameter can take: a text, a finite number, true or false.
    pub fn scalar(&self) -> Option<Value> {
        let value = scalar(self.value);
        if value.is_none() {
            self.wanted("a text, a finite number, true or false");
        }
        value
    }

    /// The elements of an array; if `or_one`, a single value counts as an array of one.
    pub fn elements(&self, or_one: bool) -> Option<Vec<Item<'a>>> {
        match self.value {
            DeValue::Array(array) => Some(
                array
                    .iter()
                    .map(|e| Item {
                        place: Place { file: self.place.file, span: Some(e.span()) },
                        value: e.get_ref(),
                        ..self.clone()
                    })
                    .collect(),
            ),
            _ if or_one => Some(vec![self.clone()]),
            _ => {
                self.wanted("an array in brackets");
                None
            }
        }
    }

    /// The value as a table whose keys a schema lists.
    pub fn table(&self, schema: &'static Table) -> Option<Section<'a>> {
        match self.value {
            DeValue::Table(table) => {
                // Of a table that users name, their name.
                let name = match schema.name.rsplit_once("NAME") {
                    Some((before, "")) => format!("{before}{}", self.key),
                    Some(_) => self.key.to_owned(),
                    None => schema.name.to_owned(),
                };
                Some(Section::called(&name, self.log, self.place.clone(), Some(table), schema))
            }
            _ => {
                self.wanted("a table");
                None
            }
        }
    }
}

/// A table of the document, possibly absent.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub log: &'a Log,
    pub place: Place,
    pub schema: &'static Table,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// Reads a table; keys that the schema does not list are mistakes.
    pub fn new(log: &'a Log, place: Place, table: Option<&'a DeTable<'a>>, schema: &'static Table) -> Self {
        Self::called(schema.name, log, place, table, schema)
    }

    /// The same with what the table is called in messages.
    fn called(name: &str, log: &'a Log, place: Place, table: Option<&'a DeTable<'a>>, schema: &'static Table) -> Self {
        let section = Self { log, place, schema, table };
        for item in section.items() {
            if schema.keys.iter().all(|k| k.name != item.key) {
                let title = if name.is_empty() {
                    format!("there is no key or table `{}`", item.key)
                } else {
                    format!("there is no key `{}` in `{name}`", item.key)
                };
                let report = log.error(&item.key_place, title, "unknown");
                let report = suggest(report, Some(item.key), schema.keys.iter().map(|k| k.name));
                elsewhere(report, item.key, schema);
            }
        }
        section
    }

    /// The same without the check for unknown keys: for a table that is checked elsewhere.
    pub fn unchecked(log: &'a Log, place: Place, table: &'a DeTable<'a>, schema: &'static Table) -> Self {
        Self { log, place, schema, table: Some(table) }
    }

    /// The table under a key; a value of another kind counts as absent.
    ///
    /// Records nothing, so that it may be called repeatedly: [`Section::check`] records mistakes once.
    pub fn section(&self, key: &str) -> Section<'a> {
        let schema = self.schema_of(key).unwrap_or(self.schema);
        let absent =
            || Section { log: self.log, place: Place { file: self.place.file, span: None }, schema, table: None };
        self.get(key).map_or_else(absent, |item| match item.value {
            DeValue::Table(table) => Section::unchecked(self.log, item.key_place, table, schema),
            _ => absent(),
        })
    }

    /// Whether the table stands in the file.
    pub fn is_given(&self) -> bool {
        self.table.is_some()
    }

    /// Records every unknown key and every value that should be a table, in this table and in those inside it.
    pub fn check(&self) {
        for item in self.items() {
            // Some keys take a text instead of a table.
            let takes_text = self.schema.keys.iter().any(|k| k.name == item.key && k.kind.starts_with('`'));
            if let Some(schema) = self.schema_of(item.key)
                && (item.value.is_table() || !takes_text)
                && let Some(section) = item.table(schema)
            {
                section.check();
            }
        }
    }

    /// The schema of a table inside this one.
    fn schema_of(&self, key: &str) -> Option<&'static Table> {
        if self.schema.name.is_empty() {
            Table::named(key)
        } else {
            Table::named(&format!("{}.{key}", self.schema.name))
        }
    }

    /// All values in the order of the file.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let (log, file) = (self.log, self.place.file);
        self.table.into_iter().flat_map(move |table| items(log, file, table))
    }

    /// The value of a key that the schema lists.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        debug_assert!(self.schema.keys.iter().any(|k| k.name == key), "{key} is not in the schema");
        self.items().find(|i| i.key == key)
    }

    /// The place of a key's value, or of the whole table.
    pub fn place_of(&self, key: &str) -> Place {
        self.get(key).map_or_else(|| self.place.clone(), |item| item.place)
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    pub fn whole(&self, key: &str, low: u64, high: u64) -> Option<u64> {
        self.get(key)?.whole(low, high)
    }

    /// A whole number of at least `low` that fits 32 bits.
    pub fn count(&self, key: &str, low: u32) -> Option<u32> {
        self.whole(key, low.into(), u32::MAX.into()).map(|n| n as u32)
    }

    pub fn real(&self, key: &str, bounds: Bounds) -> Option<f64> {
        self.get(key)?.real(bounds)
    }

    pub fn choice<'n>(&self, key: &str, names: &[&'n str]) -> Option<&'n str> {
        self.get(key)?.choice(names)
    }

    /// A choice whose names are those of a type.
    pub fn one_of<T: VariantNames + FromStr>(&self, key: &str) -> Option<T> {
        self.choice(key, T::VARIANTS)?.parse().ok()
    }

    /// Records a mistake for each key that does not belong to this `kind` of the table.
    pub fn only_with(&self, kind: &str, keys: &[(&str, &[&str])]) {
        for (key, kinds) in keys {
            if let Some(item) = self.get(key)
                && !kinds.contains(&kind)
            {
                self.log.error(
                    &item.key_place,
                    format!("`{key}` has no meaning with `kind = \"{kind}\"`"),
                    format!("belongs to {}", kinds.join(" and ")),
                );
            }
        }
    }
}

/// The values of a table with their places.
fn items<'a>(log: &'a Log, file: usize, table: &'a DeTable<'a>) -> impl Iterator<Item = Item<'a>> + use<'a> {
    let mut items: Vec<Item<'a>> = table
        .iter()
        .map(|(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| Item {
            log,
            key: key.get_ref().as_ref(),
            key_place: Place { file, span: Some(key.span()) },
            place: Place { file, span: Some(value.span()) },
            value: value.get_ref(),
        })
        .collect();
    items.sort_by_key(|i| i.key_place.span.as_ref().map_or(0, |s| s.start));
    items.into_iter()
}

/// Any table's values, where no schema lists the keys (`[space]`, `[[enqueue]]`).
pub(super) fn entries<'a>(item: &Item<'a>) -> Option<Vec<Item<'a>>> {
    match item.value {
        DeValue::Table(table) => Some(items(item.log, item.place.file, table).collect()),
        _ => {
            item.wanted("a table");
            None
        }
    }
}

/// Records a mistake for an argument of a command in which a brace is open, or a name in braces is none of `names`. `whose`: what
/// has them.
pub(super) fn check_braces<const N: usize>(item: &Item<'_>, names: [&str; N], whose: &str) {
    let Some(text) = item.text() else { return };
    match CommandSpec::fill(text, |name| names.contains(&name).then(String::new)) {
        Err(FillError::Unknown { name, .. }) => {
            let title = format!("{whose} has no `{{{name}}}`");
            suggest(item.log.error(&item.place, title, "unknown"), Some(&name), names);
        }
        Err(FillError::Open(_)) => open_brace(item),
        Ok(_) => {}
    }
}

/// Records that a brace is open in an argument of a command.
pub(super) fn open_brace(item: &Item<'_>) {
    let report = item.log.error(&item.place, "a brace is open", "`{name}` was expected");
    report.help("write {{ and }} for braces of your own");
}

/// Adds the nearest known name as help, if one is near enough.
pub(super) fn suggest<'a, 'n>(
    report: Report<'a>,
    given: Option<&str>,
    known: impl IntoIterator<Item = &'n str>,
) -> Report<'a> {
    match given.and_then(|given| nearest(given, known)) {
        Some(name) => report.help(format!("did you mean `{name}`?")),
        None => report,
    }
}

/// The known name nearest to a text, if it is near enough to have been meant: Damerau-Levenshtein distance of at
/// most a third of its length, or the same letters apart from case and separators.
pub(super) fn nearest<'n>(given: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let bare = |t: &str| t.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = bare(given);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &bare(name)), name))
        .filter(|(distance, name)| *distance <= (name.len().max(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Adds that a key exists in another table.
fn elsewhere<'a>(report: Report<'a>, key: &str, schema: &Table) -> Report<'a> {
    let tables: Vec<String> = super::schema::TABLES
        .iter()
        .filter(|t| t.name != schema.name && t.keys.iter().any(|k| k.name == key))
        .map(|t| if t.name.is_empty() { String::from("the top of the file") } else { format!("[{}]", t.name) })
        .collect();
    if tables.is_empty() { report } else { report.help(format!("`{key}` belongs to {}", tables.join(", "))) }
}

/// The value as a whole number, if it is one of 64 bits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok())
}

/// A number of either kind, as long as it is finite.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let float = value.as_float().and_then(|x| x.as_str().parse::<f64>().ok()).filter(|x| x.is_finite());
    float.or_else(|| integer(value).map(|n| n as f64))
}

/// A parameter's value.
pub(super) fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.clone().into_owned())),
        DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
        DeValue::Integer(_) => integer(value).map(Value::Int),
        DeValue::Float(_) => number(value).map(Value::Float),
        _ => None,
    }
}

/// What a value is, for people.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 24 => format!("the text \"{text}\""),
        DeValue::String(_) => String::from("a text"),
        DeValue::Integer(n) => format!("{n}"),
        DeValue::Float(x) => x.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => String::from("a date"),
        DeValue::Array(_) => String::from("an array"),
        DeValue::Table(_) => String::from("a table"),
    }
}

/// Parses TOML and records every syntax mistake. `None` if there is one: checking the recovered part would report
/// mistakes that the user did not make.
pub(super) fn document<'a>(log: &Log, file: usize, text: &'a str) -> Option<Spanned<DeTable<'a>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        log.error(
            &Place { file, span: error.span() },
            "this is not TOML",
            error.message().lines().next().unwrap_or_default(),
        );
    }
    errors.is_empty().then_some(document)
}
