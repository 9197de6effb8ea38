//! The ConfigMaps and Secrets a pod refers to, watched while its worker lives.

use std::collections::BTreeMap;
use std::pin::Pin;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::watch;

use crate::objects::State;
use crate::pod::environment::Objects;

/// The objects the pod refers to, watched while the worker lives.
#[derive(Default)]
pub(super) struct Held {
    pub(super) config_maps: BTreeMap<String, watch::Receiver<State<ConfigMap>>>,
    pub(super) secrets: BTreeMap<String, watch::Receiver<State<Secret>>>,
}

impl Held {
    /// Ends when any of them changes; never when there is none.
    pub(super) async fn changed(&mut self) {
        let maps = self.config_maps.values_mut().map(|r| Box::pin(change(r)) as Changed<'_>);
        let secrets = self.secrets.values_mut().map(|r| Box::pin(change(r)) as Changed<'_>);
        let all: Vec<Changed<'_>> = maps.chain(secrets).collect();
        if all.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(all).await;
    }

    /// The objects as they are; `None` while the API server has not answered for all of them.
    pub(super) fn objects(&mut self) -> Option<Objects> {
        let mut objects = Objects::default();
        for (name, receiver) in &mut self.config_maps {
            match &*receiver.borrow_and_update() {
                State::Unknown => return None,
                State::Missing => {}
                State::Present(map) => {
                    objects.config_maps.insert(name.clone(), (**map).clone());
                }
            }
        }
        for (name, receiver) in &mut self.secrets {
            match &*receiver.borrow_and_update() {
                State::Unknown => return None,
                State::Missing => {}
                State::Present(secret) => {
                    objects.secrets.insert(name.clone(), (**secret).clone());
                }
            }
        }
        Some(objects)
    }
}

/// Ends when the value changes; a watch that has ended changes nothing any more.
async fn change<K>(receiver: &mut watch::Receiver<State<K>>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

type Changed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
