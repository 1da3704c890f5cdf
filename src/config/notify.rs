//! Compiling `[notify]`.

use super::reader::{Section, check_braces};
use crate::spec::{NOTICE_FIELDS, NotifySpec, NotifyUrl, Occasion};
use strum::VariantNames;

pub(super) fn compile(section: &Section<'_>) -> NotifySpec {
    if !section.is_given() {
        return NotifySpec::default();
    }
    let url = section.get("url").and_then(|item| {
        let text = item.text()?;
        let url = match text.strip_prefix("env:") {
            Some(name) => {
                (!name.is_empty() && !name.contains(['=', '\0'])).then(|| NotifyUrl::Variable(name.to_owned()))
            }
            None => ["http://", "https://"]
                .iter()
                .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
                .then(|| NotifyUrl::Given(text.to_owned())),
        };
        if url.is_none() {
            item.wanted("`http://...`, `https://...`, or `env:NAME` for the address in an environment variable");
        }
        url
    });
    let command: Vec<String> = match section.get("command") {
        Some(item) => {
            let arguments = item.elements(false).unwrap_or_default();
            if arguments.is_empty() {
                section
                    .log
                    .error(&item.place, "the command is empty", "")
                    .help("write `command = [\"notify-send\", \"{text}\"]`");
            }
            for argument in &arguments {
                check_braces(argument, NOTICE_FIELDS, "a notice");
            }
            arguments.iter().filter_map(|argument| argument.value.as_str()).map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let on = match section.get("on") {
        Some(item) => item
            .elements(true)
            .unwrap_or_default()
            .iter()
            .filter_map(|each| each.choice(Occasion::VARIANTS)?.parse().ok())
            .collect(),
        None => vec![Occasion::Done, Occasion::Failed],
    };
    if section.get("command").or(section.get("url")).is_none() {
        let place = section.place_of("on");
        section
            .log
            .error(&place, "nobody is told", "")
            .help("add `command = [\"program\", \"{text}\"]` or `url = \"https://...\"`");
    }
    NotifySpec { on, command, url }
}
