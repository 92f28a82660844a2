//! The content codings of RFC 9110 section 8.4 as decoders that take and give bytes and do nothing else.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::Undecodable;

/// A content coding that can be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950; senders also use it for bare RFC 1951.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// Windows beyond 8 MiB are not for HTTP (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Codings stacked deeper than this are not undone.
const MOST_LAYERS: usize = 2;

impl Encoding {
    /// Reads a `content-encoding` header, several of them joined by commas: the codings in the order applied.
    ///
    /// # Errors
    /// A coding that is not known, or more than two on top of each other.
    pub fn parse(header: &str) -> Result<Vec<Self>, Undecodable> {
        let mut encodings = Vec::new();
        for word in header.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            encodings.push(match word.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                "br" => Self::Brotli,
                "zstd" => Self::Zstd,
                _ => return Err(Undecodable::UnknownEncoding),
            });
        }
        if encodings.len() > MOST_LAYERS { Err(Undecodable::TooManyLayers) } else { Ok(encodings) }
    }

    /// The name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// One decoder.
pub(super) enum Decoder {
    Gzip(Members),
    Deflate(Deflate),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
}

/// What a step of decoding did.
pub(super) struct Progress {
    pub(super) consumed: usize,
    pub(super) produced: usize,
}

/// How a decoder's stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing has arrived.
    Empty,
    /// In the midst of data.
    Inside,
    /// A complete stream lies behind.
    Ended,
}

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Gzip => Self::Gzip(Members { inflate: Decompress::new_gzip(15), state: State::Empty }),
            Encoding::Deflate => Self::Deflate(Deflate { inflate: None, first: None, state: State::Empty }),
            Encoding::Brotli => Self::Brotli(Box::new(Brotli::new())),
            Encoding::Zstd => Self::Zstd(Box::new(Zstd::new())),
        }
    }

    /// Decodes some of `input` into `output`. Call again while it makes progress.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, output),
            Self::Deflate(deflate) => deflate.step(input, output),
            Self::Brotli(brotli) => brotli.step(input, output),
            Self::Zstd(zstd) => zstd.step(input, output),
        }
    }

    /// Whether everything taken in has come out, except for what cannot stand for a byte yet.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            // These give out each symbol as it is complete.
            Self::Gzip(_) | Self::Deflate(_) | Self::Brotli(_) => true,
            // A block comes out when it is complete; between blocks only its header of three bytes is asked for.
            Self::Zstd(zstd) => zstd.wanted <= 3,
        }
    }

    /// Whether the stream is complete, or nothing has arrived at all.
    pub(super) fn is_complete(&self) -> bool {
        let state = match self {
            Self::Gzip(gzip) => gzip.state,
            Self::Deflate(deflate) => deflate.state,
            Self::Brotli(brotli) => brotli.state,
            Self::Zstd(zstd) => zstd.state,
        };
        state != State::Inside
    }
}

/// A gzip stream of any number of members; a decoder that stopped after the first would hide the others.
pub(super) struct Members {
    inflate: Decompress,
    state: State,
}

impl Members {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        if input.is_empty() && self.state != State::Inside {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        if self.state == State::Ended {
            // Anything but another member here would pass unseen.
            if input[0] != 0x1f {
                return Err(Undecodable::TrailingData);
            }
            self.inflate = Decompress::new_gzip(15);
        }
        self.state = State::Inside;
        let (progress, ended) = inflate(&mut self.inflate, input, output)?;
        if ended {
            self.state = State::Ended;
        }
        Ok(progress)
    }
}

fn inflate(
    inflate: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Progress, bool), Undecodable> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let status =
        inflate.decompress(input, output, FlushDecompress::None).map_err(|_| Undecodable::BrokenData)?;
    let progress = Progress {
        consumed: (inflate.total_in() - before_in) as usize,
        produced: (inflate.total_out() - before_out) as usize,
    };
    Ok((progress, status == Status::StreamEnd))
}

