//! The writer of a study.

use super::session::Session;
use super::write::{int, put_all, text};
use super::{Fault, read};
use crate::crash::{self, Point};
use crate::engine::Event;
use crate::history::Row;
use crate::spec::StudySpec;
use crate::store::{ImagesOnRecord, OpenedTrial, Opening, RunEnd, RunRow, RunStart, Store, StoreError, codec, lock};
use std::sync::{Arc, Mutex};

/// The writer of a study. It is made only under the claim to the study, with which it shares the session.
pub(super) struct PostgresStore {
    session: Arc<Mutex<Session>>,
    study: i64,
    spec: StudySpec,
    len: u64,
    run: Option<i64>,
}

impl PostgresStore {
    /// The study of the session's name, if there is one.
    pub(super) fn open(session: &Arc<Mutex<Session>>) -> Result<Option<Self>, StoreError> {
        let found = {
            let mut session = lock(session);
            let name = session.name.clone();
            session.ask(&mut |client| {
                let Some((study, spec)) = read::study(client, &name)? else { return Ok(None) };
                Ok(Some((study, spec, read::len(client, study)?)))
            })?
        };
        Ok(found.map(|(study, spec, len)| Self { session: Arc::clone(session), study, spec, len, run: None }))
    }
}

impl Store for PostgresStore {
    fn spec(&self) -> &StudySpec {
        &self.spec
    }

