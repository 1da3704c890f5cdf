mod determinism;
mod quality;
mod samplers;
mod schedulers;
mod simulation;
