//! From a request to the registry and back.

mod component_status;
mod delete;
mod eviction;
mod options;
mod patch;
mod resource_metrics;
mod subresources;
mod watch;

use std::{future::Future, sync::Arc};

use axum::body::Body;
use coracle_proto::{protobuf, resource::Scope, status::Status};
use http::{Request, Response, StatusCode, header};

use self::options::WriteOptions;
use crate::{
    accept::Accepted,
    admission::{Notes, connect},
    answer::{Include, Shape},
    body::{self, FieldValidation},
    documents,
    ops::{BoxObject, KindOps, Part},
    ownership,
    registry::{Change, Current, ListOptions, Registry, Selection, Share, Wanted, Writer},
    request::RequestInfo,
    server::Inner,
    status_of::{self, Result},
    user::User,
};

/// One request about objects of one kind.
#[derive(Clone)]
struct Call {
    server: Arc<Inner>,
    user: Arc<User>,
    info: Arc<RequestInfo>,
    kind: Arc<dyn KindOps>,
    /// The namespace the objects are in, empty at cluster scope.
    namespace: String,
    accepted: Accepted,
    include: Include,
    /// How much of objects it is told that watches.
    share: Share,
    /// What the client calls its program.
    agent: Arc<str>,
    /// Where everybody notes what the client is to hear beside the answer.
    notes: Arc<Notes>,
}

impl Call {
    fn registry(&self) -> &Registry {
        &self.server.registry
    }

    fn shape(&self) -> Shape<'_> {
        Shape { kind: &*self.kind, accepted: self.accepted, include: self.include, now: jiff::Timestamp::now() }
    }

    fn at(&self) -> (&str, &str) {
        (&self.namespace, &self.info.name)
    }

    /// The circumstances of a write as the request's query and its program's name have them.
    fn writer(&self, options: &WriteOptions) -> Writer {
        let manager = ownership::manager(&options.manager, &self.agent, &self.user).into();
        Writer { dry_run: options.dry_run, manager, ..self.plain_writer() }
    }

    /// The circumstances of a deletion, which makes nobody an owner.
    fn deleter(&self, dry_run: bool) -> Writer {
        Writer { dry_run, ..self.plain_writer() }
    }

    fn plain_writer(&self) -> Writer {
        Writer { notes: Arc::clone(&self.notes), ..Writer::new(Arc::clone(&self.user)) }
    }

    /// Whether the user may also create the object, as an apply to one that is not there does.
    fn may_create(&self) -> Result<()> {
        let Some(authorizer) = self.registry().authorizer() else {
            return Err(Box::new(Status::unavailable("access rules are not read yet")));
        };
        let info = RequestInfo { verb: "create".to_owned(), ..(*self.info).clone() };
        authorizer.check(&self.user, &info)
    }

    /// Runs a write to its end even if the client goes away. What it looks at is no older than anything acknowledged before
    /// by any server: who wrote something through another one finds it here.
    async fn to_its_end<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.registry().settle(Wanted::Newest).await?;
        match self.server.writes.spawn(write).await {
            Ok(result) => result,
            Err(error) => Err(status_of::broken("a write ended in a panic", &error)),
        }
    }

    async fn get(&self) -> Result<Response<Body>> {
        let (namespace, name) = self.at();
        let version = self.info.query.get("resourceVersion");
        let entry = self.registry().get(&*self.kind, namespace, name, version).await?;
        self.shape().one(StatusCode::OK, &entry)
    }

    async fn list(&self) -> Result<Response<Body>> {
        let options = ListOptions::of(&self.info)?;
        let selection = Selection::of(&self.kind, &self.info)?;
        self.registry().settle(options.settled()).await?;
        let listed = self.registry().list(&self.namespace, &selection, &*self.kind, &options).await?;
        self.shape().list(&listed)
    }

    async fn create(&self, request: Request<Body>) -> Result<Response<Body>> {
        let query = WriteOptions::of(&self.info.query, "CreateOptions")?;
        let object = self.read_object(request, query.validation).await?;
        let (call, writer) = (self.clone(), self.writer(&query));
        let written = self
            .to_its_end(async move { call.registry().create(&call.kind, &call.namespace, object, &writer).await })
            .await?;
        self.shape().one(StatusCode::CREATED, &written)
    }

    async fn read_object(&self, request: Request<Body>, validation: FieldValidation) -> Result<BoxObject> {
        let media = body::media_type(request.headers());
        let (object, dropped) = body::object(&*self.kind, &media, body::read(request).await?, validation)?;
        dropped.into_iter().for_each(|sentence| self.notes.warn(sentence));
        Ok(object)
    }

    async fn update(&self, part: Part, request: Request<Body>) -> Result<Response<Body>> {
        let query = WriteOptions::of(&self.info.query, "UpdateOptions")?;
        let object = self.read_object(request, query.validation).await?;
        // A part is checked by itself; the rest counts for nothing, but has to be readable. (Custom ones have no amounts.)
        if part != Part::Main
            && !self.kind.is_custom()
            && let Some(unreadable) = status_of::unreadable(self.kind.resource(), &self.kind.validate(&*object))
        {
            return Err(unreadable);
        }
        let (call, writer) = (self.clone(), self.writer(&query));
        let written = self
            .to_its_end(async move {
                let change = |_: &Current<'_>| Ok(object.copied());
                call.registry().update(&call.kind, call.at(), Change::Of(part), &writer, change).await
            })
            .await?;
        self.shape().one(StatusCode::OK, &written)
    }
}

