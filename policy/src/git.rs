//! What a git request over HTTP says about itself: fetch, push or large files, and which references a push moves.
//!
//! Git's HTTP protocol (gitprotocol-http) names its service in the path; a push begins with one pkt-line for every
//! reference it moves (gitprotocol-pack), before the first byte of a packfile.

use std::fmt;

use crate::json_start::Start;

/// What a request asks of a git server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GitRequest {
    /// `GET …/info/refs?service=git-upload-pack`: what there is to fetch.
    FetchRefs,
    /// `POST …/git-upload-pack`: a fetch or a clone.
    Fetch,
    /// `GET …/info/refs?service=git-receive-pack`: a push is about to come.
    PushRefs,
    /// `POST …/git-receive-pack`: a push.
    Push,
    /// `POST …/info/lfs/objects/batch`: large files; the body tells up from down.
    LfsBatch,
}

impl GitRequest {
    /// Whether it is part of a push: the finding `git_push`.
    pub fn is_push(self) -> bool {
        matches!(self, GitRequest::PushRefs | GitRequest::Push)
    }
}

/// Recognises a git request by its request line, and the repository it is about (the path before git's own part).
pub fn request<'a>(method: &str, path: &'a str, query: Option<&str>) -> Option<(GitRequest, &'a str)> {
    let get = matches!(method, "GET" | "HEAD");
    if let Some(repository) = path.strip_suffix("/info/refs") {
        let service = query.and_then(service).filter(|_| get)?;
        let request = match service.as_str() {
            "git-upload-pack" => GitRequest::FetchRefs,
            "git-receive-pack" => GitRequest::PushRefs,
            _ => return None,
        };
        return Some((request, repository));
    }
    if method != "POST" {
        return None;
    }
    [
        ("/git-upload-pack", GitRequest::Fetch),
        ("/git-receive-pack", GitRequest::Push),
        ("/info/lfs/objects/batch", GitRequest::LfsBatch),
    ]
    .into_iter()
    .find_map(|(end, request)| Some((request, path.strip_suffix(end)?)))
}

/// The query's `service`, decoded as servers decode it: a hyphen may be written `%2D`.
fn service(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("service="))?;
    Some(value.replace("%2D", "-").replace("%2d", "-"))
}

/// Which way large files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LfsOperation {
    /// To the server: a push.
    Upload,
    /// From the server.
    Download,
}

/// Which way an LFS batch goes, by the decoded beginning of its body; `None` where it does not say yet.
pub fn lfs_operation(body: &[u8]) -> Option<LfsOperation> {
    match Start::read(body)?.text("operation")? {
        "upload" => Some(LfsOperation::Upload),
        "download" => Some(LfsOperation::Download),
        _ => None,
    }
}

/// What a push does to a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is new.
    Create,
    /// It moves, forwards or otherwise: that cannot be seen from here.
    Update,
    /// It goes.
    Delete,
}

/// One reference that a push moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// Object it points to now, in hex; zeros where there is none.
    pub old: String,
    /// Object it shall point to, in hex; zeros where it shall go.
    pub new: String,
    /// Its full name, such as `refs/heads/main`.
    pub reference: String,
}

impl RefUpdate {
    /// What happens to the reference.
    pub fn change(&self) -> Change {
        let none = |id: &str| id.bytes().all(|b| b == b'0');
        match (none(&self.old), none(&self.new)) {
            (_, true) => Change::Delete,
            (true, false) => Change::Create,
            (false, false) => Change::Update,
        }
    }
}

/// Why a body is not the beginning of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// A pkt-line's length is not four hex digits, or less than itself.
    Length,
    /// A line is no command, shallow commit or part of a certificate.
    Command,
    /// More references than [`PushReader::REFERENCES`].
    TooMany,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Length => "a pkt-line of the push has no valid length",
            PushError::Command => "a line of the push is not `old new reference`",
            PushError::TooMany => "the push moves more references than can be recorded",
        })
    }
}

impl std::error::Error for PushError {}

/// Reads the references of a push from its decoded body, in pieces of any size.
///
/// Holds one pkt-line at most (65,519 bytes) besides the commands read so far. What follows the commands (push
/// options, the packfile) is not looked at.
#[derive(Debug, Default)]
pub struct PushReader {
    /// The beginning of a line that is not complete yet, its length included.
    pending: Vec<u8>,
    updates: Vec<RefUpdate>,
    section: Section,
}

/// Where in the beginning of a push the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Commands,
    /// The head of a push certificate, up to its empty line.
    CertificateHead,
    /// The commands inside a certificate, up to its signature.
    CertificateCommands,
    Signature,
    Done,
    Failed(PushError),
}

