//! Looking into encoded bodies: the original bytes are released once everything they decode to has been cleared.

mod codec;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use codec::Decoder;
pub use codec::Encoding;

use crate::record::Finding;
use crate::redact::Excerpt;
use crate::scan::{Found, Scanner};

/// How much a body may decode to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes, over all.
    pub decoded_bytes: u64,
    /// Decoded bytes for each byte on the wire, once more than a mebibyte has been decoded.
    pub ratio: u32,
}

impl Default for DecodeLimits {
    /// 256 MiB and a hundredfold.
    fn default() -> Self {
        Self { decoded_bytes: 256 << 20, ratio: 100 }
    }
}

/// Small bodies compress as well as they like.
const RATIO_APPLIES_FROM: u64 = 1 << 20;

/// Why a body could not be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undecodable {
    /// The `content-encoding` names a coding that is not known.
    UnknownEncoding,
    /// More than two codings on top of each other.
    TooManyLayers,
    /// The data is not what its coding says.
    BrokenData,
    /// The data ends in its midst.
    Truncated,
    /// Something follows the end of the encoded data, or hides between its parts.
    TrailingData,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownEncoding => "the content encoding is not known",
            Self::TooManyLayers => "more than two content encodings lie on top of each other",
            Self::BrokenData => "the body is not encoded as its header says",
            Self::Truncated => "the encoded body is incomplete",
            Self::TrailingData => "data stands behind the end of the encoded body",
        })
    }
}

impl std::error::Error for Undecodable {}

/// Why a body is not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A secret is in it.
    Secret(Found),
    /// It decodes to more than the limit, in bytes or for its size on the wire.
    TooLarge {
        /// Bytes decoded until then.
        decoded: u64,
    },
    /// It cannot be looked into; policy says what then.
    Undecodable(Undecodable),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(found) => found.fmt(f),
            Self::TooLarge { decoded } => {
                write!(f, "the body decodes to more than the limit ({decoded} bytes so far)")
            }
            Self::Undecodable(reason) => reason.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Found> for Refusal {
    fn from(found: Found) -> Self {
        Self::Secret(found)
    }
}

/// Looks into one body as it passes.
///
/// Without an encoding it is the scanner and nothing else. With one, the scanner sees what the bytes decode to, and
/// [`SecretAction::Mask`](crate::scan::SecretAction::Mask) blocks: writing over encoded data would break it.
pub struct BodyInspector {
    /// The outermost coding first: the one to be undone first.
    layers: Vec<Layer>,
    scanner: Scanner,
    limits: DecodeLimits,
    excerpt: Option<Excerpt>,
    /// Bytes from the wire that have not been released, with the count of decoded bytes after which they may go, once
    /// that is known.
    waiting: VecDeque<(Bytes, Option<u64>)>,
    wire: u64,
    decoded: u64,
    refused: Option<Refusal>,
}

struct Layer {
    decoder: Decoder,
    /// Where it decodes to.
    buffer: Box<[u8]>,
}

const BUFFER: usize = 32 << 10;

impl BodyInspector {
    /// An inspector for one body. `encodings` are in the order in which they were applied.
    pub fn new(encodings: &[Encoding], mut scanner: Scanner, limits: DecodeLimits) -> Self {
        if !encodings.is_empty() {
            scanner.block_instead_of_mask();
        }
        let layer =
            |encoding: &Encoding| Layer { decoder: Decoder::new(*encoding), buffer: vec![0; BUFFER].into() };
        Self {
            layers: encodings.iter().rev().map(layer).collect(),
            scanner,
            limits,
            excerpt: None,
            waiting: VecDeque::new(),
            wire: 0,
            decoded: 0,
            refused: None,
        }
    }

    /// Also collects the beginning of what is decoded.
    #[must_use]
    pub fn with_excerpt(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = Some(excerpt);
        self
    }

    /// Takes the next bytes from the wire and appends to `out` those that may go on.
    ///
    /// # Errors
    /// The reason why this body must not go on; it is given again for all that follows.
    pub fn push(&mut self, wire: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        self.refuse_again()?;
        self.wire += wire.len() as u64;
        let pushed =
            if self.layers.is_empty() { self.push_plain(wire, out) } else { self.push_encoded(&wire, out) };
        pushed.inspect_err(|refusal| self.refused = Some(refusal.clone()))
    }

