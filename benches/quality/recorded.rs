//! Plays whole searches on a table of recorded trials (`benches/quality/recorded/`), by the work that they spend.
//!
//! `recorded TABLE.json.gz SEEDS[:WORK] [METHOD...]` prints, for each method and mark of work (up to WORK), the mean over the seeds
//! of the true regret: how far the test AUC of the trial that the search holds for best lies below that of the best configuration. With
//! `METHOD/any` the search holds for best whatever has the best value, after however few epochs; with `METHOD@N` it has N
//! virtual workers, of which one is real.
//! `recorded TABLE.json.gz check` prints how well the model of the table predicts rows that it has not seen, and how well the
//! cost model's work of an epoch agrees with its seconds: of each trial's fastest epoch, as other work disturbed some.
//!
//! Searches suggest configurations that nobody recorded, so the table is made a function by a Gaussian process (a
//! "surrogate benchmark", Eggensperger et al. 2015): over rates, dropout, decay, tap, strength, head and the depth that is
//! trained, on the logit of the AUC, with lengthscales by maximum likelihood. Validation values get the noise that the process
//! found, anew for each configuration and seed; the truth is its mean for the test images, without noise. Searches see
//! validation values only. Rows that were thinned keep their last value for the epochs that they lack.

use flate2::read::GzDecoder;
use hpsearch::data::{DataSummary, FoldCounts, GivenValidation};
use hpsearch::digest::Digest;
use hpsearch::engine::{Engine, EpochReport, Event, Paid, Plan, Prices};
use hpsearch::ids::Epoch;
use hpsearch::ids::TrialNumber;
use hpsearch::runner::image::ImagePrices;
use hpsearch::sampler::drawn;
use hpsearch::space::Params;
use hpsearch::spec::{StudySpec, WorkBudget};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

/// Marks of work at which searches are compared, in full trainings of the dearest configuration.
const MARKS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

#[derive(Deserialize)]
struct File {
    made: Made,
    trials: Vec<Row>,
}

#[derive(Deserialize)]
struct Made {
    size: usize,
    epochs: u32,
    space: String,
    /// Images by class, of training and of validation.
    train: Vec<u64>,
    validation: Vec<u64>,
    /// Those that are scored with the validation images, and are not shown to searches.
    test: Vec<u64>,
}

#[derive(Deserialize)]
struct Row {
    params: Params,
    epochs: Vec<EpochRow>,
}

#[derive(Deserialize)]
struct EpochRow {
    seconds: f64,
    validation: Figures,
    test: Figures,
}

#[derive(Deserialize)]
struct Figures {
    roc_auc: Option<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, what, methods @ ..] = arguments.as_slice() else {
        return Err("recorded TABLE.json.gz SEEDS[:WORK]|check [METHOD...]".into());
    };
    let file: File = serde_json::from_reader(GzDecoder::new(std::fs::File::open(file)?))?;
    let world = World::new(&file)?;
    if what == "check" {
        return world.check(&file);
    }
    let (seeds, most) = what.split_once(':').unwrap_or((what, "32"));
    let (seeds, most): (u64, f64) = (seeds.parse()?, most.parse()?);
    let marks: Vec<f64> = MARKS.into_iter().filter(|mark| *mark <= most).collect();
    if marks.is_empty() {
        return Err(format!("no mark of work is at or below {most}").into());
    }
    let all: Vec<String> = METHODS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let chosen = if methods.is_empty() { &all } else { methods };
    println!("| method | {} | trials |", marks.iter().map(f64::to_string).collect::<Vec<_>>().join(" | "));
    println!("|---|{}---|", "---|".repeat(marks.len()));
    for name in chosen {
        let (rest, any) = name.strip_suffix("/any").map_or((name.as_str(), false), |rest| (rest, true));
        let (method, workers) = rest.split_once('@').unwrap_or((rest, "1"));
        let workers: u32 = workers.parse()?;
        let (_, lines) = METHODS.iter().find(|(known, _)| *known == method).ok_or(format!("no method `{method}`"))?;
        let runs: Vec<(Vec<f64>, usize)> =
            (0..seeds).into_par_iter().map(|seed| world.play(lines, seed, any, workers, &marks)).collect();
        let n = runs.len() as f64;
        let cells: Vec<String> = (0..marks.len())
            .map(|i| {
                let mean = runs.iter().map(|(regrets, _)| regrets[i]).sum::<f64>() / n;
                let variance = runs.iter().map(|(r, _)| (r[i] - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
                format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * (variance / n).sqrt())
            })
            .collect();
        let trials = runs.iter().map(|(_, trials)| *trials).sum::<usize>() as f64 / n;
        println!("| {name} | {} | {trials:.0} |", cells.join(" | "));
    }
    Ok(())
}

