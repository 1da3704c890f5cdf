//! Integration tests, in one binary.

mod command;
mod compare;
mod crash;
mod determinism;
mod dicom;
mod export;
mod golden;
mod image;
mod layout;
mod limits;
mod model;
mod network;
mod notify;
mod opening;
mod optuna;
mod pipeline;
mod program;
mod quality;
mod report;
mod samplers;
mod schedulers;
mod simulation;
mod study_files;
mod versions;
mod warm;
mod worker;
