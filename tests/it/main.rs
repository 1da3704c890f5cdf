
mod determinism;
mod schedulers;
mod simulation;
