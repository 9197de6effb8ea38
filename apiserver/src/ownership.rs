//! Who owns which fields of an object: `metadata.managedFields` kept with every write, and server-side apply.
//!
//! The algebra is [`coracle_proto::apply`]'s; here it meets kinds and requests:
//!
//! ```text
//! create, update, patch:  decode → default → updated   (who wrote owns what changed) → admission → validate → store
//! apply:                  applied (merge, conflicts, removals) → decode → default → admission → validate → store
//! ```
//!
//! What admission, the strategy and the server itself add later is nobody's.

mod fresh;
mod last_applied;
mod lay;
pub(crate) mod versions;

use std::sync::LazyLock;

use coracle_proto::{
    apply::{
        Applied, ApplyError, Conflicts, Convert, Duplicates, Managed, Path, Place, Problems, Set, Updater, Who,
        compare, empty, field_set, fresh_fields, validate,
    },
    resource::Resource,
    status::Status,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

use crate::{
    admission::Notes,
    ops::{AnyObject, KindOps, Part, in_apply},
    status_of::{self, Result},
    user::User,
};

pub use self::{fresh::Fresh, lay::LayError, versions::Versions};

/// As long as a manager's name may be.
pub const MAX_MANAGER: usize = 128;

/// How often a plain write settles its owners at most: objects before and after are asked for, and nothing further.
const ROUNDS: usize = 4;

/// Who owned what before anybody applied, when nobody had kept track.
const BEFORE: &str = "before-first-apply";

/// What a kind must be able to say about ownership, in one version and for one sort of writes.
pub trait Owners {
    /// `fieldsV1` of who made the object whose JSON this is; `None` when he owns nothing.
    ///
    /// # Errors
    /// What is no JSON object.
    fn fresh(&self, json: &[u8]) -> serde_json::Result<Option<Vec<u8>>>;

    /// Who owns what after a plain write.
    fn update(&self, live: &Value, new: &Value, managed: Managed, who: &Who<'_>) -> Managed;

    /// Lays a configuration over an object.
    ///
    /// # Errors
    /// Conflicts, unless forced; lists whose elements cannot be told apart.
    fn apply(
        &self,
        live: &Value,
        config: &Value,
        managed: Managed,
        who: &Who<'_>,
        force: bool,
    ) -> Result<Applied, ApplyError>;

    /// Checks that a configuration is of the kind.
    ///
    /// # Errors
    /// Everything in it that is not.
    fn check(&self, config: &Value) -> Result<(), Problems>;

    /// The fields of an earlier configuration that are still as it had them.
    fn still_so(&self, live: &Value, config: &Value) -> Set;

    /// Lays fields over an object without anybody becoming their owner; none when nothing is left.
    ///
    /// # Errors
    /// What would be replaced as a whole, or why it does not fit.
    fn lay(&self, live: &Value, fields: &Value) -> Result<Option<Value>, LayError>;
}

/// [`Owners`] by a schema.
pub struct BySchema<'k, P> {
    /// The kind's root.
    pub place: P,
    /// The version written in: `apps/v1`.
    pub version: String,
    /// What such writes do not change.
    pub reset: &'static Set,
    /// Knows the kind's other versions.
    pub convert: Box<Convert<'k, P>>,
}

impl<'a, P: Place<'a>> BySchema<'_, P> {
    fn updater(&self) -> Updater<'_, P> {
        Updater { place: self.place, version: &self.version, reset: self.reset, convert: &*self.convert }
    }
}

impl<'a, P: Place<'a>> Owners for BySchema<'_, P> {
    fn fresh(&self, json: &[u8]) -> serde_json::Result<Option<Vec<u8>>> {
        fresh_fields(self.place, json, self.reset)
    }

    fn update(&self, live: &Value, new: &Value, managed: Managed, who: &Who<'_>) -> Managed {
        self.updater().update(live, new, managed, who)
    }

    fn apply(
        &self,
        live: &Value,
        config: &Value,
        managed: Managed,
        who: &Who<'_>,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        self.updater().apply(live, config, managed, who, force)
    }

    fn check(&self, config: &Value) -> Result<(), Problems> {
        validate(self.place, config, Duplicates::Refused)
    }

    fn still_so(&self, live: &Value, config: &Value) -> Set {
        let changed = compare(self.place, Some(config), Some(live));
        let fields = field_set(self.place, config);
        fields.difference(&changed.modified).difference(&changed.added).difference(&changed.removed)
    }

    fn lay(&self, live: &Value, fields: &Value) -> Result<Option<Value>, LayError> {
        lay::lay(self.place, live, fields)
    }
}

