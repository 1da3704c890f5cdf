//! Tests of the whole, in one binary.

mod determinism;
mod network;
mod pipeline;
mod schedulers;
mod simulation;
