//! Events and specifications as text, the same in every backend that stores text. The names of kinds and fields are part of the database format and never change.

use super::StoreError;
use crate::digest::Digest;
use crate::engine::{EpochReport, Event, FailureClass, Greeting, Outcome, WarmStart, WorkOrder};
use crate::ids::OrderId;
use crate::space::Params;
use crate::spec::StudySpec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
struct AttemptStarted {
    order: OrderId,
    attempt: u32,
    worker: u32,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct EpochReported<'a> {
    order: OrderId,
    attempt: u32,
    report: Cow<'a, EpochReport>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct AttemptLost<'a> {
    order: OrderId,
    attempt: u32,
    class: FailureClass,
    reason: Cow<'a, str>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct EarlierResults<'a> {
    warm: Cow<'a, WarmStart>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Enqueued<'a> {
    params: Cow<'a, Params>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct PaceMeasured {
    pace: f64,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct WeightsIdentified<'a> {
    weights: Cow<'a, BTreeMap<String, Digest>>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct WorkerReady<'a> {
    worker: u32,
    greeting: Cow<'a, Greeting>,
    unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct OrderFinished<'a> {
    order: OrderId,
    outcome: Cow<'a, Outcome>,
    unix_ms: u64,
}

/// A specification as text.
pub(super) fn spec_text(spec: &StudySpec) -> Result<String, StoreError> {
    serde_json::to_string(spec).map_err(|source| StoreError::Codec { what: "the study".to_owned(), source })
}

/// The specification of a text.
pub(super) fn spec(text: &str) -> Result<StudySpec, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Codec { what: "the study".to_owned(), source })
}

/// Kind and body of an event. Bodies carry no tag of their own, which makes reading a long study twice as fast.
pub(super) fn encode(event: &Event) -> Result<(&'static str, String), StoreError> {
    let (kind, body) = match event {
        Event::OrderIssued { order } => ("order_issued", serde_json::to_string(order)),
        &Event::AttemptStarted { order, attempt, worker, unix_ms } => {
            ("attempt_started", serde_json::to_string(&AttemptStarted { order, attempt, worker, unix_ms }))
        }
        Event::EpochReported { order, attempt, report, unix_ms } => {
            let (order, attempt, unix_ms) = (*order, *attempt, *unix_ms);
            let report = Cow::Borrowed(report);
            ("epoch_reported", serde_json::to_string(&EpochReported { order, attempt, report, unix_ms }))
        }
        Event::AttemptLost { order, attempt, class, reason, unix_ms } => {
            let (order, attempt, class, unix_ms) = (*order, *attempt, *class, *unix_ms);
            let reason = Cow::Borrowed(reason.as_str());
            ("attempt_lost", serde_json::to_string(&AttemptLost { order, attempt, class, reason, unix_ms }))
        }
        Event::EarlierResults { warm, unix_ms } => {
            let (warm, unix_ms) = (Cow::Borrowed(warm), *unix_ms);
            ("earlier_results", serde_json::to_string(&EarlierResults { warm, unix_ms }))
        }
        Event::Enqueued { params, unix_ms } => {
            let (params, unix_ms) = (Cow::Borrowed(params), *unix_ms);
            ("enqueued", serde_json::to_string(&Enqueued { params, unix_ms }))
        }
        &Event::PaceMeasured { pace, unix_ms } => {
            ("pace_measured", serde_json::to_string(&PaceMeasured { pace, unix_ms }))
        }
        Event::WeightsIdentified { weights, unix_ms } => {
            let (weights, unix_ms) = (Cow::Borrowed(weights), *unix_ms);
            ("weights_identified", serde_json::to_string(&WeightsIdentified { weights, unix_ms }))
        }
        Event::WorkerReady { worker, greeting, unix_ms } => {
            let (worker, greeting, unix_ms) = (*worker, Cow::Borrowed(greeting), *unix_ms);
            ("worker_ready", serde_json::to_string(&WorkerReady { worker, greeting, unix_ms }))
        }
        Event::OrderFinished { order, outcome, unix_ms } => {
            let (order, unix_ms) = (*order, *unix_ms);
            let outcome = Cow::Borrowed(outcome);
            ("order_finished", serde_json::to_string(&OrderFinished { order, outcome, unix_ms }))
        }
    };
    Ok((kind, body.map_err(|source| StoreError::Codec { what: format!("a new event `{kind}`"), source })?))
}

/// The event of a row.
pub(super) fn decode(seq: u64, kind: &str, body: &str) -> Result<Event, StoreError> {
    fn parse<T: DeserializeOwned>(seq: u64, body: &str) -> Result<T, StoreError> {
        serde_json::from_str(body).map_err(|source| StoreError::Codec { what: format!("event {seq}"), source })
    }
    Ok(match kind {
        "order_issued" => Event::OrderIssued { order: parse::<WorkOrder>(seq, body)? },
        "attempt_started" => {
            let AttemptStarted { order, attempt, worker, unix_ms } = parse(seq, body)?;
            Event::AttemptStarted { order, attempt, worker, unix_ms }
        }
        "epoch_reported" => {
            let EpochReported { order, attempt, report, unix_ms } = parse(seq, body)?;
            Event::EpochReported { order, attempt, report: report.into_owned(), unix_ms }
        }
        "attempt_lost" => {
            let AttemptLost { order, attempt, class, reason, unix_ms } = parse(seq, body)?;
            Event::AttemptLost { order, attempt, class, reason: reason.into_owned(), unix_ms }
        }
        "earlier_results" => {
            let EarlierResults { warm, unix_ms } = parse(seq, body)?;
            Event::EarlierResults { warm: warm.into_owned(), unix_ms }
        }
        "enqueued" => {
            let Enqueued { params, unix_ms } = parse(seq, body)?;
            Event::Enqueued { params: params.into_owned(), unix_ms }
        }
        "pace_measured" => {
            let PaceMeasured { pace, unix_ms } = parse(seq, body)?;
            Event::PaceMeasured { pace, unix_ms }
        }
        "weights_identified" => {
            let WeightsIdentified { weights, unix_ms } = parse(seq, body)?;
            Event::WeightsIdentified { weights: weights.into_owned(), unix_ms }
        }
        "worker_ready" => {
            let WorkerReady { worker, greeting, unix_ms } = parse(seq, body)?;
            Event::WorkerReady { worker, greeting: greeting.into_owned(), unix_ms }
        }
        "order_finished" => {
            let OrderFinished { order, outcome, unix_ms } = parse(seq, body)?;
            Event::OrderFinished { order, outcome: outcome.into_owned(), unix_ms }
        }
        _ => return Err(StoreError::UnknownEvent { seq, kind: kind.to_owned() }),
    })
}
