//! Tells people of a run: a command or an address, from a thread of its own, so that no trial waits.

use super::options::RunError;
use super::progress::{Observer, Progress, Standing};
use crate::clock;
use crate::spec::{CommandSpec, NotifySpec, NotifyUrl, Occasion, StudySpec};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a command, or one try at an address, may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Pauses before an address is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// How long the end of a run waits for notices that are still on their way.
const FAREWELL: Duration = Duration::from_secs(40);

/// Bytes of what a failed command wrote that are shown.
const SHOWN: u64 = 400;

/// What people are told.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Notice {
    /// Why.
    pub event: Occasion,
    /// The study's name.
    pub study: String,
    /// All of it in words. Rooms of Slack, Mattermost and Zulip show a field of this name.
    pub text: String,
    /// The same: Discord's name for it.
    pub content: String,
    /// The best trial, if there is one.
    #[serde(flatten)]
    pub best: Option<Standing>,
    /// The metric of its value.
    pub metric: String,
    /// Seconds since the run began.
    pub seconds: f64,
}

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The address is to be in an environment variable that is not set.
    #[error(
        "find the address of notices: the environment variable `{0}` is not set, or is no http or https address\nhint: set it, or take `url` out of `[notify]`"
    )]
    Variable(String),
}

/// An observer that passes everything on to another and sends notices.
pub struct Notifier<'a> {
    inner: &'a mut dyn Observer,
    on: Vec<Occasion>,
    study: String,
    metric: String,
    began: Instant,
    best: Option<Standing>,
    stopping: bool,
    /// `None`: nobody is told.
    sender: Option<Sender<Notice>>,
    complaints: Receiver<String>,
}

impl<'a> Notifier<'a> {
    /// Prepares notices as `spec.notify` says; commands start in the folder `base`.
    ///
    /// # Errors
    /// If an address is to be in the environment and is not.
    pub fn new(spec: &StudySpec, base: &Path, inner: &'a mut dyn Observer) -> Result<Self, NotifyError> {
        let (sender, notices) = channel();
        let (complain, complaints) = channel();
        let silent = spec.notify.is_silent();
        if !silent {
            let post = Post::new(&spec.notify, base)?;
            // Not joined: a run never waits for it longer than FAREWELL.
            std::thread::spawn(move || post.serve(&notices, &complain));
        }
        Ok(Self {
            inner,
            on: spec.notify.on.clone(),
            study: spec.name.clone(),
            metric: spec.objective.metric.to_string(),
            began: Instant::now(),
            best: None,
            stopping: false,
            sender: (!silent).then_some(sender),
            complaints,
        })
    }

    fn tell(&mut self, event: Occasion, what: &str) {
        let (true, Some(sender)) = (self.on.contains(&event), &self.sender) else { return };
        let best = self.best.map(|best| {
            format!("trial {} with {} {:.4} after {} epochs", best.trial, self.metric, best.value, best.epoch)
        });
        let seconds = self.began.elapsed().as_secs_f64();
        let text = match (event, best) {
            (Occasion::Best, Some(best)) => format!("study {}: best is {best}", self.study),
            (_, Some(best)) => format!("study {}: {what} after {}; best is {best}", self.study, clock::span(seconds)),
            (_, None) => format!("study {}: {what} after {}", self.study, clock::span(seconds)),
        };
        let notice = Notice {
            event,
            study: self.study.clone(),
            content: text.clone(),
            text,
            best: self.best,
            metric: self.metric.clone(),
            seconds,
        };
        let _ = sender.send(notice); // its thread ends with the run
    }

    fn pass_on_complaints(&mut self) {
        while let Ok(text) = self.complaints.try_recv() {
            self.inner.see(&Progress::Warning { text });
        }
    }

    /// Tells of a run that ended in an error, waits a little for notices on their way, and says what could not be sent.
    pub fn finish(mut self, error: Option<&RunError>) -> Vec<String> {
        if let Some(error) = error {
            let text = error.to_string();
            self.tell(Occasion::Failed, &format!("failed to {}", text.lines().next().unwrap_or_default()));
        }
        drop(self.sender.take());
        // Whoever stops a run does not want to wait.
        let patience = if self.stopping { Duration::from_secs(2) } else { FAREWELL };
        let until = Instant::now() + patience;
        let mut complaints = Vec::new();
        loop {
            match self.complaints.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(text) => complaints.push(text),
                Err(RecvTimeoutError::Disconnected) => return complaints,
                Err(RecvTimeoutError::Timeout) => {
                    complaints.push("notices are still on their way and are given up".to_owned());
                    return complaints;
                }
            }
        }
    }
}

impl Observer for Notifier<'_> {
    fn see(&mut self, progress: &Progress) {
        self.inner.see(progress);
        match progress {
            Progress::Started { best, .. } => self.best = *best,
            Progress::Stopping { .. } => self.stopping = true,
            Progress::OrderFinished { best: Some(best), .. } if self.best.map(|b| b.value) != Some(best.value) => {
                self.best = Some(*best);
                self.tell(Occasion::Best, "");
            }
            // Whoever stops a run knows.
            Progress::Finished { best, reason, .. } if !self.stopping => {
                self.best = *best;
                match (best, reason) {
                    (_, Some(crate::engine::DoneReason::FailureLimit)) => {
                        self.tell(Occasion::Failed, "too many trials failed");
                    }
                    (None, _) => self.tell(Occasion::Failed, "no trial has a value"),
                    (Some(_), None) => self.tell(Occasion::Done, "the wall time is spent"),
                    (Some(_), Some(_)) => self.tell(Occasion::Done, "done"),
                }
            }
            _ => {}
        }
        self.pass_on_complaints();
    }

    fn tick(&mut self) {
        self.inner.tick();
        self.pass_on_complaints();
    }
}

