//! Reports: charts, tables and one self-contained page about a study.

pub mod model;
