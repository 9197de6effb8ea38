//! Right, wrong and hostile tokens of an issuer whose keys are known, and configurations with faults.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::{
    config::{Anonymous, Args, Config},
    *,
};

const NOW: i64 = 1_800_000_000;

struct Signer {
    key: rcgen::KeyPair,
    kid: &'static str,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        Self { key: rcgen::KeyPair::generate().unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key_raw();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

const FILE: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example.com
    audiences: [ours, also-ours]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - claim: hd
    requiredValue: example.com
  - expression: 'claims.exp - claims.iat <= 86400'
    message: too long
  claimMappings:
    username:
      expression: '\"x:\" + claims.sub'
    groups:
      claim: roles
      prefix: 'x:'
    uid:
      claim: sub
    extra:
    - key: example.com/tenant
      valueExpression: claims.tenant
  userValidationRules:
  - expression: \"!user.username.startsWith('x:system:')\"
    message: no system users
";

fn issuers(text: &str, keys: &[Value]) -> Result<Issuers, String> {
    let issuers = Issuers::none().instead(Config::read(text)?.issuers, &["https://own.example.com".to_owned()])?;
    for authority in &issuers.authorities {
        authority.verifier.keys.put(serde_json::from_value(json!({"keys": keys})).unwrap());
    }
    Ok(issuers)
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example.com", "aud": ["ours"], "sub": "jane", "exp": NOW + 600, "iat": NOW - 60,
        "nbf": NOW - 60, "hd": "example.com", "roles": ["a", "b"], "tenant": ["t1"], "jti": "77",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    claims
}

async fn shown(issuers: &Issuers, token: &str) -> Result<Option<User>, String> {
    issuers.authenticate(token, Timestamp::from_second(NOW).unwrap()).await
}

#[tokio::test]
async fn a_tokens_claims_become_a_user() {
    let signer = Signer::new("k1");
    // A key of a kind nobody knows is no reason to refuse the others.
    let issuers = issuers(FILE, &[json!({"kty": "new", "kid": "k0"}), signer.jwk()]).unwrap();
    let user = shown(&issuers, &signer.sign(&claims())).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("x:jane", "jane"));
    assert_eq!(user.groups, ["x:a", "x:b", "system:authenticated"]);
    assert_eq!(user.extra["example.com/tenant"], ["t1"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=77"]);
    let one_group = shown(&issuers, &signer.sign(&with("roles", json!("only")))).await.unwrap().unwrap();
    assert_eq!(one_group.groups, ["x:only", "system:authenticated"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_found() {
    let signer = Signer::new("k1");
    let issuers = issuers(FILE, &[signer.jwk()]).unwrap();
    for (claims, words) in [
        (with("aud", json!(["theirs"])), "expected audience in"),
        (with("aud", json!("theirs")), "expected audience in"),
        (with("aud", Value::Null), "expected audience in"),
        (with("exp", json!(NOW)), "token is expired"),
        (with("exp", json!(NOW - 1)), "token is expired"),
        (with("exp", Value::Null), "token is expired"),
        (with("exp", json!("never")), "failed to unmarshal claims"),
        (with("nbf", json!(NOW + 301)), "before the nbf"),
        (with("hd", Value::Null), "required claim hd not present"),
        (with("hd", json!("evil.com")), "required claim hd value does not match"),
        (with("hd", json!(7)), "parse claim hd"),
        (with("iat", json!(NOW - 900_000)), "failed: too long"),
        (with("sub", Value::Null), "error evaluating username claim expression"),
        (with("sub", json!(7)), "error evaluating username claim expression"),
        (with("sub", json!("system:admin")), "no system users"),
        (with("roles", json!({"a": 1})), "parse groups claim \"roles\""),
        (with("tenant", json!(3)), "error evaluating extra claim expression"),
    ] {
        let why = shown(&issuers, &signer.sign(&claims)).await.unwrap_err();
        assert!(why.starts_with("oidc: ") && why.contains(words), "{claims}\n{why}");
    }
    assert!(shown(&issuers, &signer.sign(&with("nbf", json!(NOW + 299)))).await.is_ok(), "clocks differ");
    assert_eq!(shown(&issuers, &signer.sign(&with("iss", json!("https://other.example.com")))).await, Ok(None));
}

#[tokio::test]
async fn hostile_tokens_are_refused() {
    let (signer, other) = (Signer::new("k1"), Signer::new("k1"));
    let issuers = issuers(FILE, &[signer.jwk()]).unwrap();
    let good = signer.sign(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", encoded(&json!({"alg": "none"})), parts[1]);
    // The public key as the secret of a symmetric signature: the classic confusion.
    let confused = |secret: &[u8]| {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let changed = format!("{}.{}.{}", parts[0], encoded(&with("sub", json!("root"))), parts[2]);
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    for (token, what) in [
        (none.clone(), "no signature wanted"),
        (none.replace("none", "None"), "nor in other letters"),
        (confused(signer.key.public_key_pem().as_bytes()), "a secret that everybody knows"),
        (confused(signer.key.public_key_raw()), "nor in other bytes"),
        (other.sign(&claims()), "another key with the same name"),
        (changed, "other claims under a good signature"),
        (unsigned, "the signature left out"),
    ] {
        let refused = shown(&issuers, &token).await;
        assert!(matches!(refused, Err(_) | Ok(None)), "{what}: {refused:?}");
    }
    for nonsense in ["", ".", "..", "a.b.c", "a.b", &"a.".repeat(40_000), &format!("{good}.x"), &format!("{good}\n")] {
        let refused = shown(&issuers, nonsense).await;
        assert!(matches!(refused, Err(_) | Ok(None)), "{refused:?}");
    }
    let huge = signer.sign(&with("pad", json!("x".repeat(100_000))));
    assert_eq!(shown(&issuers, &huge).await, Ok(None), "not even looked at");
}

#[test]
fn a_configuration_says_all_that_is_wrong_with_it() {
    for (from, to, words) in [
        (
            "https://issuer.example.com",
            "http://issuer.example.com",
            "jwt[0].issuer.url: Invalid value: \"http://issuer.example.com\": URL scheme must be https",
        ),
        ("https://issuer.example.com", "https://a:b@issuer.example.com", "must not contain a username"),
        ("https://issuer.example.com", "https://issuer.example.com?x", "must not contain a query"),
        ("https://issuer.example.com", "https://own.example.com", "must not overlap with disallowed issuers"),
        ("[ours, also-ours]", "[]", "jwt[0].issuer.audiences: Required value"),
        ("[ours, also-ours]", "[ours, ours]", "jwt[0].issuer.audiences[1]: Duplicate value"),
        ("audienceMatchPolicy: MatchAny", "audienceMatchPolicy: ''", "must be MatchAny for multiple audiences"),
        ("prefix: 'x:'", "", "claimMappings.groups.prefix: Required value"),
        ("claim: roles", "claim: roles\n      expression: claims.x", "claim and expression can't both be set"),
        ("'\"x:\" + claims.sub'", "'claims.sub +'", "claimMappings.username.expression: Invalid value"),
        ("'\"x:\" + claims.sub'", "'claims.email'", "claims.email_verified must be used"),
        ("claims.exp - claims.iat <= 86400", "claims.exp", "must evaluate to bool"),
        ("example.com/tenant", "tenant", "must be a domain-prefixed path"),
        ("example.com/tenant", "a.k8s.io/tenant", "are reserved for Kubernetes use"),
        ("example.com/tenant", "example.com/Tenant", "must be lowercase"),
        ("valueExpression: claims.tenant", "", "valueExpression: Required value"),
        (
            "!user.username.startsWith('x:system:')",
            "user.nose == ''",
            "userValidationRules[0].expression: Invalid value",
        ),
        ("requiredValue: example.com", "message: no", "may not be specified when claim is set"),
        ("kind: AuthenticationConfiguration", "kind: Other", "kind AuthenticationConfiguration"),
        ("audiences:", "audience:", "unknown field `audience`"),
    ] {
        let text = FILE.replace(from, to);
        assert_ne!(text, FILE, "{from}");
        let why = issuers(&text, &[]).unwrap_err();
        assert!(why.contains(words), "{from} -> {to}\n{why}");
    }
    let verified = FILE.replace("'\"x:\" + claims.sub'", "'claims.email_verified ? claims.email : \"\"'");
    assert!(issuers(&verified, &[]).is_ok());
    let twice = FILE.replace("jwt:\n", &format!("jwt:\n{}", FILE.split("jwt:\n").nth(1).unwrap()));
    assert!(issuers(&twice, &[]).unwrap_err().contains("jwt[1].issuer.url: Duplicate value"));
}

#[test]
fn anonymous_users_are_dealt_with_as_the_file_says() {
    let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
    let of = |text: &str| Config::read(&format!("{head}{text}")).map(|config| config.anonymous);
    for (text, expected) in [
        ("", Ok(Anonymous::Open)),
        ("anonymous: {enabled: true}", Ok(Anonymous::Everywhere)),
        ("anonymous: {enabled: false}", Ok(Anonymous::Nowhere)),
        ("anonymous: {enabled: true, conditions: [{path: /livez}]}", Ok(Anonymous::At(vec!["/livez".to_owned()]))),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
    assert!(of("anonymous: {conditions: [{path: /livez}]}").unwrap_err().contains("should be set to true"));
}

#[test]
fn flags_mean_one_issuer() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let read = |line: &str| {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let parsed = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.args.config().map_err(|error| error.to_string())
    };
    let base = "--oidc-issuer-url https://i.example.com --oidc-client-id me";
    let config =
        read(&format!("{base} --oidc-groups-claim g --oidc-groups-prefix p: --oidc-required-claim a=b")).unwrap();
    let [issuer] = config.issuers.as_slice() else { panic!("{config:?}") };
    assert_eq!(issuer.audiences, ["me"]);
    assert_eq!(issuer.algorithms, [Algorithm::RS256]);
    assert_eq!(issuer.claim_mappings.username.prefix.as_deref(), Some("https://i.example.com#"));
    assert_eq!(issuer.claim_mappings.groups.prefix.as_deref(), Some("p:"));
    assert_eq!(issuer.claim_validation_rules[0].required_value, "b");
    let email = read(&format!("{base} --oidc-username-claim email")).unwrap();
    assert_eq!(email.issuers[0].claim_mappings.username.prefix.as_deref(), Some(""));
    let bare = read(&format!("{base} --oidc-username-prefix -")).unwrap();
    assert_eq!(bare.issuers[0].claim_mappings.username.prefix.as_deref(), Some(""));
    for (line, words) in [
        ("--oidc-issuer-url https://i.example.com".to_owned(), "--oidc-client-id"),
        (format!("{base} --oidc-signing-algs HS256"), "oidc-signing-algs"),
        (format!("{base} --oidc-required-claim a"), "CLAIM=VALUE"),
        (format!("{base} --authentication-config f"), "cannot be used with"),
    ] {
        let why = read(&line).unwrap_err();
        assert!(why.contains(words), "{line}\n{why}");
    }
    assert!(read("").unwrap().issuers.is_empty());
}