impl PushReader {
    /// References beyond this end the reading with an error: nobody reads a record of more.
    pub const REFERENCES: usize = 1000;

    /// Takes the next piece of the body. Returns whether the commands are complete.
    ///
    /// # Errors
    /// Where the body is not a push; from then on always the same.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<bool, PushError> {
        loop {
            match self.section {
                Section::Done => return Ok(true),
                Section::Failed(error) => return Err(error),
                _ => {}
            }
            let wanted = if self.pending.len() < 4 { 4 } else { self.line_length() };
            let taken = (wanted - self.pending.len()).min(piece.len());
            self.pending.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if self.pending.len() < wanted {
                return Ok(false);
            }
            if let Err(error) = self.length_or_line() {
                self.section = Section::Failed(error);
            }
        }
    }

    /// The references read so far, in the order of the push.
    pub fn updates(&self) -> &[RefUpdate] {
        &self.updates
    }

    /// The length that a complete prefix declares, itself included.
    fn line_length(&self) -> usize {
        hex_length(&self.pending).unwrap_or(4)
    }

    /// Handles a complete length, or the complete line that it announced.
    fn length_or_line(&mut self) -> Result<(), PushError> {
        let length = hex_length(&self.pending).ok_or(PushError::Length)?;
        match length {
            0 => {
                self.pending.clear();
                self.section = Section::Done;
                Ok(())
            }
            1..=3 => Err(PushError::Length),
            length if length > self.pending.len() => Ok(()),
            _ => {
                let line = std::mem::take(&mut self.pending);
                self.line(&line[4..])
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), PushError> {
        let first = line.split(|b| *b == 0).next().unwrap_or(line);
        let text = std::str::from_utf8(first.strip_suffix(b"\n").unwrap_or(first))
            .map_err(|_| PushError::Command)?;
        match self.section {
            Section::Commands if text == "push-cert" => self.section = Section::CertificateHead,
            Section::Commands if text.starts_with("shallow ") => {}
            Section::CertificateHead if text.is_empty() => self.section = Section::CertificateCommands,
            Section::CertificateHead => {}
            Section::CertificateCommands if text.starts_with("-----BEGIN ") => {
                self.section = Section::Signature;
            }
            _ if text == "push-cert-end" => self.section = Section::Commands,
            Section::Signature => {}
            _ => return self.command(text),
        }
        Ok(())
    }

    fn command(&mut self, text: &str) -> Result<(), PushError> {
        if self.updates.len() >= Self::REFERENCES {
            return Err(PushError::TooMany);
        }
        let mut parts = text.splitn(3, ' ');
        let (Some(old), Some(new), Some(reference)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(PushError::Command);
        };
        let ids = is_object_id(old) && is_object_id(new) && old.len() == new.len();
        if !ids || reference.is_empty() || reference.chars().any(char::is_control) {
            return Err(PushError::Command);
        }
        self.updates.push(RefUpdate { old: old.into(), new: new.into(), reference: reference.into() });
        Ok(())
    }
}

fn hex_length(prefix: &[u8]) -> Option<usize> {
    let digits = prefix.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// SHA-1 or SHA-256 in hex.
fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_requests_are_recognised_by_their_request_line() {
        use GitRequest::{Fetch, FetchRefs, LfsBatch, Push, PushRefs};
        for (method, path, query, expected) in [
            ("GET", "/o/r.git/info/refs", Some("service=git-upload-pack"), Some(FetchRefs)),
            ("GET", "/o/r/info/refs", Some("service=git-receive-pack"), Some(PushRefs)),
            ("GET", "/o/r/info/refs", Some("x=1&service=git%2Dreceive%2dpack"), Some(PushRefs)),
            ("POST", "/o/r.git/git-upload-pack", None, Some(Fetch)),
            ("POST", "/o/r.git/git-receive-pack", None, Some(Push)),
            ("POST", "/o/r.git/git-receive-pack", Some("x"), Some(Push)),
            ("POST", "/o/r.git/info/lfs/objects/batch", None, Some(LfsBatch)),
            ("GET", "/o/r.git/info/refs", None, None),
            ("GET", "/o/r.git/info/refs", Some("service=git-other"), None),
            ("GET", "/o/r.git/git-receive-pack", None, None),
            ("POST", "/o/r.git/info/refs", Some("service=git-receive-pack"), None),
            ("POST", "/o/git-receive-pack/x", None, None),
            ("GET", "/", None, None),
        ] {
            let found = request(method, path, query);
            assert_eq!(found.map(|(request, _)| request), expected, "{method} {path} {query:?}");
        }
        assert_eq!(request("POST", "/o/r.git/git-receive-pack", None).unwrap().1, "/o/r.git");
        assert!(Push.is_push() && PushRefs.is_push() && !Fetch.is_push() && !LfsBatch.is_push());
    }

    #[test]
    fn large_files_go_up_or_down() {
        for (body, expected) in [
            (r#"{"operation":"upload","objects":[]}"#, Some(LfsOperation::Upload)),
            (r#"{"objects":[{"oid":"1"}],"operation":"download"}"#, Some(LfsOperation::Download)),
            (r#"{"objects":[{"operation":"upload"}]}"#, None),
            // of two, the one that servers take
            (r#"{"operation":"download","operation":"upload"}"#, Some(LfsOperation::Upload)),
            (r#"{"operation":"verify"}"#, None),
            ("", None),
        ] {
            assert_eq!(lfs_operation(body.as_bytes()), expected, "{body}");
        }
    }

    fn pkt(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn read(body: &[u8], cut: usize) -> (Result<bool, PushError>, Vec<RefUpdate>) {
        let mut reader = PushReader::default();
        let mut last = Ok(false);
        for piece in body.chunks(cut) {
            last = reader.push(piece);
        }
        (last, reader.updates().to_vec())
    }

    fn example() -> String {
        let (none, old, new) = (id('0'), id('a'), id('b'));
        [
            pkt(&format!("shallow {old}")),
            pkt(&format!("{none} {new} refs/heads/new\0 report-status side-band-64k agent=git/2")),
            pkt(&format!("{old} {new} refs/heads/main\n")),
            pkt(&format!("{old} {none} refs/tags/v1 with space")),
            "0000PACK\0\0\0\u{2}".to_owned(),
        ]
        .concat()
    }

    #[test]
    fn a_pushs_references_are_read_however_it_is_cut() {
        let body = example();
        for cut in 1..=body.len() {
            let (result, updates) = read(body.as_bytes(), cut);
            assert_eq!(result, Ok(true), "cut at {cut}");
            let told: Vec<_> =
                updates.iter().map(|update| (update.change(), update.reference.as_str())).collect();
            let expected = [
                (Change::Create, "refs/heads/new"),
                (Change::Update, "refs/heads/main"),
                (Change::Delete, "refs/tags/v1 with space"),
            ];
            assert_eq!(told, expected, "cut at {cut}");
        }
        let (result, updates) = read(&body.as_bytes()[..60], 7);
        assert_eq!((result, updates.len()), (Ok(false), 0));
    }

    #[test]
    fn a_signed_pushs_references_are_read_from_its_certificate() {
        let (old, new) = ("c".repeat(64), "d".repeat(64));
        let body = [
            pkt("push-cert\0report-status"),
            pkt("certificate version 0.1\n"),
            pkt("pusher Example <e@example.com> 1 +0000\n"),
            pkt("\n"),
            pkt(&format!("{old} {new} refs/heads/main\n")),
            pkt("-----BEGIN PGP SIGNATURE-----\n"),
            pkt("iQEz\n"),
            pkt("-----END PGP SIGNATURE-----\n"),
            pkt("push-cert-end\n"),
            "0000".to_owned(),
        ]
        .concat();
        let (result, updates) = read(body.as_bytes(), 3);
        assert_eq!(result, Ok(true));
        assert_eq!(updates, [RefUpdate { old, new, reference: "refs/heads/main".into() }]);
    }

    #[test]
    fn what_is_no_push_is_refused_with_its_reason() {
        let many: String =
            (0..=PushReader::REFERENCES).map(|n| pkt(&format!("{} {} refs/{n}", id('0'), id('1')))).collect();
        for (body, reason) in [
            ("PACK0000", PushError::Length),
            ("+0040000", PushError::Length),
            ("0003", PushError::Length),
            ("0001", PushError::Length),
            (&pkt("hello"), PushError::Command),
            (&pkt(&format!("{} {} refs/x", id('0'), "1".repeat(64))), PushError::Command),
            (&pkt(&format!("{} {} ", id('0'), id('1'))), PushError::Command),
            (&pkt(&format!("{} {} refs/\u{1b}[2J", id('0'), id('1'))), PushError::Command),
            (&pkt(&format!("{} {} refs/x", id('0'), id('g'))), PushError::Command),
            (&many, PushError::TooMany),
        ] {
            for cut in [1, 5, body.len()] {
                assert_eq!(read(body.as_bytes(), cut).0, Err(reason), "`{}`", &body[..body.len().min(40)]);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn chunking_changes_nothing(body in proptest::collection::vec(0u8..=255, 0..120), cut in 1usize..20) {
            for start in [example().into_bytes(), pkt("push-cert").into_bytes(), b"0009hello".to_vec()] {
                let whole = [start, body.clone()].concat();
                assert_eq!(read(&whole, cut), read(&whole, whole.len()));
            }
        }
    }
}
