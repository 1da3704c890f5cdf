//! Decodes image files in their own size, for `benches/quality/dicom.py`: `dicom OUT grey|rgb FILE...` writes the pixels of
//! the n-th file to `OUT/n.raw` and prints `n width height`, or `n error ...`.

use hpsearch::data::decode::decode_whole;
use hpsearch::spec::{ColourMode, Window};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(out), Some(colour)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: dicom OUT grey|rgb FILE...");
        std::process::exit(2);
    };
    let colour: ColourMode = colour.parse().unwrap_or(ColourMode::Grey);
    for (n, file) in arguments.enumerate() {
        match decode_whole(&std::fs::read(&file)?, colour, Window::File) {
            Ok((width, height, pixels)) => {
                std::fs::write(PathBuf::from(&out).join(format!("{n}.raw")), pixels)?;
                println!("{n} {width} {height}");
            }
            Err(error) => println!("{n} error {error}"),
        }
    }
    Ok(())
}
