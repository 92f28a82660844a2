//! Packets in, packets out.

use proptest::prelude::*;

use super::*;

fn query(name: &str, kind: u16, extra: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(!extra.is_empty())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(extra);
    packet
}

const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

fn ask(names: &mut Names, packet: &[u8]) -> Option<Answer> {
    answer(packet, names, Instant::now(), |host| host.as_str().ends_with("allowed.test"))
}

/// Code and the data of the one record, where there is one.
fn read(packet: &[u8]) -> (u8, Option<Vec<u8>>) {
    assert!(packet.len() <= 512, "every client takes it");
    assert_eq!(packet[..2], [0xab, 0xcd], "the same number");
    assert_eq!(packet[2] & 0x81, 0x81, "a reply, and what was asked about recursion");
    let code = packet[3] & 0x0f;
    if packet[7] == 0 {
        return (code, None);
    }
    let mut at = 12;
    while packet[at] != 0 {
        at += usize::from(packet[at]) + 1;
    }
    let record = &packet[at + 5..];
    assert_eq!(record[..2], [0xc0, 0x0c]);
    let length = usize::from(u16::from_be_bytes([record[10], record[11]]));
    (code, Some(record[12..12 + length].to_vec()))
}

#[test]
fn names_stand_for_addresses_and_nothing_else_is_said() {
    let mut names = Names::default();
    let host = |name: &str| Host::parse(name.as_bytes()).unwrap();
    let address = |last| Some(vec![198, 18, 0, last]);
    let refused = |name, kind| Some(Note::Refused(host(name), Type(kind)));
    for (name, kind, code, data, note) in [
        ("allowed.test", 1, 0, address(2), None),
        ("api.allowed.test", 1, 0, address(3), None),
        ("ALLOWED.test", 1, 0, address(2), None),
        ("allowed.test", 28, 0, None, None),
        ("allowed.test", 65, 0, None, None),
        ("allowed.test", 64, 0, None, None),
        ("allowed.test", 15, 0, None, None),
        ("allowed.test", 16, 0, None, Some(Note::Unserved(host("allowed.test"), Type(16)))),
        ("allowed.test", 10, 0, None, Some(Note::Unserved(host("allowed.test"), Type(10)))),
        ("allowed.test", 255, 0, None, Some(Note::Unserved(host("allowed.test"), Type(255)))),
        ("_https._tcp.www.allowed.test", 33, 0, None, None),
        ("_https._tcp.evil.test", 33, 3, None, refused("_https._tcp.evil.test", 33)),
        ("_allowed.test", 33, 3, None, refused("_allowed.test", 33)),
        ("evil.test", 1, 3, None, refused("evil.test", 1)),
        ("secret.evil.test", 16, 3, None, refused("secret.evil.test", 16)),
        ("evil.test", 28, 3, None, refused("evil.test", 28)),
        ("localhost", 1, 0, Some(vec![127, 0, 0, 1]), None),
        ("app.localhost", 1, 0, Some(vec![127, 0, 0, 1]), None),
        ("localhost", 28, 0, None, None),
        ("2.0.18.198.in-addr.arpa", 12, 0, Some(b"\x07allowed\x04test\0".to_vec()), None),
        ("9.0.18.198.in-addr.arpa", 12, 3, None, None),
        ("1.0.0.127.in-addr.arpa", 12, 3, None, None),
        ("", 2, 3, None, Some(Note::Unreadable)),
        ("192.0.2.1", 1, 3, None, Some(Note::Unreadable)),
        ("bad name.allowed.test", 1, 3, None, Some(Note::Unreadable)),
    ] {
        for extra in [&[][..], &OPT] {
            let answer = ask(&mut names, &query(name, kind, extra)).unwrap();
            assert_eq!(read(&answer.packet), (code, data.clone()), "{name} {kind}");
            assert_eq!(answer.note, note, "{name} {kind}");
            assert_eq!(answer.packet[11], u8::from(!extra.is_empty()), "EDNS for those who speak it");
        }
    }
}

