//! From a study back to a study file: all values written out, so that the file says the same whatever defaults become.

use crate::space::{Domain, Parameter, Value};
use crate::spec::{
    AugmentSpec, Budget, CommandSpec, DataSource, DataSpec, FailurePolicies, FreezeTo, HeadSpec, Limits, NetworkSpec,
    Objective, OperatingPoint, RunSpec, RunnerSpec, SamplerSpec, SchedulerSpec, SplitSpec, StudySpec, SyntheticSpec,
    TrainingSpec, Views, WeightSource, Window, WorkBudget,
};
use toml::{Table, Value as Toml};

impl StudySpec {
    /// The study file of this study: [`super::from_text`] reads it as the same study.
    pub fn to_toml(&self) -> String {
        let Self {
            name,
            seed,
            runner,
            objective,
            space,
            sampler,
            scheduler,
            enqueue,
            budget,
            limits,
            failures,
            run,
            cluster: _,
            notify: _, // neither who is told nor where workers are is part of a study
            changed_defaults: _,
        } = self;
        let mut top = Table::new();
        put(&mut top, "name", name.as_str());
        put(&mut top, "seed", *seed as i64);
        put_runner(&mut top, runner);
        put(&mut top, "objective", table_of(objective));
        let parameters = space.parameters.iter().map(|p| (p.name.clone(), parameter(p)));
        put(&mut top, "space", parameters.collect::<Table>());
        put(&mut top, "sampler", sampler_table(sampler));
        put(&mut top, "scheduler", scheduler_table(scheduler));
        put(&mut top, "budget", budget_table(budget));
        put_unless_empty(&mut top, "limits", limits_table(limits));
        let FailurePolicies { oom, diverged, timeout, crashed, lost } = *failures;
        let policies =
            [("oom", oom), ("diverged", diverged), ("timeout", timeout), ("crashed", crashed), ("lost", lost)];
        put(&mut top, "failures", policies.into_iter().map(|(key, n)| (key.to_owned(), n.into())).collect::<Table>());
        put(&mut top, "run", run_table(run));
        if !enqueue.is_empty() {
            let tables = enqueue
                .iter()
                .map(|params| Toml::Table(params.0.iter().map(|(name, v)| (name.clone(), value(v))).collect()));
            put(&mut top, "enqueue", tables.collect::<Vec<_>>());
        }
        top.to_string()
    }
}

fn put(table: &mut Table, key: &str, value: impl Into<Toml>) {
    table.insert(key.to_owned(), value.into());
}

fn put_some(table: &mut Table, key: &str, value: Option<impl Into<Toml>>) {
    if let Some(value) = value {
        put(table, key, value);
    }
}

fn put_unless_empty(table: &mut Table, key: &str, inner: Table) {
    if !inner.is_empty() {
        put(table, key, inner);
    }
}

fn value(value: &Value) -> Toml {
    match value {
        Value::Float(x) => (*x).into(),
        Value::Int(n) => (*n).into(),
        Value::Bool(b) => (*b).into(),
        Value::Text(text) => text.as_str().into(),
    }
}

fn values(values: &[Value]) -> Toml {
    values.iter().map(value).collect::<Vec<_>>().into()
}

fn seconds(seconds: f64) -> Toml {
    format!("{seconds}s").into()
}

fn parameter(parameter: &Parameter) -> Toml {
    let mut table = Table::new();
    match &parameter.domain {
        Domain::Float { low, high, step, log } => {
            put(&mut table, "type", "float");
            put(&mut table, "low", *low);
            put(&mut table, "high", *high);
            put_some(&mut table, "step", *step);
            put_some(&mut table, "log", log.then_some(true));
        }
        Domain::Int { low, high, step, log } => {
            put(&mut table, "type", "int");
            put(&mut table, "low", *low);
            put(&mut table, "high", *high);
            put_some(&mut table, "step", (*step != 1).then_some(*step));
            put_some(&mut table, "log", log.then_some(true));
        }
        Domain::Categorical { choices } => put(&mut table, "choices", values(choices)),
        Domain::Ordinal { choices } => {
            put(&mut table, "type", "ordinal");
            put(&mut table, "choices", values(choices));
        }
        // A table like the others: plain values would come first in the file, and the order is part of the study.
        Domain::Fixed { value: fixed } => put(&mut table, "value", value(fixed)),
    }
    if let Some(when) = &parameter.when {
        let mut condition = Table::new();
        put(&mut condition, "parameter", when.parameter.as_str());
        put(&mut condition, "is", values(&when.values));
        put(&mut table, "when", condition);
    }
    table.into()
}