/// Nothing.
pub static NO_FIELDS: LazyLock<Set> = LazyLock::new(Set::default);

/// The status: what writes of the object itself do not change.
pub static STATUS: LazyLock<Set> = LazyLock::new(|| Set::from([Path::of(&["status"])]));

/// The specification: what writes of the status do not change.
pub static SPEC: LazyLock<Set> = LazyLock::new(|| Set::from([Path::of(&["spec"])]));

/// The specification and the labels.
pub static SPEC_AND_LABELS: LazyLock<Set> =
    LazyLock::new(|| Set::from([Path::of(&["spec"]), Path::of(&["metadata", "labels"])]));

/// The specification, the owners and the deletion mark.
pub static SPEC_AND_OWNERS: LazyLock<Set> = LazyLock::new(|| {
    let meta = |name: &str| Path::of(&["metadata", name]);
    Set::from([Path::of(&["spec"]), meta("ownerReferences"), meta("deletionTimestamp")])
});

/// What writes of a part do not change, of most kinds.
#[must_use]
pub fn reset_by(resource: &Resource, part: Part) -> &'static Set {
    match part {
        Part::Status | Part::Approval => &SPEC,
        _ if resource.subresource("status").is_some() => &STATUS,
        _ => &NO_FIELDS,
    }
}

/// The name a part is written through.
#[must_use]
pub const fn subresource(part: Part) -> &'static str {
    match part {
        Part::Main => "",
        Part::Status => "status",
        Part::Finalize => "finalize",
        Part::Approval => "approval",
        Part::EphemeralContainers => "ephemeralcontainers",
        Part::Resize => "resize",
    }
}

/// The name a writer's fields are kept under: the one the request gives, else that of the program, else that of the
/// component the user is.
#[must_use]
pub fn manager(given: &str, user_agent: &str, user: &User) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    let mut name = String::new();
    for letter in user_agent.split('/').next().unwrap_or_default().chars().filter(|letter| is_printable(*letter)) {
        if name.len() + letter.len_utf8() > MAX_MANAGER {
            break;
        }
        name.push(letter);
    }
    if !name.is_empty() {
        return name;
    }
    match user.name.as_str() {
        "system:apiserver" => "kube-apiserver",
        "system:kube-controller-manager" => "kube-controller-manager",
        "system:kube-scheduler" => "kube-scheduler",
        name if name.starts_with("system:node:") => "kubelet",
        _ => "unknown",
    }
    .to_owned()
}

/// Whether Go would print it as it is: letters, marks, numbers, signs, and the one space of ASCII.
#[must_use]
pub fn is_printable(letter: char) -> bool {
    letter == ' '
        || !(letter.is_control()
            || letter.is_whitespace()
            || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}'))
}

type Entries = Option<Vec<ManagedFieldsEntry>>;

/// Whether a client asks for all owners to be forgotten: an empty list, or one empty entry.
fn is_reset(entries: &[ManagedFieldsEntry]) -> bool {
    match entries {
        [] => true,
        [only] => *only == ManagedFieldsEntry::default(),
        _ => false,
    }
}

/// The owners a plain write begins with: as the client has them, unless it has none that can be read.
fn begin(live: &Entries, asked: &Entries) -> Managed {
    if let Some(asked) = asked {
        if is_reset(asked) {
            return Managed::default();
        }
        if let Ok(managed) = Managed::decode(asked)
            && !managed.is_empty()
        {
            return managed;
        }
    }
    live.as_deref().and_then(|live| Managed::decode(live).ok()).unwrap_or_default()
}

/// The object's JSON without its owners.
fn bare(object: &dyn AnyObject) -> Result<Value> {
    let encode = |object: &dyn AnyObject| {
        object.to_json().map_err(|error| status_of::broken("an object cannot be encoded", &error))
    };
    if object.meta().managed_fields.is_none() {
        return encode(object);
    }
    let mut copy = object.copied();
    copy.meta_mut().managed_fields = None;
    encode(&*copy)
}

