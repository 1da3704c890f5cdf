//! Which trials share their frozen features.

use super::request::does_nothing;
use crate::digest::Digest;
use crate::spec::{CachePrecision, TrialSettings};

/// What decides a trial's frozen features, within a study. Trials with equal keys use the same; sorted, equal ones stand
/// together, and a shallower cut of the same network and views before a deeper one, which can start from it. Running
/// trials in this order changes no result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    network: Digest,
    views: Digest,
    cut: usize,
    pooled: bool,
    half: bool,
}

/// The key of a trial with these settings.
pub fn group_key(settings: &TrialSettings) -> GroupKey {
    let (n, a) = (&settings.network, &settings.augment);
    let network = format!("{:?}", (n.backbone, n.width, &n.weights, n.scaling, n.pool_padding));
    let views = if does_nothing(a) {
        "original".to_owned()
    } else {
        format!("{:?}", (a.strength, a.flip, a.rotation, a.brightness, a.edges, a.views))
    };
    GroupKey {
        network: Digest::of(network.as_bytes()),
        views: Digest::of(views.as_bytes()),
        cut: n.cut(),
        pooled: n.head_only(),
        half: n.cache == CachePrecision::F16,
    }
}