fn put_runner(top: &mut Table, runner: &RunnerSpec) {
    let mut table = Table::new();
    match runner {
        RunnerSpec::Image { data, network, head, training, augment } => {
            put(top, "data", data_table(data));
            put(top, "split", split_table(&data.split));
            put(top, "network", network_table(network));
            let HeadSpec { kind, dropout, hidden_units } = head;
            put(&mut table, "kind", kind.into_str());
            put(&mut table, "dropout", *dropout);
            put(&mut table, "hidden_units", *hidden_units);
            put(top, "head", table);
            put(top, "training", training_table(training));
            put(top, "augment", augment_table(augment));
            return;
        }
        RunnerSpec::Command(CommandSpec { argv, directory, epochs }) => {
            put(&mut table, "kind", "command");
            put(&mut table, "command", argv.clone());
            put_some(&mut table, "directory", directory.as_ref().map(|path| path.display().to_string()));
            put(&mut table, "epochs", *epochs);
        }
        RunnerSpec::Synthetic { epochs, epoch_ms } => {
            put(&mut table, "kind", "synthetic");
            put(&mut table, "epochs", *epochs);
            put(&mut table, "epoch_ms", *epoch_ms as i64);
        }
        RunnerSpec::External { epochs } => {
            put(&mut table, "kind", "external");
            put(&mut table, "epochs", *epochs);
        }
    }
    put(top, "runner", table);
}

fn data_table(data: &DataSpec) -> Table {
    let DataSpec { source, positive, patient, bad_files, colour, size, window, split: _ } = data;
    let mut table = Table::new();
    match source {
        DataSource::Folder(path) => put(&mut table, "folder", path.display().to_string()),
        DataSource::Manifest(path) => put(&mut table, "manifest", path.display().to_string()),
        DataSource::Synthetic(SyntheticSpec { images, prevalence, contrast, seed }) => {
            let mut inner = Table::new();
            put(&mut inner, "images", *images);
            put(&mut inner, "prevalence", *prevalence);
            put(&mut inner, "contrast", *contrast);
            put(&mut inner, "seed", *seed as i64);
            put(&mut table, "synthetic", inner);
        }
    }
    put_some(&mut table, "positive", positive.as_deref());
    put_some(&mut table, "patient", patient.as_deref());
    put(&mut table, "bad_files", bad_files.into_str());
    put(&mut table, "colour", colour.into_str());
    put(&mut table, "size", *size);
    match window {
        Window::File => {}
        Window::Range => put(&mut table, "window", "range"),
        Window::Level { center, width } => {
            let mut inner = Table::new();
            put(&mut inner, "center", *center);
            put(&mut inner, "width", *width);
            put(&mut table, "window", inner);
        }
    }
    table
}

fn split_table(split: &SplitSpec) -> Table {
    let SplitSpec { validation, test, policy, folds } = split;
    let mut table = Table::new();
    // With folds the share for validation has no meaning and may not be written.
    put_some(&mut table, "validation", folds.is_none().then_some(*validation));
    put(&mut table, "test", *test);
    put(&mut table, "policy", policy.into_str());
    put_some(&mut table, "folds", *folds);
    table
}