/// Methods: their names, and the lines of a study file that make them.
const METHODS: [(&str, &str); 12] = [
    ("random", "[scheduler]\nkind = \"none\"\n"),
    ("random-sha", "[scheduler]\nkind = \"sha\"\n"),
    ("random-hyperband", "[scheduler]\nkind = \"hyperband\"\n"),
    ("tpe", "[sampler]\nkind = \"tpe\"\n[scheduler]\nkind = \"none\"\n"),
    ("tpe-asha", "[sampler]\nkind = \"tpe\"\n[scheduler]\nkind = \"asha\"\n"),
    ("tpe-hyperband", "[sampler]\nkind = \"tpe\"\n[scheduler]\nkind = \"hyperband\"\n"),
    ("gp", "[sampler]\nkind = \"gp\"\n[scheduler]\nkind = \"none\"\n"),
    ("gp-asha", "[sampler]\nkind = \"gp\"\n[scheduler]\nkind = \"asha\"\n"),
    ("gp-hyperband", "[sampler]\nkind = \"gp\"\n[scheduler]\nkind = \"hyperband\"\n"),
    ("cost", "[sampler]\nkind = \"tpe\"\ncost_aware = true\n[scheduler]\nkind = \"none\"\n"),
    ("cost-asha", "[sampler]\nkind = \"tpe\"\ncost_aware = true\n[scheduler]\nkind = \"asha\"\n"),
    ("cost-hyperband", "[sampler]\nkind = \"tpe\"\ncost_aware = true\n[scheduler]\nkind = \"hyperband\"\n"),
];

/// The table as a function.
struct World {
    made: String,
    prices: Arc<ImagePrices>,
    /// With the test images scored too, as they were when the table was recorded.
    recorded_prices: ImagePrices,
    epochs: u32,
    process: Process,
    /// Weights of the rows, by epoch; validation, then test.
    validation: Vec<Target>,
    test: Vec<Target>,
    /// Mega-operations of a full training of the dearest configuration.
    unit: f64,
    /// The best test AUC of all.
    best: f64,
    features: Features,
}

/// What the process sees of a configuration.
#[derive(Clone)]
struct Features {
    prices: Arc<ImagePrices>,
    least: f64,
    most: f64,
}

const DIMENSIONS: usize = 8;

impl Features {
    fn of(&self, params: &Params) -> [f64; DIMENSIONS] {
        let float = |name: &str| params.float(name).unwrap_or(0.0);
        let text = |name: &str| params.text(name).unwrap_or_default().to_owned();
        let scaled = |x: f64, low: f64, high: f64| (x - low) / (high - low);
        let log = |x: f64, low: f64, high: f64| scaled(x.ln(), low.ln(), high.ln());
        let taps = ["Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7a", "Mixed_7c"];
        let tap = taps.iter().position(|t| *t == text("tap")).unwrap_or(0);
        // How much is trained: where nothing of the network is, its rate and the freezing do not matter.
        let cost = self.prices.price(params, 0..1, &Paid::new()).epoch as f64;
        let trained = log(cost, self.least, self.most);
        let rate = if trained < 0.2 { 0.5 } else { log(float("backbone_rate"), 0.03, 1.0) };
        [
            log(float("learning_rate"), 1e-4, 3e-3),
            rate,
            log(float("weight_decay"), 1e-5, 1e-2),
            scaled(float("dropout"), 0.0, 0.6),
            tap as f64 / 4.0,
            trained,
            float("strength"),
            f64::from(u8::from(text("head") == "hidden")),
        ]
    }
}

/// A Gaussian process with a squared-exponential kernel of unit variance.
#[derive(Clone)]
struct Process {
    points: Vec<[f64; DIMENSIONS]>,
    lengths: [f64; DIMENSIONS],
    /// Variance of the noise, against that of the function.
    noise: f64,
}

struct Target {
    mean: f64,
    /// Of the function.
    deviation: f64,
    weights: Vec<f64>,
}