/// Settles who owns what of an object that is created: in the object, or beside it as text.
///
/// # Errors
/// 500 when it cannot be encoded.
pub fn created(kind: &dyn KindOps, object: &mut dyn AnyObject, who: &Who<'_>) -> Result<Option<Fresh>> {
    let asked = object.meta_mut().managed_fields.take();
    let managed = begin(&None, &asked);
    if managed.is_empty() {
        return Fresh::of(kind, object, who);
    }
    let managed = kind.owners(Part::Main, &Versions::default()).update(empty(), &bare(object)?, managed, who);
    object.meta_mut().managed_fields = managed.encode();
    Ok(None)
}

/// Sets who owns what of an object after a plain write of a part.
///
/// An object that nobody kept track of so far stays so until somebody applies. Where it cannot be had in the versions its
/// owners wrote in, they are forgotten.
///
/// # Errors
/// 500 when it cannot be encoded.
///
/// # Cancel safety
/// Safe; the owners may be gone from `new` then.
pub async fn updated(
    kind: &dyn KindOps,
    part: Part,
    new: &mut dyn AnyObject,
    old: &dyn AnyObject,
    who: &Who<'_>,
) -> Result<()> {
    let asked = new.meta_mut().managed_fields.take();
    let live = &old.meta().managed_fields;
    // Through a subresource nobody rewrites the owners of the whole.
    let managed = if who.subresource.is_empty() { begin(live, &asked) } else { begin(live, &None) };
    if managed.is_empty() {
        return Ok(());
    }
    let versions = Versions::default();
    let (before, after) = (bare(old)?, bare(new)?);
    for _ in 0..ROUNDS {
        let settled = kind.owners(part, &versions).update(&before, &after, managed.clone(), who);
        if !versions.is_lacking() {
            new.meta_mut().managed_fields = settled.encode();
            break;
        }
        if let Err(status) = versions.fetch(kind).await {
            tracing::warn!(reason = %status.message, "the owners of an object's fields are forgotten");
            break;
        }
    }
    Ok(())
}

/// Takes back what webhooks made of the owners when nobody can read it, and tells the client.
pub fn readable_or(object: &mut dyn AnyObject, before: Option<Vec<ManagedFieldsEntry>>, notes: &Notes) {
    let now = object.meta().managed_fields.as_deref().unwrap_or_default();
    let Err(why) = Managed::decode(now) else { return };
    notes.warn(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
         admission controller; please fix your requests: {why}"
    ));
    object.meta_mut().managed_fields = before;
}

/// Keeps the times of the owners when they are all that differs, so that a write that changes nothing writes nothing.
/// Says whether anything was put back.
pub fn keep_times(new: &mut dyn AnyObject, old: &dyn AnyObject) -> bool {
    let (Some(now), Some(before)) = (&new.meta().managed_fields, &old.meta().managed_fields) else { return false };
    let same = |a: &ManagedFieldsEntry, b: &ManagedFieldsEntry| {
        a.manager == b.manager
            && a.operation == b.operation
            && a.api_version == b.api_version
            && a.subresource == b.subresource
            && a.fields_v1 == b.fields_v1
    };
    let differ_in_time = now.len() == before.len()
        && now.iter().zip(before).all(|(a, b)| same(a, b))
        && now.iter().zip(before).any(|(a, b)| a.time != b.time);
    if differ_in_time {
        new.meta_mut().managed_fields.clone_from(&old.meta().managed_fields);
    }
    differ_in_time
}

/// An apply as a client sent it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration as it was sent: some fields of an object.
    value: Value,
    /// The same in today's shape, if it was sent in an old version's.
    modern: Option<Value>,
    /// Whether to take fields from others.
    force: bool,
}

impl Config {
    /// A configuration of a kind, which takes fields from others if it is to.
    pub fn new(kind: &dyn KindOps, value: Value, force: bool) -> Self {
        Self { modern: kind.modernized(&value), value, force }
    }

    /// The configuration as it was sent.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// Whether to take fields from others.
    #[must_use]
    pub const fn is_forced(&self) -> bool {
        self.force
    }

    /// What is laid over objects, which are all of today's shape.
    fn today(&self) -> &Value {
        self.modern.as_ref().unwrap_or(&self.value)
    }
}

/// `namespace/name; apps/v1, Kind=Deployment`.
fn described(config: &Value) -> String {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}; {}", text("/metadata/namespace"), text("/metadata/name"), kind_of(config))
}

