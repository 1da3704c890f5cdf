//! A walk over the element headers of a DICOM file before it is read: no value may be longer than the file, and sequences
//! may not be nested without end. [`dicom_object`] reserves and clears memory for whatever length an element claims (4 GiB
//! for a flipped bit), and recurses into sequences.

use super::DicomError;
use dicom_object::Tag;
use flate2::read::DeflateDecoder;
use std::io::{self, Read};

/// Sequences inside sequences, and their items.
const DEPTH: usize = 64;

/// What a deflated data set may inflate to.
const INFLATED: u64 = 2 << 30;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
/// The first of the three elements that may hold pixels, which come last in a file.
pub(super) const FLOAT_PIXELS: Tag = Tag(0x7FE0, 0x0008);
pub(super) const PIXELS: Tag = Tag(0x7FE0, 0x0010);

/// Walks a file from its preamble to its end, or to its pixels. Only excesses are errors here: whatever else is wrong, the
/// reader names.
pub(super) fn check(mut file: impl Read, to_pixels: bool) -> Result<(), DicomError> {
    let mut start = [0; 132 + 12];
    if file.read_exact(&mut start).is_err() {
        return Err(excess());
    }
    // The first element is the length of those that describe the file.
    let length = u32::from_le_bytes([start[140], start[141], start[142], start[143]]);
    let mut meta = Vec::new();
    if file.by_ref().take(length.into()).read_to_end(&mut meta).is_err() || meta.len() < length as usize {
        return Err(excess());
    }
    let mut walk = Walk::new(meta.as_slice(), Coding::Explicit);
    walk.run(false)?;
    let syntax = walk.syntax;
    let coding = if syntax.as_deref() == Some("1.2.840.10008.1.2") { Coding::Implicit } else { Coding::Explicit };
    match syntax.as_deref() {
        Some("1.2.840.10008.1.2.2") => Walk { big: true, ..Walk::new(file, coding) }.run(to_pixels),
        Some("1.2.840.10008.1.2.1.99") => Walk::new(DeflateDecoder::new(file).take(INFLATED), coding).run(to_pixels),
        _ => Walk::new(file, coding).run(to_pixels),
    }
}

fn excess() -> DicomError {
    DicomError::Broken("a value is longer than the rest of the file".to_owned())
}

/// How element headers are written.
#[derive(Clone, Copy, PartialEq)]
enum Coding {
    Implicit,
    Explicit,
}

/// A sequence, an item, or the fragments of pixels.
struct Scope {
    /// Where it ends; `None`: at its delimiter.
    end: Option<u64>,
    fragments: bool,
    coding: Coding,
}

struct Walk<R> {
    source: R,
    big: bool,
    coding: Coding,
    position: u64,
    scopes: Vec<Scope>,
    /// The transfer syntax, if its element was passed.
    syntax: Option<String>,
}

impl<R: Read> Walk<R> {
    fn new(source: R, coding: Coding) -> Self {
        Self { source, big: false, coding, position: 0, scopes: Vec::new(), syntax: None }
    }

    fn run(&mut self, to_pixels: bool) -> Result<(), DicomError> {
        while let Some(tag) = self.tag() {
            if to_pixels && self.scopes.is_empty() && tag >= FLOAT_PIXELS {
                return Ok(());
            }
            // A header that is cut off, or an error of reading: the reader will say so.
            if self.element(tag)?.is_none() {
                return Ok(());
            }
            if self.scopes.len() > DEPTH {
                return Err(DicomError::Broken("its sequences are nested too deeply".to_owned()));
            }
        }
        Ok(())
    }

    /// Passes an element or a delimiter; `None`: its header is cut off.
    fn element(&mut self, tag: Tag) -> Result<Option<()>, DicomError> {
        while self.scopes.last().and_then(|s| s.end).is_some_and(|end| self.position >= end + 4) {
            self.scopes.pop();
        }
        let (fragments, coding) = self.scopes.last().map_or((false, self.coding), |s| (s.fragments, s.coding));
        let explicit = coding == Coding::Explicit && tag.0 != ITEM.0;
        let Some((vr, length)) = self.length(explicit) else { return Ok(None) };
        let end = (length != UNDEFINED).then(|| self.position + u64::from(length));
        match tag {
            ITEM_END | SEQUENCE_END => drop(self.scopes.pop()),
            ITEM if !fragments => self.scopes.push(Scope { end, fragments: false, coding }),
            _ if length == UNDEFINED => {
                // Unknown sequences are implicit inside (PS3.5 6.2.2, note 2).
                let coding = if &vr == b"UN" { Coding::Implicit } else { coding };
                self.scopes.push(Scope { end: None, fragments: tag == PIXELS, coding });
            }
            _ if &vr == b"SQ" => self.scopes.push(Scope { end, fragments: false, coding }),
            _ => return self.value(tag, length, coding).map(Some),
        }
        Ok(Some(()))
    }

