use super::*;
use crate::engine::EpochReport;
use crate::ids::TrialNumber;
use crate::runner::SinkClosed;
use crate::store::conformance;

#[derive(Default)]
struct Collect {
    reports: Vec<EpochReport>,
    stop_after: Option<u32>,
    interrupt_after: Option<Instant>,
}

impl EpochSink for Collect {
    fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed> {
        let stop = self.stop_after == Some(report.epoch.0);
        self.reports.push(report);
        Ok(if stop { Continue::Stop } else { Continue::Go })
    }
    fn interrupted(&self) -> bool {
        self.interrupt_after.is_some_and(|at| Instant::now() > at)
    }
}

struct Bench {
    folder: tempfile::TempDir,
    sink: Collect,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), sink: Collect::default() }
    }

    fn run(&mut self, argv: &[&str], from: u32) -> Result<(), TrialError> {
        let study = conformance::study("command");
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        let command = CommandSpec { argv, directory: None, epochs: 3 };
        let mut runner = CommandRunner::new(&study, &command, self.folder.path(), None);
        let mut order = conformance::order(0);
        order.trial = TrialNumber(7);
        let slot = DeviceSlot {
            device: crate::spec::Device::Cpu,
            threads: 2,
            study_dir: self.folder.path().to_owned(),
            cache_dir: self.folder.path().to_owned(),
            worker: 1,
        };
        let start = Start { epoch: Epoch(from), ..Start::default() };
        runner.run(&order, &start, &slot, &mut self.sink)
    }

    fn shell(&mut self, script: &str, from: u32) -> Result<(), TrialError> {
        let script = script.replace('{', "{{").replace('}', "}}");
        self.run(&["sh", "-c", &script], from)
    }
}

const EPOCHS: &str =
    r#"for e in 1 2 3; do echo "{\"epoch\": $e, \"value\": 0.$e, \"metrics\": {\"f1\": NaN, \"auc\": 0.5}}"; done"#;

#[test]
fn a_program_reports_an_epoch_a_line() {
    let mut bench = Bench::new();
    bench.shell(EPOCHS, 0).unwrap();
    let values: Vec<_> = bench.sink.reports.iter().map(|r| (r.epoch.0, r.value)).collect();
    assert_eq!(values, [(1, Some(0.1)), (2, Some(0.2)), (3, Some(0.3))]);
    assert_eq!(bench.sink.reports[0].metrics, [("auc".to_owned(), 0.5)].into(), "NaN is undefined, not an error");
}