/// `apps/v1, Kind=Deployment`, as the configuration says of itself.
fn kind_of(config: &Value) -> String {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

/// Checks what can be said of a configuration without an object: that it is of the kind, and names no owners.
///
/// # Errors
/// 400; 500 for what the kind's schema does not have.
pub fn check(kind: &dyn KindOps, part: Part, config: &Config) -> Result<()> {
    let resource = kind.resource();
    let bad = |why: String| Err(Box::new(Status::bad_request(why)));
    let value = &config.value;
    let is = |name: &str, expected: &str| value.get(name).and_then(Value::as_str) == Some(expected);
    if !is("apiVersion", &resource.api_version()) || !is("kind", resource.kind) {
        return bad(format!("invalid object type: {}", kind_of(value)));
    }
    if value.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return bad("metadata.managedFields must be nil".to_owned());
    }
    kind.owners(part, &Versions::default())
        .check(config.today())
        .map_err(|why| status_of::untyped(&described(value), &why.to_string()))
}

/// What a configuration makes of an object (of nothing, when there is no `live`), with its owners.
///
/// # Errors
/// 409 that names all conflicts; 400 for a configuration that cannot be laid over the object; any where `versions` is
/// lacking something: it is then to be fetched, and this to be done again.
pub fn applied(
    kind: &dyn KindOps,
    part: Part,
    live: Option<&dyn AnyObject>,
    config: &Config,
    who: &Who<'_>,
    versions: &Versions,
) -> Result<crate::ops::BoxObject> {
    let owners = kind.owners(part, versions);
    let old = match live {
        Some(live) => bare(live)?,
        None => empty().clone(),
    };
    let entries = live.and_then(|live| live.meta().managed_fields.as_deref()).unwrap_or_default();
    let mut managed = Managed::decode(entries)
        .map_err(|why| Box::new(Status::internal(format!("failed to decode managed fields: {why}"))))?;
    if managed.is_empty() {
        managed = owners.update(empty(), &old, managed, &Who { name: BEFORE, ..*who });
    }
    let mut done = owners.apply(&old, config.today(), managed.clone(), who, config.force);
    if let Err(ApplyError::Conflicts(conflicts)) = &done
        && who.name == last_applied::KUBECTL
        && let Some(still) = last_applied::still_so(&*owners, kind, &old)
    {
        let left = conflicts.0.iter().filter(|conflict| !still.has(&conflict.path)).cloned().collect::<Vec<_>>();
        done = if left.is_empty() {
            owners.apply(&old, config.today(), managed, who, true)
        } else {
            Err(ApplyError::Conflicts(Conflicts(left)))
        };
    }
    if versions.is_lacking() {
        return Err(versions::lacking());
    }
    let Applied { object, managed } = done.map_err(|error| status_of::apply(&error, &described(&config.value)))?;
    let mut object = object.unwrap_or(old);
    if who.name == last_applied::KUBECTL {
        last_applied::sync(&mut object, &config.value);
    }
    decode(kind, object, managed, &config.value)
}

fn decode(kind: &dyn KindOps, mut object: Value, managed: Managed, config: &Value) -> Result<crate::ops::BoxObject> {
    let resource = kind.modern().map_or_else(|| kind.resource(), |modern| modern.resource());
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), resource.api_version().into());
        object.insert("kind".to_owned(), resource.kind.into());
    }
    let json = serde_json::to_vec(&object).map_err(|error| status_of::broken("an object cannot be encoded", &error))?;
    let decoded = kind.decode_merged(&json).map_err(|error| {
        let path = error.path.strip_prefix(resource.kind).unwrap_or(&error.path);
        let why = in_apply(&error.why).unwrap_or_else(|| error.why.clone());
        status_of::untyped(&described(config), &format!("{path}: {why}"))
    })?;
    let mut object = decoded.object;
    object.meta_mut().managed_fields = managed.encode();
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_named_by_the_request_then_the_program_then_the_component() {
        let user = |name: &str| User::new(name, &[]);
        let long = "x".repeat(200);
        for (given, agent, name, expected) in [
            ("me", "kubectl/v1", "u", "me"),
            ("", "kubectl/v1.36 (linux/amd64)", "u", "kubectl"),
            ("", "a\tb c\u{feff}d", "u", "ab cd"),
            ("", long.as_str(), "u", &long[..128]),
            ("", "", "system:node:n1", "kubelet"),
            ("", "", "system:kube-scheduler", "kube-scheduler"),
            ("", "", "alice", "unknown"),
        ] {
            assert_eq!(manager(given, agent, &user(name)), expected, "{given} {agent} {name}");
        }
    }
}
