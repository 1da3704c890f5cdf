//! `[notify]`, through the real binary: commands, and an address on this machine.

use crate::program::{Bench, text};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const SEARCH: &str = "[scheduler]\nkind = \"none\"\n[budget]\nn_trials = 12\n";

fn bench(notify: &str) -> Bench {
    Bench::synthetic(2, 0, &format!("{SEARCH}[notify]\n{notify}"))
}

fn lines(bench: &Bench, name: &str) -> Vec<String> {
    let file = bench.study().with_file_name(name);
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Reads one request, answers it with a status, and gives its head and body.
fn answer(stream: TcpStream, status: u16) -> (String, Json) {
    let mut reader = BufReader::new(&stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        head.push_str(&line);
        line.clear();
    }
    let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_command_is_told_of_bests_and_of_the_end() {
    let bench = bench(
        "on = [\"best\", \"done\", \"failed\"]\ncommand = [\"sh\", \"-c\", \"cat >> notices; echo >> notices; echo \\\"$1\\\" >> words\", \"sh\", \"{event} {study} {trial} {metric} {value} {{}}\"]\n",
    );
    bench.finish(&[]);
    let notices: Vec<Json> = lines(&bench, "notices").iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (last, bests) = notices.split_last().unwrap();
    assert!(!bests.is_empty() && bests.iter().all(|n| n["event"] == "best"), "{notices:?}");
    let values: Vec<f64> = bests.iter().map(|n| n["value"].as_f64().unwrap()).collect();
    assert!(values.is_sorted_by(|a, b| a < b), "each is better: {values:?}");
    let best = bench.ask("SELECT trial, value FROM trial ORDER BY value DESC LIMIT 1").remove(0);
    let rusqlite::types::Value::Real(value) = best[1] else { panic!("{best:?}") };
    assert_eq!((last["event"].as_str(), last["value"].as_f64()), (Some("done"), Some(value)));
    assert_eq!(bests.last().unwrap()["value"], last["value"], "the last best is told before the end");
    let words = last["text"].as_str().unwrap();
    assert!(words.starts_with("study s: done after ") && words.contains("best is trial "), "{words}");
    assert_eq!(last["content"], last["text"]);
    assert_eq!(*lines(&bench, "words").last().unwrap(), format!("done s {} score {value} {{}}", last["trial"]));

    // Nothing of it is on record, so it may be changed; and a run that has nothing to do says so again, without a best.
    let stored = bench.ask("SELECT * FROM study");
    assert!(!format!("{stored:?}").contains("notices"), "{stored:?}");
    bench.write(&std::fs::read_to_string(bench.study()).unwrap().replace("notices", "later"));
    bench.finish(&[]);
    assert_eq!(lines(&bench, "later").len(), 1);
}

#[test]
fn a_run_does_not_wait_for_notices_and_survives_those_that_fail() {
    let bench = bench("on = [\"best\"]\ncommand = [\"sh\", \"-c\", \"echo no route >&2; sleep 0.3; exit 3\"]\n");
    let output = bench.run(&[]);
    assert!(output.status.success());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("the notice command `sh` ended with exit status: 3: no route"), "{said}");

    let missing = self::bench("on = \"done\"\ncommand = [\"no-such-program\"]\n");
    let output = missing.run(&[]);
    assert!(output.status.success());
    // During the run with its progress, or after it: whichever came first.
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("the notice command `no-such-program` cannot be started"), "{said}");
}

#[test]
fn an_address_gets_json_again_after_a_failure_and_is_never_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hooks/geheim", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || [503, 204].map(|status| answer(listener.accept().unwrap().0, status)));
    let bench = bench("url = \"env:HPSEARCH_TEST_HOOK\"\n");
    let refused = bench.run(&[]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(text(&refused.stderr).contains("`HPSEARCH_TEST_HOOK` is not set"), "{}", text(&refused.stderr));

    let output = bench.run_command(&[]).env("HPSEARCH_TEST_HOOK", &address).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let [(_, first), (head, second)] = server.join().unwrap();
    assert_eq!(first, second);
    assert!(head.starts_with("POST /hooks/geheim HTTP/1.1"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    assert_eq!(second["event"], "done");

    // Refused for good: one try, named by its host only.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://user:pass@{}/hooks/geheim?token=x", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, 403));
    bench.forget();
    let output = bench.run_command(&[]).env("HPSEARCH_TEST_HOOK", &address).output().unwrap();
    server.join().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("a notice was not posted to 127.0.0.1:"), "{said}");
    assert!(said.contains("status 403") && !said.contains("geheim") && !said.contains("pass"), "{said}");
}

#[test]
fn failures_are_told_and_interrupts_are_not() {
    let study = "[runner]\nkind = \"command\"\ncommand = [\"false\"]\nepochs = 1\n[objective]\nmetric = \"score\"\ndirection = \"maximize\"\n\
        [scheduler]\nkind = \"none\"\n[budget]\nn_trials = 2\n[space]\nx = { type = \"float\", low = 0, high = 1 }\n\
        [notify]\ncommand = [\"sh\", \"-c\", \"echo \\\"$0\\\" > words\", \"{text}|{trial}|{value}\"]\n";
    let bench = Bench::new(study);
    bench.run(&[]);
    let words = lines(&bench, "words").join("\n");
    assert!(
        words.starts_with("study s: ") && words.ends_with("||") && words.contains("fail") | words.contains("no trial"),
        "{words}"
    );

    let slow = self::bench("command = [\"sh\", \"-c\", \"echo told > words\"]\n");
    slow.write(&std::fs::read_to_string(slow.study()).unwrap().replace("epoch_ms = 0", "epoch_ms = 200"));
    let mut run = slow.spawn(&[]);
    slow.wait_for("SELECT count(*) FROM epoch", 1);
    crate::program::signal(run.id(), rustix::process::Signal::INT);
    let began = Instant::now();
    assert_eq!(crate::program::wait(&mut run, Duration::from_secs(20)).and_then(|s| s.code()), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(lines(&slow, "words"), [""; 0]);
}

#[test]
fn mistakes_in_notify_are_named() {
    let check = |notify: &str| {
        let bench = bench(notify);
        let output = bench.command(&["check"]).arg(bench.study()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{notify}");
        text(&output.stderr)
    };
    assert!(check("on = [\"best\"]\n").contains("nobody is told"));
    assert!(check("url = \"ftp://x\"\n").contains("`url` must be `http://...`"));
    let unknown = check("command = [\"say\", \"{txt}\"]\n");
    assert!(unknown.contains("a notice has no `{txt}`") && unknown.contains("did you mean `text`?"), "{unknown}");
    assert!(check("command = []\n").contains("the command is empty"));
    assert!(check("on = [\"bst\"]\nurl = \"https://x\"\n").contains("best"));
}