impl Process {
    fn kernel(&self, a: &[f64; DIMENSIONS], b: &[f64; DIMENSIONS]) -> f64 {
        let d2: f64 = (0..DIMENSIONS).map(|i| ((a[i] - b[i]) / self.lengths[i]).powi(2)).sum();
        (-0.5 * d2).exp()
    }

    /// The Cholesky factor of the rows' covariance.
    fn factor(&self) -> Option<Vec<Vec<f64>>> {
        let n = self.points.len();
        let mut l = vec![vec![0.0; n]; n];
        for i in 0..n {
            for j in 0..=i {
                let noise = if i == j { self.noise } else { 0.0 };
                let dot: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
                let rest = self.kernel(&self.points[i], &self.points[j]) + noise - dot;
                l[i][j] = if i == j { (rest > 0.0).then(|| rest.sqrt())? } else { rest / l[j][j] };
            }
        }
        Some(l)
    }

    /// Log likelihood of centred values, with the function's variance at its maximum (Rasmussen and Williams 2006, eq. 2.30),
    /// and a weak prior on the lengthscales.
    fn likelihood(&self, y: &[f64]) -> f64 {
        let Some(l) = self.factor() else { return f64::NEG_INFINITY };
        let z = forward(&l, y);
        let n = y.len() as f64;
        let variance = z.iter().map(|z| z * z).sum::<f64>() / n;
        let prior: f64 = self.lengths.iter().map(|length| (length / 1.0).ln().powi(2) / 2.0).sum();
        -0.5 * n * variance.ln() - l.iter().enumerate().map(|(i, row)| row[i].ln()).sum::<f64>() - prior
    }

    /// Chooses lengthscales and noise, one after another, three times.
    fn fit(&mut self, y: &[f64]) {
        let lengths = [0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0, 10.0];
        for _ in 0..3 {
            for i in 0..=DIMENSIONS {
                let options: Vec<f64> =
                    if i < DIMENSIONS { lengths.to_vec() } else { vec![0.01, 0.03, 0.1, 0.2, 0.4, 0.8] };
                let with = |x: f64| {
                    let mut other = self.clone();
                    if i < DIMENSIONS {
                        other.lengths[i] = x
                    } else {
                        other.noise = x
                    }
                    other
                };
                let rated = options.par_iter().map(|&x| (with(x).likelihood(y), x));
                let best = rated.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, x)| x);
                if let Some(x) = best {
                    *self = with(x);
                }
            }
        }
    }

    fn target(&self, values: &[f64]) -> Target {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let centred: Vec<f64> = values.iter().map(|y| y - mean).collect();
        let Some(l) = self.factor() else { return Target { mean, deviation: 0.0, weights: vec![0.0; values.len()] } };
        let z = forward(&l, &centred);
        let deviation = (z.iter().map(|z| z * z).sum::<f64>() / z.len() as f64).sqrt();
        Target { mean, deviation, weights: backward(&l, &z) }
    }

    fn predict(&self, target: &Target, at: &[f64; DIMENSIONS]) -> f64 {
        target.mean + self.points.iter().zip(&target.weights).map(|(p, w)| w * self.kernel(p, at)).sum::<f64>()
    }
}

fn forward(l: &[Vec<f64>], y: &[f64]) -> Vec<f64> {
    let mut z = vec![0.0; y.len()];
    for i in 0..y.len() {
        z[i] = (y[i] - (0..i).map(|k| l[i][k] * z[k]).sum::<f64>()) / l[i][i];
    }
    z
}

