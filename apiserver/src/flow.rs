//! Priority and fairness: one client's flood does not keep the others waiting (KEP-1040).
//!
//! ```text
//!   request ─► the first flow schema that is about it ─► its priority level ─► a seat, at once or in turn
//! ```
//!
//! A level has its part of all seats, borrows what others do not use, and gives back as soon as they want it. Who finds no
//! seat waits in a queue of his flow (a user's, or a namespace's), and flows go by turns. Requests that go on for long hold
//! a seat until they have begun. With seats free a request costs a look at the schemas and one compare-and-swap.
//!
//! **Invariant:** nobody waits for what another level has borrowed of his, except for the requests that are in work.

mod condition;
mod counters;
mod level;
mod matching;
mod queues;
mod shares;
mod shuffle;
mod width;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use coracle_proto::status::Status;
use coracle_store::{Error as StoreError, Revision, Store};
use http::{HeaderMap, HeaderValue};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration, PriorityLevelConfigurationSpec};
use tokio_util::sync::CancellationToken;

use self::{
    level::{Manner, Pool},
    matching::Rules,
    queues::Queuing,
    shares::{Wish, entitle},
};
use crate::{
    admission::stored_objects::{follow, read},
    kinds::flow_defaults,
    registry::Registry,
    request::RequestInfo,
    status_of::Result,
    user::User,
};

pub(crate) use self::{
    counters::{Counters, REASONS},
    level::{Level, Seat},
};

const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A flow schema, compiled, with its level.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
    precedence: i32,
    rules: Rules,
    distinguisher: Distinguisher,
    is_exempt: bool,
    level: Arc<Level>,
    counters: Arc<Counters>,
    /// The uids of the schema and of its level, as answers carry them.
    uids: [Option<HeaderValue>; 2],
}

impl Schema {
    /// Tells the client whose rules its request was handled by.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        let names = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];
        for (name, uid) in names.into_iter().zip(&self.uids) {
            if let Some(uid) = uid {
                headers.insert(name, uid.clone());
            }
        }
    }
}

/// The schemas as of a revision, the first to be tried first.
#[derive(Debug, Default)]
struct Plan {
    schemas: Vec<Arc<Schema>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FlowControl {
    store: Store,
    /// Seats there are.
    total: u32,
    /// How long a request may wait for one.
    patience: Duration,
    hasher: RandomState,
    pool: Arc<Pool>,
    plan: RwLock<Arc<Plan>>,
    loading: Mutex<Loaded>,
    changed: tokio::sync::Notify,
}

/// What outlives a change of the objects.
#[derive(Debug, Default)]
struct Loaded {
    revision: Revision,
    levels: HashMap<String, Arc<Level>>,
    counters: HashMap<(String, String), Arc<Counters>>,
}

fn number(value: Option<i32>) -> u32 {
    u32::try_from(value.unwrap_or(0)).unwrap_or(0)
}

fn wish(spec: &PriorityLevelConfigurationSpec) -> Wish {
    let borrowing = |limit: i32| u32::try_from(limit).unwrap_or(0);
    if let Some(limited) = &spec.limited {
        return Wish {
            shares: number(limited.nominal_concurrency_shares),
            lendable_percent: number(limited.lendable_percent),
            borrowing_percent: limited.borrowing_limit_percent.map(borrowing),
        };
    }
    let exempt = spec.exempt.as_ref();
    Wish {
        shares: number(exempt.and_then(|exempt| exempt.nominal_concurrency_shares)),
        lendable_percent: number(exempt.and_then(|exempt| exempt.lendable_percent)),
        borrowing_percent: None,
    }
}

fn manner(spec: &PriorityLevelConfigurationSpec) -> Manner {
    if spec.type_ == "Exempt" {
        return Manner::Exempt;
    }
    let response = spec.limited.as_ref().and_then(|limited| limited.limit_response.as_ref());
    match response.and_then(|response| response.queuing.as_ref()) {
        Some(queuing) => Manner::Queue(Queuing {
            queues: number(queuing.queues),
            hand: number(queuing.hand_size),
            length: number(queuing.queue_length_limit),
        }),
        None => Manner::Reject,
    }
}

/// The objects there are, and those that there always must be.
fn with_mandatory<T>(mut found: Vec<(String, T)>, mandatory: impl Fn(&str) -> Option<T>) -> Vec<(String, T)> {
    for name in flow_defaults::MANDATORY {
        if !found.iter().any(|(own, _)| own == name) {
            found.extend(mandatory(name).map(|object| ((*name).to_owned(), object)));
        }
    }
    found
}

impl FlowControl {
    /// Divides so many seats as the store's objects say now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn open(store: Store, total: u32, request_timeout: Duration) -> Result<Self, StoreError> {
        let control = Self {
            store,
            total,
            patience: request_timeout / 4,
            hasher: RandomState::new(),
            pool: Arc::default(),
            plan: RwLock::default(),
            loading: Mutex::default(),
            changed: tokio::sync::Notify::new(),
        };
        control.load()?;
        Ok(control)
    }

    /// Takes over what the store says now.
    fn load(&self) -> Result<Revision, StoreError> {
        let mut loaded = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let (levels, first) = read::<PriorityLevelConfiguration>(&self.store, LEVELS)?;
        let (schemas, second) = read::<FlowSchema>(&self.store, SCHEMAS)?;
        // What changed between the two reads is told by the watch, which begins where the first one was.
        let revision = first.min(second);
        if revision < loaded.revision {
            return Ok(loaded.revision);
        }
        loaded.revision = revision;
        let levels = with_mandatory(levels, flow_defaults::mandatory_level);
        let schemas = with_mandatory(schemas, flow_defaults::mandatory_schema);
        self.take_over(&mut loaded, &levels, &schemas);
        self.changed.notify_one();
        Ok(revision)
    }

