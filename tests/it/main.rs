
mod study_files;
