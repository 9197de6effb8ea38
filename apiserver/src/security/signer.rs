//! The signers for certificates that this cluster's authority gives out on request (CertificateSigningRequests):
//!
//! ```text
//!   kubernetes.io/kube-apiserver-client           clients; approved by a person
//!   kubernetes.io/kube-apiserver-client-kubelet   nodes as clients; approved here for whom RBAC lets create
//!                                                 certificatesigningrequests/nodeclient (or /selfnodeclient)
//!   kubernetes.io/kubelet-serving                 nodes as servers; approved by a person
//! ```
//!
//! They live beside the authority's key rather than among the controllers, which have no way to it. What a request may
//! ask of each signer is Kubernetes' (`certificates/helpers.go` and the documentation of certificate signing requests);
//! one that asks for more gets the condition `Failed`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
};
use tokio_util::sync::CancellationToken;

use super::keeper::keep;
use crate::{
    authn::Clock,
    authz::{Attributes, Decision, MASTERS},
    kinds::certificate_signing_request::{is, is_issued},
    ops::{BoxObject, Part},
    pki::{Grant, Pki, Requested},
    registry::{Change, Current, Registry, Selection, Told, WatchOptions, Writer},
    status_of::Result,
    user::User,
};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const NODE_SERVER: &str = "kubernetes.io/kubelet-serving";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is of another signer, or nobody has decided yet, or all is done.
    Nothing,
    /// It gets this certificate.
    Sign(Grant),
    /// It asks for what its signer does not sign.
    Fail(String),
    /// A node asks for its own client certificate; whether it is approved hangs on the requester's right to create this
    /// subresource.
    MayApprove(&'static str),
}

fn allowed(usages: &[String], needed: &[&str], optional: &[&str]) -> bool {
    let has = |usage: &str| usages.iter().any(|given| given == usage);
    needed.iter().all(|usage| has(usage))
        && usages.iter().all(|given| needed.contains(&given.as_str()) || optional.contains(&given.as_str()))
}

fn wrong_usages(usages: &[String]) -> String {
    format!("invalid usages: [{}]", usages.join(" "))
}

/// What any certificate of a node must be.
fn check_node(requested: &Requested) -> std::result::Result<(), String> {
    if requested.organizations != [NODES] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if !requested.common_names.first().is_some_and(|name| name.starts_with(NODE_PREFIX)) {
        return Err("subject common name does not begin with system:node: ".to_owned());
    }
    Ok(())
}

