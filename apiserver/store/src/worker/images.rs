//! Images on their way: from a leader to whoever is too far behind for its log, and into this member's own place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use raft::eraftpb::{Message, MessageType};

use super::{Now, Worker};
use crate::{
    checkpoint::{Job, Mark},
    codec::Malformed,
    disk::Disk,
    error::{Error, Result},
    image::{Image, Item},
    packet::Packet,
    peer::MemberId,
    transport::Transport,
};

/// After so long without a word a transfer is given up by the sender (who begins another), and a piece asked for again
/// by the receiver.
const SILENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// An image nobody needs is let go after so long.
const UNUSED: Duration = Duration::from_secs(10);
/// Largest state believed, in bytes of pieces.
const LARGEST: u64 = 16 << 30;

/// One handing-over to one member.
struct Sending {
    transfer: u64,
    image: Arc<Image>,
    heard: Duration,
}

/// An image that is coming in.
struct Receiving {
    from: u64,
    transfer: u64,
    image: Image,
    total: u64,
    bytes: u64,
    asked: Duration,
    /// When the last piece came.
    heard: Duration,
}

/// See the module.
#[derive(Default)]
pub(super) struct Images {
    image: Option<(Arc<Image>, Duration)>,
    sending: BTreeMap<u64, Sending>,
    receiving: Option<Receiving>,
    /// Come in whole, to be put on stable storage.
    arrived: Option<Receiving>,
    /// Being put there.
    saving: Option<Receiving>,
}

impl Images {
    /// Sends a message of raft-rs; in the place of one with a snapshot an image is offered, and to `witness` one of the
    /// members alone.
    pub(super) fn send(&mut self, message: Message, witness: Option<u64>, transport: &dyn Transport, now: Now) {
        let to = message.to;
        if message.msg_type != MessageType::MsgSnapshot {
            transport.send(MemberId(to), Packet::Raft(Box::new(message)).encode());
            return;
        }
        let Some((image, used)) = &mut self.image else { return };
        *used = now.steady;
        // Images of one index are alike, even those a member takes in two of its lives, and those for a witness. So a
        // transfer named by it never mixes two states, whatever is heard late, and goes on where it was when it is begun
        // again.
        let transfer = image.mark.index;
        let image = if Some(to) == witness { Arc::new(image.of_members()) } else { Arc::clone(image) };
        let (mark, items) = (image.mark.clone(), image.items.len() as u64);
        self.sending.insert(to, Sending { transfer, image, heard: now.steady });
        transport.send(MemberId(to), Packet::Offer { transfer, mark, items }.encode());
    }

    /// An image could not be put on stable storage: it is offered again.
    pub(super) fn give_up(&mut self) {
        self.saving = None;
    }

    const fn is_taking_in(&self) -> bool {
        self.arrived.is_some() || self.saving.is_some()
    }
}

impl<D: Disk> Worker<D> {
    /// Takes an image of the state if raft-rs asked for one.
    pub(super) fn offer_image(&mut self, now: Now) {
        let Some(member) = &self.member else { return };
        if !member.log().take_wanted() || self.applied.0 == 0 {
            return;
        }
        let (index, term) = self.applied;
        let members = member.log().members().clone();
        let state = self.shared.read();
        let mark = Mark { index, term, revision: state.revision(), members, received: true };
        let image = Image::of(&state, mark);
        drop(state);
        tracing::debug!(index, items = image.items.len(), "took an image for a member that is far behind");
        self.images.image = Some((Arc::new(image), now.steady));
        member.log().offer(Some((index, term)));
    }

    /// Gives up what came to nothing.
    pub(super) fn tick_images(&mut self, now: Now) {
        let is_over = |since: Duration, patience| now.steady.saturating_sub(since) >= patience;
        let silent: Vec<(u64, u64)> = self
            .images
            .sending
            .iter()
            .filter(|(_, sending)| is_over(sending.heard, SILENCE))
            .map(|(to, sending)| (*to, sending.transfer))
            .collect();
        for (to, transfer) in silent {
            self.image_done(to, transfer, false);
        }
        if self.images.sending.is_empty()
            && self.images.image.take_if(|(_, used)| is_over(*used, UNUSED)).is_some()
            && let Some(member) = &self.member
        {
            member.log().offer(None);
        }
        if self.images.receiving.take_if(|receiving| is_over(receiving.heard, 2 * SILENCE)).is_some() {
            tracing::debug!("the image that was coming in has come to nothing");
        }
        if let Some(receiving) = self.images.receiving.as_mut().filter(|one| is_over(one.asked, ASK_AGAIN)) {
            receiving.asked = now.steady;
            let (from, transfer, first) = (receiving.from, receiving.transfer, receiving.image.items.len() as u64);
            self.send(from, &Packet::Pull { transfer, from: first });
        }
    }

    /// A transfer has ended.
    pub(super) fn image_done(&mut self, to: u64, transfer: u64, done: bool) {
        if self.images.sending.get(&to).is_some_and(|sending| sending.transfer == transfer) {
            self.images.sending.remove(&to);
            if let Some(member) = &mut self.member {
                member.image_sent(to, done);
            }
        }
    }

