//! Who is signed in at the console: a cookie stands for a sign-in that is kept here, in memory, for half a day.
//!
//! A browser sends the cookie with whatever leads to this host, whichever page made it do so, and to every other port of
//! this host. So the cookie alone opens nothing but the page's files. To read or change something, a request also says
//! the page's own word, which the sign-in was answered with and which browsers keep apart by port.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::COOKIE;
use sha2::{Digest as _, Sha256};

use crate::token::{self, NoRandom};

/// How long a sign-in lasts: a day's work.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// Sign-ins at once; one more ends the oldest.
const MOST: usize = 32;
/// How long the link lasts that is printed at the start.
const LINK_LASTS: Duration = Duration::from_secs(15 * 60);
/// Failures from one address within [`FAILURES_WITHIN`] after which none is looked at.
const FAILURES: u32 = 10;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// Addresses whose failures are counted; when there are more, the counts begin anew.
const ADDRESSES: usize = 1024;
/// In which a page says its word.
pub(super) const PAGE_HEADER: &str = "x-outgate-csrf";

type Digest = [u8; 32];

/// Everybody who is signed in.
#[derive(Default)]
pub struct SignIns {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    open: Vec<Open>,
    links: Vec<(Digest, Instant)>,
    failures: HashMap<Option<IpAddr>, (u32, Instant)>,
}

/// Only digests, so that none can be printed or read out of memory and used.
struct Open {
    cookie: Digest,
    page: Digest,
    ends: Instant,
}

/// What a browser is given.
pub(super) struct Given {
    /// Value of the cookie.
    pub(super) cookie: String,
    /// The page's word.
    pub(super) page: String,
    /// How long both hold.
    pub(super) lasts: Duration,
}

/// A sign-in that a request named by its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignedIn(Digest);

impl SignIns {
    /// What a link to the sign-in page carries to be good for it, once and not for long.
    ///
    /// # Errors
    /// Where there are no random numbers.
    pub fn link(&self) -> Result<String, NoRandom> {
        let code = token::fresh()?;
        self.state().links.push((digest(&code), Instant::now() + LINK_LASTS));
        Ok(code)
    }

    /// Uses a link up.
    pub(super) fn redeem(&self, code: &str, now: Instant) -> bool {
        let (code, mut state) = (digest(code), self.state());
        state.links.retain(|(_, ends)| *ends > now);
        let found = state.links.iter().position(|(known, _)| is_equal(known, &code));
        found.map(|at| state.links.swap_remove(at)).is_some()
    }

    /// Signs somebody in.
    ///
    /// # Errors
    /// Where there are no random numbers.
    pub(super) fn open(&self, now: Instant) -> Result<Given, NoRandom> {
        let given = Given { cookie: token::fresh()?, page: token::fresh()?, lasts: LASTS };
        let mut state = self.state();
        state.open.retain(|open| open.ends > now);
        if state.open.len() == MOST {
            state.open.remove(0);
        }
        let (cookie, page) = (digest(&given.cookie), digest(&given.page));
        state.open.push(Open { cookie, page, ends: now + LASTS });
        Ok(given)
    }

    /// The sign-in that the cookie of these headers names. Several of that name are none: one was put there by somebody
    /// else.
    pub(super) fn named(&self, headers: &HeaderMap, port: Option<u16>, now: Instant) -> Option<SignedIn> {
        let cookie = digest(only_cookie(headers, &cookie_name(port))?);
        self.is_open(SignedIn(cookie), now).then_some(SignedIn(cookie))
    }

    /// Whether it still holds.
    pub(super) fn is_open(&self, SignedIn(cookie): SignedIn, now: Instant) -> bool {
        self.state().open.iter().any(|open| is_equal(&open.cookie, &cookie) && open.ends > now)
    }

