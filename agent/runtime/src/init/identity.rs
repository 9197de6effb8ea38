//! As whom a process runs: numbers, from names in the container's own files (passwd(5), group(5)).

use std::collections::BTreeSet;

use crate::{error::StartError, spec::User, step::refuse};

/// As whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Home directory, when the user has an entry.
    pub(super) home: Option<String>,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds the numbers. `passwd` and `group` are the container's files.
pub(super) fn resolve(
    user: &User,
    additional: &[u32],
    strict: bool,
    passwd: &str,
    group: &str,
) -> Result<Identity, StartError> {
    let (entry, uid, given_group) = match user {
        User::Ids { uid, gid } => (by_uid(passwd, *uid), *uid, *gid),
        User::Name(text) => {
            let (name, group_name) = match text.split_once(':') {
                Some((name, group_name)) => (name, Some(group_name).filter(|group| !group.is_empty())),
                None => (text.as_str(), None),
            };
            let gid = group_name.map(|name| group_number(group, name)).transpose()?;
            match entries(passwd).find(|entry| entry.name == name) {
                Some(entry) => (Some(entry), None, gid),
                None if name.is_empty() => (by_uid(passwd, 0), Some(0), gid),
                None => match name.parse() {
                    Ok(uid) => (by_uid(passwd, uid), Some(uid), gid),
                    Err(_) => {
                        let message = format!("unable to find user {name}: no matching entries in passwd file");
                        return Err(refuse("user", message));
                    }
                },
            }
            .normalise()
        }
    };
    let gid = given_group.or(entry.as_ref().map(|entry| entry.gid)).unwrap_or(0);
    // The first group too: a process that leaves it stays in it, and so stays out of what its group is kept from.
    let mut groups = vec![gid];
    if let Some(entry) = &entry
        && !strict
    {
        groups.extend(memberships(group, entry.name));
    }
    groups.extend_from_slice(additional);
    let mut seen = BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(Identity { uid, gid, groups, home: entry.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty()) })
}

trait Normalise<'a> {
    fn normalise(self) -> (Option<Entry<'a>>, u32, Option<u32>);
}

impl<'a> Normalise<'a> for (Option<Entry<'a>>, Option<u32>, Option<u32>) {
    fn normalise(self) -> (Option<Entry<'a>>, u32, Option<u32>) {
        let uid = self.1.or(self.0.as_ref().map(|entry| entry.uid)).unwrap_or(0);
        (self.0, uid, self.2)
    }
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home })
    })
}

fn by_uid(passwd: &str, uid: u32) -> Option<Entry<'_>> {
    entries(passwd).find(|entry| entry.uid == uid)
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_number(group: &str, name: &str) -> Result<u32, StartError> {
    if let Some((_, gid, _)) = group_lines(group).find(|(known, _, _)| *known == name) {
        return Ok(gid);
    }
    name.parse().map_err(|_| refuse("user", format!("unable to find group {name}: no matching entries in group file")))
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_lines(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\naudio:x:29:other\n";

    fn check(user: User, strict: bool) -> (u32, u32, Vec<u32>) {
        let found = resolve(&user, &[7], strict, PASSWD, GROUP).unwrap();
        (found.uid, found.gid, found.groups)
    }

    #[test]
    fn numbers_and_names_find_the_same_user() {
        let expected = (1000, 1001, vec![1001, 10, 7]);
        assert_eq!(check(User::Ids { uid: 1000, gid: None }, false), expected);
        assert_eq!(check(User::Name("app".into()), false), expected);
        assert_eq!(check(User::Name("1000".into()), false), expected);
    }

    #[test]
    fn a_group_given_replaces_the_users_own() {
        assert_eq!(check(User::Name("app:audio".into()), false), (1000, 29, vec![29, 10, 7]));
        assert_eq!(check(User::Name("5:6".into()), false), (5, 6, vec![6, 7]));
        assert_eq!(check(User::Ids { uid: 1000, gid: Some(3) }, false), (1000, 3, vec![3, 10, 7]));
    }

    #[test]
    fn strict_ignores_what_the_image_says_about_groups() {
        assert_eq!(check(User::Name("app".into()), true), (1000, 1001, vec![1001, 7]));
    }

    #[test]
    fn a_user_nobody_knows_is_an_error_with_the_name() {
        let error = resolve(&User::Name("bob".into()), &[], false, PASSWD, GROUP).unwrap_err();
        assert_eq!(error.message, "unable to find user bob: no matching entries in passwd file");
        let error = resolve(&User::Name("app:men".into()), &[], false, PASSWD, GROUP).unwrap_err();
        assert_eq!(error.message, "unable to find group men: no matching entries in group file");
    }
}
