//! Writing rows. Rows that change replace the one with their key.

use super::Fault;
use super::session::{Param, Work};
use crate::history::{Row, WorkerRow};
use crate::space::{Params, Value};
use crate::store::StoreError;

/// A count as a signed integer.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A text as the server takes it: it has no NUL.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Inserts the row, or replaces that with its key.
fn upsert(
    t: &mut Work<'_>,
    table: &str,
    keys: &[(&str, Param<'_>)],
    others: &[(&str, Param<'_>)],
) -> Result<(), Fault> {
    let all = || keys.iter().chain(others);
    let names = |columns: &[(&str, Param<'_>)]| columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let columns = [names(keys), names(others)].join(", ");
    let places: Vec<String> = (1..=keys.len() + others.len()).map(|i| format!("${i}")).collect();
    let changes: Vec<String> = others.iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO hpsearch.{table} ({columns}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        places.join(", "),
        names(keys),
        changes.join(", ")
    );
    let values: Vec<Param<'_>> = all().map(|(_, value)| *value).collect();
    t.execute(&sql, &values).map(drop)
}

/// Writes rows of a study in their order.
pub(super) fn put_all(t: &mut Work<'_>, study: i64, rows: &[Row]) -> Result<(), Fault> {
    rows.iter().try_for_each(|row| put(t, study, row))
}

fn put(t: &mut Work<'_>, study: i64, row: &Row) -> Result<(), Fault> {
    match row {
        Row::Configuration(row) => {
            let trial = i64::from(row.trial.0);
            upsert(
                t,
                "trial",
                &[("study", &study), ("trial", &trial)],
                &[("state", &"waiting"), ("bracket", &0_i64), ("params", &params_text(&row.params)?)],
            )?;
            for (name, value) in &row.params.0 {
                let (shown, number) = shown(value);
                upsert(
                    t,
                    "trial_param",
                    &[("study", &study), ("trial", &trial), ("name", name)],
                    &[("value", &shown), ("number", &number)],
                )?;
            }
            Ok(())
        }
        Row::Trial(row) => t
            .execute(
                "UPDATE hpsearch.trial SET state = $3, value = $4, epochs = $5, result = $6, result_epochs = $7, \
                 bracket = $8, rung = $9, seconds = $10, issued_ms = $11, finished_ms = $12 \
                 WHERE study = $1 AND trial = $2",
                &[
                    &study,
                    &i64::from(row.trial.0),
                    &row.state.as_ref(),
                    &row.value,
                    &i64::from(row.epochs),
                    &row.result,
                    &i64::from(row.result_epochs),
                    &i64::from(row.bracket),
                    &row.rung.map(i64::from),
                    &row.seconds,
                    &row.issued_ms.map(int),
                    &row.finished_ms.map(int),
                ],
            )
            .map(drop),
        Row::Order(row) => upsert(
            t,
            "work_order",
            &[("study", &study), ("work_order", &i64::from(row.order.0))],
            &[
                ("trial", &i64::from(row.trial.0)),
                ("from_epoch", &i64::from(row.from.0)),
                ("to_epoch", &i64::from(row.to.0)),
                ("bracket", &i64::from(row.bracket)),
                ("rung", &row.rung.map(i64::from)),
                ("outcome", &row.outcome.as_ref().map(AsRef::as_ref)),
                ("at_epoch", &row.at.map(|at| i64::from(at.0))),
                ("value", &row.value),
                ("finished_ms", &row.finished_ms.map(int)),
            ],
        ),
        Row::Worker(WorkerRow { worker, greeting, ready_ms }) => upsert(
            t,
            "worker",
            &[("study", &study), ("worker", &i64::from(*worker))],
            &[
                ("host", &text(&greeting.host)),
                ("job", &greeting.job.as_deref().map(text)),
                ("program", &text(&greeting.program)),
                ("arithmetic", &greeting.arithmetic.as_deref().map(text)),
                ("ready_ms", &int(*ready_ms)),
            ],
        ),
        Row::Attempt(row) => upsert(
            t,
            "attempt",
            &[("study", &study), ("work_order", &i64::from(row.order.0)), ("attempt", &i64::from(row.attempt))],
            &[
                ("worker", &i64::from(row.worker)),
                ("started_ms", &int(row.started_ms)),
                ("ended_ms", &row.ended_ms.map(int)),
                ("ended", &row.ended.as_ref().map(|ended| ended.name())),
            ],
        ),
        Row::Retrained { trial, from } => t
            .execute(
                "DELETE FROM hpsearch.epoch WHERE study = $1 AND trial = $2 AND epoch >= $3",
                &[&study, &i64::from(trial.0), &i64::from(from.0)],
            )
            .map(drop),
        Row::Epoch(row) => {
            let (trial, epoch) = (i64::from(row.trial.0), i64::from(row.epoch.0));
            upsert(
                t,
                "epoch",
                &[("study", &study), ("trial", &trial), ("epoch", &epoch)],
                &[
                    ("value", &row.value),
                    ("train_loss", &row.train_loss),
                    ("seconds", &row.seconds),
                    ("data_wait_seconds", &row.data_wait_seconds),
                    ("images", &int(row.images)),
                    ("work_order", &i64::from(row.order.0)),
                    ("attempt", &i64::from(row.attempt)),
                    ("reported_ms", &int(row.reported_ms)),
                ],
            )?;
            let (names, values): (Vec<String>, Vec<f64>) = row.metrics.iter().map(|(name, x)| (text(name), *x)).unzip();
            t.execute(
                "INSERT INTO hpsearch.metric (study, trial, epoch, name, value) \
                 SELECT $1, $2, $3, name, value FROM unnest($4::text[], $5::float8[]) AS m (name, value)",
                &[&study, &trial, &epoch, &names, &values],
            )
            .map(drop)
        }
        Row::Failure(row) => upsert(
            t,
            "failure",
            &[("study", &study), ("seq", &int(row.seq))],
            &[
                ("trial", &i64::from(row.trial.0)),
                ("work_order", &i64::from(row.order.0)),
                ("attempt", &row.attempt.map(i64::from)),
                ("class", &row.class.as_ref()),
                ("reason", &text(&row.reason)),
                ("final", &row.is_final),
                ("at_ms", &int(row.at_ms)),
            ],
        ),
        Row::File(row) => upsert(
            t,
            "file",
            &[("study", &study), ("path", &row.file.path)],
            &[
                ("kind", &row.kind.as_ref()),
                ("trial", &i64::from(row.trial.0)),
                ("epoch", &i64::from(row.epoch.0)),
                ("digest", &row.file.digest.to_string()),
                ("bytes", &int(row.file.bytes)),
                ("kept", &true),
            ],
        ),
        Row::Earlier(row) => upsert(
            t,
            "earlier_result",
            &[("study", &study), ("seq", &int(row.seq)), ("trial", &i64::from(row.trial.0))],
            &[
                ("earlier", &text(&row.study)),
                ("epoch", &i64::from(row.epoch.0)),
                ("value", &row.value),
                ("params", &params_text(&row.params)?),
            ],
        ),
        Row::Enqueued(row) => upsert(
            t,
            "enqueued",
            &[("study", &study), ("seq", &int(row.seq))],
            &[("params", &params_text(&row.params)?), ("at_ms", &int(row.at_ms))],
        ),
    }
}

fn params_text(params: &Params) -> Result<String, Fault> {
    let codec = |source| StoreError::Codec { what: "a new configuration".to_owned(), source };
    Ok(serde_json::to_string(params).map_err(codec)?)
}

/// A value as text, and as a number if it is one.
fn shown(value: &Value) -> (String, Option<f64>) {
    match value {
        Value::Bool(b) => (b.to_string(), Some(f64::from(u8::from(*b)))),
        Value::Int(i) => (i.to_string(), Some(*i as f64)),
        Value::Float(x) => (x.to_string(), Some(*x)),
        Value::Text(words) => (text(words), None),
    }
}