fn backward(l: &[Vec<f64>], z: &[f64]) -> Vec<f64> {
    let n = z.len();
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        x[i] = (z[i] - (i + 1..n).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
    }
    x
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn logit(p: f64) -> f64 {
    let p = p.clamp(0.01, 0.999);
    (p / (1.0 - p)).ln()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A column of the table: the logit of an AUC after an epoch, of the last epoch before where a row was thinned.
fn column(rows: &[&Row], epoch: usize, of: fn(&EpochRow) -> &Figures) -> Vec<f64> {
    let value = |row: &&Row| row.epochs[..row.epochs.len().min(epoch)].last().and_then(|e| of(e).roc_auc);
    rows.iter().map(|row| logit(value(row).unwrap_or(0.5))).collect()
}

impl World {
    fn new(file: &File) -> Result<Self, Box<dyn Error>> {
        let Made { size, epochs, space, train, validation, .. } = &file.made;
        let made = format!(
            "[data]\nsynthetic = {{}}\nsize = {size}\n[network]\nweights = \"random\"\n[training]\nepochs = {epochs}\n\
             batch_size = 16\n[augment]\nrotation = 10\nviews = 3\n[objective]\nmetric = \"roc_auc\"\n[space]\n{space}"
        );
        let spec = spec(&made, "")?;
        let summary = |validation: &[u64]| DataSummary {
            classes: vec!["negative".to_owned(), "positive".to_owned()],
            positive: 1,
            synthetic: true,
            size: *size,
            channels: 1,
            images: train.iter().zip(validation).map(|(a, b)| a + b).collect(),
            folds: vec![FoldCounts { train: train.clone(), validation: validation.to_vec() }],
            test: vec![0, 0],
            dropped: vec![0, 0],
            given_validation: GivenValidation::default(),
            patients: None,
            duplicates: 0,
            skipped: Vec::new(),
            notes: Vec::new(),
            digest: Digest::of(b""),
        };
        let prices = Arc::new(ImagePrices::new(&spec.runner, &summary(validation)));
        let judged: Vec<u64> = validation.iter().zip(&file.made.test).map(|(a, b)| a + b).collect();
        let recorded_prices = ImagePrices::new(&spec.runner, &summary(&judged));
        let sample: Vec<Params> = (0..4000).map(|i| drawn(&spec.space, 77, TrialNumber(i), 0)).collect();
        let costs: Vec<f64> = sample.iter().map(|p| prices.price(p, 0..1, &Paid::new()).epoch as f64).collect();
        let (least, most) = costs.iter().fold((f64::MAX, 0.0f64), |(a, b), &c| (a.min(c), b.max(c)));
        let features = Features { prices: prices.clone(), least, most };
        let rows: Vec<&Row> = file.trials.iter().filter(|row| !row.epochs.is_empty()).collect();
        let points = rows.iter().map(|row| features.of(&row.params)).collect();
        let mut process = Process { points, lengths: [1.0; DIMENSIONS], noise: 0.1 };
        let last = column(&rows, *epochs as usize, |e| &e.validation);
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        process.fit(&last.iter().map(|y| y - mean).collect::<Vec<_>>());
        let targets = |of: fn(&EpochRow) -> &Figures| -> Vec<Target> {
            (1..=*epochs as usize).map(|epoch| process.target(&column(&rows, epoch, of))).collect()
        };
        let (validation, test) = (targets(|e| &e.validation), targets(|e| &e.test));
        let mut world = Self {
            unit: most * f64::from(*epochs),
            made,
            prices,
            recorded_prices,
            epochs: *epochs,
            process,
            validation,
            test,
            best: 0.0,
            features,
        };
        world.best = sample.iter().map(|p| world.truth(p, *epochs)).fold(0.0, f64::max);
        Ok(world)
    }

    fn truth(&self, params: &Params, epoch: u32) -> f64 {
        logistic(self.process.predict(&self.test[epoch as usize - 1], &self.features.of(params)))
    }

    /// How well rows are predicted from the others.
    fn check(&self, file: &File) -> Result<(), Box<dyn Error>> {
        let rows: Vec<&Row> = file.trials.iter().filter(|row| !row.epochs.is_empty()).collect();
        println!("lengthscales {:?}, noise {}", self.process.lengths, self.process.noise);
        println!("best test AUC {:.4}", self.best);
        let columns: [(&str, fn(&EpochRow) -> &Figures); 2] =
            [("validation", |e| &e.validation), ("test", |e| &e.test)];
        for (name, of) in columns {
            let y = column(&rows, self.epochs as usize, of);
            let predicted: Vec<f64> = (0..rows.len())
                .into_par_iter()
                .map(|out| {
                    let keep: Vec<usize> = (0..rows.len()).filter(|i| *i != out).collect();
                    let points = keep.iter().map(|&i| self.process.points[i]).collect();
                    let others = Process { points, ..self.process.clone() };
                    let target = others.target(&keep.iter().map(|&i| y[i]).collect::<Vec<_>>());
                    others.predict(&target, &self.process.points[out])
                })
                .collect();
            let mean = y.iter().sum::<f64>() / y.len() as f64;
            let residual: f64 = y.iter().zip(&predicted).map(|(y, p)| (y - p).powi(2)).sum();
            let total: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
            println!("{name}: R² of {} rows left out one by one {:.3}", rows.len(), 1.0 - residual / total);
        }
        let pace = |row: &&Row| {
            let fastest = row.epochs.iter().map(|e| e.seconds).fold(f64::INFINITY, f64::min);
            fastest / self.recorded_prices.price(&row.params, 0..1, &Paid::new()).epoch as f64
        };
        let paces: Vec<f64> = rows.iter().map(pace).collect();
        let scale = median(&paces);
        let errors: Vec<f64> = paces.iter().map(|pace| (pace / scale - 1.0).abs()).collect();
        let over = errors.iter().filter(|e| **e > 0.25).count();
        println!(
            "an operation takes {:.2} ps; an epoch's seconds are off by {:.1} % at the median, by over 25 % in {over} trials",
            1e6 * scale,
            100.0 * median(&errors)
        );
        Ok(())
    }

    /// A whole search: its true regret at each mark, and how many trials it began.
    fn play(&self, lines: &str, seed: u64, any: bool, workers: u32, marks: &[f64]) -> (Vec<f64>, usize) {
        let budget = marks[marks.len() - 1] * self.unit;
        let mut spec = spec(&self.made, lines).expect("a sound study");
        spec.seed = seed;
        spec.run.virtual_workers = workers;
        spec.budget.n_trials = Some(100_000);
        spec.budget.work = Some(WorkBudget::GigaOperations((budget / 1000.0) as u64));
        let mut engine = Engine::new(&spec);
        engine.set_prices(self.prices.clone());
        let mut offsets: HashMap<Digest, f64> = HashMap::new();
        let mut regrets = Vec::new();
        let mut held = None;
        let mut latest: HashMap<TrialNumber, (f64, f64)> = HashMap::new();
        while let Plan::Issue(order) = engine.plan() {
            let (id, trial) = (order.order, order.trial);
            let (from, to, params) = (order.from.0, order.to.0, order.params.clone());
            let spent = engine.charged_work() as f64 + order.price.map_or(0, |p| p.of(to - from)) as f64;
            while regrets.len() < marks.len() && spent > marks[regrets.len()] * self.unit {
                regrets.push(held.unwrap_or(self.best - 0.5));
            }
            let mut push = |event: Event| engine.apply(&event).expect("what follows from the engine's own order");
            push(Event::OrderIssued { order });
            push(Event::AttemptStarted { order: id, attempt: 1, worker: 0, unix_ms: 0 });
            let at = self.features.of(&params);
            let digest = params.digest();
            for epoch in from + 1..=to {
                let target = &self.validation[epoch as usize - 1];
                let own = *offsets.entry(digest).or_insert_with(|| normal(seed, &digest, 0));
                let noise = 0.9 * own + 0.44 * normal(seed, &digest, epoch);
                let value = self.process.predict(target, &at) + noise * target.deviation * self.process.noise.sqrt();
                latest.insert(trial, (value, self.best - self.truth(&params, epoch)));
                push(Event::EpochReported {
                    order: id,
                    attempt: 1,
                    report: EpochReport::new(Epoch(epoch), logistic(value)),
                    unix_ms: 0,
                });
            }
            if let Some(outcome) = engine.outcome_due(id) {
                engine.apply(&Event::OrderFinished { order: id, outcome, unix_ms: 0 }).expect("its own outcome");
            }
            held = if any {
                latest.values().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, regret)| *regret)
            } else {
                engine
                    .best()
                    .and_then(|best| Some(self.best - self.truth(&engine.trial(best.trial)?.params, best.epoch.0)))
            };
        }
        while regrets.len() < marks.len() {
            regrets.push(held.unwrap_or(self.best - 0.5));
        }
        (regrets, engine.trials().len())
    }
}

/// A normal number that belongs to a configuration and an epoch.
fn normal(seed: u64, digest: &Digest, epoch: u32) -> f64 {
    let hash = |k: u32| {
        let bytes = Digest::of(format!("{seed} {digest} {epoch} {k}").as_bytes()).to_string();
        let x = u64::from_str_radix(&bytes[..13], 16).unwrap_or(1);
        (x as f64 + 0.5) / (1u64 << 52) as f64
    };
    (-2.0 * hash(0).ln()).sqrt() * (std::f64::consts::TAU * hash(1)).cos()
}

fn spec(made: &str, lines: &str) -> Result<StudySpec, Box<dyn Error>> {
    let text = format!("{lines}[budget]\nn_trials = 1000\n{made}");
    Ok(hpsearch::config::from_text(&text).map_err(|e| e.to_string())?.spec)
}
