//! Writes the report of an invented study, to see what a report looks like and to work on it.
//!
//!     cargo run --example report_demo -- FOLDER [TRIALS] [--opened]
//!
//! Every number in it is drawn at random: nothing was trained.

mod study;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().ok_or("usage: report_demo FOLDER [TRIALS] [--opened]")?);
    let rest: Vec<String> = words.collect();
    let trials = rest.iter().find_map(|w| w.parse().ok()).unwrap_or(27);
    let record = study::invented(trials, rest.iter().any(|w| w == "--opened"));
    let written = hpsearch::report::write(&record, &folder)?;
    println!("{} ({} charts, {} tables)", written.index.display(), written.charts, written.tables);
    Ok(())
}
