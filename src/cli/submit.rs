//! `hpsearch submit`: sends the run of a study to Slurm as a job of one core, which starts the workers as jobs of their own.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use crate::run::shell_word;
use crate::spec::ClusterKind;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Send a run to Slurm: a job of one core that starts the workers, and goes on by itself when it was preempted or its time is up
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file; its `[cluster]` has `kind = "slurm"`
    pub study: PathBuf,
    /// Worker processes, instead of the study's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Arguments of `sbatch`, after `--`: `-- --partition=long --time=2-00:00:00`
    #[arg(last = true, value_name = "SBATCH ARGUMENTS")]
    pub sbatch: Vec<String>,
}

/// How long before the end of the job's time it is told, so that it ends well and is queued again.
const NOTICE_SECONDS: u32 = 60;

/// Sends the job, and prints its number.
///
/// # Errors
/// If the study file has mistakes or no `[cluster]` of Slurm's, or `sbatch` does not take the job.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let spec = global.load(&args.study)?.spec;
    let name = &spec.name;
    if !spec.cluster.as_ref().is_some_and(|cluster| cluster.kind == ClusterKind::Slurm) {
        let text = "`submit` needs `[cluster]` with `kind = \"slurm\"` in the study file\n\
             hint: without it, all workers would share the one core of the job that is sent";
        return Err(CliError::new(format!("submit study `{name}`"), std::io::Error::other(text)).exit(Exit::Usage));
    }
    let doing = || format!("submit study `{name}`");
    global.backend()?; // an address that makes no sense would be waited for
    let here = std::env::current_dir().map_err(|e| CliError::new("find the working directory", e))?;
    let state = here.join(&global.state);
    let log = state.join(format!("{name}.slurm.log"));
    let program = std::env::current_exe().map_err(|e| CliError::new("find this program", e))?;
    let mut run =
        vec![program.display().to_string(), "--state".to_owned(), state.display().to_string(), "run".to_owned()];
    run.push(here.join(&args.study).display().to_string());
    run.extend(args.workers.map(|n| format!("--workers={n}")));
    if global.server().is_some() {
        // A job that is queued again while the server is away goes on when it is back.
        run.push("--wait".to_owned());
        if args.sbatch.iter().any(|word| word.starts_with("--export")) {
            let why = "`--export` could keep the database's address from the job\nhint: leave it out: the whole environment is passed on";
            return Err(CliError::new(doing(), why).exit(Exit::Usage));
        }
    }
    let script = script(name, &run);
    let mut argv: Vec<String> = [
        "--parsable",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--requeue",
        "--open-mode=append",
        // Two runs of one study would be in each other's way.
        "--dependency=singleton",
    ]
    .map(str::to_owned)
    .into();
    if global.server().is_some() {
        argv.push("--export=ALL".to_owned()); // some sites pass on nothing
    }
    argv.push(format!("--job-name=hpsearch-run-{name}"));
    argv.push(format!("--signal=B:USR1@{NOTICE_SECONDS}"));
    argv.push(format!("--output={}", log.display().to_string().replace('%', "%%")));
    argv.extend(args.sbatch);
    let mut out = std::io::stdout().lock();
    if args.dry_run {
        let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
        if global.server().is_some() {
            writeln!(out, "# with HPSEARCH_DATABASE set to the database's address")?;
        }
        write!(out, "sbatch {} <<'SCRIPT'\n{script}SCRIPT\n", words.join(" "))?;
        return Ok(Exit::Done);
    }
    std::fs::create_dir_all(&state).map_err(|e| CliError::new(doing(), e))?;
    let job = send(&argv, &script, global.server()).map_err(|e| CliError::new(doing(), e))?;
    if global.json {
        writeln!(out, "{}", serde_json::json!({ "job": job, "log": log.to_string_lossy() }))?;
    } else {
        writeln!(out, "job {job} runs study {name}; its words go to {}", log.display())?;
        if !global.quiet {
            let state = global.state_flag();
            writeln!(
                out,
                "next: hpsearch {state}watch {name}, or squeue; scancel {job} ends it, submit again goes on"
            )?;
        }
    }
    Ok(Exit::Done)
}

