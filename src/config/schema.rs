//! The one list of all keys of a study file: for the reader, for `docs/study-file.md`, and for suggesting the nearest
//! known name.

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The values it takes, for people.
    pub kind: &'static str,
    /// Its default, for people.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// One table of a study file.
#[derive(Debug)]
pub struct Table {
    /// Its name; empty: the top of the file.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default, meaning }
}

impl Table {
    /// The table of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|t| t.name == name)
    }
}

/// Every table of a study file with every key.
pub static TABLES: &[Table] = &[
    Table {
        name: "",
        about: "At the top of the file, before the first table.",
        keys: &[
            key(
                "name",
                "text",
                "the file's name without `.toml`",
                "The study's name, unique in a state folder: letters, digits, `-`, `_`, `.`.",
            ),
            key(
                "seed",
                "whole number",
                "`0`",
                "The seed of every random stream. Same file, same seed: same suggestions and promotions.",
            ),
            key(
                "space",
                "table or text",
                "required",
                "The search space: a table, or the name of a file that holds one, sought beside the study file, then in the working directory. The name must stand before the first table.",
            ),
            key("runner", "table", "image", "What runs a trial."),
            key("data", "table", "required by the image runner", "Where the images are."),
            key("split", "table", "see there", "How images are divided."),
            key("network", "table", "see there", "Backbone, weights, frozen depth."),
            key("head", "table", "see there", "What is put on the backbone."),
            key("training", "table", "see there", "Epochs, optimiser, loss."),
            key("augment", "table", "see there", "What may happen to a training image."),
            key("objective", "table", "see there", "What is optimised."),
            key("sampler", "table", "random", "How configurations are proposed."),
            key("scheduler", "table", "sha", "How epochs are given to them."),
            key("budget", "table", "see there", "When the study ends."),
            key("limits", "table", "none", "What one trial or epoch may take."),
            key("failures", "table", "see there", "What follows a failure."),
            key("run", "table", "see there", "How it is run on this machine."),
            key("cluster", "table", "none", "How workers are started on other machines."),
            key("notify", "table", "none", "Who is told when it is done."),
            key(
                "enqueue",
                "array of tables",
                "none",
                "Known configurations that go first: `[[enqueue]]` with a value for every parameter that exists in the configuration (see `when`); fixed ones may be left out.",
            ),
        ],
    },
    Table {
        name: "runner",
        about: "What runs a trial. Without this table: images.",
        keys: &[
            key(
                "kind",
                "`image`, `command`, `synthetic`, `external`",
                "`image`",
                "A transfer-learning job on images; any program; a formula with a learning curve, for trying out a search; a Rust program that uses hpsearch as a library and trains by itself.",
            ),
            key(
                "command",
                "array of texts",
                "required by `command`",
                "Program and arguments. `{name}` becomes the parameter of that name, `{trial}`, `{from}`, `{to}`, `{dir}`, `{seed}`, `{epochs}` what the order says.",
            ),
            key(
                "directory",
                "path",
                "the study file's folder",
                "Working directory of the command, relative to the study file.",
            ),
            key(
                "epochs",
                "whole number",
                "required by `command`, `synthetic` and `external`",
                "Full number of epochs of a trial.",
            ),
            key("epoch_ms", "whole number", "`0`", "`synthetic`: milliseconds an epoch takes."),
        ],
    },
    Table {
        name: "data",
        about: "Where the images are: one of `folder`, `manifest` and `synthetic`.",
        keys: &[
            key(
                "folder",
                "path",
                "-",
                "A tree `{train,val,test}/{CLASS}/*` or `{CLASS}/*` of JPEG, PNG and DICOM files, relative to the study file.",
            ),
            key(
                "manifest",
                "path",
                "-",
                "A CSV file with columns `path`, `label` and, if known, `patient`, `split`: see above.",
            ),
            key("synthetic", "table", "-", "A data set made by this program."),
            key(
                "positive",
                "text",
                "the later of two class names",
                "The positive class: the disease. With more than two classes figures are macro averages.",
            ),
            key(
                "patient",
                "text",
                "none; DICOM's Patient ID",
                "A regular expression over the file name whose first group, or whole match, names the patient; without it the Patient ID of DICOM files does. `kermany`: one for the chest X-rays of Kermany et al. 2018.",
            ),
            key(
                "bad_files",
                "`fail`, `skip`",
                "`fail`",
                "What happens to files that cannot be decoded: the run ends and names them, or they are named, counted and left out.",
            ),
            key(
                "colour",
                "`grey`, `rgb`",
                "`grey`",
                "One luminance channel, repeated for the network's three, or three channels.",
            ),
            key("size", "whole number", "`299`", "Side of the square image in pixels; at least 75 for InceptionV3."),
            key(
                "window",
                "`file`, `range` or table",
                "`file`",
                "Which values of a DICOM file or of a grey 16-bit PNG become black and white: as the file says, from the smallest to the largest of each image, or the same for all: `{ center = -600, width = 1500 }`. See above.",
            ),
        ],
    },
    Table {
        name: "data.window",
        about: "The same window for all images, in the unit of the modality, such as Hounsfield units.",
        keys: &[
            key("center", "number", "required", "The value that becomes medium grey."),
            key("width", "number", "required", "From black to white; at least 1."),
        ],
    },
    Table {
        name: "data.synthetic",
        about: "A data set made by this program: radiograph-like images, some with a subtle opacity. Synthetic, for trying things out.",
        keys: &[
            key("images", "whole number", "`600`", "How many in all."),
            key("prevalence", "number", "`0.5`", "Share of images with an opacity: the positive class."),
            key("contrast", "number", "`0.5`", "Contrast of the opacities, 0 to 1: smaller is harder."),
            key("seed", "whole number", "`0`", "Seed of the pixels, apart from the study's."),
        ],
    },
    Table {
        name: "split",
        about: "How images are divided. The same patient, where patients are known, and the same bytes are never on two sides.",
        keys: &[
            key("validation", "number", "`0.2`", "Share of the development images (all but test) kept for validation."),
            key(
                "test",
                "number",
                "`0.2`",
                "Share of all images kept for test, where the data brings no test set; 0: none.",
            ),
            key(
                "policy",
                "`auto`, `keep`, `merge`",
                "`auto`",
                "A validation set that the data brings: kept if it has at least 30 images of every class, always kept, or merged with training and split anew.",
            ),
            key(
                "folds",
                "whole number",
                "none",
                "Cross-validation folds over the development images instead of one split. A trial's value is their mean.",
            ),
        ],
    },
    Table {
        name: "network",
        about: "Backbone, weights, frozen depth.",
        keys: &[
            key(
                "backbone",
                "`inception_v3`, `resnet18`, `resnet50`, `convnext_tiny`",
                "`inception_v3`",
                "The architecture. All but InceptionV3 can only be used frozen.",
            ),
            key(
                "width",
                "number",
                "`1`",
                "Channel counts are multiplied by this; 1 is the published network. Other widths have no published weights.",
            ),
            key(
                "weights",
                "text",
                "`pretrained`",
                "`pretrained`: ImageNet weights of this backbone from the Hugging Face Hub; `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`; `random`; else the path of a safetensors file, relative to the study file.",
            ),
            key(
                "preset",
                "`torchvision`, `timm`, `keras`",
                "`torchvision`",
                "How the weights want their pixels and pools: `torchvision` and `timm` imagenet and counted, `keras` symmetric and excluded.",
            ),
            key(
                "scaling",
                "`unit`, `symmetric`, `imagenet`",
                "the preset's",
                "Pixels as x/255; as x/127.5 - 1; or with ImageNet's mean and deviation. Where `backbone` is searched, pretrained weights of the others are given `imagenet`.",
            ),
            key(
                "pool_padding",
                "`counted`, `excluded`",
                "the preset's",
                "Whether average pools count the padding: torchvision and timm do, Keras does not.",
            ),
            key(
                "tap",
                "stage",
                "the last stage",
                "The stage on which the head sits; what lies beyond is not computed.",
            ),
            key(
                "freeze",
                "`none`, `all`, stage",
                "`all`",
                "The last frozen stage. At the tap or beyond it only the head is trained.",
            ),
            key(
                "batch_norm",
                "`frozen`, `train`",
                "`frozen`",
                "Batch norm of unfrozen pretrained layers: with its running statistics, or with those of the batch.",
            ),
            key("cache", "`f32`, `f16`", "`f32`", "Number format of cached features."),
            key(
                "input_size",
                "whole number",
                "that of `[data]`",
                "Side in pixels of the images as the network sees them: reduced, after augmentation, from `size` in `[data]`, and at most that. What a trial costs grows with its square.",
            ),
        ],
    },
    Table {
        name: "head",
        about: "What is put on the backbone.",
        keys: &[
            key(
                "kind",
                "`linear`, `hidden`",
                "`linear`",
                "Global average pooling, batch norm, dropout, dense; or with a hidden layer between. Searched as `head`.",
            ),
            key("dropout", "number", "`0.2`", "Dropout probability before each dense layer."),
            key("hidden_units", "whole number", "`256`", "Units of the hidden layer."),
        ],
    },
    Table {
        name: "training",
        about: "Epochs, optimiser, loss.",
        keys: &[
            key(
                "epochs",
                "whole number",
                "`10`",
                "Full number of epochs: the schedule's length and the scheduler's largest resource.",
            ),
            key("batch_size", "whole number", "`32`", "Images a step."),
            key("optimiser", "`adamw`, `sgd`", "`adamw`", "AdamW, or stochastic gradient descent with momentum."),
            key("learning_rate", "number", "`0.001`", "Peak learning rate."),
            key("weight_decay", "number", "`0.0001`", "Decoupled weight decay (AdamW), or L2 penalty (SGD)."),
            key("momentum", "number", "`0.9`", "SGD's momentum."),
            key(
                "backbone_rate",
                "number",
                "`0.1`",
                "Learning rate of the unfrozen backbone as a multiple of `learning_rate`.",
            ),
            key(
                "schedule",
                "`constant`, `cosine`, `step`",
                "`cosine`",
                "Course of the learning rate over all epochs; `step`: times 0.1 at half and at three quarters.",
            ),
            key("warmup_epochs", "number", "`0`", "Epochs of linear warm-up; may be a fraction."),
            key("loss", "`cross_entropy`, `focal`", "`cross_entropy`", "The loss."),
            key("focal_gamma", "number", "`2`", "Focusing exponent of the focal loss."),
            key("label_smoothing", "number", "`0`", "Label smoothing."),
            key(
                "imbalance",
                "`none`, `weights`, `oversample`, `undersample`",
                "`weights`",
                "What is done about unequal classes: nothing, class weights from the training split, or drawing.",
            ),
            key("clip_norm", "number", "`0`", "Gradients are scaled down to this global norm; 0: never."),
            key(
                "layer_decay",
                "number",
                "`1`",
                "Learning rate of every unfrozen stage as a multiple of that of the stage above it.",
            ),
            key(
                "average_epochs",
                "number",
                "`0`",
                "Epochs after which a step counts for 1/e in a moving average of the weights, which is judged instead of them; 0: the weights themselves.",
            ),
            key(
                "probe_epochs",
                "whole number",
                "`0`",
                "Epochs at the start in which only the head is trained, on cached features; then the unfrozen layers join. Each part has its own course of the learning rate. Below `epochs`.",
            ),
            key(
                "small_epochs",
                "whole number",
                "`0`",
                "Epochs at the start in which the network sees images of `small_size`, so that they cost less. Below `epochs`; not with `probe_epochs`.",
            ),
            key(
                "small_size",
                "whole number",
                "half of the later side",
                "Side in pixels of the images in those epochs: reduced as for `input_size`, and below it.",
            ),
            key(
                "norm_statistics",
                "`running`, `precise`",
                "`precise`",
                "Statistics with which the head's batch norm judges: moving averages over the steps, or computed anew over training images after each epoch.",
            ),
        ],
    },
    Table {
        name: "augment",
        about: "What may happen to a training image. Ranges hold at strength 1 and shrink with it.",
        keys: &[
            key("strength", "number", "`0`", "0: off, 1: the full ranges."),
            key("flip", "number", "`0.5`", "Probability of a horizontal flip."),
            key("rotation", "number", "`20`", "Largest rotation either way, in degrees."),
            key("brightness", "number", "`0.2`", "Largest relative change of brightness either way."),
            key("edges", "number", "`0.3`", "Largest weight of the edge image that is added."),
            key("vertical_flip", "number", "`0`", "Probability of a vertical flip: for images without an up or down."),
            key(
                "quarter_turns",
                "number",
                "`0`",
                "Probability of a turn by 90, 180 or 270 degrees: for images without an up or down.",
            ),
            key("zoom", "number", "`0`", "Largest relative change of size either way."),
            key("shift", "number", "`0`", "Largest displacement along each axis either way, as a share of the side."),
            key(
                "contrast",
                "number",
                "`0`",
                "Largest relative change of contrast, about the image's mean, either way.",
            ),
            key(
                "noise",
                "number",
                "`0`",
                "Largest standard deviation of Gaussian noise, as a share of the range from black to white.",
            ),
            key(
                "views",
                "whole number or `fresh`",
                "`8`",
                "Views an image in a bank that epochs and trials share, so that they can be cached; or new draws every epoch, never cached.",
            ),
        ],
    },
    Table {
        name: "objective",
        about: "What is optimised, on validation images.",
        keys: &[
            key(
                "metric",
                "text",
                "`roc_auc`",
                "`recall`, `precision`, `specificity`, `f1`, `balanced_accuracy`, `accuracy`, `roc_auc`, `pr_auc`, `brier`, `log_loss`, `recall@specificity>=X`, `specificity@recall>=X`, `precision@recall>=X`; with other runners any name that they report, by default `value`.",
            ),
            key(
                "direction",
                "`maximize`, `minimize`",
                "the metric's own; `maximize` for a name of your own",
                "Which way is better.",
            ),
            key(
                "operating_point",
                "number or text",
                "`0.5`",
                "The threshold of decisions: a score, `youden`, `f1`, `recall>=X` or `specificity>=X`, fixed on validation images.",
            ),
        ],
    },
    Table {
        name: "sampler",
        about: "How configurations are proposed.",
        keys: &[
            key(
                "kind",
                "`random`, `grid`, `sobol`, `tpe`, `gp`",
                "`random`",
                "Independent draws; every combination; Owen-scrambled Sobol points; a tree-structured Parzen estimator; expected improvement of a Gaussian process.",
            ),
            key("points", "whole number", "`5`", "`grid`: values of a float without step."),
            key(
                "n_startup",
                "whole number",
                "`10`",
                "`tpe`, `gp`: results before it learns. Trials are random until then, those that begin meanwhile too: `virtual_workers` - 1 more, so 17 in all by default.",
            ),
            key("n_ei_candidates", "whole number", "`24`", "`tpe`: candidates weighed for each suggestion."),
            key(
                "cost_aware",
                "true or false",
                "`false`",
                "`tpe`: weigh what a configuration promises against the work of training it (by the cost model, see `[budget] work`), less and less as the budget is spent. For budgets of `work`, given in operations or as a time; `wall_time` does not count. On photographs of solar cells it found worse configurations than plain TPE (docs/cost.md has figures).",
            ),
            key(
                "warm_start",
                "text or array of texts",
                "none",
                "`tpe`, `gp`: earlier studies whose results it knows from the start: names in the state folder, or paths of their `study.db`, or `optuna:FILE`. See above.",
            ),
        ],
    },
    Table {
        name: "scheduler",
        about: "How epochs are given to configurations.",
        keys: &[
            key(
                "kind",
                "`none`, `sha`, `asha`, `hyperband`, `median`",
                "`sha`",
                "All to the end; synchronous successive halving; asynchronous, by promotion; Hyperband; stopping below the median.",
            ),
            key(
                "min_resource",
                "whole number",
                "`1`",
                "The lowest rung has at least so many epochs. Rungs are a trial's epochs, divided by `reduction_factor` as often as this allows: of 8 epochs, with the defaults, 2 and 8, not 1, 3 and 8. `hpsearch plan` shows them.",
            ),
            key("reduction_factor", "whole number", "`3`", "One in so many goes on to the next rung."),
            key(
                "brackets",
                "`table1`, `algorithm1`",
                "`table1`",
                "`hyperband`: bracket sizes as Table 1 or as Algorithm 1 of Li et al. 2018, which differ.",
            ),
            key("warmup_epochs", "whole number", "`1`", "`median`: epochs in which no trial is stopped."),
            key("min_trials", "whole number", "`5`", "`median`: finished trials before one is stopped."),
        ],
    },
    Table {
        name: "budget",
        about: "When the study ends. Raise these and run again, and the study goes on.",
        keys: &[
            key(
                "n_trials",
                "whole number",
                "required, but with `grid` or `hyperband`",
                "Trials in all. Without it: the whole grid, or one round of Hyperband.",
            ),
            key("wall_time", "duration", "none", "Running time over all runs: `90m`, `8h`, `1h30m`."),
            key(
                "epochs",
                "whole number",
                "none",
                "Trained epochs in all; those that a trial repeats, because its checkpoint is gone or damaged, are not counted.",
            ),
            key(
                "work",
                "whole number or duration",
                "none",
                "Work of image trials in all, by the cost model: giga-operations, which depend on no machine, or a time, which is converted at the pace of the machine that begins the study. What ends a study is then the same in every run of it.",
            ),
            key("max_failures", "whole number", "none", "Failed trials after which the study stops with an error."),
        ],
    },
    Table {
        name: "limits",
        about: "What one trial or epoch may take.",
        keys: &[
            key("trial_time", "duration", "none", "Time one trial may train."),
            key("epoch_time", "duration", "none", "Time one epoch may take; a worker silent for longer is ended."),
            key("checkpoint_size", "size", "none", "Checkpoints kept at once: `2 GiB`."),
            key("cache_size", "size", "none", "Cached features on disk."),
        ],
    },
    Table {
        name: "failures",
        about: "Further attempts after each class of failure; 0: the trial fails at once.",
        keys: &[
            key(
                "oom",
                "whole number",
                "`3`",
                "Out of memory. Each further attempt halves the images that a step computes at once; the step stays that of the whole batch.",
            ),
            key("diverged", "whole number", "`0`", "Loss or objective not a number, or infinite."),
            key("timeout", "whole number", "`0`", "Over a limit of time."),
            key("crashed", "whole number", "`1`", "Ended with an error, or printed garbage."),
            key("lost", "whole number", "`3`", "The worker process died."),
        ],
    },
    Table {
        name: "run",
        about: "How the study is run on this machine. No result depends on it (but see `precision` and `virtual_workers`).",
        keys: &[
            key("workers", "whole number", "`1`", "Worker processes."),
            key("threads", "whole number", "the cores divided by the workers", "Threads of each."),
            key(
                "workers_per_device",
                "whole number",
                "none",
                "Worker processes on each GPU, instead of `workers` in all: several small trials share one well.",
            ),
            key(
                "device",
                "`cpu`, `cuda`, `cuda:N`, `cuda:N,M`, `auto`",
                "`auto`",
                "Where trials compute. Workers take turns on several GPUs; `auto` is every GPU that can be used, else the CPU.",
            ),
            key(
                "precision",
                "`f32`, `tf32`, `bf16`, `amp`",
                "`tf32`",
                "How the convolutions of InceptionV3 multiply: `f32`; `tf32` rounds factors to ten bits (on GPUs; the CPU has none and computes as with `f32`); `bf16` rounds those of frozen layers to eight bits, `amp` those of trained ones too. Results differ by rounding. On a CPU `bf16` and `amp` are faster only with AVX512-BF16 (AMD from Zen 4 on, Intel Xeon Cooper Lake and from Sapphire Rapids on); docs/performance.md has figures.",
            ),
            key(
                "virtual_workers",
                "whole number",
                "`8`",
                "Machines that the search pretends to have, so that any number of real ones gives the same result. Part of a study whose sampler or scheduler learns from results: when it decides, all machines but one are at work, with results that it does not know yet. With 1 it knows every result, but only one real worker has work at a time: best where there is only one, above all in short studies (docs/cost.md has figures).",
            ),
        ],
    },
    Table {
        name: "cluster",
        about: "Workers on other machines, which see the same folders: study file, images, weights and state. Not part of the study: not kept in its database, and free to change. `run.workers` says how many, `run.threads` how many cores each has, `run.device` what each looks for where it is.",
        keys: &[
            key(
                "kind",
                "`slurm`, `ssh`, `command`",
                "required",
                "What starts a worker and carries its standard input and output: `srun`, `ssh`, or any program.",
            ),
            key(
                "command",
                "array of texts",
                "required by `command`",
                "Program and arguments; the worker's own command is put at the end. `{worker}` becomes its number, `{study}` the study's name.",
            ),
            key(
                "arguments",
                "array of texts",
                "none",
                "Further arguments of `srun` or `ssh`: `[\"--partition=gpu\", \"--gres=gpu:1\"]`.",
            ),
            key("hosts", "array of texts", "required by `ssh`", "Machines, to which workers are assigned in turn."),
            key("program", "text", "the path of this one", "This program where workers run."),
            key(
                "allocation",
                "`each`, `shared`",
                "`each`",
                "`each`: every worker is a job of Slurm's that waits its turn. `shared`: all are steps of the job that the run was started in.",
            ),
            key(
                "notice",
                "duration",
                "`2m`",
                "How long before the end of a worker's time Slurm tells it, so that it can leave at a batch and another goes on.",
            ),
            key(
                "others",
                "`refuse`, `take`",
                "`refuse`",
                "What is done with a worker whose program or arithmetic (processor's instructions, `run.precision`, GPU, cuDNN) differ from those on record: its results would differ by rounding.",
            ),
        ],
    },
    Table {
        name: "notify",
        about: "Who is told of a run, by a command, an address, or both. Not part of the study: not kept in its database, and free to change.",
        keys: &[
            key(
                "on",
                "array of `best`, `done`, `failed`",
                "done and failed",
                "What they are told of: a trial that is better than all before it; the end of a run with a best trial; an end in an error or without any.",
            ),
            key(
                "command",
                "array of texts",
                "none",
                "Program and arguments. `{text}` becomes the notice in words, `{event}`, `{study}`, `{trial}`, `{metric}`, `{value}` its parts; the notice as JSON is on its standard input. It starts in the study file's folder and may take 30 s.",
            ),
            key(
                "url",
                "text",
                "none",
                "An `http` or `https` address to which the notice is posted as JSON, with its words as `text` and `content`, as chat rooms ask for. `env:NAME`: the address in that environment variable, for addresses that are secrets.",
            ),
        ],
    },
];

