//! A study's trials as a table: CSV, and Parquet with a type for every column.

use crate::history::Tables;
use crate::ids::TrialNumber;
use crate::space::Value;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Columns that every study has.
const FIXED: [&str; 7] = ["number", "state", "value", "epochs", "seconds", "failure", "reason"];

/// The columns of a study's table: a row for each trial, its latest metrics.
struct Columns<'a> {
    tables: &'a Tables,
    params: BTreeSet<&'a str>,
    metrics: BTreeSet<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(tables: &'a Tables) -> Self {
        let params = tables.configurations.values().flat_map(|p| p.0.keys().map(String::as_str)).collect();
        let mut columns = Self { tables, params, metrics: BTreeSet::new() };
        columns.metrics = tables
            .trials
            .keys()
            .flat_map(|&trial| columns.last(trial))
            .flat_map(|m| m.keys().map(String::as_str))
            .collect();
        columns
    }

    /// The metrics of a trial's latest epoch.
    fn last(&self, trial: TrialNumber) -> Option<&'a BTreeMap<String, f64>> {
        self.tables.epochs_of(trial).next_back().map(|epoch| &epoch.metrics)
    }

    fn metric(&self, trial: TrialNumber, name: &str) -> Option<f64> {
        self.last(trial)?.get(name).copied()
    }

    fn param(&self, trial: TrialNumber, name: &str) -> Option<&'a Value> {
        self.tables.configurations.get(&trial)?.get(name)
    }

    /// The column of a parameter: its name, unless that is taken.
    fn param_name(name: &str) -> String {
        if FIXED.contains(&name) { format!("param.{name}") } else { name.to_owned() }
    }

    fn metric_name(&self, name: &str) -> String {
        if FIXED.contains(&name) || self.params.contains(name) { format!("metric.{name}") } else { name.to_owned() }
    }
}