fn check_node_client(requested: &Requested, usages: &[String]) -> std::result::Result<(), String> {
    check_node(requested)?;
    for (is_there, what) in [
        (!requested.dns_names.is_empty(), "DNS"),
        (requested.emails > 0, "Email"),
        (!requested.addresses.is_empty(), "IP"),
        (requested.uris > 0, "URI"),
        (requested.others > 0, "Other"),
    ] {
        if is_there {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    let fits = allowed(usages, &["digital signature", "client auth"], &["key encipherment"]);
    if fits { Ok(()) } else { Err(wrong_usages(usages)) }
}

fn check_node_server(requested: &Requested, usages: &[String]) -> std::result::Result<(), String> {
    check_node(requested)?;
    if requested.dns_names.is_empty() && requested.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    for (count, what) in [(requested.emails, "Email"), (requested.uris, "URI"), (requested.others, "Other")] {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    let fits = allowed(usages, &["digital signature", "server auth"], &["key encipherment"]);
    if fits { Ok(()) } else { Err(wrong_usages(usages)) }
}

fn check_client(requested: &Requested, usages: &[String]) -> std::result::Result<(), String> {
    if requested.common_names.is_empty() {
        return Err("subject common name is required".to_owned());
    }
    if requested.organizations.iter().any(|organization| organization == MASTERS) {
        return Err(format!("use of {CLIENT} signer with {MASTERS} group is not allowed"));
    }
    if requested.others > 0 {
        return Err("only DNS, Email, IP and URI subjectAltNames are allowed".to_owned());
    }
    let fits = allowed(usages, &["client auth"], &["digital signature", "key encipherment"]);
    if fits { Ok(()) } else { Err(wrong_usages(usages)) }
}

/// What the certificate holds, if the request's signer signs such ones.
fn grant(request: &CertificateSigningRequest) -> std::result::Result<Grant, String> {
    let spec = &request.spec;
    let requested = Requested::read(&spec.request.0)?;
    let usages = spec.usages.clone().unwrap_or_default();
    let check = match spec.signer_name.as_str() {
        CLIENT => check_client,
        NODE_CLIENT => check_node_client,
        _ => check_node_server,
    };
    check(&requested, &usages)?;
    if requested.organizations.len() > 1 || requested.common_names.len() > 1 {
        // The library that writes certificates keeps one value of a kind in a subject.
        return Err("certificates with more than one organization or common name are not given out".to_owned());
    }
    let asked = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let addresses = requested.addresses.iter().map(ToString::to_string);
    Ok(Grant {
        common_name: requested.common_names.first().cloned().unwrap_or_default(),
        alt_names: requested.dns_names.iter().cloned().chain(addresses).collect(),
        organizations: requested.organizations,
        usages,
        lifetime: asked,
    })
}

/// What is to be done about a request, from its state alone.
fn decide(request: &CertificateSigningRequest) -> Verdict {
    let signer = request.spec.signer_name.as_str();
    if ![CLIENT, NODE_CLIENT, NODE_SERVER].contains(&signer) || is_issued(request) {
        return Verdict::Nothing;
    }
    if is(request, "Denied") || is(request, "Failed") {
        return Verdict::Nothing;
    }
    if is(request, "Approved") {
        return grant(request).map_or_else(Verdict::Fail, Verdict::Sign);
    }
    match grant(request) {
        Ok(grant) if signer == NODE_CLIENT => {
            let is_self = request.spec.username.as_ref() == Some(&grant.common_name);
            Verdict::MayApprove(if is_self { "selfnodeclient" } else { "nodeclient" })
        }
        _ => Verdict::Nothing,
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    }
}

/// The signers.
pub(crate) struct Signer {
    pub(crate) pki: Arc<Pki>,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
}

impl Signer {
    /// Looks after the requests until `shutdown`.
    ///
    /// # Cancel safety
    /// Dropping the future stops it at once; what was begun is begun anew the next time.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        keep("signing requests", &shutdown, || self.follow()).await;
    }

    async fn follow(&self) -> Result<()> {
        let Some(kind) = self.registry.kind(GROUP, "v1", RESOURCE) else { return Ok(()) };
        let options = WatchOptions { after: None, sends_initial: true, marks_initial: false, bookmarks: false };
        let everything = Selection::everything(&kind);
        let mut watch = self.registry.watch("", &everything, &*kind, options).await?;
        loop {
            let Told::Object(what, entry, ..) = watch.next().await? else { continue };
            if what == crate::registry::Kind::Deleted {
                continue;
            }
            let object = self.registry.object_of(&*kind, &entry)?;
            let Some(request) = object.as_any().downcast_ref::<CertificateSigningRequest>() else { continue };
            if let Err(status) = self.handle(request).await {
                let request = request.metadata.name.as_deref().unwrap_or_default();
                // Whoever changed it in between caused another event.
                tracing::warn!(name = request, reason = %status.message, "a signing request was not handled");
            }
        }
    }

    async fn handle(&self, request: &CertificateSigningRequest) -> Result<()> {
        match decide(request) {
            Verdict::Nothing => Ok(()),
            Verdict::Fail(why) => self.fail(request, &why).await,
            Verdict::Sign(grant) => {
                let pem = String::from_utf8_lossy(&request.spec.request.0).into_owned();
                let signed = self.pki.authority().sign_granted(&pem, &grant, (self.clock)());
                match signed {
                    Ok(certificate) => {
                        let certificate = ByteString(certificate.into_bytes());
                        self.change(request, Part::Status, |request| {
                            request.status.get_or_insert_default().certificate = Some(certificate.clone());
                        })
                        .await
                    }
                    Err(error) => self.fail(request, &error.to_string()).await,
                }
            }
            Verdict::MayApprove(subresource) if self.lets(request, subresource) => {
                let message = "Auto approving kubelet client certificate after SubjectAccessReview.";
                self.change(request, Part::Approval, |request| {
                    let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
                    conditions.push(condition("Approved", "AutoApproved", message));
                })
                .await
            }
            Verdict::MayApprove(_) => Ok(()),
        }
    }

    async fn fail(&self, request: &CertificateSigningRequest, why: &str) -> Result<()> {
        self.change(request, Part::Status, |request| {
            let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.push(condition("Failed", "SignerValidationFailure", why));
        })
        .await
    }

    /// Whether the requester may create the subresource that stands for being approved without a person.
    fn lets(&self, request: &CertificateSigningRequest, subresource: &'static str) -> bool {
        let spec = request.spec.clone();
        let user = User {
            name: spec.username.unwrap_or_default(),
            uid: spec.uid.unwrap_or_default(),
            groups: spec.groups.unwrap_or_default(),
            extra: spec.extra.unwrap_or_default(),
        };
        let attributes =
            Attributes { group: GROUP, resource: RESOURCE, subresource, ..Attributes::new(&user, "create") };
        let authorizer = self.registry.authorizer();
        authorizer.is_some_and(|authorizer| authorizer.decide(&attributes) == Decision::Allow)
    }

    /// Changes the request as it is now, unless it needs no change any more.
    async fn change(
        &self,
        request: &CertificateSigningRequest,
        part: Part,
        change: impl Fn(&mut CertificateSigningRequest) + Send,
    ) -> Result<()> {
        let Some(kind) = self.registry.kind(GROUP, "v1", RESOURCE) else { return Ok(()) };
        let name = request.metadata.name.clone().unwrap_or_default();
        let writer = Writer::new(User::new("system:apiserver", &["system:masters"]));
        let seen = request.metadata.resource_version.clone();
        let changed = |current: &Current<'_>| {
            let mut object: BoxObject = current.object.copied();
            // Only the version that was decided upon is changed.
            object.meta_mut().resource_version.clone_from(&seen);
            if let Some(request) = object.as_any_mut().downcast_mut::<CertificateSigningRequest>() {
                change(request);
            }
            Ok(object)
        };
        let written = self.registry.update(&kind, ("", &name), Change::Of(part), &writer, changed).await;
        match written {
            // Another event tells of what it is now.
            Err(status) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn request(
        signer: &str,
        organization: &str,
        name: &str,
        alt_names: &[&str],
        usages: &[&str],
    ) -> CertificateSigningRequest {
        let alt_names: Vec<String> = alt_names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alt_names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut request = CertificateSigningRequest::default();
        request.spec.request = ByteString(pem.into_bytes());
        request.spec.signer_name = signer.to_owned();
        request.spec.usages = Some(usages.iter().map(|usage| (*usage).to_owned()).collect());
        request.spec.username = Some("system:bootstrap:abc".to_owned());
        request
    }

    fn approved(mut request: CertificateSigningRequest) -> Verdict {
        let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(condition("Approved", "", ""));
        decide(&request)
    }

    #[test]
    fn each_signer_signs_only_its_own() {
        let (signature, client, server) = ("digital signature", "client auth", "server auth");
        let (node, nodes) = ("system:node:n", NODES);
        for (signer, organization, name, alt_names, usages, why) in [
            (CLIENT, "devs", "jane", &[][..], &[client][..], None),
            (
                CLIENT,
                MASTERS,
                "jane",
                &[],
                &[client],
                Some("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"),
            ),
            (CLIENT, "devs", "jane", &[], &[client, server], Some("invalid usages: [client auth server auth]")),
            (NODE_CLIENT, nodes, node, &[], &[signature, client], None),
            (NODE_CLIENT, nodes, node, &["n"], &[signature, client], Some("DNS subjectAltNames are not allowed")),
            (
                NODE_CLIENT,
                "system:masters",
                node,
                &[],
                &[signature, client],
                Some("subject organization is not system:nodes"),
            ),
            (
                NODE_CLIENT,
                nodes,
                "n",
                &[],
                &[signature, client],
                Some("subject common name does not begin with system:node: "),
            ),
            (NODE_SERVER, nodes, node, &["n", "10.0.0.1"], &[signature, server], None),
            (NODE_SERVER, nodes, node, &[], &[signature, server], Some("DNS or IP subjectAltName is required")),
            (
                NODE_SERVER,
                nodes,
                node,
                &["n"],
                &[signature, client],
                Some("invalid usages: [digital signature client auth]"),
            ),
        ] {
            let verdict = approved(request(signer, organization, name, alt_names, usages));
            match why {
                Some(why) => assert_eq!(verdict, Verdict::Fail(why.to_owned())),
                None => assert!(matches!(&verdict, Verdict::Sign(g) if g.common_name == name), "{verdict:?}"),
            }
        }
        assert_eq!(approved(request("example.com/other", "o", "n", &[], &[client])), Verdict::Nothing);
    }

    #[test]
    fn only_a_nodes_client_certificate_may_be_approved_without_a_person() {
        let usages = &["digital signature", "client auth"];
        let node = request(NODE_CLIENT, NODES, "system:node:n", &[], usages);
        assert_eq!(decide(&node), Verdict::MayApprove("nodeclient"));
        let own = CertificateSigningRequest {
            spec: k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec {
                username: Some("system:node:n".to_owned()),
                ..node.spec
            },
            ..node
        };
        assert_eq!(decide(&own), Verdict::MayApprove("selfnodeclient"));
        assert_eq!(decide(&request(CLIENT, NODES, "system:node:n", &[], usages)), Verdict::Nothing);
    }
}
