//! RLE Lossless (PS3.5 annex G): a header of segment offsets, then one run-length coded segment for each byte of a
//! sample, most significant first.

use super::DicomError;
use super::samples::Layout;

/// The segments, decoded to `length` bytes each.
pub(super) fn decoded(stream: &[u8], length: usize, segments: usize) -> Result<Vec<Vec<u8>>, DicomError> {
    let broken = |what: &str| DicomError::Stream { format: "RLE", what: what.to_owned() };
    let number = |i: usize| {
        let bytes = stream.get(4 * i..4 * i + 4).ok_or_else(|| broken("its header is cut off"))?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    if number(0)? != segments || segments > 15 {
        return Err(broken("it has another number of segments than the header of the file says"));
    }
    (1..=segments)
        .map(|i| {
            let (start, end) = (number(i)?, if i < segments { number(i + 1)? } else { stream.len() });
            let coded = stream.get(start..end).ok_or_else(|| broken("a segment lies outside it"))?;
            unpacked(coded, length).ok_or_else(|| broken("a segment is cut off"))
        })
        .collect()
}

/// PackBits; what follows the last wanted byte is padding.
fn unpacked(mut coded: &[u8], length: usize) -> Option<Vec<u8>> {
    // A run of 128 takes two bytes: no valid segment grows more.
    let mut out = Vec::with_capacity(length.min(coded.len() * 64));
    while out.len() < length {
        let (&control, rest) = coded.split_first()?;
        coded = match control {
            0..=127 => {
                let (literal, rest) = rest.split_at_checked(usize::from(control) + 1)?;
                out.extend_from_slice(literal);
                rest
            }
            128 => rest,
            129.. => {
                let (&byte, rest) = rest.split_first()?;
                out.extend(std::iter::repeat_n(byte, 257 - usize::from(control)));
                rest
            }
        };
    }
    out.truncate(length);
    Some(out)
}

/// The samples of segments, pixel by pixel.
pub(super) fn joined(segments: &[Vec<u8>], layout: &Layout) -> Vec<u16> {
    let sample = |pixel: usize, sample: usize| match layout.bytes {
        1 => segments[sample][pixel].into(),
        _ => u16::from_be_bytes([segments[2 * sample][pixel], segments[2 * sample + 1][pixel]]),
    };
    let pixels = 0..layout.pixels();
    pixels.flat_map(|p| (0..layout.samples).map(move |s| layout.code(sample(p, s)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_literals_and_no_operations_are_unpacked() {
        // The example of the TIFF specification, with a no-operation.
        let coded = [0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0x80, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7, 0xAA];
        let plain = [
            0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22, 0xAA, 0xAA, 0xAA, 0xAA,
            0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA,
        ];
        assert_eq!(unpacked(&coded, plain.len()).unwrap(), plain);
        assert_eq!(unpacked(&coded, plain.len() - 3).unwrap(), plain[..plain.len() - 3], "the rest is padding");
        assert_eq!(unpacked(&coded, plain.len() + 1), None);
        for length in 0..coded.len() {
            assert_eq!(unpacked(&coded[..length], plain.len()), None);
        }
    }
}
