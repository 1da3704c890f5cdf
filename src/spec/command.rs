//! Placeholders in braces in the arguments of a command.

use super::CommandSpec;

/// Placeholders besides the parameters. No parameter of the study may have one of these names.
pub const ORDER_FIELDS: [&str; 6] = ["trial", "from", "to", "dir", "seed", "epochs"];

/// Why an argument cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// There is no value for this name.
    #[error("fill in `{{{name}}}` of `{argument}`: this configuration has no such parameter")]
    Unknown { name: String, argument: String },
    /// An unmatched brace.
    #[error("understand `{0}`: a brace is open\nhint: write {{{{ for a brace")]
    Open(String),
}

impl CommandSpec {
    /// Replaces every `{name}` in an argument by what `value` returns for it; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// If `value` returns `None` for a name, or a brace is unmatched.
    pub fn fill(argument: &str, mut value: impl FnMut(&str) -> Option<String>) -> Result<String, FillError> {
        let mut out = String::with_capacity(argument.len());
        let mut rest = argument;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
            } else if brace == "{"
                && let Some((name, after)) = after.split_once('}')
            {
                let unknown = || FillError::Unknown { name: name.to_owned(), argument: argument.to_owned() };
                out.push_str(&value(name).ok_or_else(unknown)?);
                rest = after;
            } else {
                return Err(FillError::Open(argument.to_owned()));
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_doubled_braces_stand_for_braces() {
        let fill = |text: &str| CommandSpec::fill(text, |name| (name == "lr").then(|| "0.1".to_owned()));
        assert_eq!(fill("--lr={lr},{{}},{lr}").unwrap(), "--lr=0.1,{},0.1");
        assert!(matches!(fill("{depth}"), Err(FillError::Unknown { name, .. }) if name == "depth"));
        for open in ["{lr", "}", "{{lr}"] {
            assert!(matches!(fill(open), Err(FillError::Open(_))), "{open}");
        }
    }
}
