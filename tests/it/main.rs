//! Tests of the whole, in one binary.

mod determinism;
mod network;
mod report;
mod samplers;
mod schedulers;
mod simulation;
