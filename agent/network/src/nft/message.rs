//! Netlink messages of nftables, byte by byte. Source: `netlink(7)`, `linux/netfilter/nfnetlink.h`.

/// The subsystem's number, the high byte of message types.
pub(super) const NFTABLES: u16 = 10;

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// Attributes in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(pub(super) Vec<u8>);

impl Attributes {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nested(&mut self, kind: u16, value: &Self) {
        self.bytes(kind | NESTED, &value.0);
    }
}

/// One message: netlink header, nfnetlink header, attributes.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(attributes.len() + 20).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(attributes.len() + 20);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.push(family);
    bytes.push(0);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(attributes);
    bytes
}

/// The answers in one received datagram: sequence number and errno (0 is an acknowledgement).
pub(super) fn answers(mut datagram: &[u8]) -> Vec<(u32, i32)> {
    const ERROR: u16 = 2;
    let mut found = Vec::new();
    while let Some(length) = field(datagram, 0).map(u32::from_ne_bytes).and_then(|length| usize::try_from(length).ok())
    {
        if length < 16 || length > datagram.len() {
            break;
        }
        let kind = field(datagram, 4).map(u16::from_ne_bytes);
        if let (Some(ERROR), Some(code), Some(sequence)) = (kind, field(datagram, 16), field(datagram, 8)) {
            found.push((u32::from_ne_bytes(sequence), -i32::from_ne_bytes(code)));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_and_keep_their_length() {
        let mut attributes = Attributes::default();
        attributes.text(1, "ab");
        assert_eq!(attributes.0, [7, 0, 1, 0, b'a', b'b', 0, 0]);
    }

    #[test]
    fn a_cut_datagram_yields_the_answers_before_the_cut() {
        let mut datagram = message(2, 0, 7, 0, 0, &[0; 16]);
        datagram[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        let whole = answers(&datagram);
        assert_eq!(whole, [(7, 17)]);
        datagram.extend_from_slice(&[200, 0, 0, 0, 2, 0]);
        assert_eq!(answers(&datagram), whole);
        assert_eq!(answers(&[0; 64]), []);
    }
}
