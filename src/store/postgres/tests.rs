//! All but the first need a server: `scripts/postgres-check`, or `HPSEARCH_TEST_POSTGRES` with the address of one (key-value
//! pairs, over a Unix socket) on which databases can be made and connections ended.

use super::*;
use crate::store::{conformance, in_folder, in_server};
use postgres::NoTls;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A database of its own, gone when dropped.
struct Own {
    base: String,
    name: String,
    address: String,
    state: tempfile::TempDir,
}

impl Own {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let base =
            std::env::var("HPSEARCH_TEST_POSTGRES").expect("the address of a server: see scripts/postgres-check");
        let name = format!("hpsearch_test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Client::connect(&base, NoTls).unwrap().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let address = format!("{base} dbname={name}");
        Self { base, name, address, state: tempfile::tempdir().unwrap() }
    }

    fn backend(&self) -> Box<dyn Backend> {
        in_server(&self.address, self.state.path()).unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.address, NoTls).unwrap()
    }

    /// Ends the sessions of this database that hold a lock, as a server does that is restarted.
    fn break_sessions(&self) -> i64 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        self.client().query_one(sql, &[]).unwrap().get(0)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Ok(mut client) = Client::connect(&self.base, NoTls) else { return };
        let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("host={} user=ann dbname=lab", folder.path().display());
    let Err(error) = in_server(&address, folder.path()).unwrap().names() else { panic!("it answered") };
    let StoreError::Unreachable { place, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*place, format!("PostgreSQL at {}:5432, database lab", folder.path().display()));
}

#[test]
#[ignore = "needs a server"]
fn a_server_that_refuses_is_named() {
    let own = Own::new();
    own.backend().claim("s").unwrap().create(&conformance::study("s")).unwrap();
    let user = format!("{}_reader", own.name);
    own.client().batch_execute(&format!("CREATE ROLE {user} LOGIN")).unwrap();
    for (wrong, what) in [("dbname=nowhere", "does not exist"), (&*format!("user={user}"), "permission denied")] {
        let answer = in_server(&format!("{} {wrong}", own.address), own.state.path()).unwrap().names();
        let Err(StoreError::Denied { source, .. }) = answer else { panic!("{wrong}: {answer:?}") };
        let text = format!("{source} {:?}", source.source());
        assert!(text.contains(what), "{text}");
    }
    own.client().batch_execute(&format!("DROP ROLE {user}")).unwrap();
}

#[test]
#[ignore = "needs a server"]
fn a_server_meets_the_contract() {
    let own = Own::new();
    assert_eq!(own.backend().names().unwrap(), [""; 0], "there are no tables yet");
    conformance::check(&*own.backend());
}

#[test]
#[ignore = "needs a server"]
fn people_can_query_in_plain_sql() {
    let own = Own::new();
    let claim = own.backend().claim("filled").unwrap();
    let mut store = claim.create(&conformance::study("filled")).unwrap();
    store.append(0, &conformance::history(), &conformance::rows()).unwrap();
    let mut client = own.client();
    let mut ask = |sql: &str| {
        let rows = client.simple_query(sql).unwrap();
        let row = |message: &postgres::SimpleQueryMessage| match message {
            postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or("-").to_owned()).collect::<Vec<_>>().join(" "))
            }
            _ => None,
        };
        rows.iter().filter_map(row).collect::<Vec<String>>()
    };
    assert_eq!(ask("SELECT trial, state, value, epochs, result FROM hpsearch.trial"), ["0 complete - 2 -"]);
    assert_eq!(
        ask("SELECT p.name, p.value, p.number, f.value FROM hpsearch.trial_param p \
             JOIN hpsearch.final_metric f USING (study, trial) WHERE f.name = 'f1' AND p.trial = 0 \
             AND p.name IN ('nesterov', 'learning_rate') ORDER BY 1"),
        [
            "learning_rate 0.30000000000000004 0.30000000000000004 0.3333333333333333",
            "nesterov true 1 0.3333333333333333"
        ]
    );
    assert_eq!(
        ask("SELECT epoch, value FROM hpsearch.learning_curve WHERE trial = 0 AND name = 'score' ORDER BY epoch"),
        ["1 0.25", "2 0.25"]
    );
    assert_eq!(ask("SELECT place, trial FROM hpsearch.ranking"), ["1 0"]);
    assert_eq!(ask("SELECT name FROM hpsearch.study JOIN hpsearch.event USING (study) WHERE seq = 1"), ["filled"]);
    for sql in [
        "DELETE FROM hpsearch.event WHERE seq = 1",
        "UPDATE hpsearch.event SET body = '' WHERE seq = 1",
        "TRUNCATE hpsearch.event",
        "DELETE FROM hpsearch.study",
    ] {
        let error = own.client().batch_execute(sql).unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), "events are never changed", "{sql}");
    }
}

