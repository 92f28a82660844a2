//! Pushes: pkt-lines read as git writes them, however they are cut.

use policy::git::{self, PushError, PushReader, RefUpdate};

use crate::cuts::Cuts;

/// Takes a seed and the body of a push.
pub fn check(input: &[u8]) {
    let Some((mut cuts, body)) = Cuts::of(input) else { return };
    let whole = read(&[body]);
    assert_eq!(read(&cuts.pieces(body)), whole, "it depends on the cuts");
    let (result, updates) = &whole;
    updates.iter().for_each(is_plain);
    assert!(updates.len() <= PushReader::REFERENCES);
    match reference(body) {
        Some(told) => assert_eq!((result, updates), (&Ok(true), &told)),
        None => assert!(*result != Ok(true) || contains(body, b"push-cert"), "read where there is no push"),
    }
    request_line(body);
}

fn read(pieces: &[&[u8]]) -> (Result<bool, PushError>, Vec<RefUpdate>) {
    let mut reader = PushReader::default();
    let mut result = Ok(false);
    for piece in pieces {
        let next = reader.push(piece);
        assert!(result == Ok(false) || next == result, "the answer changes");
        result = next;
    }
    (result, reader.updates().to_vec())
}

fn is_plain(update: &RefUpdate) {
    let RefUpdate { old, new, reference } = update;
    let hex = |id: &str| matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(hex(old) && hex(new) && old.len() == new.len(), "{update:?}");
    assert!(!reference.is_empty() && !reference.contains(char::is_control), "{update:?}");
}

/// The references of a complete push without certificate, read the short way.
fn reference(mut body: &[u8]) -> Option<Vec<RefUpdate>> {
    let mut updates = Vec::new();
    loop {
        let digits = std::str::from_utf8(body.get(..4)?).ok()?;
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = usize::from_str_radix(digits, 16).ok().filter(|_| hex)?;
        if length == 0 {
            return (updates.len() <= PushReader::REFERENCES).then_some(updates);
        }
        let line = body.get(4..length)?;
        body = &body[length..];
        let line = std::str::from_utf8(line.split(|byte| *byte == 0).next()?).ok()?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line.starts_with("shallow ") {
            continue;
        }
        let [old, new, reference] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().ok()?;
        let ids = [old, new].iter().all(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let whole = matches!(old.len(), 40 | 64) && old.len() == new.len();
        if !ids || !whole || reference.is_empty() || reference.contains(char::is_control) {
            return None;
        }
        updates.push(RefUpdate { old: old.into(), new: new.into(), reference: reference.into() });
    }
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

/// The same bytes as the path and query of a request.
fn request_line(line: &[u8]) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (path, query) = line.split_once('?').map_or((line, None), |(path, query)| (path, Some(query)));
    for method in ["GET", "POST"] {
        if let Some((_, repository)) = git::request(method, path, query) {
            assert!(path.starts_with(repository) && repository.len() < path.len());
        }
    }
}
