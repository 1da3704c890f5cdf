//! Filling a shelf: several builders work at once, each on one claim at a time.

use super::FeatureError;
use super::claim::{Claim, Wanted};
use super::compute::{BATCH, Start};
use super::number;
use super::request::{FeatureRequest, Shelved, value_bytes};
use super::room::Room;
use super::segment::{Draft, ENTRY};
use super::shelf::{ROWS, Shelf, Verified, unfinished, unique};
use crate::data::{Task, Watch};
use crate::digest::Digest;
use crate::spec::CachePrecision;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// Target size of a segment in bytes, within the limits of one to four batches of rows.
const SEGMENT: usize = 8 << 20;
/// Time between checks while other builders are computing all missing rows.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is needed to fill a shelf.
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
        let mut sides = self.sides(&missing)?;
        let locks = self.room.locks();
        let most = (SEGMENT / shelf.row_bytes.max(1)).clamp(BATCH, 4 * BATCH);
        let total = wanted.len() as u64;
        while !missing.is_empty() {
            if self.watch.interrupted() {
                return Err(FeatureError::Interrupted);
            }
            let done = total - missing.len() as u64;
            if let Some((claim, mut chosen)) = Claim::take(&locks, &shelf.key, &missing, most)? {
                // The previous holder of the claim may have computed these rows.
                shelf.refresh(self.verified, self.watch)?;
                chosen.retain(|(digest, _)| !shelf.has(digest));
                if !chosen.is_empty() {
                    claim.tidy(&shelf.folder);
                    self.room.make((chosen.len() * (shelf.row_bytes + ENTRY)) as u64)?;
                    self.build(shelf, &mut sides, &starts, &claim, chosen, (done, total))?;
                }
            } else {
                self.watch.progress(Task::WaitingForFeatures, done, total);
                std::thread::sleep(PATIENCE);
                shelf.refresh(self.verified, self.watch)?;
            }
            missing = lacking(shelf, &missing);
        }
        Ok(())
    }

    /// Makes room for the missing rows, and opens the shelves from which they can be computed.
    fn prepare(&self, missing: &[Wanted], row_bytes: usize) -> Result<Vec<Start>, FeatureError> {
        let starts = self.starts(missing)?;
        let needed = (missing.len() * (row_bytes + ENTRY)) as u64;
        match self.room.make(needed) {
            Ok(()) => Ok(starts),
            // Shallower cuts save time, but may be what fills the disk: close them, so that they can be removed.
            Err(e) if e.is_lack_of_room() && !starts.is_empty() => {
                drop(starts);
                self.room.make(needed)?;
                self.starts(missing)
            }
            Err(e) => Err(e),
        }
    }

    /// Shelves that hold the missing images at the same cut or a shallower one, deepest first. Only f32 rows, so that
    /// features do not depend on what happened to be cached.
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

    /// The shelves that are filled by the same forward pass: those of the averages at other cuts. None if there is no
    /// room for all of them.
    fn sides(&self, missing: &[Wanted]) -> Result<Vec<Side>, FeatureError> {
        let FeatureRequest { cut, pooled, precision, also, .. } = *self.request;
        let mut sides: Vec<Side> = Vec::new();
        if !pooled {
            return Ok(sides);
        }
        let mut needed = 0;
        for &cut in also.iter().filter(|&&other| other != cut && other > 0) {
            let [_, _, channels] = self.request.map_at(cut)?;
            let row_bytes = channels * value_bytes(precision);
            if sides.iter().all(|side| side.cut != cut) {
                let mut shelf = Shelf::open(&self.room.root, &self.about.at(cut, true, precision), row_bytes)?;
                shelf.refresh(self.verified, self.watch)?;
                needed += lacking(&shelf, missing).len() * (row_bytes + ENTRY);
                sides.push(Side { cut, shelf, draft: None });
            }
        }
        let main = missing.len() * (value_bytes(precision) * self.request.map_at(cut)?[2] + ENTRY);
        match self.room.make((needed + main) as u64) {
            Ok(()) => {}
            Err(e) if e.is_lack_of_room() => sides.clear(),
            Err(e) => return Err(e),
        }
        Ok(sides)
    }

    /// Computes the rows of a claim into one segment. Rows computed before an interruption or error are kept.
    fn build(
        &self,
        shelf: &mut Shelf,
        sides: &mut [Side],
        starts: &[Start],
        claim: &Claim,
        chosen: Vec<Wanted>,
        (done, total): (u64, u64),
    ) -> Result<(), FeatureError> {
        let draft = shelf.folder.join(claim.unfinished());
        let mut draft = Draft::create(draft, shelf.key, shelf.row_bytes, chosen.len())?;
        // Images that start from the same shelf go through the network together.
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
            outcome = self.rows(start, batch, sides).and_then(|bytes| {
                let digests: Vec<Digest> = batch.iter().map(|(digest, _)| *digest).collect();
                draft.push(&digests, &bytes)
            });
            if outcome.is_err() {
                break;
            }
            self.watch.progress(Task::Features, done + draft.rows() as u64, total);
        }
        // An error in computing takes precedence over errors in keeping what was computed.
        let kept = sides.iter_mut().try_for_each(|side| match side.draft.take() {
            Some(draft) => self.keep(&mut side.shelf, draft),
            None => Ok(()),
        });
        outcome.and(self.keep(shelf, draft)).and(kept)
    }

    /// Adds a draft to the shelf as a segment, even if some of its rows were not computed.
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

    /// The encoded rows of a batch. Rows of side shelves are added to their drafts.
    fn rows(&self, start: Option<&Start>, batch: &[Wanted], sides: &mut [Side]) -> Result<Vec<u8>, FeatureError> {
        let request = self.request;
        let wanting = sides.iter().filter(|side| !lacking(&side.shelf, batch).is_empty());
        let stops: BTreeSet<usize> = wanting.map(|side| side.cut).chain([request.cut]).collect();
        let stops: Vec<usize> = stops.into_iter().collect();
        let found = match start {
            Some(start) => request.rows_from_shelf(start, batch, &stops)?,
            None => request.rows_from_pixels(batch, &stops)?,
        };
        let mut bytes = Vec::new();
        for (cut, values) in found {
            if let Some(side) = sides.iter_mut().find(|side| side.cut == cut) {
                self.aside(side, batch, &values)?;
                continue;
            }
            if let Some((at, value)) = number::too_large(&values, request.precision) {
                let index = batch[at * batch.len() / values.len()].1;
                return Err(FeatureError::TooLargeForF16 { value, image: request.record(index)?.path.clone() });
            }
            bytes.reserve(values.len() * value_bytes(request.precision));
            number::encode(&values, request.precision, &mut bytes);
        }
        Ok(bytes)
    }

    /// Adds the rows of a batch that a side shelf lacks to its draft.
    fn aside(&self, side: &mut Side, batch: &[Wanted], values: &[f32]) -> Result<(), FeatureError> {
        let length = values.len() / batch.len().max(1);
        for ((digest, _), row) in batch.iter().zip(values.chunks_exact(length.max(1))) {
            let there = side.shelf.has(digest) || side.draft.iter().flat_map(Draft::images).any(|d| d == *digest);
            // A value too large for f16 is an error only when this row itself is requested.
            if there || number::too_large(row, self.request.precision).is_some() {
                continue;
            }
            if side.draft.is_none() {
                // Not named after a bucket, as the side shelf's own builders remove such files when they claim it.
                let path = side.shelf.folder.join(unfinished("aside"));
                side.draft = Some(Draft::create(path, side.shelf.key, side.shelf.row_bytes, 4 * BATCH)?);
            }
            if let Some(draft) = &mut side.draft {
                let mut bytes = Vec::new();
                number::encode(row, self.request.precision, &mut bytes);
                draft.push(&[*digest], &bytes)?;
            }
        }
        Ok(())
    }
}

/// A shelf that is filled while another is built.
struct Side {
    cut: usize,
    shelf: Shelf,
    draft: Option<Draft>,
}

/// The images whose rows a shelf lacks, each once.
fn lacking(shelf: &Shelf, wanted: &[Wanted]) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    wanted.iter().filter(|(digest, _)| !shelf.has(digest) && seen.insert(*digest)).copied().collect()
}
