//! Which field it was that could not be read: the crate says what is wrong with a message, but not where.

use prost::{
    DecodeError, Message as Decode,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType},
};
use prost_reflect::DynamicMessage;

use super::descriptors::Message;

/// The name of the field at which a message's bytes are broken. Reads them once more, keeping nothing.
pub(super) fn of_fault(message: &'static Message, bytes: &[u8]) -> Option<&'static str> {
    let mut search = Search { message, name: None };
    // That it fails is why it is read.
    let _ = search.merge(bytes);
    search.name
}

/// A message that is read for the name of the field that is being read, and keeps nothing else. It is never written.
#[derive(Debug)]
struct Search {
    message: &'static Message,
    name: Option<&'static str>,
}

impl Decode for Search {
    fn merge_field(
        &mut self,
        number: u32,
        wire: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let member = self.message.members.iter().find(|member| member.field.number == number);
        self.name = member.and_then(|member| member.field.name);
        DynamicMessage::new(self.message.descriptor.clone()).merge_field(number, wire, buf, context)?;
        self.name = None;
        Ok(())
    }

    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}
