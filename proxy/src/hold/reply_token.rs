//! What lets one answer to one question be given without the admin token: signed, for a while, once.
//!
//! A token says which question, which answer and until when; whoever has it can give that answer and no other. The key
//! is the process's own, like the questions. That a token works once follows from that a question is answered once.

use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::approval::{Answer, Question};
use ulid::Ulid;

use crate::clock;

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Sets these signatures apart from whatever else may be signed one day.
const PURPOSE: &str = "outgate approval reply 1";

/// Signs replies.
pub struct ReplyKey(Key);

/// Why a reply is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// It was not signed here, or says something else than what was signed.
    #[error("this reply is not signed for what it says")]
    Forged,
    /// Its time is up.
    #[error("this reply came too late")]
    Expired,
}

impl ReplyKey {
    /// A key of this process.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn fresh() -> anyhow::Result<ReplyKey> {
        let mut bytes = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        Ok(ReplyKey(Key::new(HMAC_SHA256, &bytes)))
    }

    /// Path and query of the URL by which a question is given one answer: POST it to the admin listener. It works for
    /// as long as `valid`, and until the question is answered in any way.
    ///
    /// Whoever sees the URL can answer: it belongs into the message to the person who shall, and nowhere else.
    pub fn reply_path(&self, question: &Question, answer: Answer, valid: Duration) -> String {
        let valid = i64::try_from(valid.as_secs()).unwrap_or(i64::MAX);
        let expires = (clock::now() / 1_000_000).saturating_add(valid);
        let token = sign(&self.0, text(question.id, answer, expires).as_bytes());
        let (word, scope) = (answer.word(), answer.scope());
        let token = URL_SAFE_NO_PAD.encode(token.as_ref());
        format!(
            "/api/approvals/{}/reply?answer={word}&for={scope}&expires={expires}&token={token}",
            question.id
        )
    }

    /// Whether this answer to this question was signed here; `expires` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, id: Ulid, answer: Answer, expires: i64, token: &str) -> Result<(), BadReply> {
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadReply::Forged)?;
        // In constant time.
        verify(&self.0, text(id, answer, expires).as_bytes(), &token).map_err(|_| BadReply::Forged)?;
        if clock::now() / 1_000_000 >= expires { Err(BadReply::Expired) } else { Ok(()) }
    }
}

fn text(id: Ulid, answer: Answer, expires: i64) -> String {
    format!("{PURPOSE}\n{id}\n{}\n{}\n{expires}", answer.word(), answer.scope())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> (i64, String) {
        let value = |name: &str| {
            let (_, rest) = path.split_once(&format!("{name}=")).unwrap();
            rest.split('&').next().unwrap().to_owned()
        };
        (value("expires").parse().unwrap(), value("token"))
    }

    fn question() -> Question {
        let mut desk = policy::approval::Desk::new(600_000_000);
        let about = policy::approval::About {
            agent: "claude".parse().unwrap(),
            target: policy::target::Target::from_connect(b"asked.example:443").unwrap(),
            methods: policy::decide::Methods::Reading,
            point: policy::decide::Point::Default,
        };
        let asked = policy::approval::Asked {
            request: 1,
            about,
            session: None,
            method: None,
            path: None,
            id: Ulid::from_parts(1, 1),
            until: 1,
        };
        desk.handle(policy::approval::Event::Asked(asked), 0);
        desk.questions().next().unwrap().clone()
    }

    #[test]
    fn a_reply_says_what_was_signed_and_nothing_else() {
        let key = ReplyKey::fresh().unwrap();
        let question = question();
        let path = key.reply_path(&question, Answer::Once, Duration::from_secs(60));
        let (expires, token) = parts(&path);
        assert!(path.starts_with(&format!("/api/approvals/{}/reply?answer=approve&for=once&", question.id)));
        assert_eq!(key.check(question.id, Answer::Once, expires, &token), Ok(()));
        let forged = Err(BadReply::Forged);
        for answer in [Answer::Session, Answer::Hour, Answer::Always, Answer::Deny] {
            assert_eq!(key.check(question.id, answer, expires, &token), forged, "{answer:?}");
        }
        assert_eq!(
            key.check(Ulid::from_parts(1, 2), Answer::Once, expires, &token),
            forged,
            "another question"
        );
        assert_eq!(key.check(question.id, Answer::Once, expires + 1, &token), forged, "for longer");
        assert_eq!(key.check(question.id, Answer::Once, expires, &token[1..]), forged);
        assert_eq!(key.check(question.id, Answer::Once, expires, ""), forged);
        let other = ReplyKey::fresh().unwrap();
        assert_eq!(other.check(question.id, Answer::Once, expires, &token), forged, "another process");
        let (expires, token) = parts(&key.reply_path(&question, Answer::Deny, Duration::ZERO));
        assert_eq!(key.check(question.id, Answer::Deny, expires, &token), Err(BadReply::Expired));
    }
}