    fn take_over(
        &self,
        loaded: &mut Loaded,
        levels: &[(String, PriorityLevelConfiguration)],
        schemas: &[(String, FlowSchema)],
    ) {
        let uid = |uid: Option<&String>| uid.and_then(|uid| HeaderValue::from_str(uid).ok());
        let specs: Vec<_> = levels.iter().map(|(_, level)| level.spec.clone().unwrap_or_default()).collect();
        let bounds = entitle(self.total, &specs.iter().map(wish).collect::<Vec<_>>());
        let mut now = HashMap::new();
        let mut uids = HashMap::new();
        for (((name, object), spec), bounds) in levels.iter().zip(&specs).zip(bounds) {
            let before = loaded.levels.get(name).cloned();
            let level = before.unwrap_or_else(|| Arc::new(Level::new(name, &self.pool)));
            level.configure(manner(spec), bounds);
            uids.insert(name.as_str(), (uid(object.metadata.uid.as_ref()), spec.type_ == "Exempt"));
            now.insert(name.clone(), level);
        }
        self.pool.set(levels.iter().filter_map(|(name, _)| now.get(name).cloned()).collect());
        loaded.levels = now;
        let mut counters = HashMap::new();
        let mut plan: Vec<Arc<Schema>> = Vec::new();
        for (name, object) in schemas {
            let spec = object.spec.clone().unwrap_or_default();
            let wanted = spec.priority_level_configuration.name.as_str();
            // One whose level is not there is about nothing.
            let Some((level, (level_uid, is_exempt))) = loaded.levels.get(wanted).zip(uids.get(wanted)) else {
                continue;
            };
            let key = (name.clone(), wanted.to_owned());
            let before = loaded.counters.get(&key).cloned();
            let own = before.unwrap_or_else(|| Arc::new(Counters::new(name, wanted)));
            counters.insert(key, Arc::clone(&own));
            plan.push(Arc::new(Schema {
                name: name.clone(),
                precedence: spec.matching_precedence.unwrap_or_default(),
                rules: Rules::of(&spec),
                distinguisher: match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
                    Some("ByUser") => Distinguisher::User,
                    Some("ByNamespace") => Distinguisher::Namespace,
                    _ => Distinguisher::Nothing,
                },
                is_exempt: *is_exempt,
                level: Arc::clone(level),
                counters: own,
                uids: [uid(object.metadata.uid.as_ref()), level_uid.clone()],
            }));
        }
        loaded.counters = counters;
        // They come by name, which decides between those of the same precedence.
        plan.sort_by_key(|schema| schema.precedence);
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Plan { schemas: plan });
    }

    /// The schema that the request belongs to: there is one for every request but those by rules of the cluster's own that
    /// leave somebody out, who is not held back.
    pub(crate) fn classify(&self, user: &User, info: &RequestInfo) -> Option<Arc<Schema>> {
        let plan = self.plan.read().unwrap_or_else(PoisonError::into_inner);
        let is_it = |schema: &&Arc<Schema>| schema.rules.are_about(user, info);
        // `catch-all` is about everybody, and it is always there.
        plan.schemas.iter().find(is_it).cloned()
    }

    /// A seat for a request of this schema, as soon as it is its turn.
    ///
    /// # Errors
    /// 429 when its queue is full, when it waited too long, or when its level has no queues.
    ///
    /// # Cancel safety
    /// Who is dropped waits no longer.
    pub(crate) async fn take(
        &self,
        schema: &Schema,
        user: &User,
        info: &RequestInfo,
        registry: &Registry,
    ) -> Result<Seat> {
        let (level, counters) = (&schema.level, &schema.counters);
        if schema.is_exempt {
            return Ok(level.exempt(counters));
        }
        let width = width::of(info, registry, || level.bounds().nominal);
        if let Some(seat) = level.at_once(counters, width) {
            return Ok(seat);
        }
        let whose = match schema.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => user.name.as_str(),
            Distinguisher::Namespace => info.namespace.as_str(),
        };
        let flow = self.hasher.hash_one((&schema.name, whose));
        level.take(counters, width, flow, self.patience).await.map_err(|why| {
            counters.refused(why);
            Box::new(Status::too_many_requests("Too many requests, please try again later.", 1))
        })
    }

    /// The levels, for who wants to know how they are.
    pub(crate) fn levels(&self) -> Vec<Arc<Level>> {
        self.pool.levels()
    }

    /// What is counted of each schema, by its name.
    pub(crate) fn counters(&self) -> Vec<Arc<Counters>> {
        let plan = Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner));
        let mut counters: Vec<_> = plan.schemas.iter().map(|schema| Arc::clone(&schema.counters)).collect();
        counters.sort_by(|a, b| a.schema.cmp(&b.schema));
        counters
    }

    /// Follows the objects until `shutdown`.
    ///
    /// # Errors
    /// The store is closed.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) -> Result<(), StoreError> {
        follow(&self.store, [SCHEMAS, LEVELS], || self.load(), shutdown).await
    }

    /// Makes the objects as they must be.
    ///
    /// # Errors
    /// The first refusal of a write.
    pub(crate) async fn settle(&self, registry: &Registry) -> Result<()> {
        condition::settle(registry).await
    }

    /// Keeps the objects as they must be whenever they changed, until `shutdown`.
    pub(crate) async fn keep(&self, registry: &Registry, shutdown: CancellationToken) {
        condition::keep(registry, &self.changed, shutdown).await;
    }
}

#[cfg(test)]
mod tests;
