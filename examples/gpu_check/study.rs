//! Studies through the program: killed and resumed on the GPU, moved to the CPU, compared with the CPU, and timed; their
//! models used on both.

use crate::report::{Outcome, Report};
use hpsearch::data::synthetic;
use hpsearch::spec::SyntheticSpec;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The largest difference of a trial's value (a ROC AUC) between CPU and GPU that is not suspicious: training
/// amplifies rounding.
const VALUES: f64 = 0.05;
/// The largest difference of a model's score of an image between CPU and GPU, and of its heat map, drawn over the image, as a
/// share of a colour's range, on average over the pixels.
const SCORES: f64 = 5e-3;
const MAPS: f64 = 0.02;

struct Bench<'a> {
    program: &'a Path,
    folder: PathBuf,
    gpu: String,
}

type Rows = Vec<BTreeMap<String, String>>;

impl Bench<'_> {
    fn command(&self, state: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--state").arg(self.folder.join(state)).args(arguments).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start(&self, state: &str, file: &str, device: &str) -> std::io::Result<Child> {
        self.command(state, &["run", file, "--device", device]).spawn()
    }

    /// Runs to the end; returns the seconds it took.
    fn run(&self, state: &str, file: &str, device: &str) -> Result<f64, Box<dyn Error>> {
        let began = Instant::now();
        let mut command = self.command(state, &["run", file, "--device", device]);
        let out = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr);
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            return Err(format!("{} on {device}: {}; {}", file, out.status, last.join(" | ")).into());
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn trials(&self, state: &str, study: &str) -> Result<Rows, Box<dyn Error>> {
        self.table(state, &["export", study, "--csv", "-"])
    }

    /// The table that a command writes to its standard output.
    fn table(&self, state: &str, arguments: &[&str]) -> Result<Rows, Box<dyn Error>> {
        let out = self.command(state, arguments).stdout(Stdio::piped()).output()?;
        let text = String::from_utf8(out.stdout)?;
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let row = |line: &str| head.iter().map(|&h| h.to_owned()).zip(line.split(',').map(str::to_owned)).collect();
        Ok(lines.map(row).collect())
    }

    /// Starts a run and kills it, without a chance to tidy up, when some epochs are on record.
    fn killed(&self, state: &str, file: &str, study: &str) -> Result<usize, Box<dyn Error>> {
        let mut child = self.start(state, file, &self.gpu)?;
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let epochs = |row: &BTreeMap<String, String>| row.get("epochs").and_then(|e| e.parse().ok()).unwrap_or(0);
            let epochs: usize = self.trials(state, study).unwrap_or_default().iter().map(epochs).sum();
            let over = child.try_wait()?.is_some();
            if epochs >= 4 || over || Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return if over { Err("the study ended before it could be killed".into()) } else { Ok(epochs) };
            }
        }
    }
}

fn study(name: &str, images: u32, size: u32, network: &str, epochs: u32, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nseed = 7\n\
         [data]\nsynthetic = {{ images = {images}, prevalence = 0.4, contrast = 0.6, seed = 1 }}\n\
         positive = \"OPACITY\"\nsize = {size}\n\
         [split]\nvalidation = 0.25\n\
         [network]\nbackbone = \"inception_v3\"\nweights = \"random\"\nscaling = \"symmetric\"\n{network}\n\
         [training]\nepochs = {epochs}\nbatch_size = 32\n\
         [objective]\nmetric = \"roc_auc\"\noperating_point = \"youden\"\n\
         [sampler]\nkind = \"random\"\n\
         [space]\nlearning_rate = {{ type = \"float\", low = 1e-4, high = 1e-2, log = true }}\n\
         dropout = {{ type = \"float\", low = 0.0, high = 0.5, step = 0.1 }}\n{rest}\n"
    )
}

fn column(rows: &Rows, name: &str) -> Vec<String> {
    rows.iter().map(|row| row.get(name).cloned().unwrap_or_default()).collect()
}

/// Compares the trials of two runs of one study: suggestions must be equal, values close.
fn compare(r: &mut Report, what: &str, a: &Rows, b: &Rows) {
    let equal = ["number", "learning_rate", "dropout"].iter().all(|name| column(a, name) == column(b, name));
    r.verdict(&format!("{what}: the same suggestions"), &equal.to_string(), "true", equal && !a.is_empty());
    let number = |text: String| text.parse::<f64>().unwrap_or(f64::NAN);
    let pairs = column(a, "value").into_iter().map(number).zip(column(b, "value").into_iter().map(number));
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |m: f64, d| if d.is_nan() { d } else { m.max(d) });
    r.verdict(&format!("{what}: values"), &format!("off by {worst:.4}"), &format!("<= {VALUES}"), worst <= VALUES);
}

