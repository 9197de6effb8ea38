//! Secrets: keys and values that are nobody's business, by type.

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{
    blank::{drop_blank, fill_text, text},
    cells,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::resource::Resource;

/// The strategy of `secrets`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Secrets;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Type", "Used to facilitate programmatic handling of secret data."),
    cells::integer("Data", "Data contains the secret data, a value a key."),
    AGE,
];

impl Strategy for Secrets {
    type Object = Secret;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "secrets")
    }

    fn default(&self, object: &mut Secret) {
        // `stringData` is only ever written: it is merged over `data` before anything else looks.
        if let Some(texts) = object.string_data.take() {
            let data = object.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
        drop_blank(&mut object.data);
        fill_text(&mut object.type_, "Opaque");
    }

    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &Context<'_>) {
        // The type may be left out of an update, which then keeps it.
        if text(&new.type_).is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn fields(&self, object: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", text(&object.type_).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Secret, now: Timestamp) -> Vec<serde_json::Value> {
        let keys = object.data.as_ref().map_or(0, |d| d.len());
        vec![cells::name(&object.metadata), text(&object.type_).into(), keys.into(), age(&object.metadata, now).into()]
    }
}