    fn replace_spec(&mut self, spec: &StudySpec, rows: &[Row]) -> Result<(), StoreError> {
        let text = codec::spec_text(spec)?;
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            t.execute("UPDATE hpsearch.study SET spec = $2 WHERE study = $1", &[&study, &text])?;
            put_all(t, study, rows)
        })?;
        self.spec = spec.clone();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        let mut after = after;
        lock(&self.session).ask(&mut |client| read::events(client, self.study, &mut after, each))
    }

    fn append(&mut self, expected: u64, events: &[Event], rows: &[Row]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            let last = "SELECT coalesce(max(seq), 0) FROM hpsearch.event WHERE study = $1";
            let found = t.first(last, &[&study])?.map_or(Ok(0), |row| row.try_get::<_, i64>(0))? as u64;
            if found != expected {
                return Err(StoreError::Conflict { expected, found }.into());
            }
            for (seq, event) in (expected + 1..).zip(events) {
                let (kind, body) = codec::encode(event)?;
                let insert = "INSERT INTO hpsearch.event (study, seq, kind, body) VALUES ($1, $2, $3, $4)";
                t.execute(insert, &[&study, &int(seq), &kind, &body])?;
            }
            put_all(t, study, rows)
        })?;
        self.len = expected + events.len() as u64;
        crash::at(Point::EventsCommitted);
        Ok(())
    }

    fn begin_run(&mut self, run: &RunStart, rows: &[Row]) -> Result<(), StoreError> {
        let study = self.study;
        let number = lock(&self.session).transact(&mut |t| {
            t.execute(
                "UPDATE hpsearch.run SET ended = $2 WHERE study = $1 AND ended IS NULL",
                &[&study, &RunEnd::Killed.as_ref()],
            )?;
            put_all(t, study, rows)?;
            let row = t.first(
                "INSERT INTO hpsearch.run (study, run, started_ms, seconds, pid, host, program, workers, device) \
                 SELECT $1, 1 + coalesce(max(run), 0), $2, 0, $3, $4, $5, $6, $7 FROM hpsearch.run WHERE study = $1 \
                 RETURNING run",
                &[
                    &study,
                    &int(run.unix_ms),
                    &i64::from(std::process::id()),
                    &crate::fsx::host(),
                    &run.program,
                    &i64::from(run.workers),
                    &text(&run.device),
                ],
            )?;
            row.map(|row| Ok(row.try_get::<_, i64>(0)?)).transpose()
        })?;
        self.run = number;
        Ok(())
    }

    fn note_run(&mut self, seconds: f64, end: Option<(RunEnd, &[Row])>) -> Result<(), StoreError> {
        let (study, Some(run)) = (self.study, self.run) else { return Ok(()) };
        lock(&self.session).transact(&mut |t| {
            let ended = end.as_ref().map(|(end, _)| end.as_ref());
            t.execute(
                "UPDATE hpsearch.run SET seconds = $3, ended = $4 WHERE study = $1 AND run = $2",
                &[&study, &run, &seconds, &ended],
            )?;
            put_all(t, study, end.map_or(&[], |(_, rows)| rows))
        })
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        lock(&self.session).ask(&mut |client| read::runs(client, self.study))
    }

    fn kept_files(&self) -> Result<Vec<String>, StoreError> {
        let files = lock(&self.session).ask(&mut |client| read::files(client, self.study))?;
        Ok(files.into_iter().filter(|(_, kept)| *kept).map(|(row, _)| row.file.path).collect())
    }

    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError> {
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            t.execute("UPDATE hpsearch.file SET kept = false WHERE study = $1 AND path = ANY ($2)", &[&study, &paths])
                .map(drop)
        })
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        lock(&self.session).ask(&mut |client| read::images(client, self.study))
    }

    fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError> {
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            let rows = t.execute(
                "INSERT INTO hpsearch.images (study, seen_ms, folder, digest, summary) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT DO NOTHING",
                &[
                    &study,
                    &int(crate::clock::unix_ms()),
                    &images.folder.to_string_lossy(),
                    &images.digest.to_string(),
                    &images.summary,
                ],
            )?;
            once(rows == 1, "what the images are")
        })
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        lock(&self.session).ask(&mut |client| read::opening(client, self.study))
    }

    fn begin_opening(&mut self, opening: &Opening) -> Result<(), StoreError> {
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            let rows = t.execute(
                "INSERT INTO hpsearch.test_opening (study, opened_ms, unfinished) VALUES ($1, $2, $3) \
                 ON CONFLICT DO NOTHING",
                &[&study, &int(opening.unix_ms), &opening.unfinished],
            )?;
            once(rows == 1, "the opening of the test images")?;
            for (place, choice) in (0_i64..).zip(&opening.chosen) {
                let (trial, epoch) = (i64::from(choice.trial.0), i64::from(choice.epoch.0));
                t.execute(
                    "INSERT INTO hpsearch.test_choice (study, trial, place, epoch, threshold) VALUES ($1, $2, $3, $4, $5)",
                    &[&study, &trial, &place, &epoch, &choice.threshold],
                )?;
            }
            if let Some(mean) = opening.mean {
                let insert = "INSERT INTO hpsearch.test_mean (study, threshold) VALUES ($1, $2)";
                t.execute(insert, &[&study, &mean.threshold])?;
            }
            Ok(())
        })
    }

    fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError> {
        let study = self.study;
        lock(&self.session).transact(&mut |t| {
            let open = t.first(
                "SELECT 1 FROM hpsearch.test_opening o WHERE study = $1 \
                 AND NOT EXISTS (SELECT 1 FROM hpsearch.test_result r WHERE r.study = o.study)",
                &[&study],
            )?;
            once(open.is_some(), "results of the test images")?;
            for (place, result) in (0_i64..).zip(results) {
                let file = &result.predictions;
                t.execute(
                    "INSERT INTO hpsearch.test_result (study, trial, place, threshold, path, digest, bytes) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    &[
                        &study,
                        &i64::from(result.trial.0),
                        &place,
                        &result.threshold,
                        &file.path,
                        &file.digest.to_string(),
                        &int(file.bytes),
                    ],
                )?;
            }
            Ok(())
        })
    }
}

fn once(first: bool, what: &'static str) -> Result<(), Fault> {
    if first { Ok(()) } else { Err(StoreError::Recorded { what }.into()) }
}