/// CSV with a header; columns of parameters and metrics that a trial does not have are empty. Where a metric has the
/// name of a parameter or a fixed column, it is called `metric.NAME` (parameters: `param.NAME`).
///
/// # Errors
/// Never in practice: the table is made in memory.
pub fn trials_csv(tables: &Tables) -> Result<Vec<u8>, csv::Error> {
    let columns = Columns::of(tables);
    let mut csv = csv::Writer::from_writer(Vec::new());
    let params = columns.params.iter().map(|name| Columns::param_name(name));
    let metrics = columns.metrics.iter().map(|name| columns.metric_name(name));
    csv.write_record(FIXED.iter().map(|&n| n.to_owned()).chain(params).chain(metrics))?;
    for row in tables.trials.values() {
        let failure = tables.failure_of(row.trial);
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        let fixed = [
            row.trial.to_string(),
            row.state.to_string(),
            number(row.value),
            row.epochs.to_string(),
            row.seconds.to_string(),
            failure.map_or_else(String::new, |f| f.class.to_string()),
            failure.map_or_else(String::new, |f| f.reason.clone()),
        ];
        let params = columns.params.iter().map(|name| columns.param(row.trial, name));
        let params = params.map(|value| value.map_or_else(String::new, ToString::to_string));
        let metrics = columns.metrics.iter().map(|&name| number(columns.metric(row.trial, name)));
        csv.write_record(fixed.into_iter().chain(params).chain(metrics))?;
    }
    csv.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

/// The cells of a column; `None` where a trial has nothing.
enum Cells {
    Whole(Vec<Option<i64>>),
    Number(Vec<Option<f64>>),
    Truth(Vec<Option<bool>>),
    Text(Vec<Option<String>>),
}

impl Cells {
    /// A parameter's column has the type of its values; text if they are of several.
    fn of(values: &[Option<&Value>]) -> Self {
        let all = |test: fn(&Value) -> bool| values.iter().flatten().all(|v| test(v));
        if all(|v| matches!(v, Value::Bool(_))) {
            let truth = |v: &Value| if let Value::Bool(b) = v { Some(*b) } else { None };
            return Self::Truth(values.iter().map(|v| v.and_then(truth)).collect());
        }
        if all(|v| matches!(v, Value::Int(_))) {
            return Self::Whole(values.iter().map(|v| v.and_then(Value::as_i64)).collect());
        }
        if all(|v| matches!(v, Value::Int(_) | Value::Float(_))) {
            return Self::Number(values.iter().map(|v| v.and_then(Value::as_f64)).collect());
        }
        Self::Text(values.iter().map(|v| v.map(ToString::to_string)).collect())
    }

    fn schema(&self, name: &str) -> Result<Type, ParquetError> {
        let (physical, logical) = match self {
            Self::Whole(_) => (Physical::INT64, None),
            Self::Number(_) => (Physical::DOUBLE, None),
            Self::Truth(_) => (Physical::BOOLEAN, None),
            Self::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let column = Type::primitive_type_builder(name, physical);
        column.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build()
    }
}

/// The same table as a Parquet file: whole numbers, numbers, truth values and texts in columns of their type, null where a
/// trial has nothing.
///
/// # Errors
/// Never in practice: the file is made in memory.
pub fn trials_parquet(tables: &Tables) -> Result<Vec<u8>, ParquetError> {
    let columns = Columns::of(tables);
    let rows: Vec<_> = tables.trials.values().collect();
    let failures: Vec<_> = rows.iter().map(|row| tables.failure_of(row.trial)).collect();
    let text = |of: &dyn Fn(usize) -> Option<String>| Cells::Text((0..rows.len()).map(of).collect());
    let mut all: Vec<(String, Cells)> = vec![
        ("number".into(), Cells::Whole(rows.iter().map(|r| Some(i64::from(r.trial.0))).collect())),
        ("state".into(), text(&|i| Some(rows[i].state.to_string()))),
        ("value".into(), Cells::Number(rows.iter().map(|r| r.value).collect())),
        ("epochs".into(), Cells::Whole(rows.iter().map(|r| Some(i64::from(r.epochs))).collect())),
        ("seconds".into(), Cells::Number(rows.iter().map(|r| Some(r.seconds)).collect())),
        ("failure".into(), text(&|i| failures[i].map(|f| f.class.to_string()))),
        ("reason".into(), text(&|i| failures[i].map(|f| f.reason.clone()))),
    ];
    for &name in &columns.params {
        let values: Vec<Option<&Value>> = rows.iter().map(|r| columns.param(r.trial, name)).collect();
        all.push((Columns::param_name(name), Cells::of(&values)));
    }
    for &name in &columns.metrics {
        let values = rows.iter().map(|r| columns.metric(r.trial, name)).collect();
        all.push((columns.metric_name(name), Cells::Number(values)));
    }
    let fields = all.iter().map(|(name, cells)| cells.schema(name).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("trials").with_fields(fields).build()?);
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::builder().build()))?;
    let mut group = writer.next_row_group()?;
    for (_, cells) in &all {
        let Some(mut column) = group.next_column()? else { break };
        match cells {
            Cells::Whole(cells) => {
                column.typed::<Int64Type>().write_batch(&present(cells), Some(&defined(cells)), None)?
            }
            Cells::Number(cells) => {
                column.typed::<DoubleType>().write_batch(&present(cells), Some(&defined(cells)), None)?
            }
            Cells::Truth(cells) => {
                column.typed::<BoolType>().write_batch(&present(cells), Some(&defined(cells)), None)?
            }
            Cells::Text(cells) => {
                let texts: Vec<ByteArray> = present(cells).iter().map(|t| t.as_str().into()).collect();
                column.typed::<ByteArrayType>().write_batch(&texts, Some(&defined(cells)), None)?
            }
        };
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(file)
}

fn present<T: Clone>(cells: &[Option<T>]) -> Vec<T> {
    cells.iter().flatten().cloned().collect()
}

/// 1 where there is a value: Parquet's definition levels.
fn defined<T>(cells: &[Option<T>]) -> Vec<i16> {
    cells.iter().map(|cell| i16::from(cell.is_some())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EpochReport, Event, FailureClass, Outcome};
    use crate::ids::{Epoch, OrderId};
    use crate::space::SearchSpace;
    use crate::space::Value;
    use crate::spec::{SchedulerSpec, StudySpec};
    use parquet::file::reader::{FileReader, SerializedFileReader};

    #[test]
    fn a_table_has_a_column_for_everything_that_any_trial_has() {
        let mut spec = StudySpec::external("export", SearchSpace::default(), 1, 9);
        spec.scheduler = SchedulerSpec::None;
        let by_hand = |params: &[(&str, Value)]| {
            crate::space::Params(params.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
        };
        let first = by_hand(&[("f1", Value::Int(3)), ("lr", Value::Float(1e-5))]);
        let second = by_hand(&[("value", Value::Text("x".to_owned()))]);
        let (mut engine, mut events) = (crate::engine::Engine::new(&spec), Vec::new());
        let mut tell = |engine: &mut crate::engine::Engine, event: Event| {
            engine.apply(&event).unwrap();
            events.push(event);
        };
        for (number, params) in [first, second].into_iter().enumerate() {
            let order = OrderId(number as u32);
            tell(&mut engine, Event::Enqueued { params, unix_ms: 1 });
            let crate::engine::Plan::Issue(issued) = engine.plan() else { panic!("no order") };
            tell(&mut engine, Event::OrderIssued { order: issued });
            tell(&mut engine, Event::AttemptStarted { order, attempt: 1, worker: 0, unix_ms: 2 });
            let outcome = if number == 0 {
                let metrics = [("f1".to_owned(), 0.25)].into();
                let report = EpochReport { metrics, seconds: 1.5, ..EpochReport::new(Epoch(1), 0.25) };
                tell(&mut engine, Event::EpochReported { order, attempt: 1, report, unix_ms: 3 });
                Outcome::Reached { value: 0.25 }
            } else {
                Outcome::Failed { class: FailureClass::Crashed, reason: "a, \"b\"".to_owned() }
            };
            tell(&mut engine, Event::OrderFinished { order, outcome, unix_ms: 4 });
        }
        let tables = Tables::replay(&spec, &events).unwrap();
        let text = String::from_utf8(trials_csv(&tables).unwrap()).unwrap();
        let expected = "number,state,value,epochs,seconds,failure,reason,f1,lr,param.value,metric.f1\n\
                        0,complete,0.25,1,1.5,,,3,1e-5,,0.25\n\
                        1,failed,,0,0,crashed,\"a, \"\"b\"\"\",,,x,\n";
        assert_eq!(text, expected);

        let file = bytes::Bytes::from(trials_parquet(&tables).unwrap());
        let rows: Vec<String> = SerializedFileReader::new(file)
            .unwrap()
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().to_string())
            .collect();
        let expected = [
            "{number: 0, state: \"complete\", value: 0.25, epochs: 1, seconds: 1.5, failure: null, reason: null, f1: 3, \
             lr: 0.00001, param.value: null, metric.f1: 0.25}",
            "{number: 1, state: \"failed\", value: null, epochs: 0, seconds: 0E0, failure: \"crashed\", \
             reason: \"a, \"b\"\", f1: null, lr: null, param.value: \"x\", metric.f1: null}",
        ];
        assert_eq!(rows, expected);
    }
}
