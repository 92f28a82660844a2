//! Questions for names inside a fence: each answer is one that any client takes, and says nothing but what it may.

use std::net::Ipv4Addr;
use std::time::Instant;

use outgate::fence::names::{Names, answer, failure};
use policy::target::Host;

/// Takes the length of a first packet, and two packets of one fence.
pub fn check(input: &[u8]) {
    let [length, packets @ ..] = input else { return };
    let (first, second) = packets.split_at(usize::from(*length).min(packets.len()));
    let (mut names, now) = (Names::default(), Instant::now());
    for packet in [first, second, first] {
        let mut asked = None;
        let given = answer(packet, &mut names, now, |host| {
            asked = Some(host.clone());
            may_pass(host)
        });
        let again = answer(packet, &mut names, now, may_pass);
        assert_eq!(again, given, "the same question is answered in another way");
        let Some(given) = given else {
            assert!(failure(packet).is_none());
            continue;
        };
        let reply = Reply::read(&given.packet, packet);
        if let Some(failed) = failure(packet) {
            assert_eq!(Reply::read(&failed, packet).record, None);
        }
        if let Some((kind, data)) = reply.record {
            assert_eq!(reply.code, 0, "a record beside an error");
            says_what_it_may(kind, data, packet, asked.as_ref(), &names);
        }
        let names_it = |host: &Host| may_pass(host) || given.note.is_some();
        assert!(asked.as_ref().is_none_or(names_it), "{asked:?} is refused without a note");
    }
}

fn may_pass(host: &Host) -> bool {
    host.as_str().ends_with("allowed.test")
}

/// An address of ours for the very name that was asked for, this machine's, or the name of an address of ours.
fn says_what_it_may(kind: u16, data: &[u8], packet: &[u8], asked: Option<&Host>, names: &Names) {
    let question = name(&packet[12..]).expect("only what was read is answered");
    match kind {
        1 => {
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(data).expect("an address of four bytes"));
            let host = Host::parse(&question).expect("only hosts are answered");
            if address == Ipv4Addr::LOCALHOST {
                return assert!(host.as_str().ends_with("localhost"), "{host} is not this machine");
            }
            assert_eq!((address.octets()[0], address.octets()[1] & 0xfe), (198, 18), "{address}");
            assert_eq!(names.lookup(address), Some(&host), "another name is known than was asked for");
            assert!(asked == Some(&host) && may_pass(&host), "{host} may not be asked for");
        }
        12 => {
            let told = Host::parse(&name(data).expect("a name")).expect("a host");
            assert!(may_pass(&told), "{told} was never answered");
        }
        other => panic!("a record of type {other}"),
    }
}

/// A reply as a client reads it.
struct Reply<'r> {
    code: u8,
    record: Option<(u16, &'r [u8])>,
}

impl<'r> Reply<'r> {
    fn read(reply: &'r [u8], query: &[u8]) -> Reply<'r> {
        assert!((12..=512).contains(&reply.len()), "{} bytes", reply.len());
        assert_eq!(reply[..2], query[..2], "the number of another question");
        assert!(reply[2] & 0x80 != 0 && query[2] & 0x80 == 0, "a reply to a reply");
        let count = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
        let [questions, answers, others, more] = [4, 6, 8, 10].map(count);
        assert!(questions <= 1 && answers <= questions && others == 0 && more <= 1);
        let mut rest = &reply[12..];
        if questions == 1 {
            let length = length_of(rest) + 4;
            assert_eq!(rest[..length], query[12..12 + length], "another question is repeated");
            rest = &rest[length..];
        }
        let mut record = None;
        if answers == 1 {
            assert_eq!(rest[..2], [0xc0, 0x0c], "the record is not of the name asked for");
            let size = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
            record = Some((u16::from_be_bytes([rest[2], rest[3]]), &rest[12..12 + size]));
            rest = &rest[12 + size..];
        }
        assert_eq!(rest.len(), 11 * more, "bytes follow the last record");
        Reply { code: reply[3] & 0x0f, record }
    }
}

/// How many bytes a name in full takes.
fn length_of(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at] != 0 {
        at += usize::from(bytes[at]) + 1;
    }
    at + 1
}

/// A name in full, with dots.
fn name(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    loop {
        let (size, rest) = bytes.split_first()?;
        if *size == 0 {
            return Some(labels.join(&b'.'));
        }
        let (label, rest) = rest.split_at_checked(usize::from(*size))?;
        labels.push(label);
        bytes = rest;
    }
}
