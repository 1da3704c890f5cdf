//! A study's trials as JSON lines, with everything on record of them.

use crate::history::{EpochRow, Tables, TrialRow};
use serde_json::json;

/// One JSON object a line, one line a trial: its row of the table `trial`, its parameters, why it failed, and its epochs
/// with their metrics.
pub fn json_lines(tables: &Tables) -> String {
    tables.trials.values().map(|row| trial(tables, row).to_string() + "\n").collect()
}

fn trial(tables: &Tables, row: &TrialRow) -> serde_json::Value {
    // A row consists of numbers and words, whose serialisation cannot fail.
    let mut object = json!(row);
    object["params"] = json!(tables.configurations.get(&row.trial));
    object["failure"] =
        json!(tables.failure_of(row.trial).map(|failure| json!({ "class": failure.class, "reason": failure.reason })));
    object["epochs"] = tables.epochs_of(row.trial).map(epoch).collect();
    object
}

fn epoch(row: &EpochRow) -> serde_json::Value {
    json!({
        "epoch": row.epoch, "value": row.value, "train_loss": row.train_loss, "seconds": row.seconds,
        "data_wait_seconds": row.data_wait_seconds, "images": row.images, "reported_ms": row.reported_ms,
        "metrics": row.metrics,
    })
}
