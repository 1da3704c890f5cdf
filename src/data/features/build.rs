//! Filling a shelf: several builders at once, each a claim at a time.

use super::FeatureError;
use super::claim::{Claim, Wanted};
use super::compute::{BATCH, Start};
use super::number;
use super::request::{FeatureRequest, Shelved, value_bytes};
use super::room::Room;
use super::segment::{Draft, ENTRY};
use super::shelf::{ROWS, Shelf, Verified, unique};
use crate::data::Watch;
use crate::digest::Digest;
use crate::spec::CachePrecision;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Bytes a segment should have, if 16 to 64 rows make so many.
const SEGMENT: usize = 8 << 20;
/// How often one who waits looks again.
const PATIENCE: Duration = Duration::from_millis(50);

/// All that filling a shelf takes.
pub(super) struct Builder<'a> {
    pub(super) request: &'a FeatureRequest<'a>,
    pub(super) about: &'a Shelved,
    pub(super) room: &'a Room,
    pub(super) verified: &'a Verified,
    pub(super) watch: &'a dyn Watch,
}

impl Builder<'_> {
    /// Computes, or waits for, every row of `wanted` (different images) that the shelf lacks.
    pub(super) fn fill(&self, shelf: &mut Shelf, wanted: &[Wanted]) -> Result<(), FeatureError> {
        let mut missing = lacking(shelf, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let starts = self.prepare(&missing, shelf.row_bytes)?;
        let locks = self.room.locks();
        let most = (SEGMENT / shelf.row_bytes.max(1)).clamp(BATCH, 4 * BATCH);
        let total = wanted.len() as u64;
        while !missing.is_empty() {
            if self.watch.interrupted() {
                return Err(FeatureError::Interrupted);
            }
            let done = total - missing.len() as u64;
            if let Some((claim, mut chosen)) = Claim::take(&locks, &shelf.key, &missing, most)? {
                // Whoever held the claim before may have made them.
                shelf.refresh(self.verified, self.watch)?;
                chosen.retain(|(digest, _)| !shelf.has(digest));
                if !chosen.is_empty() {
                    claim.tidy(&shelf.folder);
                    self.room.make((chosen.len() * (shelf.row_bytes + ENTRY)) as u64)?;
                    self.build(shelf, &starts, &claim, chosen, (done, total))?;
                }
            } else {
                self.watch.progress("waiting for another process that computes features", done, total);
                std::thread::sleep(PATIENCE);
                shelf.refresh(self.verified, self.watch)?;
            }
            missing = lacking(shelf, &missing);
        }
        Ok(())
    }

    /// Makes room for all that is missing, and opens what it can be computed from.
    fn prepare(&self, missing: &[Wanted], row_bytes: usize) -> Result<Vec<Start>, FeatureError> {
        let starts = self.starts(missing)?;
        let needed = (missing.len() * (row_bytes + ENTRY)) as u64;
        match self.room.make(needed) {
            Ok(()) => Ok(starts),
            // A shallower cut saves time, but may be what fills the room.
            Err(e) if e.is_lack_of_room() && !starts.is_empty() => {
                drop(starts);
                self.room.make(needed)?;
                self.starts(missing)
            }
            Err(e) => Err(e),
        }
    }

    /// Shelves that hold the missing images at the same cut or a shallower one, deepest first: only exact ones (f32),
    /// so that nothing depends on what happened to be cached.
    fn starts(&self, missing: &[Wanted]) -> Result<Vec<Start>, FeatureError> {
        let FeatureRequest { cut, pooled, precision, .. } = *self.request;
        let same = (precision == CachePrecision::F16).then_some((cut, pooled));
        let whole = pooled.then_some((cut, false));
        let shallower = (1..cut).rev().map(|cut| (cut, false));
        let mut open = missing.to_vec();
        let mut starts = Vec::new();
        for (cut, pooled) in same.into_iter().chain(whole).chain(shallower) {
            if open.is_empty() {
                break;
            }
            let about = self.about.at(cut, pooled, CachePrecision::F32);
            let [height, width, channels] = self.request.map_at(cut)?;
            let length = if pooled { channels } else { height * width * channels };
            let row_bytes = length * value_bytes(CachePrecision::F32);
            if let Some(mut shelf) = Shelf::existing(&self.room.root, &about, row_bytes)? {
                shelf.refresh(self.verified, self.watch)?;
                let before = open.len();
                open.retain(|(digest, _)| !shelf.has(digest));
                if open.len() < before {
                    starts.push(Start { shelf, cut, pooled });
                }
            }
        }
        Ok(starts)
    }

    /// Computes the rows of a claim into one segment. An interruption or an error keeps what was done before it.
    fn build(
        &self,
        shelf: &mut Shelf,
        starts: &[Start],
        claim: &Claim,
        chosen: Vec<Wanted>,
        (done, total): (u64, u64),
    ) -> Result<(), FeatureError> {
        let draft = shelf.folder.join(claim.unfinished());
        let mut draft = Draft::create(draft, shelf.key, shelf.row_bytes, chosen.len())?;
        // Images that begin at the same place go through the network together.
        let mut by_start: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        for wanted in chosen {
            let start = starts.iter().position(|s| s.shelf.has(&wanted.0)).unwrap_or(starts.len());
            by_start.entry(start).or_default().push(wanted);
        }
        let batches = by_start.iter().flat_map(|(start, images)| images.chunks(BATCH).map(|b| (starts.get(*start), b)));
        let mut outcome = Ok(());
        for (start, batch) in batches {
            if self.watch.interrupted() {
                outcome = Err(FeatureError::Interrupted);
                break;
            }
            outcome = self.rows(start, batch).and_then(|bytes| {
                let digests: Vec<Digest> = batch.iter().map(|(digest, _)| *digest).collect();
                draft.push(&digests, &bytes)
            });
            if outcome.is_err() {
                break;
            }
            self.watch.progress("computing frozen features", done + draft.rows() as u64, total);
        }
        // What failed counts for more than what then fails in keeping the rest.
        outcome.and(self.keep(shelf, draft))
    }

    /// Takes a segment, complete or not, into the shelf.
    fn keep(&self, shelf: &mut Shelf, draft: Draft) -> Result<(), FeatureError> {
        if draft.rows() == 0 {
            return Ok(());
        }
        let made: Vec<Digest> = draft.images().collect();
        let path = shelf.folder.join(format!("{}{ROWS}", unique()));
        draft.commit(&path)?;
        shelf.refresh(self.verified, self.watch)?;
        if made.iter().all(|digest| shelf.has(digest)) { Ok(()) } else { Err(FeatureError::Unreadable { path }) }
    }

    /// The bytes of a batch's rows.
    fn rows(&self, start: Option<&Start>, batch: &[Wanted]) -> Result<Vec<u8>, FeatureError> {
        let values = match start {
            Some(start) => self.request.continued(start, batch)?,
            None => self.request.begun(batch)?,
        };
        if let Some((at, value)) = number::too_large(&values, self.request.precision) {
            let index = batch[at * batch.len() / values.len()].1;
            return Err(FeatureError::TooLargeForF16 { value, image: self.request.record(index)?.path.clone() });
        }
        let mut bytes = Vec::with_capacity(values.len() * value_bytes(self.request.precision));
        number::encode(&values, self.request.precision, &mut bytes);
        Ok(bytes)
    }
}

/// The images whose rows a shelf lacks, each once.
fn lacking(shelf: &Shelf, wanted: &[Wanted]) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    wanted.iter().filter(|(digest, _)| !shelf.has(digest) && seen.insert(*digest)).copied().collect()
}
