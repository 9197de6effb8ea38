//! Which field it was that could not be read: the crate says what is wrong, but not where.

use prost::{
    DecodeError, Message as Decode,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType, message, skip_field},
};
use prost_reflect::DynamicMessage;

use super::{descriptors::Message, table::Type};

/// The names on the way to the field of a message whose bytes are broken there. Reads them once more, keeping nothing.
pub(super) fn of_fault(message: &'static Message, bytes: &[u8]) -> Vec<&'static str> {
    let mut names = Vec::new();
    // That it fails is why it is read.
    let _ = Search { message, names: &mut names }.merge(bytes);
    names
}

/// A message that is read for the names of the fields that are being read, and keeps nothing else. It is never written.
#[derive(Debug)]
struct Search<'n> {
    message: &'static Message,
    names: &'n mut Vec<&'static str>,
}

impl Decode for Search<'_> {
    fn merge_field(
        &mut self,
        number: u32,
        wire: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let Some(member) = self.message.members.iter().find(|member| member.field.number == number) else {
            return skip_field(wire, number, buf, context);
        };
        let length = self.names.len();
        self.names.extend(member.field.name);
        match (&member.field.content, member.inner()) {
            (Type::Map(_), _) | (_, None) => {
                DynamicMessage::new(self.message.descriptor.clone()).merge_field(number, wire, buf, context)?;
            }
            (_, Some(message)) => message::merge(wire, &mut Search { message, names: self.names }, buf, context)?,
        }
        self.names.truncate(length);
        Ok(())
    }

    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}
