//! The patient an image belongs to, from its file name.

use super::ManifestError;
use regex::Regex;

/// A pattern for the chest radiographs of Kermany et al. (2018), as Kaggle ships them: `person23` of
/// `person23_bacteria_78.jpeg`, `IM-0123` of `NORMAL2-IM-0123-0001.jpeg` and of `IM-0123-0001.jpeg`.
///
/// The names do not say whether `person23` of a bacterial and of a viral image, or `IM-0123` with and without
/// `NORMAL2`, are the same person. The pattern treats them as one: keeping two different people together only makes the
/// split less flexible, while separating one person's images would leak information between sets. If too many training
/// images are dropped because of a test set that came with the data, `^(person\d+_[a-z]+|(?:NORMAL2-)?IM-\d+)` keeps
/// the two kinds apart.
pub const KERMANY_PATIENT: &str = r"^(?:NORMAL2-)?(person\d+|IM-\d+)";

/// A compiled pattern.
pub(super) struct PatientPattern(Regex);

impl PatientPattern {
    pub(super) fn new(pattern: &str) -> Result<Self, ManifestError> {
        Regex::new(pattern).map(Self).map_err(|e| ManifestError::Pattern { source: Box::new(e) })
    }

    /// The first capture group that took part in matching the file name (without folders), or the whole match; `None`
    /// if that is empty.
    pub(super) fn patient(&self, name: &str) -> Option<String> {
        let file = name.rsplit('/').next().unwrap_or(name);
        let found = self.0.captures(file)?;
        let group = found.iter().skip(1).flatten().next().or_else(|| found.get(0))?;
        (!group.is_empty()).then(|| group.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kermany_file_names_give_the_patient() {
        let pattern = PatientPattern::new(KERMANY_PATIENT).unwrap();
        for (name, patient) in [
            ("train/PNEUMONIA/person23_bacteria_78.jpeg", "person23"),
            ("train/PNEUMONIA/person23_virus_61.jpeg", "person23"),
            ("test/NORMAL/NORMAL2-IM-0123-0001.jpeg", "IM-0123"),
            ("train/NORMAL/NORMAL2-IM-0123-0001-0002.jpeg", "IM-0123"),
            ("train/NORMAL/IM-0115-0001.jpeg", "IM-0115"),
        ] {
            assert_eq!(pattern.patient(name).as_deref(), Some(patient), "{name}");
        }
        assert_eq!(pattern.patient("train/person1/scan.jpeg"), None, "folders are not part of the name");
    }

    #[test]
    fn without_a_group_the_whole_match_is_the_patient() {
        let pattern = PatientPattern::new(r"^p\d+").unwrap();
        assert_eq!(pattern.patient("a/p12_x.png").as_deref(), Some("p12"));
        assert_eq!(PatientPattern::new(r"x*").unwrap().patient("abc.png"), None, "an empty match names nobody");
    }

    #[test]
    fn the_group_of_the_alternative_that_matched_is_the_patient() {
        let pattern = PatientPattern::new(r"^a(\d+)|^b(\d+)").unwrap();
        assert_eq!(pattern.patient("b7.png").as_deref(), Some("7"));
        assert!(PatientPattern::new("(").is_err());
    }
}
