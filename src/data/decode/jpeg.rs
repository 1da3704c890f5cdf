//! Whether a JPEG stream is complete.
//!
//! The decoder fills what is missing with grey, as viewers do. A training image whose lower half is grey is worse
//! than none, so the stream is walked first: markers and lengths only (ITU-T T.81, annex B), at memory speed.

use super::DecodeError;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// Walks the segments from start-of-image to end-of-image. Bytes after that marker are ignored.
pub(super) fn check_complete(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut at = 0;
    let mut scans = 0;
    loop {
        let (marker, after) = next_marker(bytes, at).ok_or(DecodeError::Truncated("it has no end marker"))?;
        at = after;
        match marker {
            EOI if scans == 0 => return Err(DecodeError::Truncated("it holds no picture")),
            EOI => return Ok(()),
            // Markers without a length; inside a scan restarts are skipped by `next_marker`.
            SOI | 0x01 | 0xD0..=0xD7 => {}
            _ => {
                let length = bytes.get(at..at + 2).ok_or(DecodeError::Truncated("a segment is cut off"))?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                scans += u32::from(marker == SOS);
            }
        }
    }
}

/// The next marker at or after `at` that is neither a stuffed byte nor a restart, and the position after it.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xFF)?;
        while *bytes.get(at)? == 0xFF {
            at += 1;
        }
        match bytes[at] {
            0x00 | 0xD0..=0xD7 => at += 1,
            marker => return Some((marker, at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};

    fn jpeg() -> Vec<u8> {
        let pixels: Vec<u8> = (0..64 * 48u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut out = Vec::new();
        JpegEncoder::new(&mut out).write_image(&pixels, 64, 48, ExtendedColorType::L8).unwrap();
        out
    }

    #[test]
    fn a_stream_cut_anywhere_is_truncated() {
        let whole = jpeg();
        assert!(check_complete(&whole).is_ok());
        for length in 2..whole.len() {
            assert!(check_complete(&whole[..length]).is_err(), "cut at {length} of {}", whole.len());
        }
    }

    #[test]
    fn bytes_after_the_end_marker_are_ignored() {
        let mut bytes = jpeg();
        bytes.extend_from_slice(b"\0\0 trailing notes of a scanner");
        assert!(check_complete(&bytes).is_ok());
    }
}