impl Call {
    /// Answers the request by its verb.
    async fn answer(
        &self,
        resource: &coracle_proto::resource::Resource,
        request: Request<Body>,
    ) -> Result<Response<Body>> {
        if !self.info.subresource.is_empty() {
            return subresources::dispatch(self, request).await;
        }
        if !resource.serves(&self.info.verb) {
            return Err(Box::new(match self.info.verb.as_str() {
                "watch" if resource.serves("list") => {
                    Status::method_not_supported(resource.group, resource.plural, "watch")
                }
                _ => Status::method_not_allowed(),
            }));
        }
        if resource.group.is_empty() && resource.plural == "componentstatuses" {
            return component_status::answer(self);
        }
        if resource.group == "metrics.k8s.io" {
            return resource_metrics::answer(self).await;
        }
        match (self.info.verb.as_str(), self.info.names_object) {
            ("get", true) => self.get().await,
            ("list", false) => self.list().await,
            ("watch", false) => watch::begin(self).await,
            ("create", false) => self.create(request).await,
            ("update", true) => self.update(Part::Main, request).await,
            ("patch", true) => patch::patch(self, Part::Main, request).await,
            ("delete", true) => delete::one(self, request).await,
            ("deletecollection", false) => delete::collection(self, request).await,
            _ => Err(Box::new(Status::method_not_allowed())),
        }
    }
}

fn is_reachable(resource: &coracle_proto::resource::Resource, info: &RequestInfo) -> bool {
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    match resource.scope {
        Scope::Cluster => is_namespace || info.namespace.is_empty(),
        // Across all namespaces objects can only be listed and watched.
        Scope::Namespaced => !info.namespace.is_empty() || matches!(info.verb.as_str(), "list" | "watch"),
    }
}

/// Answers a request that was let in.
pub(crate) async fn dispatch(
    server: Arc<Inner>,
    user: Arc<User>,
    info: Arc<RequestInfo>,
    request: Request<Body>,
) -> Result<Response<Body>> {
    let notes = request.extensions().get::<Arc<Notes>>().cloned().unwrap_or_default();
    if let Some(remote) = server.aggregation.serves(&info) {
        return Ok(server.aggregation.answer(remote, &user, request).await);
    }
    if let Some(handler) = server.handlers.iter().find(|handler| handler.serves(&info)) {
        connect::admit(&server.registry, &user, &info, &notes).await?;
        return handler.handle(&user, &info, request).await;
    }
    if !info.is_resource {
        return documents::answer(&server, request.method(), &info, request.headers());
    }
    // Bindings are no objects of their own: to create one is to change a pod.
    let is_binding = (info.group.as_str(), info.version.as_str(), info.resource.as_str()) == ("", "v1", "bindings");
    let plural = if is_binding { "pods" } else { info.resource.as_str() };
    let Some(kind) = server.registry.kind(&info.group, &info.version, plural) else {
        return Err(Box::new(match coracle_proto::resource::find(&info.group, &info.version, &info.resource) {
            Some(resource) => Status::not_here_yet(&resource.group_resource()),
            None => Status::no_such_path(),
        }));
    };
    let resource = kind.resource();
    if !is_reachable(resource, &info) {
        return Err(Box::new(Status::no_such_path()));
    }
    let namespace = match resource.scope {
        Scope::Cluster => String::new(),
        Scope::Namespaced => info.namespace.clone(),
    };
    let has_protobuf = || protobuf::is_spoken(&resource.api_version(), resource.kind);
    let accepted = Accepted::of(request.headers(), has_protobuf)?;
    let include = Include::of(&info, accepted.form)?;
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent = agent.into();
    if let Some(sentence) = kind.deprecation() {
        notes.warn(sentence);
    }
    let share = request.extensions().get().copied().unwrap_or(Share::Whole);
    let call = Call { server, user, info, kind, namespace, accepted, include, share, agent, notes };
    if is_binding { subresources::bind_by_name(&call, request).await } else { call.answer(resource, request).await }
}
