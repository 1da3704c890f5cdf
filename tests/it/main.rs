mod crash;
mod determinism;
mod program;
mod schedulers;
mod simulation;
