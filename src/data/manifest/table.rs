//! CSV manifests: columns `path`, `label`, and optionally `patient` and `split`.

use super::{GivenSet, Listed, Listing, ManifestError};
use std::collections::HashMap;
use std::path::Path;

pub(super) fn list(path: &Path) -> Result<Listing, ManifestError> {
    if !path.is_file() {
        return Err(ManifestError::NoManifest { path: path.to_owned() });
    }
    let csv_error = |source| ManifestError::Csv { path: path.to_owned(), source };
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_path(path).map_err(csv_error)?;
    let header = reader.headers().map_err(csv_error)?.clone();
    let mut rows = Rows { file: path, columns: Columns::find(&header, path)?, seen: HashMap::new(), mistakes: vec![] };
    let mut listing = Listing::default();
    for record in reader.records() {
        match record {
            Ok(record) => listing.images.extend(rows.read(&record, header.len())),
            Err(e) => {
                let line = e.position().map_or(0, csv::Position::line);
                rows.mistake(line, &format!("is not readable: {e}"));
            }
        }
    }
    let with_set = listing.images.iter().filter(|i| i.set.is_some()).count();
    if with_set > 0 && with_set < listing.images.len() {
        let without = listing.images.iter().find(|i| i.set.is_none()).map_or(0, |i| rows.seen[&i.name]);
        rows.mistake(without, "has no `split`, others have: give every row one, or none");
    } else if with_set > 0 && !listing.images.iter().any(|i| i.set == Some(GivenSet::Train)) {
        rows.mistakes.push(format!("{}: no row has the split `train`", path.display()));
    }
    if listing.images.is_empty() && rows.mistakes.is_empty() {
        rows.mistakes.push(format!("{}: it has no rows", path.display()));
    }
    if !rows.mistakes.is_empty() {
        return Err(ManifestError::Rows { path: path.to_owned(), mistakes: rows.mistakes });
    }
    listing.classes = listing.images.iter().map(|i| i.label.clone()).collect();
    Ok(listing)
}

/// Positions of the known columns.
struct Columns {
    path: usize,
    label: usize,
    patient: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    fn find(header: &csv::StringRecord, file: &Path) -> Result<Self, ManifestError> {
        let at = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
        let found = header.iter().collect::<Vec<_>>().join(", ");
        let (Some(path), Some(label)) = (at("path"), at("label")) else {
            let mistake = format!("{}:1: needs the columns `path` and `label`, has: {found}", file.display());
            return Err(ManifestError::Rows { path: file.to_owned(), mistakes: vec![mistake] });
        };
        Ok(Self { path, label, patient: at("patient"), split: at("split") })
    }
}

struct Rows<'a> {
    file: &'a Path,
    columns: Columns,
    /// Line of each path, to report both lines of a duplicate.
    seen: HashMap<String, u64>,
    mistakes: Vec<String>,
}

impl Rows<'_> {
    fn mistake(&mut self, line: u64, what: &str) {
        self.mistakes.push(format!("{}:{line}: {what}", self.file.display()));
    }

    fn read(&mut self, record: &csv::StringRecord, columns: usize) -> Option<Listed> {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != columns {
            self.mistake(line, &format!("has {} fields, the header has {columns}", record.len()));
            return None;
        }
        let field = |column: Option<usize>| column.and_then(|c| record.get(c)).filter(|text| !text.is_empty());
        let (path, label) = (field(Some(self.columns.path)), field(Some(self.columns.label)));
        let (Some(path), Some(label)) = (path, label) else {
            self.mistake(line, if path.is_none() { "has no path" } else { "has no label" });
            return None;
        };
        let set = field(self.columns.split).map(|name| GivenSet::named(name).ok_or(name));
        if let Some(Err(name)) = set {
            self.mistake(line, &format!("has the split `{name}`, known are train, val and test"));
            return None;
        }
        let name = path.replace('\\', "/");
        if let Some(first) = self.seen.insert(name.clone(), line) {
            self.mistake(line, &format!("names `{path}` again, line {first} did so already"));
            return None;
        }
        Some(Listed {
            file: self.file.parent().unwrap_or(Path::new("")).join(&name),
            name,
            label: label.to_owned(),
            patient: field(self.columns.patient).map(str::to_owned),
            set: set.and_then(Result::ok),
        })
    }
}
