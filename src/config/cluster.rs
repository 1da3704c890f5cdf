//! Compiling `[cluster]`.

use super::reader::{Section, check_braces};
use crate::spec::{ClusterKind, ClusterSpec, WORKER_FIELDS};
use std::path::PathBuf;

pub(super) fn compile(section: &Section<'_>) -> Option<ClusterSpec> {
    if !section.is_given() {
        return None;
    }
    let Some(kind) = section.one_of::<ClusterKind>("kind") else {
        if section.get("kind").is_none() {
            let report = section.log.error(&section.place_of("kind"), "it is not said what starts workers", "");
            report.help("add `kind = \"slurm\"`, `\"ssh\"` or `\"command\"`");
        }
        return None;
    };
    section.only_with(
        kind.to_string().as_str(),
        &[
            ("command", &["command"]),
            ("arguments", &["slurm", "ssh"]),
            ("hosts", &["ssh"]),
            ("allocation", &["slurm"]),
            ("notice", &["slurm"]),
        ],
    );
    let texts = |key: &str| -> Vec<String> {
        let items = section.get(key).and_then(|item| item.elements(false)).unwrap_or_default();
        items.iter().filter_map(|item| item.text()).map(str::to_owned).collect()
    };
    let wanted = match kind {
        ClusterKind::Command => {
            Some(("command", "the program that starts workers is not named", "command = [\"ssh\", \"host\"]"))
        }
        ClusterKind::Ssh => Some(("hosts", "no machine is named", "hosts = [\"user@host\"]")),
        ClusterKind::Slurm => None,
    };
    if let Some((key, title, example)) = wanted
        && section.get(key).is_none_or(|item| item.elements(false).is_some_and(|items| items.is_empty()))
    {
        section.log.error(&section.place_of(key), title, "").help(format!("write `{example}`"));
    }
    for item in section.get("command").and_then(|item| item.elements(false)).unwrap_or_default() {
        check_braces(&item, WORKER_FIELDS, "a worker");
    }
    for item in section.get("hosts").and_then(|item| item.elements(false)).unwrap_or_default() {
        if item.text().is_some_and(|host| host.is_empty() || host.starts_with('-')) {
            section.log.error(&item.place, "this names no machine", "");
        }
    }
    Some(ClusterSpec {
        kind,
        command: texts("command"),
        arguments: texts("arguments"),
        hosts: texts("hosts"),
        program: section.text("program").map(PathBuf::from),
        allocation: section.one_of("allocation").unwrap_or_default(),
        notice_seconds: section.get("notice").and_then(|item| item.seconds()).unwrap_or(120.0),
        others: section.one_of("others").unwrap_or_default(),
    })
}
