//! Tables: the numbers behind a chart, rounded on the page, unrounded in the CSV.

use super::text::short;

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number, shown with so many decimals.
    Number(f64, usize),
    /// A number of any magnitude, shown in few characters.
    Short(f64),
    /// Undefined, or not known.
    Missing,
}

impl Cell {
    /// A number that may be undefined.
    pub fn number(value: Option<f64>, decimals: usize) -> Self {
        value.filter(|v| v.is_finite()).map_or(Self::Missing, |v| Self::Number(v, decimals))
    }

    /// A p-value; below 0.001 in scientific notation.
    pub fn p(value: Option<f64>) -> Self {
        value.map_or(Self::Missing, |p| if p < 0.001 { Self::Short(p) } else { Self::Number(p, 3) })
    }

    /// As the page shows it.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(t) => t.clone(),
            Self::Count(n) => n.to_string(),
            Self::Number(v, d) => format!("{v:.d$}"),
            Self::Short(v) => short(*v),
            Self::Missing => "–".into(),
        }
    }

    /// As the CSV has it: every digit; empty when missing.
    pub fn exact(&self) -> String {
        match self {
            Self::Text(t) => t.clone(),
            Self::Count(n) => n.to_string(),
            Self::Number(v, _) | Self::Short(v) => v.to_string(),
            Self::Missing => String::new(),
        }
    }

    /// Whether it is right-aligned.
    pub fn numeric(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

impl From<&str> for Cell {
    fn from(t: &str) -> Self {
        Self::Text(t.to_owned())
    }
}

impl From<String> for Cell {
    fn from(t: String) -> Self {
        Self::Text(t)
    }
}

impl From<u64> for Cell {
    fn from(n: u64) -> Self {
        Self::Count(n)
    }
}

impl From<usize> for Cell {
    fn from(n: usize) -> Self {
        Self::Count(n as u64)
    }
}

impl From<u32> for Cell {
    fn from(n: u32) -> Self {
        Self::Count(u64::from(n))
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, as wide as the columns.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    /// The table as CSV.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut out = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        out.write_record(&self.columns)?;
        for row in &self.rows {
            out.write_record(row.iter().map(Cell::exact))?;
        }
        out.into_inner().map_err(|e| e.into_error().into())
    }
}
