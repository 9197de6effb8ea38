//! ServiceAccounts: the identities pods have.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::blank::{drop_blank, items_mut};
use crate::kind::Strategy;
use coracle_proto::resource::Resource;

/// The strategy of `serviceaccounts`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    type Object = ServiceAccount;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "serviceaccounts")
    }

    fn default(&self, object: &mut ServiceAccount) {
        drop_blank(&mut object.secrets);
        drop_blank(&mut object.image_pull_secrets);
        for secret in items_mut(&mut object.secrets) {
            super::object_reference::drop_blanks(secret);
        }
    }
}
