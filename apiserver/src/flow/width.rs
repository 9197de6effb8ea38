//! How many seats a request takes: one, but a list that looks at many objects takes more.

use coracle_store::Range;

use crate::{registry::Registry, request::RequestInfo, stored};

/// Objects that are looked at for one seat, as in Kubernetes.
const OBJECTS: usize = 100;

/// As many seats as a list takes at most, as in Kubernetes.
const MOST: u32 = 10;

/// The seats of a request at a level whose own seats are `nominal`, of which it may take an eighth or so (15 %).
pub(super) fn of(info: &RequestInfo, registry: &Registry, nominal: impl FnOnce() -> u32) -> u32 {
    if !info.is_resource || !info.name.is_empty() || !reads_many(info) {
        return 1;
    }
    let Some(kind) = registry.kind(&info.group, &info.version, &info.resource) else { return 1 };
    let range = Range::prefix(stored::prefix(kind.resource().storage, &info.namespace)).count();
    let Ok(found) = registry.store().range(&range) else { return 1 };
    let limit = info.query.get("limit").parse().ok().filter(|limit| *limit > 0);
    let is_selective = !info.label_selector().is_empty() || !info.field_selector().is_empty();
    seats(found.count, limit.filter(|_| !is_selective), nominal)
}

/// Whether it is a list, or a watch that begins with one.
fn reads_many(info: &RequestInfo) -> bool {
    match info.verb.as_str() {
        "list" => true,
        "watch" => info.query.flag("sendInitialEvents") || matches!(info.query.get("resourceVersion"), "" | "0"),
        _ => false,
    }
}

fn seats(objects: usize, limit: Option<usize>, nominal: impl FnOnce() -> u32) -> u32 {
    let objects = limit.map_or(objects, |limit| limit.min(objects));
    let seats = u32::try_from(objects.div_ceil(OBJECTS)).unwrap_or(u32::MAX);
    if seats <= 1 {
        return 1;
    }
    let most = (u64::from(nominal()) * 15).div_ceil(100);
    seats.min(MOST).min(u32::try_from(most).unwrap_or(MOST)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_a_seat_for_each_hundred_objects_up_to_a_part_of_its_level() {
        for (objects, limit, nominal, expected) in [
            (0, None, 100, 1),
            (100, None, 100, 1),
            (101, None, 100, 2),
            (10_000, None, 100, 10),
            (10_000, Some(500), 100, 5),
            (300, Some(500), 100, 3),
            (10_000, None, 20, 3),
            (10_000, None, 0, 1),
        ] {
            assert_eq!(seats(objects, limit, || nominal), expected, "{objects} {limit:?} {nominal}");
        }
    }

    #[test]
    fn lists_and_watches_that_begin_with_one_read_many() {
        for (uri, expected) in [
            ("/api/v1/pods", true),
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/pods?watch=1&resourceVersion=0", true),
            ("/api/v1/pods?watch=1&resourceVersion=7", false),
            ("/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true),
            ("/api/v1/namespaces/a/pods/b", false),
        ] {
            let info = RequestInfo::new(&http::Method::GET, &uri.parse().unwrap());
            assert_eq!(reads_many(&info), expected, "{uri}");
        }
    }
}
