//! First packets to names on ports that nobody serves: read strictly from what the loopback device shows.

use std::net::Ipv4Addr;

/// IPv4 without options.
const IP_HEADER: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// How something tried to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP: QUIC, and protocols that the fence does not carry.
    Udp,
}

/// A packet that would begin something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The address, in `198.18.0.0/15`.
    pub to: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// By what.
    pub transport: Transport,
}

impl Attempt {
    /// Whether a listener of the gateway takes it.
    pub fn is_served(&self) -> bool {
        self.transport == Transport::Tcp && matches!(self.port, 80 | 443)
    }
}

/// Reads a packet from its IPv4 header on; `None` where it begins nothing, or not towards a name.
pub fn read(packet: &[u8]) -> Option<Attempt> {
    let header = packet.first_chunk::<IP_HEADER>()?;
    let words = usize::from(header[0] & 0x0f);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] >> 4 != 4 || words < 5 || length > packet.len() || fragment != 0 {
        return None;
    }
    let to = Ipv4Addr::from([header[16], header[17], header[18], header[19]]);
    let [198, 18..=19, ..] = to.octets() else { return None };
    let segment = packet.get(words * 4..length)?;
    let port = |segment: &[u8]| u16::from_be_bytes([segment[2], segment[3]]);
    let (port, transport) = match header[9] {
        TCP => {
            let head = segment.first_chunk::<20>()?;
            (head[13] & (SYN | ACK) == SYN).then(|| (port(head), Transport::Tcp))?
        }
        UDP => (port(segment.first_chunk::<8>()?), Transport::Udp),
        _ => return None,
    };
    (port != 0).then_some(Attempt { to, port, transport })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(protocol: u8, to: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[3] = 40;
        packet[9] = protocol;
        packet[16..20].copy_from_slice(&to);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[33] = flags;
        packet
    }

    #[test]
    fn only_what_begins_something_towards_a_name_counts() {
        let name = [198, 18, 0, 2];
        let attempt = |port, transport| Some(Attempt { to: Ipv4Addr::from(name), port, transport });
        let changed = |at: usize, byte| {
            let mut packet = packet(TCP, name, 5432, SYN);
            packet[at] = byte;
            packet
        };
        for (why, bytes, expected) in [
            ("a SYN", packet(TCP, name, 5432, SYN), attempt(5432, Transport::Tcp)),
            ("with ECN", packet(TCP, name, 22, SYN | 0xc0), attempt(22, Transport::Tcp)),
            ("its answer", packet(TCP, name, 5432, SYN | ACK), None),
            ("data", packet(TCP, name, 5432, ACK), None),
            ("UDP", packet(UDP, name, 443, 0), attempt(443, Transport::Udp)),
            ("ICMP", packet(1, name, 443, 0), None),
            ("port 0", packet(UDP, name, 0, 0), None),
            ("to loopback", packet(TCP, [127, 0, 0, 1], 5432, SYN), None),
            ("past the range", packet(TCP, [198, 20, 0, 2], 5432, SYN), None),
            ("version 6", changed(0, 0x65), None),
            ("a header that is none", changed(0, 0x44), None),
            ("options past the end", changed(0, 0x4f), None),
            ("longer than it is", changed(3, 41), None),
            ("shorter than TCP", changed(3, 39), None),
            ("a later fragment", changed(7, 1), None),
        ] {
            assert_eq!(read(&bytes), expected, "{why}");
        }
        for length in 0..40 {
            assert_eq!(read(&packet(TCP, name, 5432, SYN)[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