    /// Says that the body is complete and appends the rest of it.
    ///
    /// # Errors
    /// As [`BodyInspector::push`]; also where the encoded data is incomplete.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        self.refuse_again()?;
        let finished = self.finish_layers(out);
        finished.inspect_err(|refusal| self.refused = Some(refusal.clone()))
    }

    /// How many bytes the body decoded to so far; without an encoding, how many arrived.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded
    }

    /// What was found so far.
    pub fn findings(&self) -> &[Finding] {
        self.scanner.findings()
    }

    /// The beginning of the body, if it was collected.
    pub fn take_excerpt(&mut self) -> Option<Excerpt> {
        self.excerpt.take()
    }

    /// For a body that could not be decoded and that policy lets pass all the same: the bytes held so far, with the
    /// ones of the push that failed. The caller passes on what follows without looking.
    pub fn into_held(self) -> Vec<Bytes> {
        self.waiting.into_iter().map(|(bytes, _)| bytes).collect()
    }

    fn refuse_again(&self) -> Result<(), Refusal> {
        self.refused.clone().map_or(Ok(()), Err)
    }

    fn push_plain(&mut self, wire: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        self.decoded += wire.len() as u64;
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.push(&wire);
        }
        Ok(self.scanner.push(wire, out)?)
    }

    fn push_encoded(&mut self, wire: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        self.waiting.push_back((wire.clone(), None));
        self.decode(0, wire)?;
        if self.layers.iter().all(|layer| layer.decoder.is_settled()) {
            let decoded = self.decoded;
            self.waiting.iter_mut().for_each(|(_, known)| *known = known.or(Some(decoded)));
        }
        self.release(out);
        Ok(())
    }

    /// Decodes through the layer of that index and all after it, and scans what comes out.
    fn decode(&mut self, index: usize, mut input: &[u8]) -> Result<(), Refusal> {
        loop {
            let Some(layer) = self.layers.get_mut(index) else { return self.scan(input) };
            let progress = layer.decoder.step(input, &mut layer.buffer).map_err(Refusal::Undecodable)?;
            input = &input[progress.consumed..];
            if progress.produced > 0 {
                // The buffer is lent out for as long as the next layer reads it.
                let buffer = std::mem::take(&mut layer.buffer);
                let decoded = self.decode(index + 1, &buffer[..progress.produced]);
                self.layers[index].buffer = buffer;
                decoded?;
            } else if progress.consumed == 0 || input.is_empty() {
                return match input.is_empty() {
                    true => Ok(()),
                    false => Err(Refusal::Undecodable(Undecodable::BrokenData)),
                };
            }
        }
    }

    fn scan(&mut self, decoded: &[u8]) -> Result<(), Refusal> {
        self.decoded += decoded.len() as u64;
        let ratio = self.decoded > RATIO_APPLIES_FROM
            && self.decoded / self.wire.max(1) > u64::from(self.limits.ratio);
        if self.decoded > self.limits.decoded_bytes || ratio {
            return Err(Refusal::TooLarge { decoded: self.decoded });
        }
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.push(decoded);
        }
        Ok(self.scanner.push(Bytes::copy_from_slice(decoded), &mut Vec::new())?)
    }

    fn finish_layers(&mut self, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        if self.layers.is_empty() {
            return Ok(self.scanner.finish(out)?);
        }
        self.decode(0, &[])?;
        if !self.layers.iter().all(|layer| layer.decoder.is_complete()) {
            return Err(Refusal::Undecodable(Undecodable::Truncated));
        }
        self.scanner.finish(&mut Vec::new())?;
        out.extend(self.waiting.drain(..).map(|(bytes, _)| bytes));
        Ok(())
    }

    /// Releases the bytes whose decoded form the scanner has cleared.
    fn release(&mut self, out: &mut Vec<Bytes>) {
        let cleared = self.decoded - self.scanner.undecided() as u64;
        while let Some((_, Some(known))) = self.waiting.front()
            && *known <= cleared
        {
            out.extend(self.waiting.pop_front().map(|(bytes, _)| bytes));
        }
    }
}

impl fmt::Debug for BodyInspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyInspector")
            .field("wire", &self.wire)
            .field("decoded", &self.decoded)
            .finish_non_exhaustive()
    }
}
