//! Why a DICOM file is no usable image.

/// The words follow the file's name: `x.dcm: is a DICOM file without pixels`.
#[derive(Debug, thiserror::Error)]
pub enum DicomError {
    /// The data set cannot be read to its end.
    #[error("is a broken or truncated DICOM file: {0}")]
    Broken(String),
    /// A report, an index, a structure: no image.
    #[error("is a DICOM file without pixels ({0})")]
    NoPixels(String),
    /// A film or a volume.
    #[error("is a DICOM file of {0} frames: give every frame that is wanted a file of its own")]
    Frames(i64),
    /// A side of length 0, or more than is read.
    #[error("is a DICOM file of {width} x {height} pixels")]
    Size { width: u32, height: u32 },
    /// An attribute without which pixels have no meaning.
    #[error("is a DICOM file without a usable `{0}`")]
    Missing(&'static str),
    /// Colours that are not read.
    #[error("is a DICOM file in {0}: MONOCHROME1, MONOCHROME2, RGB, YBR_FULL and YBR_FULL_422 are read")]
    Photometric(String),
    /// 1, 32 or 64 bits, or floating-point numbers.
    #[error("is a DICOM file with {0} bits a sample: 8 and 16 are read")]
    Bits(i64),
    /// A transfer syntax that is not read.
    #[error(
        "is a DICOM file compressed as {0}, which is not read: convert it (dcmtk: dcmdjpls, dcmdjpeg; gdcm: gdcmconv -w)"
    )]
    Syntax(String),
    /// Fewer values than rows times columns.
    #[error("is a truncated DICOM file: it has {found} bytes of pixels of {wanted}")]
    Short { found: usize, wanted: usize },
    /// The compressed stream is damaged or contradicts the header.
    #[error("is a DICOM file with a broken {format} stream: {what}")]
    Stream { format: &'static str, what: String },
    /// A lookup table whose length contradicts its descriptor.
    #[error("is a DICOM file with a broken {0} lookup table")]
    Table(&'static str),
}