#[test]
fn a_question_is_answered_as_it_was_written() {
    let asked = query("AlLoWeD.TeSt", 1, &[]);
    let answer = ask(&mut Names::default(), &asked).unwrap();
    assert_eq!(answer.packet[12..asked.len()], asked[12..]);
}

#[test]
fn what_is_no_question_is_refused_or_left_alone() {
    let good = query("allowed.test", 1, &OPT);
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let longer = [&good[..], &[0]].concat();
    for (why, packet, code) in [
        ("a reply", changed(2, 0x81), None),
        ("half a header", good[..11].to_vec(), None),
        ("a status request", changed(2, 0x11), Some(4)),
        ("truncated", changed(2, 0x03), Some(1)),
        ("two questions", changed(5, 2), Some(1)),
        ("no question", changed(5, 0), Some(1)),
        ("an answer in it", changed(7, 1), Some(1)),
        ("more records than there are", changed(11, 2), Some(1)),
        ("a record that is not announced", changed(11, 0), Some(1)),
        ("a pointer", changed(12, 0xc0), Some(1)),
        ("class CH", changed(29, 3), Some(5)),
        ("half a name", good[..16].to_vec(), Some(1)),
        ("bytes after its end", longer, Some(1)),
        ("another version of EDNS", changed(36, 1), Some(1)),
        ("a dot in a label", changed(15, b'.'), Some(3)),
    ] {
        let answer = ask(&mut Names::default(), &packet);
        assert_eq!(answer.as_ref().map(|answer| answer.packet[3] & 0x0f), code, "{why}");
        assert!(answer.is_none_or(|answer| answer.note == Some(Note::Unreadable)), "{why}");
    }
}

#[test]
fn a_fence_has_room_for_so_many_names() {
    let (mut names, now) = (Names::default(), Instant::now());
    for number in 0..NAMES {
        names.address(&Host::parse(format!("n{number}.allowed.test").as_bytes()).unwrap(), now).unwrap();
    }
    let answer = ask(&mut names, &query("one-more.allowed.test", 1, &[])).unwrap();
    assert_eq!((read(&answer.packet), answer.note), ((2, None), Some(Note::Full)));
    let last = names.address(&Host::parse(b"n65535.allowed.test").unwrap(), now).unwrap();
    assert_eq!(last, Ipv4Addr::new(198, 19, 0, 1));
    assert_eq!(read(&ask(&mut names, &query("n0.allowed.test", 1, &[])).unwrap().packet).0, 0);
}

#[test]
fn names_that_nothing_connects_to_are_told_once() {
    let (mut names, start) = (Names::default(), Instant::now());
    let host = |name: &str| Host::parse(name.as_bytes()).unwrap();
    let later = start + UNFOLLOWED;
    let followed = names.address(&host("followed.test"), start).unwrap();
    names.address(&host("left.test"), start);
    names.address(&host("young.test"), later);
    assert_eq!(names.follow(followed), Some(host("followed.test")));
    assert!(names.unfollowed(start, false, 9).is_empty());
    assert_eq!(names.unfollowed(later, false, 9), [host("left.test")]);
    assert!(names.unfollowed(later, false, 9).is_empty());
    assert_eq!(names.unfollowed(later, true, 9), [host("young.test")]);
    assert_eq!(names.follow(Ipv4Addr::new(198, 18, 0, 1)), None);
    assert_eq!(names.follow(Ipv4Addr::new(198, 18, 0, 5)), None);
    assert_eq!(names.follow(Ipv4Addr::LOCALHOST), None);
}

proptest! {
    #[test]
    fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0_usize..40, byte: u8) {
        let mut names = Names::default();
        let _ = ask(&mut names, &bytes);
        let mut near = query("a.allowed.test", 1, &OPT);
        let at = at % near.len();
        near[at] = byte;
        if let Some(answer) = ask(&mut names, &near) {
            prop_assert!(answer.packet.len() <= 512 && answer.packet[2] & 0x80 != 0);
        }
        let _ = failure(&bytes);
    }
}
