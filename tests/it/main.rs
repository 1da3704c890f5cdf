//! Tests of the whole, in one binary.

mod crash;
mod determinism;
mod network;
mod pipeline;
mod program;
mod quality;
mod report;
mod samplers;
mod schedulers;
mod simulation;
mod study_files;
mod warm;
mod worker;