#[test]
fn parameters_are_passed_as_arguments_environment_and_json() {
    let mut bench = Bench::new();
    let script = "read -r input; echo \"$input\" >&2; echo \"$HPSEARCH_PARAM_LAYERS {layers} {trial} $1\"; \
                  echo {{{{}}}}; env | grep -e HPSEARCH_ -e PYTHON >&2; exit 3";
    let error = bench.run(&["sh", "-c", script, "name", "{optimiser}"], 0).unwrap_err();
    assert!(error.reason.contains("the program ended with code 3"), "{error}");
    let log = std::fs::read_to_string(bench.folder.path().join("logs/trial-00007.log")).unwrap();
    assert!(log.contains(&format!("{0} {0} 7 ada\"m", i64::MIN)), "{log}");
    assert!(log.contains("\n{{}}\n"), "{log}");
    assert!(log.contains(r#""layers":-9223372036854775808"#) && log.contains(r#""to":3"#), "{log}");
    for name in [
        "HPSEARCH_TO=3",
        "HPSEARCH_FROM=0",
        "HPSEARCH_DEVICE=cpu",
        "HPSEARCH_PARAM_NESTEROV=true",
        "HPSEARCH_EPOCHS=3",
        "PYTHONUNBUFFERED=",
    ] {
        assert!(log.contains(name), "{name} in {log}");
    }
}

#[test]
fn the_folder_of_a_trial_outlives_its_attempts() {
    let mut bench = Bench::new();
    let step = r#"cd "$HPSEARCH_DIR"; n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n
                  echo "{\"epoch\": $n, \"value\": $n}"; test $n = 3"#;
    for from in 0..2 {
        let error = bench.shell(step, from).unwrap_err();
        assert_eq!(error.class, FailureClass::Crashed);
    }
    bench.shell(step, 2).unwrap();
    assert_eq!(bench.sink.reports.iter().map(|r| r.epoch.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_failure_quotes_the_last_lines_of_the_program() {
    let mut bench = Bench::new();
    let error = bench.shell("echo Traceback >&2; echo 'KeyError: lr' >&2; exit 1", 0).unwrap_err();
    assert_eq!(error.reason, "the program ended with code 1; its last words: Traceback | KeyError: lr");
    let error = bench.shell(&format!("{EPOCHS}; exit 1"), 0).unwrap_err();
    assert!(error.reason.contains("code 1"), "a failure after the last epoch is one all the same: {error}");
    let error = bench.shell(r#"echo '{"epoch": 2, "value": 1}'"#, 0).unwrap_err();
    assert!(error.reason.contains("reported epoch 2 where 1 was to come"), "{error}");
    let error = bench.shell(r#"echo '{"epoch": "one"}'; sleep 60"#, 0).unwrap_err();
    assert!(error.reason.contains("understand the report"), "{error}");
    let error = bench.shell("kill -9 $$", 0).unwrap_err();
    assert_eq!(error.class, FailureClass::Oom);
    let error = bench.run(&["no-such-program-anywhere"], 0).unwrap_err();
    assert_eq!(error.class, FailureClass::BadInput);
    let error = bench.run(&["sh", "{unknown}"], 0).unwrap_err();
    assert!(error.reason.contains("fill in `{unknown}`"), "{error}");
}

#[test]
fn stopping_a_program_ends_its_children() {
    let mut bench = Bench::new();
    bench.sink.stop_after = Some(1);
    let script = r#"sleep 600 & echo $! > "$HPSEARCH_DIR/child"; echo '{"epoch": 1, "value": 1}'; wait"#;
    bench.shell(script, 0).unwrap();
    let child = std::fs::read_to_string(bench.folder.path().join("commands/00007/child")).unwrap();
    // The child may be a zombie that its new parent has not reaped, but it no longer runs. It closes its files, for which the
    // runner waits, a moment before.
    let runs = |stat: &str| !stat.is_empty() && !stat.contains(") Z") && !stat.contains(") X");
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    let begun = Instant::now();
    while runs(&stat()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", stat());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupt_ends_a_silent_program() {
    let mut bench = Bench::new();
    bench.sink.interrupt_after = Some(Instant::now() + Duration::from_millis(200));
    bench.shell("sleep 600", 0).unwrap();
    assert!(bench.sink.reports.is_empty());
}

#[test]
fn nan_and_infinity_are_undefined_except_inside_strings() {
    let line = r#"{"epoch": 1, "value": -Infinity, "metrics": {"NaN \" Infinity": 2, "x": NaN}}"#;
    let Some(Line::Report(report)) = Line::parse(line, "score") else { panic!("not understood") };
    assert_eq!(report.value, None);
    assert_eq!(report.metrics, [("NaN \" Infinity".to_owned(), 2.0)].into());
    assert_eq!(Line::parse("epoch 1 of 3", "score"), None);
    assert_eq!(Line::parse(r#"{"step": 1}"#, "score"), None);
}

#[test]
fn the_objective_may_be_among_the_metrics_but_must_be_reported() {
    let parse = |text| Line::parse(text, "accuracy");
    let value = |text| match parse(text) {
        Some(Line::Report(report)) => report.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(value(r#"{"epoch": 1, "value": 0.5, "metrics": {"accuracy": 0.25}}"#), Some(0.5));
    assert_eq!(value(r#"{"epoch": 1, "metrics": {"accuracy": 0.25}}"#), Some(0.25));
    assert_eq!(value(r#"{"epoch": 1, "value": null, "metrics": {"accuracy": 0.25}}"#), None, "diverged");
    assert_eq!(value(r#"{"epoch": 1, "metrics": {"accuracy": NaN}}"#), None, "diverged");
    let Some(Line::Unreadable(why)) = parse(r#"{"epoch": 1, "accuracy": 0.25}"#) else { panic!("taken") };
    assert!(why.contains("it has no `value`") && why.contains("hint: "), "{why}");
}