/// Keys of a parameter in `[space]`.
pub static PARAMETER: Table = Table {
    name: "space.NAME",
    about: "A parameter: a table such as `{ type = \"float\", low = 1e-5, high = 1e-1, log = true }` or \
        `{ choices = [\"adamw\", \"sgd\"] }`, or just a value, which then is fixed.",
    keys: &[
        key(
            "type",
            "`float`, `int`, `categorical`, `ordinal`, `fixed`",
            "`categorical` with `choices`, `fixed` with `value`",
            "The kind of domain.",
        ),
        key("low", "number", "required by float and int", "The smallest value."),
        key("high", "number", "required by float and int", "The largest value."),
        key("step", "number", "none; `1` for int", "Only `low`, `low + step`, ... are taken. Not with `log`."),
        key("log", "true or false", "`false`", "Uniform in the logarithm."),
        key("choices", "array", "required by categorical and ordinal", "The values; `ordinal`: in their order."),
        key("value", "any", "required by fixed", "The only value."),
        key(
            "when",
            "table",
            "none",
            "`{ parameter = \"head\", is = \"hidden\" }`: the parameter exists only while that one has this value, or one of these (`is = [..]`).",
        ),
    ],
};

/// Keys of `when`.
pub static CONDITION: Table = Table {
    name: "space.NAME.when",
    about: "When a parameter exists.",
    keys: &[
        key("parameter", "text", "required", "The parameter that decides."),
        key("is", "value or array", "required", "Its values with which this one exists."),
    ],
};
