//! Files as vendors write them, and what containers get of them.

use coracle_runtime::{Device, MountKind, Propagation};
use serde_json::{Value, json};

use super::*;

/// Two directories, the later one before the earlier one.
struct Host {
    folder: tempfile::TempDir,
    directories: Vec<PathBuf>,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directories = ["etc", "run"].map(|name| folder.path().join(name)).to_vec();
        directories.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        Self { folder, directories }
    }

    fn write(&self, name: &str, text: impl ToString) {
        std::fs::write(self.folder.path().join(name), text.to_string()).unwrap();
    }

    fn find(&self, names: &[&str]) -> std::result::Result<Given, (Code, String)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        find(&names, &self.directories).map_err(|Refusal(code, why)| (code, why))
    }
}

fn spec(devices: Value, edits: Value) -> Value {
    json!({"cdiVersion": "0.6.0", "kind": "vendor.example/net", "devices": devices, "containerEdits": edits})
}

fn env(lines: &[&str]) -> Value {
    json!({"env": lines})
}

fn variables(given: &Given) -> Vec<String> {
    given.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn a_device_gives_what_its_file_says_of_it_and_once_what_is_of_all() {
    let host = Host::new();
    let source = host.folder.path().join("lib");
    std::fs::create_dir(&source).unwrap();
    let first = json!({
        "env": ["NET=0=eth", "EMPTY="],
        "deviceNodes": [
            {"path": "/dev/vendor0", "hostPath": "/dev/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o660,
                "permissions": "rw", "uid": 7, "gid": 8},
            {"path": "/dev/zero", "permissions": "none"},
        ],
        "mounts": [
            {"hostPath": source, "containerPath": "/usr/lib/vendor", "options": ["ro", "nosuid", "nodev", "rbind", "rslave"]},
            {"hostPath": "tmpfs", "containerPath": "/run/vendor", "type": "tmpfs"},
        ],
        "additionalGids": [44, 0],
    });
    let devices = json!([{"name": "0", "annotations": {"a": "b"}, "containerEdits": first},
        {"name": "1", "containerEdits": env(&["NET=1"])}]);
    host.write("etc/vendor.json", spec(devices, env(&["ALL=yes"])));
    let given = host.find(&["vendor.example/net=0", "vendor.example/net=1"]).unwrap();
    assert_eq!(variables(&given), ["ALL=yes", "NET=0=eth", "EMPTY=", "NET=1"]);
    let node = |host: &str, container: &str, permissions: &str| Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
        ..Device::default()
    };
    let own = Device { mode: Some(0o660), uid: Some(7), gid: Some(8), ..node("/dev/null", "/dev/vendor0", "rw") };
    assert_eq!(given.devices, [own, node("/dev/zero", "/dev/zero", "")]);
    let [lib, run] = &given.mounts[..] else { panic!("{given:?}") };
    assert_eq!(
        (lib.readonly, lib.propagation, &lib.options[..]),
        (true, Propagation::HostToContainer, &["nosuid".to_owned(), "nodev".to_owned()][..])
    );
    assert_eq!(lib.kind, MountKind::Bind { source: std::fs::canonicalize(&source).unwrap() });
    assert_eq!(run.kind, MountKind::Tmpfs { size: None, mode: None });
    assert_eq!(given.gids, [44]);
    assert_eq!(host.find(&[]).unwrap(), Given::default());
}

#[test]
fn what_was_written_last_goes_before_and_equals_are_a_conflict() {
    let host = Host::new();
    let one = |value: &str| spec(json!([{"name": "a", "containerEdits": env(&[value])}]), json!({}));
    host.write("etc/a.json", one("FROM=etc"));
    host.write("etc/ignored.txt", "no specification");
    assert_eq!(variables(&host.find(&["vendor.example/net=a"]).unwrap()), ["FROM=etc"]);
    host.write(
        "run/a.yaml",
        "cdiVersion: v1.0.0\nkind: vendor.example/net\ndevices:\n- name: a\n  containerEdits:\n    env: [FROM=run]\n",
    );
    assert_eq!(variables(&host.find(&["vendor.example/net=a"]).unwrap()), ["FROM=run"]);
    host.write("run/b.json", one("FROM=other"));
    let (code, why) = host.find(&["vendor.example/net=a"]).unwrap_err();
    assert_eq!(code, Code::FailedPrecondition);
    assert!(why.starts_with("conflicting device vendor.example/net=a (") && why.contains("run/b.json"), "{why}");
}

