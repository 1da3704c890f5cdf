//! Tests of the whole, in one binary.

mod determinism;
mod network;
mod samplers;
mod schedulers;
mod simulation;
mod study_files;