/// The job's script: the run, told to end by what Slurm tells the job; queued again where its time was up.
fn script(name: &str, run: &[String]) -> String {
    let run: Vec<String> = run.iter().map(|word| shell_word(word)).collect();
    format!(
        "#!/bin/sh\n\
         # The run of study {name}. Its workers are jobs of their own.\n\
         again= told=\n\
         trap again=1 USR1 # its time is nearly up\n\
         trap told=1 TERM INT\n\
         {} &\n\
         run=$!\n\
         sleep 1 # some shells lose what a process is sent at its very start\n\
         trap 'again=1; kill -TERM $run' USR1\n\
         trap 'told=1; kill -TERM $run' TERM INT\n\
         [ -z \"$again$told\" ] || kill -TERM $run\n\
         while :; do\n\
         \x20 wait $run; code=$?\n\
         \x20 kill -0 $run 2>/dev/null || break\n\
         done\n\
         if [ -n \"$again\" ] && [ $code = 143 ]; then exec scontrol requeue \"$SLURM_JOB_ID\"; fi\n\
         # A job that is preempted is queued again only if Slurm has to end it.\n\
         if [ -n \"$told\" ]; then sleep 600; fi\n\
         exit $code\n",
        run.join(" ")
    )
}

/// Gives the script to `sbatch`; its answer is the job's number. The database is passed in the environment, which others
/// cannot see: a password may be in it.
fn send(argv: &[String], script: &str, database: Option<&str>) -> std::io::Result<String> {
    let mut command = Command::new("sbatch");
    if let Some(database) = database {
        command.env("HPSEARCH_DATABASE", database);
    }
    command.args(argv).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| {
        std::io::Error::new(
            e.kind(),
            format!("run `sbatch`: {e}\nhint: submit on a machine from which Slurm takes jobs"),
        )
    })?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let answer = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&answer.stderr);
    if !answer.status.success() {
        return Err(std::io::Error::other(format!("sbatch took no job: {}", said.trim())));
    }
    if !said.trim().is_empty() {
        complain(&format!("{}\n", said.trim()));
    }
    // `--parsable`: number, and the cluster after a semicolon.
    let text = String::from_utf8_lossy(&answer.stdout);
    Ok(text.trim().split(';').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script itself is run: it passes on the signal, and asks to be queued again only where its time was up.
    #[test]
    fn the_script_ends_the_run_well_and_is_queued_again_only_when_its_time_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let executable = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::write(path(name), text).unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        executable("scontrol", "#!/bin/sh\necho \"$@\" > \"$(dirname \"$0\")/asked\"\n");
        executable(
            "a run",
            "#!/bin/sh\ntrap 'exit 143' TERM\n: > \"$1\"\ni=0; while [ $i -lt 500 ]; do sleep 0.02; i=$((i+1)); done\n",
        );
        for (signal, code, again) in [("USR1", 0, true), ("TERM", 143, false)] {
            let begun = path(&format!("begun-{signal}"));
            let run = [path("a run"), begun.clone()].map(|p| p.display().to_string());
            executable("job", &script("s", &run).replace("sleep 600", "sleep 0.1"));
            let paths = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
            let mut job = Command::new(path("job")).env("PATH", paths).env("SLURM_JOB_ID", "12").spawn().unwrap();
            while !begun.exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(
                Command::new("kill").args([format!("-{signal}"), job.id().to_string()]).status().unwrap().success()
            );
            assert_eq!(job.wait().unwrap().code(), Some(code), "{signal}");
            let asked = std::fs::read_to_string(path("asked")).unwrap_or_default();
            assert_eq!(asked.trim() == "requeue 12", again, "{signal}: {asked}");
            let _ = std::fs::remove_file(path("asked"));
        }
    }
}