fn network_table(network: &NetworkSpec) -> Table {
    let NetworkSpec { backbone, width, weights, scaling, pool_padding, tap, freeze, batch_norm, cache, input_size } =
        network;
    let mut table = Table::new();
    put(&mut table, "backbone", backbone.into_str());
    put(&mut table, "width", *width);
    let weights = match weights {
        WeightSource::Random => "random".to_owned(),
        WeightSource::File(path) => path.display().to_string(),
        WeightSource::Hub { repo, revision: None } => format!("hub:{repo}"),
        WeightSource::Hub { repo, revision: Some(revision) } => format!("hub:{repo}@{revision}"),
    };
    put(&mut table, "weights", weights);
    put(&mut table, "scaling", scaling.into_str());
    put(&mut table, "pool_padding", pool_padding.into_str());
    put(&mut table, "tap", tap.as_str());
    let freeze = match freeze {
        FreezeTo::None => "none",
        FreezeTo::All => "all",
        FreezeTo::Stage(stage) => stage,
    };
    put(&mut table, "freeze", freeze);
    put(&mut table, "batch_norm", batch_norm.into_str());
    put(&mut table, "cache", cache.into_str());
    put_some(&mut table, "input_size", *input_size);
    table
}

fn training_table(training: &TrainingSpec) -> Table {
    let TrainingSpec {
        epochs,
        batch_size,
        optimiser,
        learning_rate,
        weight_decay,
        momentum,
        backbone_rate,
        schedule,
        warmup_epochs,
        loss,
        focal_gamma,
        label_smoothing,
        imbalance,
        clip_norm,
        layer_decay,
        average_epochs,
        probe_epochs,
        small_epochs,
        small_size,
        norm_statistics,
    } = training;
    let mut table = Table::new();
    put(&mut table, "epochs", *epochs);
    put(&mut table, "batch_size", *batch_size);
    put(&mut table, "optimiser", optimiser.into_str());
    let numbers = [
        ("learning_rate", learning_rate),
        ("weight_decay", weight_decay),
        ("momentum", momentum),
        ("backbone_rate", backbone_rate),
        ("warmup_epochs", warmup_epochs),
        ("focal_gamma", focal_gamma),
        ("label_smoothing", label_smoothing),
        ("clip_norm", clip_norm),
        ("layer_decay", layer_decay),
    ];
    numbers.into_iter().for_each(|(key, x)| put(&mut table, key, *x));
    if *average_epochs > 0.0 {
        put(&mut table, "average_epochs", *average_epochs);
    }
    if *probe_epochs > 0 {
        put(&mut table, "probe_epochs", *probe_epochs);
    }
    if *small_epochs > 0 {
        put(&mut table, "small_epochs", *small_epochs);
    }
    put_some(&mut table, "small_size", *small_size);
    put(&mut table, "schedule", schedule.into_str());
    put(&mut table, "loss", loss.into_str());
    put(&mut table, "imbalance", imbalance.into_str());
    put(&mut table, "norm_statistics", norm_statistics.into_str());
    table
}

fn augment_table(augment: &AugmentSpec) -> Table {
    let AugmentSpec { strength, flip, rotation, brightness, edges, views, .. } = augment;
    let AugmentSpec { vertical_flip, quarter_turns, zoom, shift, contrast, noise, .. } = augment;
    let mut table = Table::new();
    let numbers =
        [("strength", strength), ("flip", flip), ("rotation", rotation), ("brightness", brightness), ("edges", edges)];
    numbers.into_iter().for_each(|(key, x)| put(&mut table, key, *x));
    let further = [
        ("vertical_flip", vertical_flip),
        ("quarter_turns", quarter_turns),
        ("zoom", zoom),
        ("shift", shift),
        ("contrast", contrast),
        ("noise", noise),
    ];
    further.into_iter().filter(|(_, x)| **x != 0.0).for_each(|(key, x)| put(&mut table, key, *x));
    match views {
        Views::Bank(n) => put(&mut table, "views", *n),
        Views::Fresh => put(&mut table, "views", "fresh"),
    }
    table
}

