//! The first bytes of a tunnel that is not decrypted: the name asked for, however they arrive.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use outgate::passthrough::read_hello;
use policy::target::Host;
use tokio::io::{AsyncRead, ReadBuf};

use crate::cuts::Cuts;

/// Takes a seed and what a client sends.
pub fn check(input: &[u8]) {
    let Some((mut cuts, sent)) = Cuts::of(input) else { return };
    let whole = read(&[sent]);
    let pieces = read(&cuts.pieces(sent));
    assert_eq!(name(&pieces), name(&whole), "the name depends on the cuts");
    for (seen, name) in [&whole, &pieces].into_iter().flatten() {
        assert!(sent.starts_with(seen), "other bytes would be passed on than came");
        if let Some(name) = name {
            let independent = name_in(seen).expect("rustls reads a hello where there is none");
            let independent = independent.and_then(|name| Host::parse(&name).ok());
            assert_eq!(independent.as_ref(), Some(name), "another name stands in the hello");
        }
    }
}

type Hello = Option<(Bytes, Option<Host>)>;

/// Whether there is a hello, and its name.
fn name(hello: &Hello) -> Option<Option<&Host>> {
    hello.as_ref().map(|(_, name)| name.as_ref())
}

fn read(pieces: &[&[u8]]) -> Hello {
    let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| Bytes::copy_from_slice(piece));
    let mut client = Pieces(pieces.collect());
    read_hello(&mut client).now_or_never().expect("nothing is waited for")
}

/// A client whose bytes arrive in these pieces.
struct Pieces(VecDeque<Bytes>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
            if !piece.is_empty() {
                self.0.push_front(piece);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The name in a ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3), read by hand. `None` where there is no
/// complete hello.
fn name_in(records: &[u8]) -> Option<Option<Vec<u8>>> {
    let message = handshake(records)?;
    let mut hello = Reader(&message);
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let mut extensions = Reader(hello.vector(2).unwrap_or_default());
    while let Some(kind) = extensions.number(2) {
        let mut content = Reader(extensions.vector(2)?);
        if kind == 0 {
            let mut list = Reader(content.vector(2)?);
            list.number(1).filter(|kind| *kind == 0)?;
            return Some(Some(list.vector(2)?.to_vec()));
        }
    }
    Some(None)
}

/// The content of the first handshake message, put together from its records.
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut content) = (Reader(records), Vec::new());
    loop {
        if let Some(length) = Reader(content.get(1..).unwrap_or_default()).number(3)
            && content.len() >= 4 + length
        {
            content.truncate(4 + length);
            return (content[0] == 1).then(|| content.split_off(4));
        }
        rest.number(1).filter(|kind| *kind == 0x16)?;
        rest.number(2)?;
        content.extend_from_slice(rest.vector(2)?);
    }
}

/// Reads numbers and vectors as TLS writes them.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, length_bytes: usize) -> Option<&'b [u8]> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}