#[test]
#[ignore = "needs a server"]
fn a_removed_study_leaves_no_row() {
    let own = Own::new();
    conformance::check(&*own.backend());
    for name in own.backend().names().unwrap() {
        own.backend().claim(&name).unwrap().remove().unwrap();
    }
    let mut client = own.client();
    let tables = "SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) \
                  WHERE table_schema = 'hpsearch' AND table_type = 'BASE TABLE' AND column_name = 'study'";
    let tables: Vec<String> = client.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() > 15, "{tables:?}");
    for table in tables {
        let rows: i64 = client.query_one(&format!("SELECT count(*) FROM hpsearch.{table}"), &[]).unwrap().get(0);
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
#[ignore = "needs a server"]
fn a_connection_that_breaks_is_made_again_and_nothing_is_lost_or_doubled() {
    let own = Own::new();
    let claim = own.backend().claim("broken").unwrap();
    let mut store = claim.create(&conformance::study("broken")).unwrap();
    let history = conformance::history();
    for (i, event) in history.iter().enumerate() {
        assert_eq!(own.break_sessions(), 1);
        store.append(i as u64, std::slice::from_ref(event), &[]).unwrap();
        assert!(matches!(own.backend().claim("broken"), Err(StoreError::Locked { .. })), "the lock is back too");
    }
    own.break_sessions();
    let mut events = Vec::new();
    store.events(0, &mut |event| events.push(event)).unwrap();
    assert_eq!(events, history);
    let reader = own.backend().read("broken").unwrap();
    let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
               AND datname = current_database()";
    own.client().execute(all, &[]).unwrap();
    assert_eq!(reader.spec().unwrap(), conformance::study("broken"));
}

/// What happens to the next COMMIT of a lossy connection; the connection breaks then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lose {
    Nothing,
    Answer,
    Commit,
}

/// The address of a server behind a connection that loses what `lose` says, once.
fn lossy(own: &Own, lose: &'static Mutex<Lose>) -> String {
    let option = |name: &str| {
        let pairs = own.base.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
    };
    let port = option("port").unwrap_or_else(|| "5432".to_owned());
    let socket = format!("{}/.s.PGSQL.{port}", option("host").expect("a folder of a socket"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mine = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
            let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let lost: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
            std::thread::spawn(move || {
                forward(client, server, |bytes| {
                    if !bytes.windows(6).any(|w| w == b"COMMIT") {
                        return true;
                    }
                    let what = std::mem::replace(&mut *lock(lose), Lose::Nothing);
                    lost.store(what == Lose::Answer, Ordering::SeqCst);
                    what != Lose::Commit
                });
            });
            std::thread::spawn(move || forward(server2, client2, |_| !lost.load(Ordering::SeqCst)));
        }
    });
    format!("{} host=127.0.0.1 port={mine} dbname={}", without_host(&own.base), own.name)
}

fn without_host(base: &str) -> String {
    base.split_whitespace().filter(|p| !p.starts_with("host=") && !p.starts_with("port=")).collect::<Vec<_>>().join(" ")
}

/// Copies until `pass` forbids it; then ends both connections.
fn forward(mut from: impl Read + Ends, mut to: impl Write + Ends, pass: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if !pass(&bytes[..n]) || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    from.end();
    to.end();
}

trait Ends {
    fn end(&self);
}

impl Ends for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Ends for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
#[ignore = "needs a server"]
fn a_commit_happens_once_whether_it_or_its_answer_is_lost() {
    static LOSE: Mutex<Lose> = Mutex::new(Lose::Nothing);
    let own = Own::new();
    let backend = in_server(&lossy(&own, &LOSE), own.state.path()).unwrap();
    let claim = backend.claim("doubt").unwrap();
    let mut store = claim.create(&conformance::study("doubt")).unwrap();
    let history = conformance::history();
    for (range, what) in [(0..3, Lose::Commit), (3..5, Lose::Answer)] {
        *lock(&LOSE) = what;
        store.append(range.start as u64, &history[range], &[]).unwrap();
        assert!(*lock(&LOSE) == Lose::Nothing, "a COMMIT was seen");
    }
    *lock(&LOSE) = Lose::Answer;
    store.append(5, &history[5..], &conformance::rows()).unwrap();
    assert_eq!(store.runs().unwrap().len(), 0);
    let run = crate::store::RunStart { unix_ms: 1, program: "0".to_owned(), workers: 2, device: "cpu".to_owned() };
    for (begun, what) in [(1, Lose::Answer), (2, Lose::Commit)] {
        *lock(&LOSE) = what;
        store.begin_run(&run, &[]).unwrap();
        assert_eq!(store.runs().unwrap().len(), begun);
    }
    let mut events = Vec::new();
    own.backend().read("doubt").unwrap().events(0, &mut |event| events.push(event)).unwrap();
    assert_eq!(events, history);
    let writes: i64 = own.client().query_one("SELECT writes FROM hpsearch.claim", &[]).unwrap().get(0);
    assert_eq!(writes, 6, "created, appended three times, begun twice");
}

