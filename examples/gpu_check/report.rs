//! A Markdown report on standard output, written as it comes so that a run that is cut off leaves what it has.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

pub struct Report {
    until: Instant,
    checks: u32,
    failed: Vec<String>,
}

/// The result of a section.
pub type Outcome = Result<(), Box<dyn Error>>;

impl Report {
    pub fn new(until: Instant) -> Self {
        Self { until, checks: 0, failed: Vec::new() }
    }

    pub fn title(&self, text: &str) {
        println!("# GPU check: {text}\n");
    }

    pub fn line(&self, text: &str) {
        println!("{text}");
    }

    /// Whether there is time for more.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Runs a section; an error or a panic fails it, and the next one follows.
    pub fn section(&mut self, name: &str, f: impl FnOnce(&mut Self) -> Outcome) {
        println!("\n## {name}\n");
        if !self.goes_on() {
            self.failed.push(format!("{name}: out of time"));
            println!("Left out: out of time.");
            return;
        }
        let began = Instant::now();
        let failure = match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("a panic".to_owned()),
        };
        if let Some(failure) = failure {
            println!("\n**FAILED**: {failure}");
            self.failed.push(format!("{name}: {failure}"));
        }
        println!("\n({:.1} s)", began.elapsed().as_secs_f64());
    }

    pub fn table(&self, head: &[&str]) {
        println!("| {} |", head.join(" | "));
        println!("|{}", "---|".repeat(head.len()));
    }

    pub fn row(&self, cells: &[String]) {
        println!("| {} |", cells.join(" | "));
    }

    /// A row `what | found | limit | verdict`: found must not exceed the limit, and NaN does.
    pub fn at_most(&mut self, what: &str, found: f64, limit: f64) {
        self.verdict(what, &format!("{found:.2e}"), &format!("<= {limit:.0e}"), found <= limit);
    }

    /// A row whose verdict is known.
    pub fn verdict(&mut self, what: &str, found: &str, wanted: &str, good: bool) {
        self.checks += 1;
        if !good {
            self.failed.push(format!("{what}: {found}, wanted {wanted}"));
        }
        let verdict = if good { "ok" } else { "**FAILED**" };
        self.row(&[what.to_owned(), found.to_owned(), wanted.to_owned(), verdict.to_owned()]);
    }

    pub fn finish(self) -> ExitCode {
        println!("\n## Verdict\n\n{} checks, {} failures.", self.checks, self.failed.len());
        for failure in &self.failed {
            println!("- {failure}");
        }
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
