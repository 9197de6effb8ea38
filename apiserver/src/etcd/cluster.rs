//! What etcd's clients ask about the server itself: how it fares, who its members are, what it holds as a whole.

use std::{fs, io, path::Path};

use coracle_process::grpc::{Answers, Code, Refusal, Result};
use coracle_store::{Error, MemberStatus, Range, Revision};
use futures::StreamExt as _;

use super::{
    Front,
    kv::{number, refused},
    messages::{
        AlarmMember, AlarmRequest, AlarmResponse, HashKvRequest, HashResponse, HeaderResponse, Member,
        MemberListResponse, Nothing, SnapshotResponse, StatusResponse,
    },
};
use crate::snapshot;

/// The version of etcd whose API this is.
const VERSION: &str = "3.5.0";

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

/// Sends a snapshot: Coracle's own, of the length that etcd's clients expect.
pub(super) async fn snapshot(front: &Front, answers: &Answers) -> Result<()> {
    let (source, store) = (front.source.clone(), front.store.clone());
    let made = tokio::task::spawn_blocking(move || snapshot::stream(&source, &store, jiff::Timestamp::now())).await;
    let broken = |why: String| Refusal(Code::Internal, format!("etcdserver: a snapshot cannot be made: {why}"));
    let pieces = made.map_err(|error| broken(error.to_string()))?.map_err(|error| broken(error.to_string()))?;
    let mut pieces = std::pin::pin!(pieces);
    // A piece is held back, so that the last can say that none remains.
    let mut held: Option<bytes::Bytes> = None;
    loop {
        let piece = pieces.next().await.transpose().map_err(|error| broken(error.to_string()))?;
        let is_last = piece.is_none();
        if let Some(blob) = std::mem::replace(&mut held, piece) {
            let header = Some(front.who().header(front.store.revision()));
            let said = SnapshotResponse { header, remaining_bytes: u64::from(!is_last), blob };
            if answers.send(&said).await.is_err() {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}
