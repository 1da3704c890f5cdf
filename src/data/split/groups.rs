//! Images that must stay together.

use crate::data::ImageRecord;
use std::collections::HashMap;

/// The group of each record: records with the same patient or the same bytes, directly or through others, share one.
/// So do the `pairs` of records. A group's number is the position of its first record.
pub fn groups(records: &[ImageRecord], pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..records.len()).collect();
    let (mut patients, mut digests) = (HashMap::new(), HashMap::new());
    for (i, record) in records.iter().enumerate() {
        let same_bytes = *digests.entry(record.digest).or_insert(i);
        join(&mut parent, same_bytes, i);
        if let Some(patient) = &record.patient {
            let same_patient = *patients.entry(patient.as_str()).or_insert(i);
            join(&mut parent, same_patient, i);
        }
    }
    pairs.into_iter().for_each(|(a, b)| join(&mut parent, a, b));
    (0..records.len()).map(|i| root(&mut parent, i)).collect()
}

fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parent, a), root(parent, b));
    // The smaller position becomes the root, so that group numbers do not depend on the order of joining.
    parent[a.max(b)] = a.min(b);
}
