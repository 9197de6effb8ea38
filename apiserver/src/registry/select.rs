//! Which stored objects a request is about: label and field selectors over headers.

use std::{borrow::Cow, sync::Arc};

use coracle_proto::{
    resource::Scope,
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use coracle_store::Entry;

use crate::{ops::KindOps, request::RequestInfo, status_of::Result, stored::Header};

/// The selectors of a request, ready to use.
#[derive(Clone)]
pub struct Selection {
    kind: Arc<dyn KindOps>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Everything of a kind.
    #[must_use]
    pub fn everything(kind: &Arc<dyn KindOps>) -> Self {
        Self { kind: Arc::clone(kind), labels: LabelSelector::everything(), fields: FieldSelector::default() }
    }

    /// What the request's query selects.
    ///
    /// # Errors
    /// 400 for what is no selector, and for a field that the kind is not selected by.
    pub fn of(kind: &Arc<dyn KindOps>, info: &RequestInfo) -> Result<Self> {
        let bad = |why: String| Box::new(Status::bad_request(why));
        let labels = match info.label_selector() {
            "" => LabelSelector::everything(),
            text => LabelSelector::parse(text).map_err(|error| bad(format!("unable to parse requirement: {error}")))?,
        };
        let fields = match info.field_selector() {
            "" => FieldSelector::default(),
            text => FieldSelector::parse(text).map_err(|error| bad(error.to_string()))?,
        };
        if !fields.is_everything() {
            let known = kind.field_names();
            let resource = kind.resource();
            for term in fields.terms() {
                let is_known = term.field == "metadata.name"
                    || (term.field == "metadata.namespace" && resource.scope == Scope::Namespaced)
                    || known.iter().any(|known| *known == term.field);
                if !is_known {
                    return Err(bad(format!("field label not supported: {}", term.field)));
                }
            }
        }
        Ok(Self { kind: Arc::clone(kind), labels, fields })
    }

    /// What is selected from.
    pub(super) fn kind(&self) -> &dyn KindOps {
        &*self.kind
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name the fields demand, if they do.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Whether something with these labels, this name and this namespace is selected, of a kind that is selected by nothing
    /// else. The header may be that of another kind's object that it is about.
    #[must_use]
    pub(crate) fn takes_header(&self, header: &Header) -> bool {
        self.labels.matches_labels(&header.labels)
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(header.name.as_str()),
                "metadata.namespace" => Some(header.namespace.as_str()),
                _ => None,
            })
    }

    /// Whether the stored version is selected.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        let header = Header::of(entry);
        if !self.labels.matches_labels(&header.labels) {
            return false;
        }
        let own;
        let group = self.kind.resource().group;
        let kept = || header.fields.get_or_init(|| (group, self.fields_of(entry)));
        let fields = if self.fields.is_everything() {
            &[][..]
        } else if self.kind.fields_change() || kept().0 != group {
            own = self.fields_of(entry);
            &own
        } else {
            &kept().1
        };
        self.fields.matches(|field| match field {
            "metadata.name" => Some(header.name.as_str()),
            "metadata.namespace" => Some(header.namespace.as_str()),
            other => fields.iter().find(|(field, _)| *field == other).map(|(_, value)| value.as_str()),
        })
    }

    fn fields_of(&self, entry: &Entry) -> Vec<(Cow<'static, str>, String)> {
        self.kind.fields(&entry.value).unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a stored object cannot be read");
            Vec::new()
        })
    }
}
