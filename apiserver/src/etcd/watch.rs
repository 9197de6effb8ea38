//! Watches: one call carries many of them, each in a task of its own that ends with the call.

use std::{collections::HashMap, time::Duration};

use coracle_process::grpc::{Answers, Gone, Refusal, Requests};
use coracle_store::{Batch, Buffer, Error, EventKind, Revision, Store, WatchRequest as Following, Watcher};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    kv::{Who, bounds, number, shown},
    messages::{Event, KeyValue, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse, Watching},
};

/// Watches on one call.
const MOST: usize = 10_000;

/// Bytes of events in one message, if the client takes fragments: what etcd sends at once.
const FRAGMENT: usize = 1 << 20;

/// How often who wants to know hears that nothing happened.
const PROGRESS: Duration = Duration::from_mins(10);

const BUFFER: Buffer = Buffer { events: 10_000, bytes: 32 << 20 };

/// A watch, and how its events are told.
struct Watch {
    id: i64,
    who: Who,
    watcher: Watcher,
    request: WatchCreateRequest,
    answers: Answers,
    /// Rung when the client asks how far it is.
    asked: watch::Receiver<()>,
}

/// Serves a call until the client ends it.
pub(super) async fn serve(
    store: Store,
    who: Who,
    mut requests: Requests,
    answers: Answers,
    shutdown: CancellationToken,
) {
    let mut tasks: JoinSet<i64> = JoinSet::new();
    let mut watches: HashMap<i64, CancellationToken> = HashMap::new();
    let ask = watch::Sender::new(());
    let mut next = 0;
    loop {
        let request = tokio::select! {
            () = shutdown.cancelled() => break,
            () = answers.gone() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(id) = ended {
                    watches.remove(&id);
                }
                continue;
            }
            request = requests.next::<WatchRequest>() => request,
        };
        let said = match request {
            Ok(Some(WatchRequest { request: Some(Watching::Create(request)) })) => {
                let id = if request.watch_id != 0 { request.watch_id } else { free(&watches, &mut next) };
                let refused = (watches.contains_key(&id))
                    .then_some("mvcc: duplicate watch ID provided on the WatchStream")
                    .or(is_empty(&request).then_some("mvcc: watcher range is empty"))
                    .or((watches.len() >= MOST).then_some("etcdserver: too many watches on one stream"));
                match create(&store, who, id, request, &answers, ask.subscribe(), refused).await {
                    Ok(Some(watch)) => {
                        let cancel = CancellationToken::new();
                        watches.insert(id, cancel.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                () = cancel.cancelled() => {}
                                _ = watch.run() => {}
                            }
                            id
                        });
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(gone) => Err(gone),
                }
            }
            Ok(Some(WatchRequest { request: Some(Watching::Cancel(cancel)) })) => {
                match watches.remove(&cancel.watch_id) {
                    Some(token) => {
                        token.cancel();
                        let header = Some(who.header(store.revision()));
                        let canceled =
                            WatchResponse { header, watch_id: cancel.watch_id, canceled: true, ..Default::default() };
                        answers.send(&canceled).await
                    }
                    None => Ok(()),
                }
            }
            Ok(Some(WatchRequest { request: Some(Watching::Progress(_)) })) => {
                ask.send_replace(());
                Ok(())
            }
            Ok(Some(WatchRequest { request: None })) => Ok(()),
            Ok(None) => break,
            Err(refusal) => {
                answers.refuse(refusal).await;
                break;
            }
        };
        if let Err(Gone) = said {
            break;
        }
    }
    tasks.shutdown().await;
}

/// Whether its range ends before it begins. No end is the key alone, and a zero byte everything from the key on.
fn is_empty(request: &WatchCreateRequest) -> bool {
    !matches!(&request.range_end[..], [] | [0]) && request.range_end <= request.key
}

fn free(watches: &HashMap<i64, CancellationToken>, next: &mut i64) -> i64 {
    while watches.contains_key(next) {
        *next += 1;
    }
    let id = *next;
    *next += 1;
    id
}

