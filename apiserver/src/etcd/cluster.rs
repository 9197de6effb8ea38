//! What etcd's clients ask about the server itself: how it fares, who its members are, what it holds as a whole.

use std::{fs, io, path::Path};

use coracle_process::{
    grpc::{Answers, Body, Code, Refusal, Result},
    metrics::{MEDIA, Page},
};
use coracle_store::{Error, MemberId, MemberStatus, Range, Revision};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use sha2::{Digest as _, Sha256};

use super::{
    Front,
    database::Database,
    kv::{number, refused},
    messages::{
        AlarmMember, AlarmRequest, AlarmResponse, HashKvRequest, HashResponse, HeaderResponse, Member,
        MemberListResponse, MoveLeaderRequest, Nothing, SnapshotResponse, StatusResponse,
    },
};

/// The version of etcd whose API this is.
const VERSION: &str = "3.5.0";

/// A snapshot is sent in pieces of so many bytes, and what one value has more.
const PIECE: usize = 256 << 10;

/// Bytes of the files below a directory.
fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

pub(super) async fn status(front: &Front, _: Nothing) -> Result<StatusResponse> {
    let (dir, store) = (front.store_dir.clone(), front.store.clone());
    let counted = tokio::task::spawn_blocking(move || {
        let in_use: usize = store.contents().entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        // Files come and go while they are counted.
        (size(&dir).unwrap_or(0), in_use as u64)
    });
    let (db_size, in_use) = counted.await.unwrap_or_default();
    let (status, cluster) = (front.store.status(), front.store.cluster());
    Ok(StatusResponse {
        header: Some(front.who().header(status.revision)),
        version: VERSION.to_owned(),
        db_size: number(db_size),
        db_size_in_use: number(in_use),
        leader: cluster.leader.unwrap_or_default().0,
        raft_index: cluster.applied,
        raft_term: cluster.term,
        raft_applied_index: cluster.applied,
        is_learner: cluster.members.iter().any(|member| member.id == cluster.own && !member.votes),
        errors: status.refusing.iter().map(ToString::to_string).collect(),
    })
}

pub(super) fn members(front: &Front, _: Nothing) -> MemberListResponse {
    let cluster = front.store.cluster();
    let show = |member: &MemberStatus| {
        let is_own = member.id == cluster.own;
        let name = Some(member.info.name.clone()).filter(|name| !name.is_empty());
        Member {
            id: member.id.0,
            name: name.unwrap_or_else(|| if is_own { front.name.clone() } else { member.id.to_string() }),
            peer_urls: member.info.addresses.iter().map(|address| format!("https://{address}")).collect(),
            // Where the others serve etcd's clients is not known here.
            client_urls: if is_own { vec![front.url.clone()] } else { Vec::new() },
            is_learner: !member.votes,
        }
    };
    let header = Some(front.who().header(front.store.revision()));
    MemberListResponse { header, members: cluster.members.iter().map(show).collect() }
}

pub(super) fn alarms(front: &Front, request: AlarmRequest) -> Result<AlarmResponse> {
    let status = front.store.status();
    let alarm = match status.refusing {
        None => None,
        Some(Error::DiskFull) => Some(1),
        Some(_) => Some(2),
    };
    if request.action == 1 {
        let why = "etcdserver: alarms are raised by what they are about and not by hand";
        return Err(Refusal(Code::Unimplemented, why.to_owned()));
    }
    // One that is put out goes by itself when its cause has gone.
    let alarms = alarm.map(|alarm| AlarmMember { member_id: front.who().member, alarm }).into_iter().collect();
    Ok(AlarmResponse { header: Some(front.who().header(status.revision)), alarms })
}

/// Nothing is to be done: checkpoints leave no holes.
pub(super) fn defragment(front: &Front, _: Nothing) -> HeaderResponse {
    HeaderResponse { header: Some(front.who().header(front.store.revision())) }
}

