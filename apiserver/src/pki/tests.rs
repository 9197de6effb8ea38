//! Certificates on a real disk and over real handshakes.

use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;

use super::*;

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.join("pki"),
        kubeconfigs: dir.join("conf"),
        domain: "cluster.local".to_owned(),
        service_ip: "10.43.0.1".parse().unwrap(),
        hostname: "boat".to_owned(),
        advertise: vec!["192.0.2.7".parse().unwrap()],
        extra_names: vec!["boat.example".to_owned()],
        server: "https://127.0.0.1:6443".to_owned(),
        lifetime: LEAF_LIFETIME,
    }
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

fn snapshot(config: &Config) -> Vec<(PathBuf, String)> {
    let mut all: Vec<(PathBuf, String)> = [&config.dir, &config.kubeconfigs]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = Pki::open(config.clone(), now()).unwrap();
    let files = snapshot(&config);
    assert_eq!(files.len(), 10, "{files:?}");
    for (path, _) in &files {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let second = Pki::open(config.clone(), now() + days(100)).unwrap();
    assert_eq!(files, snapshot(&config));
    assert_eq!(first.signing_key().id(), second.signing_key().id());
    assert_eq!(first.authority().fingerprint(), second.authority().fingerprint());
}

#[test]
fn everything_is_replaced_at_two_thirds_of_its_life_and_the_authority_stays() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let pki = Pki::open(config.clone(), now()).unwrap();
    let before = snapshot(&config);
    let shown = pki.serving.clone();
    let next = pki.renew(now() + days(1)).unwrap();
    assert_eq!(before, snapshot(&config), "nothing is due on the second day");
    assert!(next > now() + days(240) && next < now() + days(245), "{next}");
    let next = pki.renew(next).unwrap();
    let after = snapshot(&config);
    for ((path, old), (_, new)) in before.iter().zip(&after) {
        let root = ["ca.crt", "ca.key", "sa.key", "front-proxy-ca.pem"].iter().any(|n| path.ends_with(n));
        assert_eq!(old == new, root, "{}", path.display());
    }
    let current = Identity::parse(&std::fs::read_to_string(config.dir.join("apiserver.pem")).unwrap()).unwrap();
    assert_eq!(shown.certificate(), *current.certificate(), "the running configuration shows the new certificate");
    assert!(next > now() + days(480));
}

#[test]
fn a_leaf_that_is_damaged_or_about_other_names_is_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    Pki::open(config.clone(), now()).unwrap();
    let admin = std::fs::read_to_string(config.kubeconfigs.join("admin.kubeconfig")).unwrap();
    std::fs::write(config.dir.join("node-client.pem"), "").unwrap();
    config.extra_names.push("other.example".to_owned());
    Pki::open(config.clone(), now()).unwrap();
    let serving = Identity::parse(&std::fs::read_to_string(config.dir.join("apiserver.pem")).unwrap()).unwrap();
    assert!(serving.fits(&Kept::Serving.profile(&config)));
    assert!(Identity::parse(&std::fs::read_to_string(config.dir.join("node-client.pem")).unwrap()).is_ok());
    assert_eq!(admin, std::fs::read_to_string(config.kubeconfigs.join("admin.kubeconfig")).unwrap());
    config.server = "https://127.0.0.1:7443".to_owned();
    Pki::open(config.clone(), now()).unwrap();
    let moved = std::fs::read_to_string(config.kubeconfigs.join("admin.kubeconfig")).unwrap();
    assert!(moved.contains("https://127.0.0.1:7443") && moved != admin);
}

#[test]
fn a_damaged_authority_stops_the_start_and_stays_as_it_is() {
    for (file, text) in [("ca.crt", "nonsense"), ("ca.key", ""), ("sa.key", "nonsense")] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        Pki::open(config.clone(), now()).unwrap();
        std::fs::write(config.dir.join(file), text).unwrap();
        let error = Pki::open(config.clone(), now()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{file}: {error:?}");
        assert_eq!(std::fs::read_to_string(config.dir.join(file)).unwrap(), text);
    }
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    Pki::open(config.clone(), now()).unwrap();
    std::fs::remove_file(config.dir.join("ca.key")).unwrap();
    assert!(matches!(Pki::open(config, now()), Err(Error::File { .. })));
}