fn table_of(objective: &Objective) -> Table {
    let Objective { metric, direction, operating_point } = objective;
    let mut table = Table::new();
    put(&mut table, "metric", metric.to_string());
    put(&mut table, "direction", direction.into_str());
    match operating_point {
        OperatingPoint::Threshold(x) => put(&mut table, "operating_point", *x),
        other => put(&mut table, "operating_point", other.to_string()),
    }
    table
}

fn sampler_table(sampler: &SamplerSpec) -> Table {
    let mut table = Table::new();
    put(&mut table, "kind", sampler.into_str());
    match sampler {
        SamplerSpec::Random | SamplerSpec::Sobol => {}
        SamplerSpec::Grid { points } => put(&mut table, "points", *points),
        SamplerSpec::Tpe { n_startup, n_ei_candidates, cost_aware, warm_start } => {
            put(&mut table, "n_startup", *n_startup);
            put(&mut table, "n_ei_candidates", *n_ei_candidates);
            put_some(&mut table, "cost_aware", cost_aware.then_some(true));
            put_some(&mut table, "warm_start", (!warm_start.is_empty()).then(|| warm_start.clone()));
        }
        SamplerSpec::Gp { n_startup, warm_start } => {
            put(&mut table, "n_startup", *n_startup);
            put_some(&mut table, "warm_start", (!warm_start.is_empty()).then(|| warm_start.clone()));
        }
    }
    table
}

fn scheduler_table(scheduler: &SchedulerSpec) -> Table {
    let mut table = Table::new();
    put(&mut table, "kind", scheduler.into_str());
    let mut halving = |min_resource: u32, reduction_factor: u32| {
        put(&mut table, "min_resource", min_resource);
        put(&mut table, "reduction_factor", reduction_factor);
    };
    match *scheduler {
        SchedulerSpec::None => {}
        SchedulerSpec::Sha { min_resource, reduction_factor }
        | SchedulerSpec::Asha { min_resource, reduction_factor } => halving(min_resource, reduction_factor),
        SchedulerSpec::Hyperband { min_resource, reduction_factor, algorithm1 } => {
            halving(min_resource, reduction_factor);
            put(&mut table, "brackets", if algorithm1 { "algorithm1" } else { "table1" });
        }
        SchedulerSpec::Median { warmup_epochs, min_trials } => {
            put(&mut table, "warmup_epochs", warmup_epochs);
            put(&mut table, "min_trials", min_trials);
        }
    }
    table
}

fn budget_table(budget: &Budget) -> Table {
    let Budget { n_trials, wall_seconds, epochs, work, max_failures } = budget;
    let mut table = Table::new();
    put_some(&mut table, "n_trials", *n_trials);
    put_some(&mut table, "wall_time", wall_seconds.map(seconds));
    put_some(&mut table, "epochs", epochs.map(|n| n as i64));
    let work = work.map(|work| match work {
        WorkBudget::GigaOperations(n) => Toml::from(n as i64),
        WorkBudget::Seconds(s) => seconds(s),
    });
    put_some(&mut table, "work", work);
    put_some(&mut table, "max_failures", *max_failures);
    table
}

fn limits_table(limits: &Limits) -> Table {
    let Limits { trial_seconds, epoch_seconds, checkpoint_bytes, cache_bytes } = limits;
    let mut table = Table::new();
    put_some(&mut table, "trial_time", trial_seconds.map(seconds));
    put_some(&mut table, "epoch_time", epoch_seconds.map(seconds));
    put_some(&mut table, "checkpoint_size", checkpoint_bytes.map(|n| n as i64));
    put_some(&mut table, "cache_size", cache_bytes.map(|n| n as i64));
    table
}

fn run_table(run: &RunSpec) -> Table {
    let RunSpec { workers, threads, workers_per_device, device, precision, virtual_workers } = run;
    let mut table = Table::new();
    // Where the workers of each device are counted, their number in all follows.
    put_some(&mut table, "workers", workers_per_device.is_none().then_some(*workers));
    put_some(&mut table, "workers_per_device", *workers_per_device);
    put_some(&mut table, "threads", *threads);
    put(&mut table, "device", device.to_string());
    put(&mut table, "precision", precision.into_str());
    put(&mut table, "virtual_workers", *virtual_workers);
    table
}

