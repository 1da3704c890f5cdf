//! Results for other programs.

use crate::program::{Bench, text};
use rusqlite::types::Value;

#[test]
fn json_lines_hold_everything_on_record_of_the_trials() {
    let bench = Bench::synthetic(9, 0, "[scheduler]\nkind = \"sha\"\n[budget]\nn_trials = 9");
    bench.finish(&[]);
    let output = bench.command(&["export", "s", "--jsonl", "-"]).output().unwrap();
    let trials: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(trials.len(), 9);
    let (mut epochs, mut metrics) = (Vec::new(), Vec::new());
    for (number, trial) in trials.iter().enumerate() {
        let row = bench.ask(&format!("SELECT state, value, result_epochs, params FROM trial WHERE trial = {number}"));
        let [Value::Text(state), Value::Real(value), Value::Integer(result), Value::Text(params)] = &row[0][..] else {
            panic!("{row:?}")
        };
        assert_eq!((&trial["state"], &trial["value"]), (&state.as_str().into(), &(*value).into()));
        assert_eq!((&trial["trial"], &trial["result_epochs"]), (&number.into(), &(*result).into()));
        assert_eq!(trial["params"], serde_json::from_str::<serde_json::Value>(params).unwrap());
        assert!(trial["failure"].is_null());
        for epoch in trial["epochs"].as_array().unwrap() {
            let key = [Value::Integer(number as i64), Value::Integer(epoch["epoch"].as_i64().unwrap())];
            epochs.push([&key[..], &[Value::Real(epoch["value"].as_f64().unwrap())]].concat());
            for (name, value) in epoch["metrics"].as_object().unwrap() {
                let metric = [Value::Text(name.clone()), Value::Real(value.as_f64().unwrap())];
                metrics.push([&key[..], &metric].concat());
            }
        }
    }
    assert_eq!(epochs, bench.ask("SELECT trial, epoch, value FROM epoch ORDER BY 1, 2"));
    assert_eq!(metrics, bench.ask("SELECT trial, epoch, name, value FROM metric ORDER BY 1, 2, 3"));

    let both = bench.command(&["export", "s", "--jsonl", "-", "--csv", "-"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "one at a time");
    let none = bench.command(&["export", "s"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(["--csv", "--jsonl", "--optuna", "--out"].iter().all(|flag| text(&none.stderr).contains(flag)));
}
