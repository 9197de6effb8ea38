//! What is sealed with what, ready for use: a configuration whose keys are unpacked and whose kinds are found by a look
//! at the object's key.
//!
//! What is kept of a sealed value is what Kubernetes keeps: `k8s:enc:aesgcm:v1:<name of the key>:`, twelve random bytes,
//! and the value in AES-GCM with a tag of sixteen bytes, bound to the object's own key in the store, so that nobody who
//! can write to the disk passes one Secret off as another.

use std::collections::HashMap;

use bytes::Bytes;
use coracle_proto::resource;
use ring::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};

use super::config::{EncryptionConfiguration, Key, Rule, group_resource};

/// What everything sealed begins with, whatever it was sealed by.
pub(crate) const SEALED: &[u8] = b"k8s:enc:";

const AESGCM: &[u8] = b"k8s:enc:aesgcm:v1:";
const TAG: usize = 16;

/// A key that can be used.
#[derive(Debug)]
struct Usable {
    name: String,
    key: LessSafeKey,
}

/// One entry of the configuration.
#[derive(Debug)]
struct Ready {
    /// Whether values are sealed that are written; otherwise `identity` stands first.
    seals: bool,
    keys: Vec<Usable>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rules {
    entries: Vec<Ready>,
    /// The patterns, in the order they count.
    patterns: Vec<(String, usize)>,
    /// Which entry the built-in kinds are under, by the names they are stored by.
    built_in: HashMap<&'static str, Option<usize>>,
    random: SystemRandom,
}

impl Rules {
    /// The rules a configuration means.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub(crate) fn new(config: &EncryptionConfiguration) -> Result<Self, String> {
        let entries = config.resources.iter().map(Ready::new).collect::<Result<_, _>>()?;
        let patterns = config.resources.iter().enumerate();
        let patterns: Vec<(String, usize)> =
            patterns.flat_map(|(at, rule)| rule.resources.iter().map(move |name| (name.clone(), at))).collect();
        let mut built_in = HashMap::new();
        for row in resource::RESOURCES {
            let found = find(&patterns, row.plural, row.group);
            let slot = built_in.entry(row.storage).or_insert(found);
            // Objects that two groups show are kept under the group that had them first.
            *slot = slot.or(found);
        }
        Ok(Self { entries, patterns, built_in, random: SystemRandom::new() })
    }

    /// The entry that a stored object's key is under.
    fn entry(&self, key: &[u8]) -> Option<&Ready> {
        let name = key.strip_prefix(b"/registry/")?;
        let mut parts = name.split(|byte| *byte == b'/').map(std::str::from_utf8);
        let first = parts.next()?.ok()?;
        let at = match self.built_in.get(first) {
            Some(at) => *at,
            // Objects of kinds that definitions make: `/registry/<group>/<plural>/…`
            None => find(&self.patterns, parts.next()?.ok()?, first),
        };
        self.entries.get(at?)
    }

    /// What is kept of a value; none if it is kept as it is.
    pub(super) fn seal(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, String> {
        let Some(with) = self.entry(key).filter(|entry| entry.seals).and_then(|entry| entry.keys.first()) else {
            return Ok(None);
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| "the system has no random numbers".to_owned())?;
        let head = AESGCM.len() + with.name.len() + 1;
        let mut out = Vec::with_capacity(head + NONCE_LEN + value.len() + TAG);
        out.extend_from_slice(AESGCM);
        out.extend_from_slice(with.name.as_bytes());
        out.push(b':');
        out.extend_from_slice(&nonce);
        out.extend_from_slice(value);
        let body = out.get_mut(head + NONCE_LEN..).unwrap_or_default();
        let sealed = with.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), body);
        let tag = sealed.map_err(|_| "the cipher refuses it".to_owned())?;
        out.extend_from_slice(tag.as_ref());
        Ok(Some(out.into()))
    }

    /// The value of which `kept` is kept.
    pub(super) fn open(&self, key: &[u8], kept: &[u8]) -> Result<Bytes, String> {
        let (name, sealed) = parts(kept).ok_or_else(|| "no matching prefix found".to_owned())?;
        let shown = String::from_utf8_lossy(name);
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or("the stored data is cut short")?;
        // First with the keys of the kind's own entry; a kind that another entry names today is read on, too.
        let own = self.entry(key).into_iter().flat_map(|entry| &entry.keys);
        let all = self.entries.iter().flat_map(|entry| &entry.keys);
        let mut known = false;
        for with in own.chain(all).filter(|with| with.name.as_bytes() == name) {
            known = true;
            let mut buffer = body.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            if let Ok(opened) = with.key.open_in_place(nonce, Aad::from(key), &mut buffer) {
                let len = opened.len();
                buffer.truncate(len);
                return Ok(buffer.into());
            }
        }
        Err(if known {
            format!("the key {shown:?} does not open it: cipher: message authentication failed")
        } else {
            format!("it is sealed with the key {shown:?}, which is not there")
        })
    }

    /// Whether what is kept would be kept otherwise if it were written now.
    pub(super) fn is_stale(&self, key: &[u8], kept: &[u8]) -> bool {
        let entry = self.entry(key);
        let wanted = entry.filter(|entry| entry.seals).and_then(|entry| entry.keys.first());
        match (wanted, kept.starts_with(SEALED)) {
            (Some(wanted), true) => parts(kept).is_none_or(|(name, _)| name != wanted.name.as_bytes()),
            (Some(_), false) | (None, true) => true,
            (None, false) => false,
        }
    }
}

