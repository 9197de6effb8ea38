//! What becomes of devices as pods come and go.

use serde_json::json;

use super::*;
use crate::pod::testing;

const NAME: &str = "home.example/stick";

fn devices(folder: &Path, present: &[&str]) -> Devices {
    let devices = Devices::open(Vec::new(), folder).unwrap();
    devices.found.send_replace(plugged(present));
    devices
}

fn plugged(present: &[&str]) -> Found {
    Found::from([(NAME.to_owned(), present.iter().map(PathBuf::from).collect())])
}

/// A pod whose containers want so many; sidecars are init containers that stay.
fn pod(uid: &str, init: &[(&str, usize, bool)], apps: &[(&str, usize)]) -> Pod {
    let wants = |count: &usize| json!({"limits": {NAME: count.to_string()}});
    let mut pod = testing::pod(json!({
        "initContainers": init.iter().map(|(name, count, stays)| json!({
            "name": name, "resources": wants(count), "restartPolicy": stays.then_some("Always")})).collect::<Vec<_>>(),
        "containers": apps.iter().map(|(name, count)| json!({"name": name, "resources": wants(count)})).collect::<Vec<_>>(),
    }));
    pod.metadata.uid = Some(uid.to_owned());
    pod
}

fn of(devices: &Devices, pod: &Pod, name: &str) -> Result<Vec<String>, String> {
    let container = spec(pod).container(name).unwrap();
    let paths = devices.of(pod, container).map_err(|error| error.to_string())?;
    Ok(paths.iter().map(|path| path.display().to_string()).collect())
}

#[test]
fn a_device_is_one_pods_until_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let devices = devices(folder.path(), &["/dev/a", "/dev/b"]);
    let (one, two, three) = (pod("1", &[], &[("c", 1)]), pod("2", &[], &[("c", 1)]), pod("3", &[], &[("c", 1)]));
    assert_eq!(of(&devices, &one, "c"), Ok(vec!["/dev/a".into()]));
    assert_eq!(of(&devices, &two, "c"), Ok(vec!["/dev/b".into()]));
    let why = "home.example/stick: 1 requested, but of 2 plugged in only 0 are free";
    assert_eq!(of(&devices, &three, "c"), Err(why.into()));
    assert_eq!(of(&devices, &one, "c"), Ok(vec!["/dev/a".into()]), "a container that is started anew has the same");
    devices.release("1");
    assert_eq!(of(&devices, &three, "c"), Ok(vec!["/dev/a".into()]));
    assert_eq!(of(&devices, &pod("4", &[], &[("c", 0)]), "c"), Ok(vec![]));
}

#[test]
fn containers_that_run_together_share_no_device_and_those_before_them_do() {
    let folder = tempfile::tempdir().unwrap();
    let devices = devices(folder.path(), &["/dev/a", "/dev/b", "/dev/c", "/dev/d"]);
    let pod = pod("1", &[("first", 2, false), ("side", 1, true), ("second", 3, false)], &[("x", 1), ("y", 2)]);
    let got = ["first", "side", "second", "x", "y"].map(|name| of(&devices, &pod, name).unwrap().join(" "));
    assert_eq!(got, ["/dev/a /dev/b", "/dev/a", "/dev/b /dev/c /dev/d", "/dev/b", "/dev/c /dev/d"]);
}

#[test]
fn who_has_what_is_known_to_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let present = ["/dev/a", "/dev/b"];
    let (one, two) = (pod("1", &[], &[("c", 1)]), pod("2", &[], &[("c", 1)]));
    assert!(of(&devices(folder.path(), &present), &one, "c").is_ok());
    let next = devices(folder.path(), &present);
    assert_eq!(of(&next, &two, "c"), Ok(vec!["/dev/b".into()]));
    next.keep(|uid| uid == "2");
    let last = devices(folder.path(), &present);
    assert_eq!(of(&last, &pod("3", &[], &[("c", 1)]), "c"), Ok(vec!["/dev/a".into()]));
    fs::write(folder.path().join("devices.json"), "{").unwrap();
    assert!(of(&devices(folder.path(), &present), &one, "c").is_ok());
}

#[test]
fn what_was_plugged_out_is_replaced_if_there_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let devices = devices(folder.path(), &["/dev/a"]);
    let one = pod("1", &[], &[("c", 1)]);
    assert!(of(&devices, &one, "c").is_ok());
    devices.found.send_replace(plugged(&[]));
    let why = "home.example/stick: 1 requested, but of 0 plugged in only 0 are free";
    assert_eq!(of(&devices, &one, "c"), Err(why.into()));
    devices.found.send_replace(plugged(&["/dev/b"]));
    assert_eq!(of(&devices, &one, "c"), Ok(vec!["/dev/b".into()]));
}

#[test]
fn what_is_there_is_counted_once_and_a_class_that_is_gone_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let classes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<DeviceClass>>();
    let wanted = classes(&["a.example/null=/dev/nul?", "a.example/null=/dev/null", "a.example/few=/dev/[*"]);
    let counts = |classes: Vec<DeviceClass>| Devices::open(classes, folder.path()).unwrap().counts();
    let of = |pairs: &[(&str, usize)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let none: BTreeMap<String, usize> = of(&[]);
    assert_eq!(counts(Vec::new()), none);
    assert_eq!(counts(wanted), of(&[("a.example/few", 0), ("a.example/null", 1)]));
    assert_eq!(counts(Vec::new()), of(&[("a.example/few", 0), ("a.example/null", 0)]));
}