/// What is read over plain HTTP, as of etcd: how it fares, as a word and in figures, and its version.
pub(super) fn page(front: &Front, path: &str) -> Response<Body> {
    let (status, cluster) = (front.store.status(), front.store.cluster());
    let (media, text) = match path {
        "/version" => ("application/json", format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{VERSION}\"}}")),
        "/health" => {
            let is_well = status.refusing.is_none() && cluster.leader.is_some();
            ("application/json", format!("{{\"health\":\"{is_well}\"}}"))
        }
        "/metrics" => {
            let mut page = Page::default();
            let help = "Whether or not a leader exists. 1 is existence, 0 is not.";
            page.one("etcd_server_has_leader", "gauge", help, u8::from(cluster.leader.is_some()));
            let help = "Whether or not this member is a leader. 1 if is, 0 otherwise.";
            page.one("etcd_server_is_leader", "gauge", help, u8::from(cluster.leader == Some(cluster.own)));
            page.one("etcd_debugging_mvcc_keys_total", "gauge", "Total number of keys.", status.keys);
            page.process();
            (MEDIA, page.0)
        }
        _ => {
            let mut response = Response::new(Full::from("404 page not found\n").boxed_unsync());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    let mut response = Response::new(Full::from(text).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Has another member lead.
pub(super) async fn move_leader(front: &Front, request: MoveLeaderRequest) -> Result<HeaderResponse> {
    let cluster = front.store.cluster();
    let not_now = |why: &str| Err(Refusal(Code::FailedPrecondition, format!("etcdserver: {why}")));
    if cluster.leader != Some(cluster.own) {
        return not_now("not leader");
    }
    match front.store.hand_over(MemberId(request.target_id)).await {
        Ok(()) => Ok(HeaderResponse { header: Some(front.who().header(front.store.revision())) }),
        Err(Error::MemberNotFound { .. }) => not_now("bad leader transferee"),
        Err(error) => Err(refused(&error)),
    }
}

/// A checksum over all keys, their versions and values, as of a revision: equal on all members.
pub(super) fn hash(front: &Front, request: HashKvRequest) -> Result<HashResponse> {
    let at = u64::try_from(request.revision).ok().filter(|at| *at > 0).map(Revision);
    let range = Range { at, ..Range::prefix("") };
    let found = front.store.range(&range).map_err(|error| refused(&error))?;
    let mut hash = crc32fast::Hasher::new();
    for entry in &found.entries {
        hash.update(&entry.key);
        for number in [entry.create_revision.0, entry.mod_revision.0, entry.version] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&entry.value);
    }
    Ok(HashResponse {
        header: Some(front.who().header(found.revision)),
        hash: hash.finalize(),
        compact_revision: number(front.store.compacted().0),
    })
}

/// Sends everything there is, as a database of etcd's.
pub(super) async fn snapshot(front: &Front, answers: &Answers) -> Result<()> {
    let store = front.store.clone();
    let made = tokio::task::spawn_blocking(move || {
        let applied = store.cluster().applied;
        Database::of(store.contents(), applied)
    });
    let made = made.await;
    let database = made.map_err(|_| Refusal(Code::Internal, "etcdserver: a snapshot cannot be made".to_owned()))?;
    let header = || Some(front.who().header(front.store.revision()));
    let (mut hash, mut piece, mut remaining_bytes) = (Sha256::new(), Vec::new(), database.len());
    let mut pages = database.pages().peekable();
    while let Some(page) = pages.next() {
        hash.update(&page);
        piece.extend(page);
        if piece.len() >= PIECE || pages.peek().is_none() {
            remaining_bytes = remaining_bytes.saturating_sub(piece.len() as u64);
            let blob = std::mem::take(&mut piece).into();
            if answers.send(&SnapshotResponse { header: header(), remaining_bytes, blob }).await.is_err() {
                return Ok(());
            }
        }
    }
    let blob = hash.finalize().to_vec().into();
    // A client that has gone needs no more.
    let _ = answers.send(&SnapshotResponse { header: header(), remaining_bytes: 0, blob }).await;
    Ok(())
}