    /// Whether these headers say the page's word, once.
    pub(super) fn is_page(&self, SignedIn(cookie): SignedIn, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(PAGE_HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let said: Digest = Sha256::digest(value.as_bytes()).into();
        let state = self.state();
        state.open.iter().any(|open| is_equal(&open.cookie, &cookie) && is_equal(&open.page, &said))
    }

    /// Signs out.
    pub(super) fn close(&self, SignedIn(cookie): SignedIn) {
        self.state().open.retain(|open| !is_equal(&open.cookie, &cookie));
    }

    /// How long this address has to wait before it may try again; `None` where it may now.
    pub(super) fn must_wait(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let state = self.state();
        let (failures, since) = state.failures.get(&from)?;
        let left = (*since + FAILURES_WITHIN).checked_duration_since(now)?;
        (*failures >= FAILURES && !left.is_zero()).then_some(left)
    }

    /// Counts a failure.
    pub(super) fn failed(&self, from: Option<IpAddr>, now: Instant) {
        let mut state = self.state();
        state.failures.retain(|_, (_, since)| *since + FAILURES_WITHIN > now);
        if state.failures.len() >= ADDRESSES {
            state.failures.clear();
        }
        state.failures.entry(from).or_insert((0, now)).0 += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Browsers send a host's cookies to all its ports: each gateway has a name of its own.
pub(super) fn cookie_name(port: Option<u16>) -> String {
    port.map_or_else(|| "outgate_console".to_owned(), |port| format!("outgate_console_{port}"))
}

fn only_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    });
    values.next().filter(|_| values.next().is_none())
}

fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

fn is_equal(one: &Digest, other: &Digest) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, text.parse().unwrap())])
    }

    #[test]
    fn a_cookie_names_its_sign_in_until_it_ends() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        let given = sign_ins.open(now).unwrap();
        let headers = cookie(&format!("a=b; outgate_console_1={}; c=d", given.cookie));
        let signed_in = sign_ins.named(&headers, Some(1), now).unwrap();
        assert_eq!(sign_ins.named(&headers, Some(2), now), None, "the cookie of another gateway");
        assert_eq!(sign_ins.named(&headers, Some(1), now + LASTS), None, "it ends");
        let twice = cookie(&format!("outgate_console_1={0}; outgate_console_1={0}", given.cookie));
        assert_eq!(sign_ins.named(&twice, Some(1), now), None, "which of the two is ours?");
        let page =
            |value: &str| HeaderMap::from_iter([(PAGE_HEADER.parse().unwrap(), value.parse().unwrap())]);
        assert!(sign_ins.is_page(signed_in, &page(&given.page)));
        assert!(!sign_ins.is_page(signed_in, &page(&given.cookie)));
        let other = sign_ins.open(now).unwrap();
        assert!(!sign_ins.is_page(signed_in, &page(&other.page)), "the word of another sign-in");
        sign_ins.close(signed_in);
        assert_eq!(sign_ins.named(&headers, Some(1), now), None);
    }

    #[test]
    fn there_are_never_more_than_a_few() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        let given: Vec<_> = (0..=MOST).map(|_| sign_ins.open(now).unwrap()).collect();
        let named = |given: &Given| {
            sign_ins.named(&cookie(&format!("outgate_console={}", given.cookie)), None, now).is_some()
        };
        assert!(!named(&given[0]), "the oldest made room");
        assert!(given[1..].iter().all(named));
    }

    #[test]
    fn a_link_is_good_once_and_not_for_long() {
        let sign_ins = SignIns::default();
        let (one, other, now) = (sign_ins.link().unwrap(), sign_ins.link().unwrap(), Instant::now());
        assert!(!sign_ins.redeem("outgate_x", now));
        assert!(sign_ins.redeem(&one, now));
        assert!(!sign_ins.redeem(&one, now));
        assert!(!sign_ins.redeem(&other, now + 2 * LINK_LASTS));
    }

    #[test]
    fn who_fails_often_waits() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().ok());
        for _ in 0..FAILURES {
            assert_eq!(sign_ins.must_wait(one, now), None);
            sign_ins.failed(one, now);
        }
        assert_eq!(sign_ins.must_wait(one, now), Some(FAILURES_WITHIN));
        assert_eq!(sign_ins.must_wait(other, now), None);
        assert_eq!(sign_ins.must_wait(one, now + FAILURES_WITHIN), None);
    }
}