/// `deflate`, with zlib's header as the RFC wants it or bare as some send it.
pub(super) struct Deflate {
    inflate: Option<Decompress>,
    /// The first byte, where it arrived alone: it takes two to recognise zlib's header.
    first: Option<u8>,
    state: State,
}

impl Deflate {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        if self.state == State::Ended && !input.is_empty() {
            return Err(Undecodable::TrailingData);
        }
        if input.is_empty() && self.state != State::Inside {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        self.state = State::Inside;
        let Some(decoder) = &mut self.inflate else { return self.begin(input, output) };
        let (progress, ended) = inflate(decoder, input, output)?;
        if ended {
            self.state = State::Ended;
        }
        Ok(progress)
    }

    fn begin(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        let (first, second) = match (self.first, input) {
            (_, []) => return Ok(Progress { consumed: 0, produced: 0 }),
            (None, [first]) => {
                self.first = Some(*first);
                return Ok(Progress { consumed: 1, produced: 0 });
            }
            (None, [first, second, ..]) => (*first, *second),
            (Some(first), [second, ..]) => (first, *second),
        };
        let zlib =
            first & 0x0f == 8 && first >> 4 <= 7 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
        let mut decoder = Decompress::new(zlib);
        if let Some(first) = self.first.take() {
            // One byte decodes to nothing.
            inflate(&mut decoder, &[first], &mut [0; 16])?;
        }
        self.inflate = Some(decoder);
        self.step(input, output)
    }
}

type BrotliDecoder = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

pub(super) struct Brotli {
    decoder: BrotliDecoder,
    total: usize,
    state: State,
}

impl Brotli {
    fn new() -> Self {
        // Strict: without the windows of up to a gibibyte that are no part of RFC 7932.
        let decoder = BrotliDecoder::new_strict(
            StandardAlloc::default(),
            StandardAlloc::default(),
            StandardAlloc::default(),
        );
        Self { decoder, total: 0, state: State::Empty }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        if self.state == State::Ended {
            return if input.is_empty() {
                Ok(Progress { consumed: 0, produced: 0 })
            } else {
                Err(Undecodable::TrailingData)
            };
        }
        if input.is_empty() && self.state == State::Empty {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        self.state = State::Inside;
        let (mut left, mut consumed) = (input.len(), 0);
        let (mut room, mut produced) = (output.len(), 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut consumed,
            input,
            &mut room,
            &mut produced,
            output,
            &mut self.total,
            &mut self.decoder,
        );
        match result {
            BrotliResult::ResultSuccess => self.state = State::Ended,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultFailure => return Err(Undecodable::BrokenData),
        }
        Ok(Progress { consumed, produced })
    }
}

/// The four bytes a zstd frame begins with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub(super) struct Zstd {
    decoder: DCtx<'static>,
    /// How many bytes of the magic number have been seen in this frame.
    magic: usize,
    /// How many bytes the decoder would like next: 0 after a frame.
    wanted: usize,
    state: State,
}

impl Zstd {
    fn new() -> Self {
        let mut decoder = DCtx::create();
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).expect("23 is within zstd's bounds");
        Self { decoder, magic: 0, wanted: 0, state: State::Empty }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Undecodable> {
        if input.is_empty() && self.state != State::Inside {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        self.state = State::Inside;
        // A skippable frame holds what every decoder passes over: nothing that is sent may go unseen.
        let rest = &ZSTD_MAGIC[self.magic..];
        let seen = rest.len().min(input.len());
        if input[..seen] != rest[..seen] {
            return Err(Undecodable::TrailingData);
        }
        let mut source =
            InBuffer::around(if seen < rest.len() || self.magic < 4 { &input[..seen] } else { input });
        let mut target = OutBuffer::around(output);
        self.wanted =
            self.decoder.decompress_stream(&mut target, &mut source).map_err(|_| Undecodable::BrokenData)?;
        self.magic = (self.magic + seen).min(4);
        if self.wanted == 0 {
            self.state = State::Ended;
            self.magic = 0;
        }
        Ok(Progress { consumed: source.pos(), produced: target.pos() })
    }
}
