//! A class of devices: a name that pods ask for, and the files in `/dev` it stands for.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where devices are.
pub(super) const ROOT: &str = "/dev";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClass {
    /// The extended resource, as in `home.example/zigbee`.
    pub name: String,
    /// Where its devices are.
    pub directory: PathBuf,
    /// Their names there: `*` stands for any characters, `?` for one.
    pub pattern: String,
}

impl DeviceClass {
    /// Whether a file of its directory is one.
    pub(super) fn matches(&self, name: &OsStr) -> bool {
        matches(self.pattern.as_bytes(), name.as_encoded_bytes())
    }
}

/// One way back at most: a star that has been passed need never take less than it did.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = place + 1;
                    seen = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

impl FromStr for DeviceClass {
    type Err = String;

    /// Reads `NAME=/dev/…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("a device looks like NAME=/dev/PATH")?;
        check_name(name)?;
        let path = Path::new(path);
        let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        let (directory, pattern) = match (path.parent(), path.file_name().and_then(OsStr::to_str)) {
            (Some(directory), Some(pattern)) if plain && directory.starts_with(ROOT) => (directory, pattern),
            _ => return Err(format!("{:?} must be a path below {ROOT}/, as in /dev/ttyUSB*", path.display())),
        };
        if directory.to_str().is_none_or(|directory| directory.contains(['*', '?'])) {
            return Err(format!("{:?} may have * and ? in its last part only", path.display()));
        }
        Ok(Self { name: name.to_owned(), directory: directory.to_owned(), pattern: pattern.to_owned() })
    }
}

/// Extended resources have a domain that is not Kubernetes' own, and their quota a name too (`IsExtendedResourceName`).
fn check_name(name: &str) -> Result<(), String> {
    let faults = coracle_proto::name::qualified_name(&format!("requests.{name}"));
    if let Some(fault) = coracle_proto::name::qualified_name(name).into_iter().chain(faults).next() {
        return Err(format!("{name:?}: {fault}"));
    }
    match name.split_once('/') {
        Some((domain, _))
            if domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !name.starts_with("requests.") =>
        {
            Ok(())
        }
        _ => Err(format!("{name:?} must have a domain of your own in front, as in home.example/zigbee")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_name_and_files_in_dev() {
        let read: DeviceClass = "home.example/zigbee=/dev/serial/by-id/usb-*".parse().unwrap();
        assert_eq!(
            (read.name.as_str(), read.directory.as_path(), read.pattern.as_str()),
            ("home.example/zigbee", Path::new("/dev/serial/by-id"), "usb-*")
        );
        assert!("home.example/zigbee=/dev/ttyUSB0".parse::<DeviceClass>().is_ok());
        for (wrong, word) in [
            ("home.example/zigbee", "looks like"),
            ("zigbee=/dev/ttyUSB0", "a domain of your own"),
            ("kubernetes.io/zigbee=/dev/ttyUSB0", "a domain of your own"),
            ("node.kubernetes.io/zigbee=/dev/ttyUSB0", "a domain of your own"),
            ("Home/=/dev/ttyUSB0", "prefix part"),
            ("home.example/zigbee=/etc/passwd", "below /dev/"),
            ("home.example/zigbee=/dev", "below /dev/"),
            ("home.example/zigbee=/dev/../etc/x", "below /dev/"),
            ("home.example/zigbee=ttyUSB0", "below /dev/"),
            ("home.example/zigbee=/dev/*/x", "last part only"),
        ] {
            let told = wrong.parse::<DeviceClass>().unwrap_err();
            assert!(told.contains(word), "{wrong}: {told}");
        }
    }

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, text, want) in [
            ("ttyUSB0", "ttyUSB0", true),
            ("ttyUSB0", "ttyUSB01", false),
            ("ttyUSB*", "ttyUSB12", true),
            ("ttyUSB?", "ttyUSB12", false),
            ("usb-*-if00", "usb-ITead_Zigbee-if00-if00", true),
            ("usb-*-if00*", "usb-x-if01", false),
            ("*", "", true),
            ("?", "", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
        // Nothing a name may be takes long.
        let stars = "*a".repeat(100);
        assert!(!matches(stars.as_bytes(), "a".repeat(99).as_bytes()));
    }
}