    /// The receiver asks for a piece.
    pub(super) fn pulled(&mut self, to: u64, transfer: u64, first: u64, now: Now) {
        let Some(sending) = self.images.sending.get_mut(&to).filter(|sending| sending.transfer == transfer) else {
            return;
        };
        sending.heard = now.steady;
        let (bytes, next) = sending.image.chunk(first);
        if let Some((_, used)) = &mut self.images.image {
            *used = now.steady;
        }
        if next > first {
            self.send(to, &Packet::Chunk { transfer, from: first, next, bytes });
        }
    }

    /// Whether this member has what an image would bring.
    fn has(&self, mark: &Mark) -> bool {
        self.applied.0 >= mark.index
            || self.member.as_ref().is_some_and(|member| member.log().term_of(mark.index) == Some(mark.term))
    }

    /// The leader has an image for this member.
    pub(super) fn offered(
        &mut self,
        from: u64,
        transfer: u64,
        mark: Mark,
        total: u64,
        now: Now,
    ) -> Result<(), Malformed> {
        if mark.index == 0 || mark.term == 0 || mark.members.voters.is_empty() || !mark.received {
            return Err(Malformed("image of no state"));
        }
        if self.has(&mark) {
            self.send(from, &Packet::Installed { transfer, index: mark.index });
            return Ok(());
        }
        let known = self.images.receiving.as_ref().is_some_and(|one| (one.from, one.transfer) == (from, transfer));
        if known || self.images.is_taking_in() {
            return Ok(());
        }
        tracing::info!(index = mark.index, items = total, "taking in an image of the state: the log is too far ahead");
        let image = Image { mark, items: Vec::new() };
        let receiving = Receiving { from, transfer, image, total, bytes: 0, asked: now.steady, heard: now.steady };
        if total == 0 {
            self.images.arrived = Some(receiving);
            return Ok(());
        }
        self.images.receiving = Some(receiving);
        self.send(from, &Packet::Pull { transfer, from: 0 });
        Ok(())
    }

    /// A piece of it.
    pub(super) fn chunk(
        &mut self,
        from: u64,
        transfer: u64,
        first: u64,
        next: u64,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), Malformed> {
        let Some(receiving) = &mut self.images.receiving else { return Ok(()) };
        let expected = (receiving.from, receiving.transfer, receiving.image.items.len() as u64);
        if expected != (from, transfer, first) {
            return Ok(());
        }
        receiving.bytes += bytes.len() as u64;
        if next <= first || next > receiving.total || receiving.bytes > LARGEST {
            return Err(Malformed("piece beyond the image"));
        }
        receiving.image.items.extend(Item::read(bytes, next - first)?);
        (receiving.asked, receiving.heard) = (now.steady, now.steady);
        if next < receiving.total {
            self.send(from, &Packet::Pull { transfer, from: next });
        } else {
            self.images.arrived = self.images.receiving.take();
        }
        Ok(())
    }

    /// What makes an image that has arrived this member's checkpoint. `marked`: where the one on disk stands. The log may
    /// have brought this member beyond the image while it came in, and may have been cut since: an image from before
    /// what is on disk must never take its place.
    pub(super) fn image_job(&mut self, marked: u64) -> Option<Job> {
        let arrived = self.images.arrived.take()?;
        let index = arrived.image.mark.index;
        if self.has(&arrived.image.mark) || index < marked {
            self.send(arrived.from, &Packet::Installed { transfer: arrived.transfer, index });
            return None;
        }
        let job = arrived.image.job();
        self.images.saving = Some(arrived);
        Some(job)
    }

    /// An image is this member's checkpoint now: it becomes its state, unless the log has brought it further meanwhile.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: there is no room for a log behind it, and it is tried again when there may be.
    pub(super) fn install(&mut self, now: Now) -> Result<()> {
        let Some(mut saved) = self.images.saving.take() else { return Ok(()) };
        self.shared.write().rebase();
        let mark = &saved.image.mark;
        if !self.has(mark) {
            let state = saved.image.state(self.settings.retention);
            let member = self.member()?;
            if let Err(error) = member.log_mut().restart_at((mark.index, mark.term)) {
                saved.asked = now.steady;
                self.images.saving = Some(saved);
                return Err(error);
            }
            member.log_mut().note_members(mark.members.clone());
            *self.shared.write() = state;
            self.applied = (mark.index, mark.term);
            let member = self.member.take().map(|member| member.restart(mark.index)).transpose()?;
            self.member = member;
            // What was under way may be part of the image.
            for (_, waiting) in std::mem::take(&mut self.waiting) {
                drop(waiting.answer.send(Err(Error::OutcomeUnknown)));
            }
            tracing::info!(index = mark.index, revision = mark.revision.0, "the image is this member's state now");
            self.know_members();
            self.shared.tell_cluster_changed();
        }
        self.send(saved.from, &Packet::Installed { transfer: saved.transfer, index: mark.index });
        self.drain(now)
    }

    /// An image that is this member's checkpoint, and was not installed for want of room, is so when there is some.
    pub(super) fn install_again(&mut self, now: Now) -> Result<()> {
        // One that is being written is installed when it is.
        let is_due = |saved: &Receiving| now.steady.saturating_sub(saved.asked) >= ASK_AGAIN;
        if self.cutting.is_under_way() || !self.images.saving.as_ref().is_some_and(is_due) {
            return Ok(());
        }
        match self.install(now) {
            Err(Error::DiskFull) => Ok(()),
            Ok(()) => {
                self.note_room();
                Ok(())
            }
            other => other,
        }
    }
}