/// The thread that sends.
struct Post {
    command: Vec<String>,
    url: Option<String>,
    base: PathBuf,
}

impl Post {
    fn new(spec: &NotifySpec, base: &Path) -> Result<Self, NotifyError> {
        let url = match &spec.url {
            None => None,
            Some(NotifyUrl::Given(url)) => Some(url.clone()),
            Some(NotifyUrl::Variable(name)) => {
                let value = std::env::var(name).ok().map(|url| url.trim().to_owned());
                let sound = value.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
                Some(sound.ok_or_else(|| NotifyError::Variable(name.clone()))?)
            }
        };
        Ok(Self { command: spec.command.clone(), url, base: base.to_owned() })
    }

    fn serve(&self, notices: &Receiver<Notice>, complain: &Sender<String>) {
        while let Ok(mut notice) = notices.recv() {
            // Of several bests that waited while another was sent, the last counts.
            let mut after = None;
            while notice.event == Occasion::Best
                && let Ok(next) = notices.try_recv()
            {
                match next.event {
                    Occasion::Best => notice = next,
                    _ => {
                        after = Some(next);
                        break;
                    }
                }
            }
            for notice in std::iter::once(notice).chain(after) {
                let sent = [self.execute(&notice), self.post(&notice)];
                for reason in sent.into_iter().filter_map(Result::err) {
                    let _ = complain.send(reason);
                }
            }
        }
    }

    fn execute(&self, notice: &Notice) -> Result<(), String> {
        let filled = self.command.iter().map(|argument| CommandSpec::fill(argument, |name| notice.field(name)));
        let argv: Vec<String> = filled.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
        let failed = |reason: String| format!("the notice command `{program}` {reason}");
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(if self.base.as_os_str().is_empty() { Path::new(".") } else { &self.base })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0) // what it has started is stopped with it
            .spawn()
            .map_err(|e| failed(format!("cannot be started: {e}")))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let input = child.stdin.take();
        let body = notice.json();
        // A program need not read: neither this write nor its broken pipe matters.
        std::thread::spawn(move || input.map(|mut input| input.write_all(body.as_bytes())));
        let said = child.stderr.take().map(|stream| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let mut first = stream.take(SHOWN);
                let _ = first.read_to_end(&mut text);
                // The rest is read too, so that a program which says more is not held up.
                let _ = std::io::copy(&mut first.into_inner(), &mut std::io::sink());
                String::from_utf8_lossy(&text).trim().to_owned()
            })
        });
        let until = Instant::now() + LIMIT;
        let status = loop {
            match child.try_wait().map_err(|e| failed(format!("is lost: {e}")))? {
                Some(status) => break Some(status),
                None if Instant::now() >= until => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        let said = said.and_then(|thread| thread.join().ok()).filter(|text| !text.is_empty());
        let said = said
            .map_or_else(String::new, |text| format!(": {}", text.split_whitespace().collect::<Vec<_>>().join(" ")));
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failed(format!("ended with {status}{said}"))),
            None => Err(failed(format!("was stopped after {}{said}", clock::span(LIMIT.as_secs_f64())))),
        }
    }

    fn post(&self, notice: &Notice) -> Result<(), String> {
        let Some(url) = &self.url else { return Ok(()) };
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build().into();
        let mut pauses = PAUSES.into_iter();
        loop {
            let answer = agent.post(url).content_type("application/json").send(notice.json());
            let error = match answer {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // What the receiver refuses, it will refuse again; save when it is asked too often.
            let again = !matches!(error, ureq::Error::StatusCode(400..=428 | 430..=499));
            match pauses.next().filter(|_| again) {
                Some(pause) => std::thread::sleep(pause),
                // Paths of such addresses are secrets: only the host is named.
                None => return Err(format!("a notice was not posted to {}: {}", host(url), reason(&error))),
            }
        }
    }
}

/// The host of an address, without user, path and query.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Why it was not sent, in words that never hold the address.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("status {code}"),
        ureq::Error::BadUri(_) => "this is no address".to_owned(),
        ureq::Error::Http(_) => "this is no request".to_owned(),
        other => other.to_string(),
    }
}

impl Notice {
    fn json(&self) -> String {
        // Cannot fail: texts and finite numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What stands for a name in braces; empty where there is no best trial.
    fn field(&self, name: &str) -> Option<String> {
        Some(match name {
            "event" => self.event.to_string(),
            "study" => self.study.clone(),
            "text" => self.text.clone(),
            "metric" => self.metric.clone(),
            "trial" => self.best.map_or_else(String::new, |best| best.trial.to_string()),
            "value" => self.best.map_or_else(String::new, |best| best.value.to_string()),
            _ => return None,
        })
    }
}