#[cfg(test)]
mod tests {
    use crate::config::{from_text, load};
    use std::path::Path;

    /// Everything that the shipped studies do not say.
    const MORE: [&str; 4] = [
        "seed = 9\n[data]\nmanifest = \"a \\\"b\\\".csv\"\npositive = \"x\"\npatient = \"kermany\"\nbad_files = \"skip\"\n\
         colour = \"rgb\"\nsize = 75\nwindow = { center = -600.5, width = 1500.0 }\n[split]\nfolds = 3\ntest = 0.1\npolicy = \"merge\"\n[network]\nweights = \"hub:a/b@c\"\n\
         preset = \"keras\"\nbatch_norm = \"train\"\ncache = \"f16\"\ninput_size = 75\n[augment]\nviews = \"fresh\"\n[objective]\n\
         metric = \"recall@specificity>=0.9\"\noperating_point = \"specificity>=0.95\"\n[sampler]\nkind = \"tpe\"\n\
         warm_start = [\"s\"]\n[scheduler]\nkind = \"hyperband\"\nbrackets = \"algorithm1\"\n[budget]\nwall_time = \"1h30m\"\n\
         work = \"2h\"\nepochs = 7\nmax_failures = 2\n[limits]\ntrial_time = \"1.5h\"\nepoch_time = \"90s\"\n\
         checkpoint_size = \"2 GiB\"\ncache_size = 5\n[failures]\noom = 9\n[run]\nworkers_per_device = 2\nthreads = 1\n\
         device = \"cuda:0,1\"\nprecision = \"amp\"\nvirtual_workers = 3\n[space]\n\
         learning_rate = { type = \"float\", low = 1e-4, high = 0.1, log = true }\n\
         dropout = { type = \"float\", low = 0.0, high = 0.5, step = 0.1 }\nhead = { choices = [\"linear\", \"hidden\"] }\n\
         hidden_units = { type = \"int\", low = 8, high = 64, log = true, when = { parameter = \"head\", is = [\"hidden\"] } }\n\
         freeze = { type = \"ordinal\", choices = [\"none\", \"Mixed_6e\", \"all\"] }\nbatch_size = 16\n",
        "[data]\nfolder = \"a\"\nsize = 224\n[network]\ninput_size = 200\n[training]\nsmall_epochs = 2\nsmall_size = 96\n\
         [budget]\nn_trials = 5\n[space]\ndropout = { type = \"float\", low = 0.0, high = 0.5 }\n",
        "[runner]\nkind = \"external\"\nepochs = 4\n[budget]\nn_trials = 3\n[space]\nx = { type = \"float\", low = 0.0, high = 1.0 }\n",
        "[runner]\nkind = \"synthetic\"\nepochs = 4\nepoch_ms = 5\n[objective]\nmetric = \"loss\"\ndirection = \"minimize\"\n\
         [sampler]\nkind = \"grid\"\npoints = 2\n[scheduler]\nkind = \"median\"\nwarmup_epochs = 2\nmin_trials = 3\n[space]\n\
         x = { type = \"int\", low = -3, high = 9, step = 2 }\nb = { choices = [true, false] }\n[[enqueue]]\nx = 1\nb = true\n",
    ];

    #[test]
    fn what_is_written_is_read_as_the_same_study() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("studies");
        let shipped = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
        let shipped = shipped.filter(|path| path.extension().is_some_and(|e| e == "toml"));
        let specs: Vec<_> = shipped.map(|path| load(&path).unwrap().spec).collect();
        assert!(specs.len() >= 4);
        let more = MORE.map(|text| from_text(text).unwrap_or_else(|e| panic!("{}", e.render(false))).spec);
        for spec in specs.iter().chain(&more) {
            let text = spec.to_toml();
            let again = from_text(&text).unwrap_or_else(|e| panic!("{text}\n{}", e.render(false))).spec;
            assert_eq!(again, *spec, "{text}");
        }
    }
}
