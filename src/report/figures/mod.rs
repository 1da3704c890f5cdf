//! Turns a record into exhibits: pure computation, without files or clock.

mod answer;
mod audit;
mod checklist;
mod course;
mod evidence;
mod hyperparameters;
mod machine;
mod search;
mod winner;

pub use course::{HOW_COUNTED, Point, course, course_of};
pub use evidence::{DRAWS, Entry, Evidence, Model, draws, resampling};
pub use winner::pictured;

use super::exhibit::Section;
use super::model::StudyRecord;

/// The report's sections in the order of reading.
pub fn sections(record: &StudyRecord) -> Vec<Section> {
    let validation = Evidence::validation(record);
    let test = Evidence::test(record);
    let mut sections = vec![answer::section(record, &validation, test.as_ref())];
    if let Some(test) = &test {
        sections.push(winner::section(record, test));
    }
    sections.push(winner::section(record, &validation));
    sections.push(search::section(record));
    sections.push(hyperparameters::section(record));
    sections.push(machine::data(record));
    sections.extend(record.audit.as_ref().map(audit::section));
    sections.push(machine::machine(record));
    sections.push(checklist::section(record, &validation, test.as_ref()));
    sections
}