/// Runs all checks of studies in a temporary folder.
pub fn check(r: &mut Report, program: &Path, gpu: usize, speed: bool) -> Outcome {
    let folder = std::env::temp_dir().join(format!("hpsearch-gpu-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let bench = Bench { program: &program.canonicalize()?, folder: folder.clone(), gpu: format!("cuda:{gpu}") };
    let outcome = with(r, &bench).and_then(|()| if speed { timed(r, &bench) } else { Ok(()) });
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn with(r: &mut Report, bench: &Bench<'_>) -> Outcome {
    let small = "width = 0.25\ntap = \"Mixed_5d\"\nfreeze = \"none\"\nbatch_norm = \"train\"";
    std::fs::write(bench.folder.join("small.toml"), study("small", 400, 75, small, 6, "[budget]\nn_trials = 4"))?;
    r.table(&["check", "found", "wanted", "verdict"]);
    bench.run("whole", "small.toml", &bench.gpu)?;
    let whole = bench.trials("whole", "small")?;
    let epochs = bench.killed("cut", "small.toml", "small")?;
    bench.run("cut", "small.toml", &bench.gpu)?;
    let cut = bench.trials("cut", "small")?;
    let same = column(&whole, "value") == column(&cut, "value") && whole.len() == 4;
    r.verdict("killed and resumed: values to the last digit", &same.to_string(), "true", same);
    r.line(&format!("| killed after | {epochs} epochs | | |"));
    bench.run("cpu", "small.toml", "cpu")?;
    compare(r, "GPU and CPU", &whole, &bench.trials("cpu", "small")?);
    bench.killed("moved", "small.toml", "small")?;
    bench.run("moved", "small.toml", "cpu")?;
    compare(r, "begun on the GPU, ended on the CPU", &whole, &bench.trials("moved", "small")?);
    used(r, bench)
}

/// A model of the study scores images and draws its heat maps on both.
fn used(r: &mut Report, bench: &Bench<'_>) -> Outcome {
    if !bench.command("whole", &["export", "small", "--out", "model"]).status()?.success() {
        return Err("the model of the study on the GPU was not exported".into());
    }
    let images = bench.folder.join("images");
    std::fs::create_dir(&images)?;
    let drawn = SyntheticSpec { images: 8, prevalence: 0.5, contrast: 0.6, seed: 2 };
    for image in &synthetic::plan(&drawn) {
        let picture =
            image::GrayImage::from_raw(96, 96, synthetic::radiograph(&drawn, image, 96)).ok_or("not a square")?;
        picture.save(images.join(format!("{}.png", image.image)))?;
    }
    let scored = |device: &str, maps: &str| {
        bench.table("whole", &["-q", "predict", "model", "images", "--device", device, "--explain", maps, "--csv", "-"])
    };
    let (cpu, gpu) = (scored("cpu", "maps-cpu")?, scored(&bench.gpu, "maps-gpu")?);
    let same = cpu.len() == synthetic::plan(&drawn).len() && column(&cpu, "image") == column(&gpu, "image");
    r.verdict("predict: the same images", &same.to_string(), "true", same);
    let score = |rows: &Rows| -> Vec<f64> {
        column(rows, "score.OPACITY").iter().map(|text| text.parse().unwrap_or(f64::NAN)).collect()
    };
    let off = score(&cpu).into_iter().zip(score(&gpu)).map(|(a, b)| (a - b).abs());
    r.at_most(
        "predict: scores, CPU and GPU",
        off.fold(0.0, |m, d| if d.is_nan() { d } else { f64::max(m, d) }),
        SCORES,
    );
    let mut worst = if same { 0.0 } else { f64::NAN };
    for map in std::fs::read_dir(bench.folder.join("maps-cpu"))? {
        let name = map?.file_name();
        let map =
            |folder: &str| image::open(bench.folder.join(folder).join(&name)).map(|map| map.into_rgb8().into_raw());
        let (cpu, gpu) = (map("maps-cpu")?, map("maps-gpu")?);
        let off: f64 = cpu.iter().zip(&gpu).map(|(&a, &b)| f64::from(a.abs_diff(b)) / 255.0).sum();
        worst = f64::max(worst, off / cpu.len() as f64);
    }
    r.at_most("predict --explain: maps, CPU and GPU", worst, MAPS);
    Ok(())
}

/// The study that a shared frozen network makes fast.
fn timed(r: &mut Report, bench: &Bench<'_>) -> Outcome {
    r.table(&["check", "found", "wanted", "verdict"]);
    if !r.goes_on() {
        return Err("out of time before the head-only study".into());
    }
    let heads = |n| study("heads", 2223, 299, "freeze = \"all\"", 5, &format!("[budget]\nn_trials = {n}"));
    std::fs::write(bench.folder.join("heads.toml"), heads(1))?;
    let first = bench.run("heads", "heads.toml", &bench.gpu)?;
    std::fs::write(bench.folder.join("heads.toml"), heads(51))?;
    let rest = bench.run("heads", "heads.toml", &bench.gpu)?;
    let found = format!("{rest:.1} s (with the features: {first:.1} s before)");
    r.verdict("50 trials of a head on 2,223 images", &found, "< 60 s", rest < 60.0);
    Ok(())
}
