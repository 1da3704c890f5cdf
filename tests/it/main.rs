//! Tests of the whole, in one binary.

mod determinism;
mod network;
mod schedulers;
mod simulation;