#[test]
fn a_missing_device_is_named_with_the_files_that_could_not_tell() {
    let host = Host::new();
    for name in ["", "net=0", "vendor.example/net", "vendor.example/net=", "1vendor/net=0", "vendor.example/a/b=0"] {
        assert_eq!(host.find(&[name]).unwrap_err().0, Code::InvalidArgument, "{name:?}");
    }
    let missing = |why: &str| (Code::NotFound, format!("unresolvable CDI devices vendor.example/net=0, v.w/x=y{why}"));
    assert_eq!(host.find(&["vendor.example/net=0", "v.w/x=y"]).unwrap_err(), missing(""));
    let good = || spec(json!([{"name": "0", "containerEdits": env(&["A=b"])}]), json!({}));
    let changed = |path: &str, value: Value| {
        let mut spec = good();
        *spec.pointer_mut(path).unwrap() = value;
        spec
    };
    let node = |node: Value| changed("/devices/0/containerEdits", json!({"deviceNodes": [node]}));
    for (spec, why) in [
        (json!("text"), "it is not of the form of a specification"),
        (changed("/devices/0/containerEdits", json!({"environment": []})), "unknown field"),
        (changed("/cdiVersion", json!("9.0.0")), "cdiVersion: \"9.0.0\" is unknown"),
        (changed("/kind", json!("vendor")), "kind: \"vendor\" is not of the form vendor/class"),
        (changed("/devices", json!([])), "devices: there are none"),
        (changed("/devices/0/name", json!("-0")), "devices[\"-0\"]: it is no name"),
        (changed("/devices/0/containerEdits", json!({})), "devices[\"0\"].containerEdits: there are none"),
        (changed("/containerEdits", env(&["=b"])), "containerEdits.env: \"=b\" is not of the form NAME=VALUE"),
        (changed("/containerEdits", env(&["A=\0"])), "is not of the form NAME=VALUE"),
        (node(json!({"path": "dev"})), "its paths must be absolute"),
        (node(json!({"path": "/dev/x", "type": "d"})), ".type: \"d\" is none"),
        (node(json!({"path": "/dev/x", "permissions": "rx"})), "is not made of r, w and m"),
        (
            changed("/containerEdits", json!({"mounts": [{"hostPath": "/a", "containerPath": "b"}]})),
            "\"b\" is no place",
        ),
    ] {
        host.write("etc/a.json", spec);
        let (code, told) = host.find(&["vendor.example/net=0"]).unwrap_err();
        assert_eq!(code, Code::NotFound);
        assert!(told.contains("etc/a.json: ") && told.contains(why), "{told}");
    }
    host.write("etc/a.json", good());
    assert!(host.find(&["vendor.example/net=0"]).is_ok());
}

#[test]
fn what_cannot_be_given_is_refused_with_the_reason() {
    let host = Host::new();
    for (edits, code, why) in [
        (
            json!({"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}),
            Code::Unimplemented,
            "hooks are not supported",
        ),
        (json!({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}), Code::Unimplemented, "netDevices are not"),
        (json!({"intelRdt": {"closID": "a"}}), Code::Unimplemented, "intelRdt are not"),
        (
            json!({"deviceNodes": [{"path": "/dev/no-such"}]}),
            Code::InvalidArgument,
            "device node /dev/no-such: No such file",
        ),
        (json!({"deviceNodes": [{"path": "/etc"}]}), Code::Unimplemented, "device node /etc is neither"),
        (
            json!({"deviceNodes": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]}),
            Code::InvalidArgument,
            "device node /dev/null is c 1:3 on the host, not c 1:5",
        ),
        (json!({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}), Code::InvalidArgument, "not b any:any"),
        (
            json!({"mounts": [{"hostPath": "/no/such", "containerPath": "/a"}]}),
            Code::InvalidArgument,
            "mount of /no/such",
        ),
        (
            json!({"mounts": [{"hostPath": "/", "containerPath": "/a", "options": ["size=1"]}]}),
            Code::Unimplemented,
            "option \"size=1\"",
        ),
        (
            json!({"mounts": [{"hostPath": "/", "containerPath": "/a", "type": "proc"}]}),
            Code::Unimplemented,
            "type \"proc\"",
        ),
    ] {
        host.write("etc/a.json", spec(json!([{"name": "0", "containerEdits": edits}]), json!({})));
        let (told, words) = host.find(&["vendor.example/net=0"]).unwrap_err();
        assert_eq!(told, code, "{words}");
        assert!(words.starts_with("CDI device vendor.example/net=0 of ") && words.contains(why), "{words}");
    }
}