/// The name of the key something is sealed with, and what follows it.
fn parts(kept: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = kept.strip_prefix(AESGCM)?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    Some((rest.get(..end)?, rest.get(end + 1..)?))
}

/// The name of the key something is sealed with.
pub(super) fn key_name(kept: &[u8]) -> Option<String> {
    parts(kept).map(|(name, _)| String::from_utf8_lossy(name).into_owned())
}

fn find(patterns: &[(String, usize)], plural: &str, group: &str) -> Option<usize> {
    let takes = |name: &str| {
        let (resource, of) = group_resource(name);
        (resource == plural && of == group) || (resource == "*" && (of == group || of == "*"))
    };
    patterns.iter().find(|(name, _)| takes(name)).map(|(_, at)| *at)
}

impl Ready {
    fn new(rule: &Rule) -> Result<Self, String> {
        let seals = rule.providers.first().is_some_and(|provider| provider.aesgcm.is_some());
        let keys = rule.providers.iter().filter_map(|provider| provider.aesgcm.as_ref()).flat_map(|keys| &keys.keys);
        Ok(Self { seals, keys: keys.map(Usable::new).collect::<Result<_, _>>()? })
    }
}

impl Usable {
    fn new(key: &Key) -> Result<Self, String> {
        let wrong = || format!("the key {:?} cannot be used", key.name);
        let bytes = key.bytes().ok_or_else(wrong)?;
        let algorithm = if bytes.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key_of = UnboundKey::new(algorithm, &bytes).map_err(|_| wrong())?;
        Ok(Self { name: key.name.clone(), key: LessSafeKey::new(key_of) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        Rules::new(&EncryptionConfiguration::read(&format!("{head}{text}")).unwrap()).unwrap()
    }

    fn of(name: &str) -> Key {
        Key::new(name.to_owned(), &[7; 32])
    }

    #[test]
    fn what_is_sealed_opens_under_its_own_key_alone() {
        let rules = Rules::new(&EncryptionConfiguration::of_secrets(of("a"))).unwrap();
        let kept = rules.seal(b"/registry/secrets/ns/x", b"hush").unwrap().unwrap();
        assert!(kept.starts_with(b"k8s:enc:aesgcm:v1:a:") && !kept.windows(4).any(|part| part == b"hush"));
        assert_eq!(kept.len(), 20 + 12 + 4 + 16);
        assert_eq!(rules.open(b"/registry/secrets/ns/x", &kept).unwrap(), "hush");
        let again = rules.seal(b"/registry/secrets/ns/x", b"hush").unwrap().unwrap();
        assert_ne!(again, kept, "no nonce is used twice");
        let refused = rules.open(b"/registry/secrets/ns/y", &kept).unwrap_err();
        assert!(refused.contains("message authentication failed"), "{refused}");
        for at in 20..kept.len() {
            let mut altered = kept.to_vec();
            altered[at] ^= 1;
            assert!(rules.open(b"/registry/secrets/ns/x", &altered).is_err(), "byte {at}");
        }
        for cut in 0..kept.len() {
            assert!(rules.open(b"/registry/secrets/ns/x", &kept[..cut]).is_err(), "cut at {cut}");
        }
        let other = Rules::new(&EncryptionConfiguration::of_secrets(of("b"))).unwrap();
        let refused = other.open(b"/registry/secrets/ns/x", &kept).unwrap_err();
        assert_eq!(refused, "it is sealed with the key \"a\", which is not there");
        assert_eq!(rules.seal(b"/registry/configmaps/ns/x", b"{}").unwrap(), None);
        assert_eq!(rules.seal(b"/coracle/nodes/x", b"{}").unwrap(), None);
        assert_eq!(
            rules.open(b"/registry/secrets/ns/x", b"k8s:enc:aescbc:v1:a:xx").unwrap_err(),
            "no matching prefix found"
        );
    }

    #[test]
    fn a_kind_is_found_by_its_resource_and_group_and_the_first_entry_counts() {
        let keys = "aesgcm: {keys: [{name: k, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}";
        let rules = rules(&format!(
            "- {{resources: [configmaps], providers: [{{identity: {{}}}}]}}\n\
             - {{resources: [secrets, deployments.apps, '*.example.com'], providers: [{{{keys}}}]}}\n\
             - {{resources: ['*.'], providers: [{{{keys}}}, {{identity: {{}}}}]}}\n"
        ));
        let is_sealed = |key: &str| rules.seal(key.as_bytes(), b"x").unwrap().is_some();
        for (key, sealed) in [
            ("/registry/configmaps/ns/x", false),
            ("/registry/secrets/ns/x", true),
            ("/registry/deployments/ns/x", true),
            ("/registry/statefulsets/ns/x", false),
            ("/registry/pods/ns/x", true),
            ("/registry/example.com/foos/ns/x", true),
            ("/registry/example.org/foos/ns/x", false),
            ("/registry/", false),
            ("/registry/\u{fffd}/x", false),
        ] {
            assert_eq!(is_sealed(key), sealed, "{key}");
        }
        assert!(rules.is_stale(b"/registry/secrets/ns/x", b"{}"));
        assert!(rules.is_stale(b"/registry/secrets/ns/x", b"k8s:enc:aesgcm:v1:old:xxx"));
        assert!(!rules.is_stale(b"/registry/secrets/ns/x", b"k8s:enc:aesgcm:v1:k:xxx"));
        assert!(rules.is_stale(b"/registry/configmaps/ns/x", b"k8s:enc:aesgcm:v1:k:xxx"));
        assert!(!rules.is_stale(b"/registry/configmaps/ns/x", b"{}"));
    }
}
