mod determinism;
mod samplers;
mod schedulers;
mod simulation;
