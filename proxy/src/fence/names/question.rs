//! One DNS message with one question, read strictly (RFC 1035, section 4; RFC 6891), and replies to it.

use policy::target::Host;

/// Length of a message's header.
const HEADER: usize = 12;
/// The longest name, with the lengths of its labels and the root.
const NAME_LIMIT: usize = 255;
const LABEL_LIMIT: u8 = 63;
/// The size of messages that we take, for clients that say what they take.
const PAYLOAD: u16 = 1232;

/// Codes of a reply.
pub(super) const NO_ERROR: u8 = 0;
pub(super) const FORMAT_ERROR: u8 = 1;
pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NO_SUCH_NAME: u8 = 3;
pub(super) const NOT_IMPLEMENTED: u8 = 4;
pub(super) const REFUSED: u8 = 5;

const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const AUTHORITATIVE: u8 = 0x04;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
/// Class `IN`.
const INTERNET: u16 = 1;
const OPT: u16 = 41;

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type(pub u16);

impl Type {
    /// An IPv4 address.
    pub const A: Type = Type(1);
    /// The name of an address.
    pub const PTR: Type = Type(12);

    /// Whether it is asked of names such as `_https._tcp.host`: SRV, NAPTR, SVCB, HTTPS.
    pub fn is_about_services(self) -> bool {
        matches!(self.0, 33 | 35 | 64 | 65)
    }

    /// Whether programs ask this of names that they want to reach: NS, CNAME, SOA, PTR, MX, AAAA, SRV, NAPTR, DS,
    /// DNSKEY, SVCB, HTTPS. What else there is holds text or bytes of anybody's choosing.
    pub fn is_ordinary(self) -> bool {
        matches!(self.0, 1 | 2 | 5 | 6 | 12 | 15 | 28 | 33 | 35 | 43 | 48 | 64 | 65)
    }
}

/// Why a message is not answered by its question.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is a reply, or too short for one.
    Nothing,
    /// It is answered with this.
    Refused(Vec<u8>),
}

/// A message that asks one thing.
#[derive(Debug)]
pub(super) struct Question<'a> {
    header: &'a [u8],
    /// The question as it was written, for the reply.
    asked_as: &'a [u8],
    labels: Vec<&'a [u8]>,
    /// What is asked for.
    pub asked: Type,
    extended: bool,
}

impl<'a> Question<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Question<'a>, Unreadable> {
        if message.len() < HEADER || message[2] & RESPONSE != 0 {
            return Err(Unreadable::Nothing);
        }
        let (header, body) = message.split_at(HEADER);
        let refused = |code| Unreadable::Refused(bare(header, code));
        if header[2] & OPCODE != 0 {
            return Err(refused(NOT_IMPLEMENTED));
        }
        let counts = [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        let ([1, 0, 0, more @ 0..=1], 0) = (counts, header[2] & TRUNCATED) else {
            return Err(refused(FORMAT_ERROR));
        };
        let (labels, rest) = name(body).ok_or_else(|| refused(FORMAT_ERROR))?;
        let Some(([high, low, class_high, class_low], rest)) = rest.split_first_chunk() else {
            return Err(refused(FORMAT_ERROR));
        };
        let extended = match (more, is_options(rest)) {
            (0, _) if rest.is_empty() => false,
            (1, true) => true,
            _ => return Err(refused(FORMAT_ERROR)),
        };
        if u16::from_be_bytes([*class_high, *class_low]) != INTERNET {
            return Err(refused(REFUSED));
        }
        let asked_as = &body[..body.len() - rest.len()];
        let asked = Type(u16::from_be_bytes([*high, *low]));
        Ok(Question { header, asked_as, labels, asked, extended })
    }

    /// The name, where it is one that policy could speak of.
    pub(super) fn host(&self) -> Option<Host> {
        // A dot inside a label would read as the end of one.
        let dotted = self.labels.iter().any(|label| label.contains(&b'.'));
        (!dotted).then(|| Host::parse(&self.labels.join(&b'.')).ok()).flatten()
    }

    /// A reply with these records about the name that was asked for.
    pub(super) fn reply(&self, code: u8, records: &[(Type, &[u8])]) -> Vec<u8> {
        let mut packet = head(self.header, code, [1, records.len(), 0, usize::from(self.extended)]);
        packet.extend_from_slice(self.asked_as);
        for (kind, data) in records {
            // The name is that of the question, which begins right after the header.
            packet.extend_from_slice(&[0xc0, 0x0c]);
            packet.extend_from_slice(&kind.0.to_be_bytes());
            packet.extend_from_slice(&INTERNET.to_be_bytes());
            packet.extend_from_slice(&super::TTL.to_be_bytes());
            packet.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
            packet.extend_from_slice(data);
        }
        if self.extended {
            packet.push(0);
            packet.extend_from_slice(&OPT.to_be_bytes());
            packet.extend_from_slice(&PAYLOAD.to_be_bytes());
            packet.extend_from_slice(&[0; 6]);
        }
        packet
    }
}

/// A host's name as it stands in a message.
pub(super) fn wire_name(host: &Host) -> Vec<u8> {
    let mut wire = Vec::with_capacity(host.as_str().len() + 2);
    for label in host.as_str().split('.') {
        // A host's labels have 63 characters at most.
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// Reads a name that stands in full: a question has nothing before it that it could point to.
fn name(mut bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (mut labels, mut length) = (Vec::new(), 1);
    loop {
        let (&size, rest) = bytes.split_first()?;
        if size == 0 {
            return Some((labels, rest));
        }
        length += usize::from(size) + 1;
        if size > LABEL_LIMIT || length > NAME_LIMIT {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(size))?;
        labels.push(label);
        bytes = rest;
    }
}

/// Whether this is an OPT record of version 0 and nothing else.
fn is_options(bytes: &[u8]) -> bool {
    let Some((head, data)) = bytes.split_first_chunk::<11>() else { return false };
    let [root, kind @ .., size_high, size_low] = head;
    *root == 0
        && kind[..2] == OPT.to_be_bytes()
        && kind[5] == 0
        && data.len() == usize::from(u16::from_be_bytes([*size_high, *size_low]))
}

/// A reply without the question, to what could not be read as one.
fn bare(header: &[u8], code: u8) -> Vec<u8> {
    head(header, code, [0; 4])
}

fn head(asked: &[u8], code: u8, counts: [usize; 4]) -> Vec<u8> {
    let flags = RESPONSE | (asked[2] & (OPCODE | RECURSION_DESIRED)) | AUTHORITATIVE;
    let mut packet = vec![asked[0], asked[1], flags, RECURSION_AVAILABLE | code];
    for count in counts {
        packet.extend_from_slice(&u16::try_from(count).unwrap_or_default().to_be_bytes());
    }
    packet
}