#[test]
#[ignore = "needs a server"]
fn a_writer_that_lost_its_right_unnoticed_changes_nothing() {
    let own = Own::new();
    let first = own.backend().claim("fenced").unwrap();
    let mut stalled = first.create(&conformance::study("fenced")).unwrap();
    let history = conformance::history();
    // Commands that are refused end nobody's run, nor do those that come while its connection is broken.
    let (folder, backend) = (tempfile::tempdir().unwrap(), own.backend());
    own.break_sessions();
    let refused = in_server(&own.address, folder.path()).unwrap().claim("fenced").map(drop);
    assert!(matches!(refused, Err(StoreError::Elsewhere { .. })), "{refused:?}");
    let refused = std::thread::spawn(move || backend.claim("fenced").map(drop));
    std::thread::sleep(std::time::Duration::from_secs(1));
    stalled.append(0, &history[..3], &[]).unwrap();
    assert!(matches!(refused.join().unwrap(), Err(StoreError::Locked { .. })));
    // One that is not heard of for a while has lost it.
    own.break_sessions();
    let second = own.backend().claim("fenced").unwrap();
    let mut store = second.open().unwrap().unwrap();
    store.append(3, &history[3..5], &[]).unwrap();
    let holder = own.backend().holder("fenced").unwrap();
    assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()));
    // It would have appended at the right place by luck: the claim's number is what refuses it.
    for _ in 0..2 {
        let refused = stalled.append(5, &history[5..], &[]).unwrap_err();
        assert!(matches!(refused, StoreError::TakenOver { .. }), "{refused:?}");
    }
    drop((first, stalled));
    store.append(5, &history[5..7], &[]).unwrap();
    // A session that lives on without its right, for example behind a pooler that shares connections.
    own.client().execute("UPDATE hpsearch.claim SET number = number + 1", &[]).unwrap();
    let refused = store.append(7, &history[7..], &[]).unwrap_err();
    assert!(matches!(refused, StoreError::TakenOver { .. }), "{refused:?}");
    own.client().execute("UPDATE hpsearch.claim SET number = number - 1", &[]).unwrap();
    store.append(7, &history[7..], &[]).unwrap();
    let mut events = Vec::new();
    store.events(0, &mut |event| events.push(event)).unwrap();
    assert_eq!(events, history);
}

#[test]
#[ignore = "needs a server"]
fn a_study_is_not_begun_again_in_another_kind_of_store() {
    let own = Own::new();
    let (server, folder) = (own.backend(), in_folder(own.state.path()));
    let claim = folder.claim("ours").unwrap();
    claim.create(&conformance::study("ours")).unwrap();
    drop(claim);
    for refused in [server.claim("ours").map(drop), server.read("ours").map(drop)] {
        assert!(matches!(refused, Err(StoreError::Elsewhere { .. })), "{refused:?}");
    }
    let claim = server.claim("theirs").unwrap();
    claim.create(&conformance::study("theirs")).unwrap();
    drop(claim);
    for refused in
        [folder.claim("theirs").map(drop), folder.read("theirs").map(drop), folder.exists("theirs").map(drop)]
    {
        let Err(error @ StoreError::Elsewhere { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains(&own.name) && error.to_string().contains("--database"), "{error}");
    }
    // Nor in another folder, or in another database.
    let (other_folder, other) = (tempfile::tempdir().unwrap(), Own::new());
    let refused = in_server(&own.address, other_folder.path()).unwrap().claim("theirs").map(drop);
    assert!(matches!(refused, Err(StoreError::Elsewhere { .. })), "{refused:?}");
    let refused = in_server(&other.address, own.state.path()).unwrap().claim("theirs").map(drop);
    assert!(matches!(refused, Err(StoreError::Elsewhere { .. })), "{refused:?}");
    let read = in_server(&own.address, other_folder.path()).unwrap().read("theirs").unwrap();
    assert_eq!(read.spec().unwrap(), conformance::study("theirs"), "but read it can be");
    assert_eq!(
        (server.names().unwrap(), folder.names().unwrap()),
        (vec!["theirs".to_owned()], vec!["ours".to_owned()])
    );
}

#[test]
#[ignore = "needs a server"]
fn tables_of_a_later_version_are_refused_and_made_once() {
    let own = Own::new();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let own = &own;
            scope.spawn(move || drop(own.backend().claim(name).unwrap().create(&conformance::study(name)).unwrap()));
        }
    });
    assert_eq!(own.backend().names().unwrap(), ["a", "b", "c", "d"]);
    // As the first format was: readable, and completed by the next run.
    let earlier = "DROP TABLE hpsearch.test_choice; UPDATE hpsearch.format SET version = 1; \
                   INSERT INTO hpsearch.test_opening SELECT study, 5, false FROM hpsearch.study WHERE name = 'a'";
    own.client().batch_execute(earlier).unwrap();
    assert_eq!(own.backend().read("a").unwrap().opening().unwrap().unwrap().chosen, []);
    drop(own.backend().claim("a").unwrap());
    let now = "SELECT version, to_regclass('hpsearch.test_choice') IS NOT NULL FROM hpsearch.format";
    let now = own.client().query_one(now, &[]).unwrap();
    assert_eq!((now.get(0), now.get(1)), (FORMAT_VERSION, true));
    own.client().execute("UPDATE hpsearch.format SET version = 99", &[]).unwrap();
    assert!(matches!(own.backend().names(), Err(StoreError::Newer { found: 99, .. })));
}