#[test]
fn only_this_clusters_valid_client_certificates_pass() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::open(config(one.path()), now()).unwrap();
    let stranger = Pki::open(config(other.path()), now()).unwrap();
    let check = |identity: &Identity, at: Timestamp| pki.client_verifier().verify(identity.chain(), at).is_ok();
    let alice = pki.issue(&Profile::client("alice", Some("crew")), now()).unwrap();
    assert!(check(&alice, now()));
    assert!(check(&alice, now() + days(364)));
    assert!(!check(&alice, now() + days(366)), "expired");
    assert!(!check(&alice, now() - days(1)), "not yet valid");
    let server = pki.issue(&Profile::node_server("n1", &["192.0.2.1".to_owned()]), now()).unwrap();
    assert!(!check(&server, now()), "a server's certificate is not a client's");
    let forged = stranger.issue(&Profile::client("alice", Some("system:masters")), now()).unwrap();
    assert!(!check(&forged, now()), "another authority of the same name");
    assert!(pki.client_verifier().verify(&[], now()).is_err());
}

#[test]
fn a_clock_that_is_wrong_at_first_or_by_an_hour_makes_nothing_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let behind: Timestamp = "1970-01-01T00:02:00Z".parse().unwrap();
    let pki = Pki::open(config(dir.path()), behind).unwrap();
    let check = |identity: &Identity, at: Timestamp| pki.client_verifier().verify(identity.chain(), at).is_ok();
    let profile = Profile::client("alice", Some("crew"));
    let early = pki.issue(&profile, behind).unwrap();
    assert!(check(&early, behind) && check(&early, now()), "before the clock was set, and after");
    assert!(early.renew_at() < now(), "and then it is due");
    let due = pki.renew(now()).unwrap();
    assert!(due > now() + days(200), "all is made anew when the clock is set");
    let hour = SignedDuration::from_hours(1);
    let later = pki.issue(&profile, now()).unwrap();
    for at in [now() - hour, now() + hour, now() + days(364)] {
        assert!(check(&later, at), "{at}: the authority lives longer");
    }
}

#[test]
fn a_request_is_signed_for_the_profile_and_not_for_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(config(dir.path()), now()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["kubernetes.default".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes-admin");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(authority::requested_names(&request).unwrap(), ["kubernetes.default"]);
    let (_, pem) = pki.authority().sign_request(&request, &Profile::node_client("n1"), now()).unwrap();
    let identity = Identity::parse(&(pem + &key.serialize_pem())).unwrap();
    assert!(identity.fits(&Profile::node_client("n1")));
    let mut forged = request.into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert!(pki.authority().sign_request(&forged, &Profile::node_client("n1"), now()).is_err());
}

#[test]
fn certificates_live_as_long_as_asked_and_are_replaced_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { lifetime: Duration::from_secs(30), ..config(dir.path()) };
    let pki = Pki::open(config.clone(), now()).unwrap();
    let renewals = pki.admin_renewals();
    let due = pki.renew(now()).unwrap();
    let wait = due.duration_since(now()).as_secs();
    assert!((15..=22).contains(&wait), "{wait}");
    assert!(!renewals.has_changed().unwrap());
    let next = pki.renew(due).unwrap();
    assert!(renewals.has_changed().unwrap(), "who has a copy of the admin's credential is told");
    assert!(next > due);
    // A longer life asked for at a later start is for what is made from then on.
    let again = Pki::open(Config { lifetime: LEAF_LIFETIME, ..config }, due).unwrap();
    assert_eq!(again.renew(due).unwrap(), next);
}

#[tokio::test]
async fn what_is_issued_to_the_own_process_is_renewed_too() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(Pki::open(config(dir.path()), now()).unwrap());
    let profile = Profile::node_server("n1", &[]);
    let first = pki.issue(&profile, now()).unwrap();
    let shutdown = CancellationToken::new();
    let (later, mut taken) = (now() + days(250), Vec::new());
    let take = |identity: &Identity| {
        taken.push((identity.fits(&profile), identity.not_after()));
        shutdown.cancel();
    };
    keep_issued(pki.clone(), profile.clone(), first.renew_at(), || later, take, shutdown.clone()).await;
    assert_eq!(taken.len(), 1);
    assert!(taken[0].0 && taken[0].1 > first.not_after());
    let early = CancellationToken::new();
    early.cancel();
    let never = |_: &Identity| panic!("it is not due");
    keep_issued(pki, profile, first.renew_at(), now, never, early).await;
}

#[tokio::test]
async fn the_keeper_replaces_what_is_due_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let pki = Arc::new(Pki::open(config.clone(), now()).unwrap());
    let before = snapshot(&config);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let clock = move || {
        stop.cancel();
        now() + days(250)
    };
    pki.run(clock, shutdown).await;
    for ((path, old), (_, new)) in before.iter().zip(snapshot(&config)) {
        let root = ["ca.crt", "ca.key", "sa.key", "front-proxy-ca.pem"].iter().any(|n| path.ends_with(n));
        assert_eq!(*old == new, root, "{}", path.display());
    }
}