    /// Passes a value. Where nothing says what it is, one that begins with an item is a sequence.
    fn value(&mut self, tag: Tag, length: u32, coding: Coding) -> Result<(), DicomError> {
        let mut left = u64::from(length);
        if coding == Coding::Implicit && tag.0 != ITEM.0 && length >= 8 {
            let end = self.position + left;
            let first = self.tag().ok_or_else(excess)?;
            if first == ITEM {
                self.scopes.push(Scope { end: Some(end), fragments: false, coding });
                return self.element(ITEM).map(|_| ());
            }
            left -= 4;
        }
        if tag == Tag(0x0002, 0x0010) {
            let mut uid = String::new();
            // What is no text is no transfer syntax either.
            let _ = self.source.by_ref().take(left).read_to_string(&mut uid);
            self.syntax = Some(uid.trim_end_matches(['\0', ' ']).to_owned());
            self.position += left;
            return Ok(());
        }
        let passed = io::copy(&mut self.source.by_ref().take(left), &mut io::sink()).unwrap_or(0);
        self.position += passed;
        if passed < left { Err(excess()) } else { Ok(()) }
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).ok()?;
        self.position += N as u64;
        Some(bytes)
    }

    fn tag(&mut self) -> Option<Tag> {
        let [a, b, c, d] = self.bytes()?;
        let number = |bytes| if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        Some(Tag(number([a, b]), number([c, d])))
    }

    /// Representation and length.
    fn length(&mut self, explicit: bool) -> Option<([u8; 2], u32)> {
        let mut vr = [0; 2];
        if explicit {
            vr = self.bytes()?;
            let short = b"AEASATCSDADSDTFLFDISLOLTPNSHSLSSSTTMUIULUS";
            if short.chunks_exact(2).any(|known| known == vr) {
                let bytes = self.bytes()?;
                let length = if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
                return Some((vr, length.into()));
            }
            self.bytes::<2>()?;
        }
        let bytes = self.bytes()?;
        Some((vr, if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose data set are these bytes.
    fn file(syntax: &str, data: &[u8]) -> Vec<u8> {
        let mut meta = vec![2, 0, 0x10, 0, b'U', b'I', syntax.len() as u8, 0];
        meta.extend_from_slice(syntax.as_bytes());
        let mut file = vec![0; 128];
        file.extend_from_slice(b"DICM\x02\0\0\0UL\x04\0");
        file.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        file.extend([meta, data.to_vec()].concat());
        file
    }

    const EXPLICIT: &str = "1.2.840.10008.1.2.1\0";
    const IMPLICIT: &str = "1.2.840.10008.1.2\0";

    #[test]
    fn a_value_longer_than_the_file_is_found_before_memory_is_reserved() {
        let long = b"\x10\0\x20\0OB\0\0\xF0\xFF\xFF\xFFabc";
        assert!(check(&file(EXPLICIT, long)[..], false).is_err());
        assert!(check(&file(EXPLICIT, b"\x10\0\x20\0OB\0\0\x03\0\0\0abc")[..], false).is_ok());
        // Inside a sequence of undefined length, and behind it.
        let inside =
            |value: &[u8]| [b"\x28\0\x10\x30SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF", value].concat();
        assert!(check(&file(EXPLICIT, &inside(long))[..], false).is_err());
        // In implicit coding a sequence is known by its first item.
        let hidden = b"\x28\0\x10\x30\x14\0\0\0\xFE\xFF\0\xE0\x0C\0\0\0\x28\0\x06\x30\xF0\xFF\xFF\xFFabcd";
        assert!(check(&file(IMPLICIT, hidden)[..], false).is_err());
        assert!(check(&file(IMPLICIT, b"\x10\0\x20\0\x08\0\0\0abcdefgh")[..], false).is_ok());
    }

    #[test]
    fn sequences_nested_without_end_are_refused() {
        let nested = b"\x28\0\x10\x30SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF".repeat(100_000);
        let error = check(&file(EXPLICIT, &nested)[..], false).unwrap_err().to_string();
        assert!(error.contains("nested too deeply"), "{error}");
        let few = b"\x28\0\x10\x30SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF".repeat(20);
        assert!(check(&file(EXPLICIT, &few)[..], false).is_ok());
    }
}
