//! Runs the real binary and reads its database.

use rusqlite::types::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A study file in a folder of its own, with a state folder beside it.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(study: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        bench.write(study);
        bench
    }

    /// A study of the synthetic runner; `rest`: further sections.
    pub fn synthetic(epochs: u32, epoch_ms: u32, rest: &str) -> Self {
        Self::new(&format!(
            "seed = 5\n\
             [runner]\nkind = \"synthetic\"\nepochs = {epochs}\nepoch_ms = {epoch_ms}\n\
             [objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
             {rest}\n\
             [space]\n\
             learning_rate = {{ type = \"float\", low = 1e-5, high = 0.1, log = true }}\n\
             dropout = {{ type = \"float\", low = 0.0, high = 0.6 }}\n"
        ))
    }

    pub fn write(&self, study: &str) {
        std::fs::write(self.study(), study).unwrap();
    }

    pub fn study(&self) -> PathBuf {
        self.folder.path().join("s.toml")
    }

    /// The folder of the study in the state folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("state/s")
    }

    /// Deletes the state folder, so that the study starts from nothing.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path().join("state"));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hpsearch"));
        command.arg("--state").arg(self.folder.path().join("state")).args(arguments);
        command
            .env_remove("HPSEARCH_DATABASE")
            .env_remove("HPSEARCH_CRASH_AT")
            .env_remove("HPSEARCH_STATE")
            .stdin(Stdio::null());
        command
    }

    pub fn run_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["run"]);
        command.arg(self.study()).args(arguments);
        command
    }

    /// Starts a run whose output is discarded.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.run_command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_command(arguments).output().unwrap()
    }

    /// Runs to the end, which must succeed.
    pub fn finish(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn tables(&self) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
        TABLES.iter().map(|(name, sql)| (*name, rows(&self.dir().join("study.db"), sql))).collect()
    }

    pub fn ask(&self, sql: &str) -> Vec<Vec<Value>> {
        rows(&self.dir().join("study.db"), sql)
    }

    pub fn count(&self, sql: &str) -> i64 {
        match self.ask(sql).first().and_then(|row| row.first()) {
            Some(Value::Integer(n)) => *n,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// Waits until a query gives at least `n`; the database need not exist yet.
    pub fn wait_for(&self, sql: &str, n: i64) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let ready = self.dir().join("study.db").exists();
            if ready && self.count(sql) >= n {
                return;
            }
            assert!(Instant::now() < until, "{sql} stays below {n}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checkpoints and predictions on disk.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = ["checkpoints", "predictions"]
            .iter()
            .flat_map(|folder| std::fs::read_dir(self.dir().join(folder)).unwrap().map(move |e| (folder, e.unwrap())))
            .map(|(folder, entry)| format!("{folder}/{}", entry.file_name().to_string_lossy()))
            .collect();
        names.sort();
        names
    }
}

/// All that must be equal however a study was run: everything but times, attempts and worker numbers.
const TABLES: &[(&str, &str)] = &[
    ("trial", "SELECT trial, state, value, epochs, bracket, rung, params FROM trial ORDER BY 1"),
    ("trial_param", "SELECT * FROM trial_param ORDER BY 1, 2"),
    (
        "work_order",
        "SELECT work_order, trial, from_epoch, to_epoch, bracket, rung, outcome, at_epoch, value FROM work_order ORDER BY 1",
    ),
    ("epoch", "SELECT trial, epoch, value, train_loss, images FROM epoch ORDER BY 1, 2"),
    ("metric", "SELECT * FROM metric ORDER BY 1, 2, 3"),
    ("file", "SELECT path, kind, trial, epoch, digest, bytes, kept FROM file ORDER BY 1"),
    ("failed for good", "SELECT trial, work_order, class, reason FROM failure WHERE final ORDER BY 1, 2"),
    ("study", "SELECT name, seed, metric, direction, epochs FROM study"),
    ("open attempts", "SELECT count(*) FROM attempt WHERE ended IS NULL"),
    ("running", "SELECT count(*) FROM trial WHERE state IN ('running', 'waiting')"),
    ("integrity", "PRAGMA integrity_check"),
];

pub fn rows(database: &Path, sql: &str) -> Vec<Vec<Value>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|i| row.get(i)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for a child, and kills it if it takes longer.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Processes that `pid` has started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// The parent of a process that is no zombie.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.next()?.parse().ok()
}

pub fn is_alive(pid: u32) -> bool {
    parent(pid).is_some()
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
