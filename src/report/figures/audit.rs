//! The section on what an audit of the images found.

use crate::report::audit::{Audit, Place, TrialsJudged};
use crate::report::draw::whiskers;
use crate::report::exhibit::{Exhibit, Section};
use crate::report::table::{Cell, Table};
use crate::stats::Interval;
use crate::wording::{counted, listed};

pub fn section(audit: &Audit) -> Section {
    let mut exhibits = vec![duplicates(audit), labels(audit), shortcuts(audit)];
    for (file, picture) in &audit.pictures {
        let of = match file.as_str() {
            "duplicates.png" => 0,
            "labels.png" => 1,
            _ => 2,
        };
        exhibits[of].pictures.push((picture.caption.clone(), picture.png.0.clone()));
    }
    Section {
        id: "audit",
        title: "The images, audited",
        intro: format!(
            "What `hpsearch audit` found: among {} pictures that appear twice; among the {} for training and validation \
             labels to look at, and shortcuts that a network could learn.",
            counted(audit.looked_at, "image"),
            audit.developed
        ),
        exhibits,
    }
}

fn duplicates(audit: &Audit) -> Exhibit {
    let (slug, title) = ("audit-duplicates", "Pictures that appear twice");
    let question = "Does a set hold pictures that another set tells about?";
    let (taken, tried) = audit.control;
    let how = format!(
        "Pairs were laid on each other by shifting, stretching, turning and mirroring, and compared by what they do not have in \
         common with all images; a pair is named if it stands out from how alike each of the two is with others. Of {} \
         that cannot be the same picture, {taken} would have been named. Near copies are named, too, such as slices of one \
         crystal or films taken in a row.",
        counted(tried, "pair"),
    );
    if audit.duplicates.is_empty() {
        return Exhibit::missing(slug, title, question, "No picture was found twice.").note_if(tried > 0, how);
    }
    let mut table = Table::new(["image", "set", "class", "same as", "its set", "its class", "similarity", "mirrored"]);
    let locked = |place: &Place| Cell::from(place.class.as_deref().unwrap_or("locked"));
    for d in &audit.duplicates {
        table.push([
            d.first.image.as_str().into(),
            d.first.set.as_str().into(),
            locked(&d.first),
            d.second.image.as_str().into(),
            d.second.set.as_str().into(),
            locked(&d.second),
            Cell::Number(d.similarity, 3),
            if d.mirrored { "yes" } else { "no" }.into(),
        ]);
    }
    let across = audit.duplicates.iter().filter(|d| d.across).count();
    let contradict = audit.duplicates.iter().filter(|d| d.contradict()).count();
    Exhibit::new(slug, title, question, None, table)
        .note(match across {
            0 => format!("{}, none across sets.", counted(audit.duplicates.len(), "pair")),
            n => format!(
                "{}, {n} of them across sets: figures of a set flatter where another set holds its pictures. Name both \
                 files as one patient, or remove one.",
                counted(audit.duplicates.len(), "pair")
            ),
        })
        .note_if(contradict > 0, format!("{} whose labels differ.", counted(contradict, "pair")))
        .note(how)
}

fn labels(audit: &Audit) -> Exhibit {
    let (slug, title) = ("audit-labels", "Labels that the images contradict");
    let question = "Which labels should somebody look at again?";
    let labels = &audit.labels;
    let features = "cross-validated scores of a logistic regression on the frozen network's features";
    let scores = match &labels.trials {
        None => features.to_owned(),
        Some(judged) if !judged.is_better() => format!(
            "{features}, which tell the classes apart better (ROC-AUC {:.3}) than the trials do ({:.3})",
            judged.features, judged.roc_auc
        ),
        Some(TrialsJudged { trials, images, roc_auc, .. }) => {
            let whose = if trials.len() == 1 { "the scores of trial" } else { "the mean scores of trials" };
            let trials = listed(trials);
            let others =
                if *images < audit.developed { format!("; for the others on {features}") } else { String::new() };
            let images = counted(*images, "image");
            format!("{whose} {trials} for {images} that they were not trained on (ROC-AUC {roc_auc:.3}){others}")
        }
    };
    let how = format!(
        "Confident learning (Northcutt et al. 2021) on {scores}. Whether a label is wrong only somebody who knows the images can \
         say: rare but right images are among these, too."
    );
    let Some(wrong) = labels.wrong else {
        let why =
            "Not judged: the frozen network's features tell the classes apart too badly (see below) to doubt a label.";
        return Exhibit::missing(slug, title, question, why);
    };
    if labels.suspects.is_empty() {
        return Exhibit::missing(slug, title, question, "No label is contradicted.").note(how);
    }
    let mut table = Table::new(["image", "label", "its score", "other class", "score of that", "judged by"]);
    for s in &labels.suspects {
        table.push([
            s.image.as_str().into(),
            s.label.as_str().into(),
            Cell::Number(s.score, 3),
            s.instead.as_str().into(),
            Cell::Number(s.score_instead, 3),
            s.by.to_string().as_str().into(),
        ]);
    }
    Exhibit::new(slug, title, question, None, table)
        .note(format!(
            "About {} of {} labels are estimated to be wrong; {} named, most suspect first.",
            wrong,
            labels.judged_of(audit.developed),
            match labels.suspects.len() {
                1 => "one is".to_owned(),
                n => format!("{n} are"),
            }
        ))
        .note(how)
}

fn shortcuts(audit: &Audit) -> Exhibit {
    let (slug, title) = ("audit-shortcuts", "Shortcuts");
    let question = "What beside the finding tells the classes apart?";
    let mut table = Table::new(["by", "ROC-AUC", "low", "high", "most by", "alone"]);
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for s in &audit.shortcuts {
        table.push([
            s.by.as_str().into(),
            Cell::Number(s.roc_auc, 3),
            Cell::number(s.interval.map(|i| i[0]), 3),
            Cell::number(s.interval.map(|i| i[1]), 3),
            s.most.as_ref().map_or(Cell::Missing, |(name, _)| name.as_str().into()),
            Cell::number(s.most.as_ref().map(|(_, area)| *area), 3),
        ]);
        names.push(s.by.clone());
        values.push(vec![(Some(s.roc_auc), s.interval.map(|[low, high]| Interval { low, high }))]);
    }
    let found: Vec<&str> =
        audit.shortcuts.iter().skip(1).filter(|s| s.better_than_chance()).map(|s| s.by.as_str()).collect();
    let chart = whiskers(&names, &[("ROC-AUC, cross-validated", Some(0.5))], &values, None, &[], false);
    Exhibit::new(slug, title, question, Some(chart), table)
        .note(match found.as_slice() {
            [] => "Neither border nor brightness nor file tells the classes apart better than chance.".to_owned(),
            found => format!(
                "Better than chance by {}. A network may learn that instead of the finding, and fail where images come \
                 from elsewhere. Lungs reach the border, and disease changes brightness: not all of it need be a \
                 shortcut.",
                found.join(", ")
            ),
        })
        .note("Logistic regressions, five folds, patients kept together; intervals are 95 %, by the bootstrap.")
}
