//! Workers on other machines, started by `srun`, `ssh` or any program that carries their standard streams.

use super::link::{Launcher, Link, Mailbox};
use super::options::{Elsewhere, RunOptions};
use super::place;
use super::processes::{self, End};
use crate::engine::Greeting;
use crate::spec::{Allocation, ClusterKind, ClusterSpec, CommandSpec};
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// States of a Slurm job that say nothing about what it computed. `TIMEOUT` is none: an epoch may be longer than a job.
const TAKEN_AWAY: [&str; 4] = ["NODE_FAIL", "PREEMPTED", "CANCELLED", "BOOT_FAIL"];

/// Variables of Slurm's that are a user's or a site's, not a job's.
const KEPT: [&str; 6] = ["SLURM_CONF", "SLURM_ACCOUNT", "SLURM_PARTITION", "SLURM_QOS", "SLURM_CLUSTERS", "SLURM_JWT"];

/// Starts workers on other machines, as a study's `[cluster]` says.
#[derive(Clone, Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    study: String,
    program: PathBuf,
    threads: Option<u32>,
}

impl Cluster {
    pub(super) fn new(elsewhere: &Elsewhere, options: &RunOptions, study: &str) -> Self {
        Self {
            spec: elsewhere.cluster.clone(),
            study: study.to_owned(),
            program: options.program.clone(),
            threads: options.threads,
        }
    }

    /// Whether a worker is a job of its own, from which the environment of the job that this process may be in is kept.
    fn is_own_job(&self) -> bool {
        self.spec.kind == ClusterKind::Slurm && self.spec.allocation == Allocation::Each
    }

    /// The command that starts a worker.
    fn command(&self, worker: usize) -> Vec<String> {
        let spec = &self.spec;
        let program = spec.program.as_ref().unwrap_or(&self.program).display().to_string();
        let given = spec.arguments.iter().cloned();
        match spec.kind {
            ClusterKind::Slurm => {
                let mut argv: Vec<String> = ["srun", "--unbuffered", "--quiet", "--ntasks=1"].map(str::to_owned).into();
                argv.push(format!("--job-name=hpsearch-{}", self.study));
                argv.push(format!("--signal=USR2@{:.0}", spec.notice_seconds));
                argv.extend(self.threads.map(|threads| format!("--cpus-per-task={threads}")));
                if spec.allocation == Allocation::Shared {
                    // A step has only what it asks for, so that steps run side by side.
                    argv.extend(["--exact", "--nodes=1"].map(str::to_owned));
                }
                argv.extend(given);
                argv.extend([program, "worker".to_owned()]);
                argv
            }
            ClusterKind::Ssh => {
                let options = [
                    "ssh",
                    "-T",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "ServerAliveInterval=10",
                    "-o",
                    "ServerAliveCountMax=3",
                    "-o",
                    "ConnectTimeout=10",
                ];
                let mut argv: Vec<String> = options.map(str::to_owned).into();
                argv.extend(given);
                argv.push(spec.hosts[worker % spec.hosts.len()].clone());
                argv.push(format!("exec {} worker", shell_word(&program)));
                argv
            }
            ClusterKind::Command => {
                let value = |name: &str| match name {
                    "worker" => Some(worker.to_string()),
                    "study" => Some(self.study.clone()),
                    _ => None,
                };
                // What cannot be filled was refused when the study file was read.
                let fill = |argument: &String| CommandSpec::fill(argument, value).unwrap_or_else(|_| argument.clone());
                let mut argv: Vec<String> = spec.command.iter().map(fill).collect();
                argv.extend([program, "worker".to_owned()]);
                argv
            }
        }
    }
}

/// A word as a POSIX shell reads it, whatever it holds.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Launcher for Cluster {
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>> {
        let argv = self.command(mailbox.worker());
        // Through this program, so that it ends with this process whatever happens to it: a job in a queue must not start
        // for nobody.
        let mut command = Command::new(&self.program);
        command.args(["worker", "--launch", "--gently", "--"]).args(&argv);
        if self.is_own_job() {
            let of_slurm =
                |name: &str| !KEPT.contains(&name) && (name.starts_with("SLURM_") || name.starts_with("SBATCH_"));
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(of_slurm) {
                    command.env_remove(name);
                }
            }
        }
        processes::start(command, mailbox, End::Gentle)
    }

    fn taken_away(&mut self, greeting: &Greeting) -> Option<String> {
        let job = greeting.job.as_ref().filter(|_| self.spec.kind == ClusterKind::Slurm)?;
        let id = job.split('.').next()?;
        let states = || place::ask_slurm("squeue", &["--noheader", "--states=all", "--format=%T", "--jobs", id]);
        let mut said = states()?;
        // A job that has just ended is being cleared up for a moment, and does not say why.
        for _ in 0..5 {
            if !said.contains("COMPLETING") {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
            said = states()?;
        }
        let state = said.lines().map(str::trim).find(|state| TAKEN_AWAY.contains(state))?;
        Some(format!("job {id} of Slurm ended as {state}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Others;

    fn cluster(kind: ClusterKind) -> Cluster {
        Cluster {
            spec: ClusterSpec {
                kind,
                command: ["box", "--name={study}-{worker}"].map(str::to_owned).into(),
                arguments: vec!["--gres=gpu:1".to_owned()],
                hosts: ["a", "b"].map(str::to_owned).into(),
                program: Some("/opt/hp search/hpsearch".into()),
                allocation: Allocation::Each,
                notice_seconds: 90.0,
                others: Others::Refuse,
            },
            study: "lungs".to_owned(),
            program: "hpsearch".into(),
            threads: Some(8),
        }
    }

    #[test]
    fn workers_are_started_as_the_cluster_asks() {
        let words = |kind, worker| cluster(kind).command(worker).join(" ");
        assert_eq!(
            words(ClusterKind::Slurm, 0),
            "srun --unbuffered --quiet --ntasks=1 --job-name=hpsearch-lungs --signal=USR2@90 --cpus-per-task=8 \
             --gres=gpu:1 /opt/hp search/hpsearch worker"
        );
        assert!(words(ClusterKind::Ssh, 3).ends_with("--gres=gpu:1 b exec '/opt/hp search/hpsearch' worker"));
        assert_eq!(words(ClusterKind::Command, 3), "box --name=lungs-3 /opt/hp search/hpsearch worker");
        let mut shared = cluster(ClusterKind::Slurm);
        shared.spec.allocation = Allocation::Shared;
        assert!(shared.command(0).contains(&"--exact".to_owned()) && !shared.is_own_job());
        assert!(cluster(ClusterKind::Slurm).is_own_job() && !cluster(ClusterKind::Ssh).is_own_job());
        assert_eq!(["it's", "", "a=b"].map(shell_word), [r"'it'\''s'", "''", "a=b"]);
    }
}
