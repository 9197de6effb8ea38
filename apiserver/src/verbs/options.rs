//! What a write's query says: `dryRun`, `fieldManager`, `fieldValidation`, `force`.

use coracle_proto::{
    field::{self, Path},
    status::Status,
};

use crate::{
    body::FieldValidation,
    ownership::{MAX_MANAGER, is_printable},
    request::Query,
    status_of::Result,
};

/// The options of a create, update or patch.
#[derive(Debug)]
pub(super) struct WriteOptions {
    /// Whether nothing is to be stored.
    pub(super) dry_run: bool,
    /// What to do about fields that are unknown or stand twice.
    pub(super) validation: FieldValidation,
    /// The name the fields are owned under; empty when the request gives none.
    pub(super) manager: String,
    /// Whether an apply takes fields from others.
    pub(super) force: bool,
}

/// Which patch the options come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    /// An apply, which must name its manager.
    Apply,
    /// Any other, which cannot be forced.
    Other,
}

impl WriteOptions {
    /// Reads the query of a create or update; `kind` is that of the options: `CreateOptions`.
    ///
    /// # Errors
    /// 422 that names everything wrong with them.
    pub(super) fn of(query: &Query, kind: &str) -> Result<Self> {
        Self::read(query, kind, Vec::new())
    }

    /// Reads the query of a patch.
    ///
    /// # Errors
    /// 400 for a `force` that is no boolean, 422 that names everything else.
    pub(super) fn of_patch(query: &Query, patch: PatchKind) -> Result<Self> {
        let force = query.find("force").filter(|text| !text.is_empty());
        let mut errors = Vec::new();
        if patch == PatchKind::Apply && query.get("fieldManager").is_empty() {
            errors.push(field::Error::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        if patch == PatchKind::Other && force.is_some() {
            errors.push(field::Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        let options = Self::read(query, "PatchOptions", errors)?;
        Ok(Self { force: query.flag("force"), ..options })
    }

    fn read(query: &Query, kind: &str, mut errors: field::Errors) -> Result<Self> {
        let manager = query.get("fieldManager");
        let path = Path::new("fieldManager");
        if manager.len() > MAX_MANAGER {
            errors.push(field::Error::too_long(&path, MAX_MANAGER));
        }
        for (at, letter) in manager.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
            errors.push(field::Error::invalid(&path, manager, &why));
        }
        let dry_run = dry_run(query.all("dryRun").filter(|value| !value.is_empty()), &mut errors);
        let validation = FieldValidation::of(query.get("fieldValidation"));
        if validation.is_none() {
            let path = Path::new("fieldValidation");
            let allowed = ["", "Ignore", "Strict", "Warn"];
            errors.push(field::Error::not_supported(&path, query.get("fieldValidation"), &allowed));
        }
        match validation {
            Some(validation) if errors.is_empty() => {
                Ok(Self { dry_run, validation, manager: manager.to_owned(), force: false })
            }
            _ => Err(Box::new(Status::invalid("meta.k8s.io", kind, "", &errors))),
        }
    }
}

/// Whether nothing is to be stored.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut field::Errors) -> bool {
    let mut wanted = false;
    for value in values {
        wanted = true;
        if value != "All" {
            errors.push(field::Error::not_supported(&Path::new("dryRun"), value, &["All"]));
        }
    }
    wanted
}

/// Whether the values of `dryRun` ask for one.
///
/// # Errors
/// 422 for any value but `All`.
pub(super) fn dry_run_of<'a>(values: impl Iterator<Item = &'a str>, kind: &str) -> Result<bool> {
    let mut errors = Vec::new();
    let wanted = dry_run(values, &mut errors);
    if errors.is_empty() { Ok(wanted) } else { Err(Box::new(Status::invalid("meta.k8s.io", kind, "", &errors))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str, patch: PatchKind) -> String {
        WriteOptions::of_patch(&Query::parse(query), patch).map(|_| ()).unwrap_err().message
    }

    #[test]
    fn everything_wrong_is_named() {
        for (query, patch, message) in [
            (
                "",
                PatchKind::Apply,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ),
            (
                "force=true",
                PatchKind::Other,
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                "fieldManager=a%09b",
                PatchKind::Other,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\tb\": invalid character U+0009 (at position 1)",
            ),
            (
                "dryRun=Some&fieldValidation=Maybe",
                PatchKind::Other,
                "PatchOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: \"Some\": supported values: \"All\", fieldValidation: Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]",
            ),
        ] {
            assert_eq!(refusal(query, patch), message);
        }
        assert!(refusal(&format!("fieldManager={}", "x".repeat(129)), PatchKind::Other).contains("Too long"));
    }

    #[test]
    fn options_are_read() {
        let options = WriteOptions::of_patch(&Query::parse("fieldManager=me&force=true&dryRun=All"), PatchKind::Apply);
        let options = options.unwrap();
        assert!(options.force && options.dry_run && options.manager == "me");
        assert!(!WriteOptions::of(&Query::parse("force=true"), "CreateOptions").unwrap().force);
    }
}