/// Begins a watch and says so; none when it is refused, which is said as well.
async fn create(
    store: &Store,
    who: Who,
    id: i64,
    request: WatchCreateRequest,
    answers: &Answers,
    asked: watch::Receiver<()>,
    refused: Option<&str>,
) -> Result<Option<Watch>, Gone> {
    let header = Some(who.header(store.revision()));
    let created = WatchResponse { header, watch_id: id, created: true, ..Default::default() };
    let end = |reason: &str| WatchResponse { canceled: true, cancel_reason: reason.to_owned(), ..created.clone() };
    if let Some(reason) = refused {
        answers.send(&WatchResponse { watch_id: -1, ..end(reason) }).await?;
        return Ok(None);
    }
    let (start, to) = match bounds(&request.key, &request.range_end) {
        Ok(bounds) => bounds,
        // The empty key is the first there is.
        Err(_) if !request.range_end.is_empty() => (
            bytes::Bytes::from_static(b"\0"),
            Some(request.range_end.clone()).map(|end| if end == "\0" { bytes::Bytes::new() } else { end }),
        ),
        Err(Refusal(_, why)) => {
            answers.send(&end(&why)).await?;
            return Ok(None);
        }
    };
    let from = Revision(u64::try_from(request.start_revision).unwrap_or(0));
    match store.watch(Following { start, end: to, from, buffer: BUFFER }) {
        Ok(watcher) => {
            answers.send(&created).await?;
            Ok(Some(Watch { id, who, watcher, request, answers: answers.clone(), asked }))
        }
        Err(Error::Compacted { compacted }) => {
            answers.send(&created).await?;
            answers.send(&compaction(WatchResponse { created: false, ..created.clone() }, compacted)).await?;
            Ok(None)
        }
        Err(error) => {
            answers.send(&end(&error.to_string())).await?;
            Ok(None)
        }
    }
}

/// The end of a watch whose next change is forgotten: from where on there are changes.
fn compaction(said: WatchResponse, compacted: Revision) -> WatchResponse {
    WatchResponse {
        canceled: true,
        compact_revision: number(compacted.next().0),
        cancel_reason: "etcdserver: mvcc: required revision has been compacted".to_owned(),
        ..said
    }
}

impl Watch {
    fn said(&self, revision: Revision) -> WatchResponse {
        let header: Option<ResponseHeader> = Some(self.who.header(revision));
        WatchResponse { header, watch_id: self.id, ..WatchResponse::default() }
    }

    async fn run(mut self) -> Result<(), Gone> {
        let mut quiet = tokio::time::interval(PROGRESS);
        quiet.reset();
        loop {
            let came = tokio::select! {
                came = self.watcher.next() => came,
                Ok(()) = self.asked.changed() => {
                    self.answers.send(&self.said(self.watcher.progress())).await?;
                    continue;
                }
                _ = quiet.tick(), if self.request.progress_notify => {
                    self.answers.send(&self.said(self.watcher.progress())).await?;
                    continue;
                }
            };
            match came {
                Some(Ok(batch)) => {
                    self.tell(&batch).await?;
                    quiet.reset();
                }
                Some(Err(Error::Compacted { compacted })) => {
                    return self.answers.send(&compaction(self.said(self.watcher.progress()), compacted)).await;
                }
                Some(Err(error)) => {
                    let said = self.said(self.watcher.progress());
                    let reason = format!("etcdserver: {error}");
                    return self.answers.send(&WatchResponse { canceled: true, cancel_reason: reason, ..said }).await;
                }
                None => return Ok(()),
            }
        }
    }

    async fn tell(&self, batch: &Batch) -> Result<(), Gone> {
        let mut part: Vec<Event> = Vec::new();
        let mut size = 0;
        for event in batch.events.iter() {
            let kind = i32::from(event.kind == EventKind::Delete);
            // Filter 0 leaves out puts, which are of kind 0; filter 1 deletions, likewise.
            if self.request.filters.contains(&kind) {
                continue;
            }
            let prev_kv = event.previous.as_ref().filter(|_| self.request.prev_kv).map(|entry| shown(entry));
            let kv = match event.kind {
                EventKind::Put => shown(&event.entry),
                EventKind::Delete => KeyValue {
                    key: event.entry.key.clone(),
                    mod_revision: number(event.entry.mod_revision.0),
                    ..KeyValue::default()
                },
            };
            let bytes = kv.key.len() + kv.value.len() + prev_kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
            if self.request.fragment && size + bytes > FRAGMENT && !part.is_empty() {
                let events = std::mem::take(&mut part);
                self.answers.send(&WatchResponse { events, fragment: true, ..self.said(batch.revision) }).await?;
                size = 0;
            }
            size += bytes;
            part.push(Event { kind, kv: Some(kv), prev_kv });
        }
        if part.is_empty() {
            return Ok(());
        }
        self.answers.send(&WatchResponse { events: part, ..self.said(batch.revision) }).await
    }
}
