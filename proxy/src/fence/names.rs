//! Names inside a fence: questions read strictly, answered with addresses that stand for names, resolved nowhere.
//!
//! Everything here is a function of its arguments, for bytes that come from whoever is inside.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use policy::target::Host;

mod question;

pub use question::Type;
use question::{Question, Unreadable};

/// First address of `198.18.0.0/15` that stands for a name; the network's own and the one after it stay free.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 2]);
/// Names that one fence may ask for.
const NAMES: usize = 65_536;
/// For how long a name is waited for to be connected to before it is told of in a row of its own.
pub const UNFOLLOWED: Duration = Duration::from_secs(60);
/// How long an answer holds, in seconds. It holds for as long as the fence; whether it is given changes with policy.
const TTL: u32 = 60;

/// The names that a fence asked for, and the addresses that stand for them.
#[derive(Debug, Default)]
pub struct Names {
    places: HashMap<Host, usize>,
    named: Vec<Named>,
    /// How many of the first names need not be looked at for being unfollowed.
    settled: usize,
}

#[derive(Debug)]
struct Named {
    host: Host,
    answered: Instant,
    /// Something connected to it, or a row tells that nothing did.
    told: bool,
}

/// What is to be recorded before an answer is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// Nothing could pass to this name.
    Refused(Host, Type),
    /// The name could be asked for, but not what else its owner has to say: that is how data is carried by names.
    Unserved(Host, Type),
    /// What was asked for is no name, or the question is none.
    Unreadable,
    /// There is no room for more names.
    Full,
}

/// An answer, and what has to be recorded before it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The packet.
    pub packet: Vec<u8>,
    /// What to record first.
    pub note: Option<Note>,
}

/// What a question comes to.
enum Says {
    Address(Ipv4Addr),
    Name(Host),
    /// The name is there, without anything of what was asked for.
    Nothing,
    NoSuchName,
    Failure,
}

/// Answers a question; `None` where it is none that could be answered. `may_pass` says whether a name is answered.
/// The answer fits every client: it has one record at most and stays below 512 bytes.
pub fn answer(
    query: &[u8],
    names: &mut Names,
    now: Instant,
    may_pass: impl FnOnce(&Host) -> bool,
) -> Option<Answer> {
    let question = match Question::parse(query) {
        Ok(question) => question,
        Err(Unreadable::Nothing) => return None,
        Err(Unreadable::Refused(packet)) => return Some(Answer { packet, note: Some(Note::Unreadable) }),
    };
    let (says, note) = judge(&question, names, now, may_pass);
    let packet = match says {
        Says::Address(address) => question.reply(question::NO_ERROR, &[(Type::A, &address.octets())]),
        Says::Name(host) => question.reply(question::NO_ERROR, &[(Type::PTR, &question::wire_name(&host))]),
        Says::Nothing => question.reply(question::NO_ERROR, &[]),
        Says::NoSuchName => question.reply(question::NO_SUCH_NAME, &[]),
        Says::Failure => question.reply(question::SERVER_FAILURE, &[]),
    };
    Some(Answer { packet, note })
}

/// The answer where none can be given now, such as where it cannot be recorded.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    Question::parse(query).ok().map(|question| question.reply(question::SERVER_FAILURE, &[]))
}

fn judge(
    question: &Question<'_>,
    names: &mut Names,
    now: Instant,
    may_pass: impl FnOnce(&Host) -> bool,
) -> (Says, Option<Note>) {
    let asked = question.asked;
    let Some(host) = question.host().filter(|host| host.name().is_some()) else {
        return (Says::NoSuchName, Some(Note::Unreadable));
    };
    if is_localhost(&host) {
        let says = if asked == Type::A { Says::Address(Ipv4Addr::LOCALHOST) } else { Says::Nothing };
        return (says, None);
    }
    if let Some(address) = reversed(&host) {
        // Tools ask for the names of addresses that they meet; those of ours are the only ones there are.
        return match names.lookup(address) {
            Some(name) if asked == Type::PTR => (Says::Name(name.clone()), None),
            _ => (Says::NoSuchName, None),
        };
    }
    if !may_pass(owner(&host, asked).as_ref().unwrap_or(&host)) {
        return (Says::NoSuchName, Some(Note::Refused(host, asked)));
    }
    match asked {
        Type::A => match names.address(&host, now) {
            Some(address) => (Says::Address(address), None),
            None => (Says::Failure, Some(Note::Full)),
        },
        // No IPv6, and no records that would lead a client to QUIC or to an encrypted hello.
        asked if asked.is_ordinary() => (Says::Nothing, None),
        asked => (Says::Nothing, Some(Note::Unserved(host, asked))),
    }
}

/// The name that a record about a service of it is asked of (RFC 8552): `allowed.test` for `_https._tcp.allowed.test`.
fn owner(host: &Host, asked: Type) -> Option<Host> {
    let mut rest = host.as_str();
    while asked.is_about_services()
        && rest.starts_with('_')
        && let Some((_, parent)) = rest.split_once('.')
    {
        rest = parent;
    }
    Host::parse(rest.as_bytes()).ok()
}

/// This machine, by RFC 6761, section 6.3.
fn is_localhost(host: &Host) -> bool {
    host.as_str() == "localhost" || host.as_str().ends_with(".localhost")
}

/// The address that a name below `in-addr.arpa` asks about (RFC 1035, section 3.5).
fn reversed(host: &Host) -> Option<Ipv4Addr> {
    let quad = host.as_str().strip_suffix(".in-addr.arpa")?;
    let address: Ipv4Addr = quad.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::from([d, c, b, a]))
}

impl Names {
    /// The address that stands for a name, the same for as long as the fence stands; `None` where there is no room.
    pub fn address(&mut self, host: &Host, now: Instant) -> Option<Ipv4Addr> {
        let place = match self.places.get(host) {
            Some(place) => *place,
            None if self.named.len() >= NAMES => return None,
            None => {
                self.named.push(Named { host: host.clone(), answered: now, told: false });
                self.places.insert(host.clone(), self.named.len() - 1);
                self.named.len() - 1
            }
        };
        Some(Ipv4Addr::from(FIRST + u32::try_from(place).ok()?))
    }

    /// The name that an address stands for.
    pub fn lookup(&self, address: Ipv4Addr) -> Option<&Host> {
        self.place(address).map(|place| &self.named[place].host)
    }

    /// As [`Names::lookup`], for somebody who connects to it.
    pub fn follow(&mut self, address: Ipv4Addr) -> Option<Host> {
        let place = self.place(address)?;
        self.named[place].told = true;
        Some(self.named[place].host.clone())
    }

    /// Up to `most` names that nothing connected to for a while, or at all where `ending`; each is given once.
    pub fn unfollowed(&mut self, now: Instant, ending: bool, most: usize) -> Vec<Host> {
        let mut found = Vec::new();
        while found.len() < most
            && let Some(named) = self.named.get_mut(self.settled)
            && (ending || named.told || now.saturating_duration_since(named.answered) >= UNFOLLOWED)
        {
            if !std::mem::replace(&mut named.told, true) {
                found.push(named.host.clone());
            }
            self.settled += 1;
        }
        found
    }

    fn place(&self, address: Ipv4Addr) -> Option<usize> {
        let place = usize::try_from(u32::from(address).checked_sub(FIRST)?).ok()?;
        (place < self.named.len()).then_some(place)
    }
}

#[cfg(test)]
mod tests;
