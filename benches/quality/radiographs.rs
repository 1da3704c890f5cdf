//! Writes synthetic radiographs as PNG files, `OUT/{train,test}/{NORMAL,OPACITY}/*.png`, for programs that read folders; a fifth of the
//! patients are in `test`.
//!
//! ```console
//! cargo run --release --example radiographs -- OUT [IMAGES] [SIZE] [CONTRAST] [SEED]
//! ```

use hpsearch::data::synthetic;
use hpsearch::spec::SyntheticSpec;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(arguments.first().ok_or("name a folder")?);
    let number = |i: usize, otherwise: f64| arguments.get(i).map_or(Ok(otherwise), |text| text.parse::<f64>());
    let spec = SyntheticSpec {
        images: number(1, 1000.0)? as u32,
        prevalence: 0.5,
        contrast: number(3, 1.0)?,
        seed: number(4, 3001.0)? as u64,
    };
    let size = number(2, 150.0)? as usize;
    for image in &synthetic::plan(&spec) {
        let class = if image.opacity { "OPACITY" } else { "NORMAL" };
        let folder = out.join(if image.patient % 5 == 0 { "test" } else { "train" }).join(class);
        std::fs::create_dir_all(&folder)?;
        let pixels = synthetic::radiograph(&spec, image, size);
        let picture = image::GrayImage::from_raw(size as u32, size as u32, pixels).ok_or("not a square")?;
        picture.save(folder.join(format!("{}-{:05}.png", image.patient_name(), image.image)))?;
    }
    Ok(())
}
