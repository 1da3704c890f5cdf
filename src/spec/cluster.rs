//! Workers on other machines.

use std::path::PathBuf;
use strum::VariantNames;

/// What starts workers elsewhere and carries their standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum ClusterKind {
    /// `srun` of Slurm.
    Slurm,
    /// `ssh`.
    Ssh,
    /// Any program that is given the worker's command at the end of its arguments.
    Command,
}

/// Where Slurm places workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, strum::Display, strum::EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Allocation {
    /// Each worker is a job of its own, which waits its turn.
    #[default]
    Each,
    /// All are steps of the job in which the run itself was started.
    Shared,
}

/// What is done with a worker that computes otherwise than the first one did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, strum::Display, strum::EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Others {
    /// It is sent away.
    #[default]
    Refuse,
    /// It trains too, and a warning says so.
    Take,
}

/// How workers are started on other machines. Not part of a study: it is not kept in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSpec {
    /// What starts them.
    pub kind: ClusterKind,
    /// [`ClusterKind::Command`]: program and arguments, with [`WORKER_FIELDS`] in braces.
    pub command: Vec<String>,
    /// Further arguments of `srun` or `ssh`.
    pub arguments: Vec<String>,
    /// [`ClusterKind::Ssh`]: the machines, to which workers are assigned in turn.
    pub hosts: Vec<String>,
    /// This program there; `None`: the same path as here.
    pub program: Option<PathBuf>,
    /// Where Slurm places them.
    pub allocation: Allocation,
    /// Seconds before the end of its time at which Slurm tells a worker of it.
    pub notice_seconds: f64,
    /// What is done with workers that compute otherwise.
    pub others: Others,
}

/// What may stand in braces in the arguments of [`ClusterSpec::command`].
pub const WORKER_FIELDS: [&str; 2] = ["worker", "study"];
