//! Agents and sessions: registered, rotated, revoked, opened and ended, each with its record in the audit chain.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::redact::Redacted;

use crate::audit::{AuditUnavailable, ChangeError, Recorder};
use crate::clock;
use crate::config::spelling::nearest;
use crate::store::agents::{Agent, AgentStatus};
use crate::store::{Change, NewSession, Store, StoreError};

/// How long the tokens before a rotation are still taken, unless said otherwise.
pub const GRACE: Duration = Duration::from_secs(10 * 60);
/// What all tokens begin with, so that people and scanners know one when they see it.
const PREFIX: &str = "og_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A token, for the one moment in which it is shown. Does not print itself by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one: `og_` and 256 random bits in base64url.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn generate() -> Result<Token, AgentError> {
        let mut bytes = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AgentError::Randomness)?;
        Ok(Token(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why an agent or session is not changed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The name is that of everybody without credentials.
    #[error("`anonymous` is the name of requests without credentials; choose another")]
    Reserved,
    /// An agent of this name is or was there.
    #[error("there is an agent `{name}` already, {}; {}", .status.as_str(), if *.status == AgentStatus::Revoked {
        "names are not used twice, so that records stay clear"
    } else {
        "`outgate agent rotate` gives it a new token"
    })]
    Taken {
        /// The name.
        name: AgentName,
        /// What became of the one that has it.
        status: AgentStatus,
    },
    /// No agent of this name.
    #[error("there is no agent `{name}`{}", .meant.as_ref().map_or_else(String::new, |meant| format!("; did you mean `{meant}`?")))]
    Unknown {
        /// The name.
        name: AgentName,
        /// One that is near.
        meant: Option<AgentName>,
    },
    /// It was revoked, which is for good.
    #[error("the agent `{0}` was revoked, which is for good; register another")]
    Revoked(AgentName),
    /// Its time is up, and a new token alone would not help.
    #[error("the agent `{0}` has expired; give it more time with `--expires`")]
    Expired(AgentName),
    /// A time that has passed.
    #[error("the time at which it expires has passed already")]
    Past,
    /// No such session, or it has ended.
    #[error("there is no session `{0}` that has not ended")]
    NoSession(SessionId),
    /// Somebody else changed it just now.
    #[error("somebody else has changed this just now; look, and try again")]
    Stale,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot be written.
    #[error(transparent)]
    Unavailable(#[from] AuditUnavailable),
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes for a token")]
    Randomness,
}

impl From<ChangeError> for AgentError {
    fn from(error: ChangeError) -> AgentError {
        match error {
            ChangeError::Unavailable(error) => AgentError::Unavailable(error),
            ChangeError::Stale => AgentError::Stale,
        }
    }
}

/// An agent to be registered.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Its name.
    pub name: AgentName,
    /// Who answers for it.
    pub owner: Redacted,
    /// What it is for.
    pub purpose: Option<Redacted>,
    /// When its credentials end, in microseconds since the Unix epoch.
    pub expires: Option<i64>,
}

/// Registers an agent and gives its token. `by` is who does it, where that is known.
///
/// # Errors
/// A name that is taken or reserved, a time that has passed, a store that does not take it.
pub async fn add(
    store: &Store,
    recorder: &Recorder,
    new: NewAgent,
    by: Option<Redacted>,
) -> Result<Token, AgentError> {
    if new.name.is_anonymous() {
        return Err(AgentError::Reserved);
    }
    check_future(new.expires)?;
    if let Some(taken) = store.agent(&new.name).await? {
        return Err(AgentError::Taken { name: new.name, status: taken.status(clock::now()) });
    }
    let token = Token::generate()?;
    let NewAgent { name: agent, owner, purpose, expires } = new;
    let change = Change::AddAgent { agent, owner, purpose, expires, token: token.digest() };
    recorder.change(change, by).await?;
    Ok(token)
}

/// Gives an agent a new token; those before it are taken for `grace` longer. `expires` replaces when its
/// credentials end, where given.
///
/// # Errors
/// An agent that is not there, was revoked, or has expired and is given no more time; a store that does not take it.
pub async fn rotate(
    store: &Store,
    recorder: &Recorder,
    name: &AgentName,
    expires: Option<i64>,
    grace: Duration,
    by: Option<Redacted>,
) -> Result<Token, AgentError> {
    check_future(expires)?;
    let agent = existing(store, name).await?;
    match agent.status(clock::now()) {
        AgentStatus::Revoked => return Err(AgentError::Revoked(agent.name)),
        AgentStatus::Expired if expires.is_none() => return Err(AgentError::Expired(agent.name)),
        AgentStatus::Expired | AgentStatus::Active => {}
    }
    let token = Token::generate()?;
    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    let change = Change::RotateAgent {
        agent: agent.name,
        token: token.digest(),
        grace_until: clock::now().saturating_add(grace),
        expires: expires.or(agent.expires),
    };
    recorder.change(change, by).await?;
    Ok(token)
}

/// Ends an agent's tokens, those of its sessions included.
///
/// # Errors
/// An agent that is not there or was revoked before; a store that does not take it.
pub async fn revoke(
    store: &Store,
    recorder: &Recorder,
    name: &AgentName,
    by: Option<Redacted>,
) -> Result<(), AgentError> {
    let agent = existing(store, name).await?;
    if agent.revoked.is_some() {
        return Err(AgentError::Revoked(agent.name));
    }
    recorder.change(Change::RevokeAgent { agent: agent.name }, by).await?;
    Ok(())
}

/// A session to be opened by `outgate run`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Session`")]
pub struct SessionStart {
    pub agent: AgentName,
    pub label: Option<Redacted>,
    pub tool: Option<Redacted>,
    pub command: Option<Redacted>,
    pub repo: Option<Redacted>,
    pub branch: Option<Redacted>,
    pub commit: Option<Redacted>,
    pub observe: bool,
}

/// Opens a session and gives the token that stands for it: whoever presents it, as the agent or as `agent+label`,
/// is this agent in this session, until the session ends. The agent needs no registration if it is `anonymous`.
///
/// # Errors
/// An agent that is not there or whose tokens are not taken; a store that does not take it.
pub async fn open_session(
    store: &Store,
    recorder: &Recorder,
    start: SessionStart,
    by: Option<Redacted>,
) -> Result<(SessionId, Token), AgentError> {
    let started = clock::now();
    if !start.agent.is_anonymous() {
        let agent = existing(store, &start.agent).await?;
        match agent.status(started) {
            AgentStatus::Active => {}
            AgentStatus::Expired => return Err(AgentError::Expired(agent.name)),
            AgentStatus::Revoked => return Err(AgentError::Revoked(agent.name)),
        }
    }
    let token = Token::generate()?;
    let SessionStart { agent, label, tool, command, repo, branch, commit, observe } = start;
    let id = SessionId(clock::ulid(started));
    let session =
        NewSession { id, agent, label, tool, command, repo, branch, commit, observe, implicit: false };
    recorder.change(Change::OpenSession { session, token: Some(token.digest()) }, by).await?;
    Ok((id, token))
}

/// Ends a session; its token is taken no longer.
///
/// # Errors
/// A session that is not there or has ended; a store that does not take it.
pub async fn end_session(
    recorder: &Recorder,
    session: SessionId,
    exit_code: Option<i32>,
) -> Result<(), AgentError> {
    let why = if exit_code.is_some() { SessionEnd::Exited } else { SessionEnd::Closed };
    recorder.change(Change::EndSession { session, exit_code, why }, None).await.map_err(|error| match error {
        ChangeError::Stale => AgentError::NoSession(session),
        ChangeError::Unavailable(error) => AgentError::Unavailable(error),
    })
}

async fn existing(store: &Store, name: &AgentName) -> Result<Agent, AgentError> {
    if let Some(agent) = store.agent(name).await? {
        return Ok(agent);
    }
    let agents = store.agents().await?;
    let meant = nearest(name.as_str(), agents.iter().map(|agent| agent.name.as_str()));
    Err(AgentError::Unknown { name: name.clone(), meant: meant.and_then(|meant| meant.parse().ok()) })
}

fn check_future(expires: Option<i64>) -> Result<(), AgentError> {
    if expires.is_some_and(|expires| expires <= clock::now()) { Err(AgentError::Past) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Opened;
    use crate::store::tests::Folder;

    const DAY: i64 = 86_400_000_000;

    fn new(name: &str) -> NewAgent {
        NewAgent {
            name: name.parse().unwrap(),
            owner: Redacted::literal("ana@example.com"),
            purpose: None,
            expires: None,
        }
    }

    fn name(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    async fn started() -> (Folder, Store, Recorder) {
        let folder = Folder::new();
        let Opened { store, writer, .. } = folder.open().await;
        (folder, store, Recorder::start(writer))
    }

    #[test]
    fn tokens_are_long_random_and_do_not_print_themselves() {
        let [a, b] = [Token::generate().unwrap(), Token::generate().unwrap()];
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), 46);
        assert!(a.reveal().starts_with("og_"));
        assert_eq!(format!("{a:?}"), "Token(…)");
    }

    #[tokio::test]
    async fn mistakes_are_answered_with_what_to_do() {
        let (_folder, store, recorder) = started().await;
        add(&store, &recorder, new("claude"), None).await.unwrap();
        add(&store, &recorder, new("gone"), None).await.unwrap();
        revoke(&store, &recorder, &name("gone"), None).await.unwrap();
        let late = NewAgent { expires: Some(clock::now() + 20_000), ..new("late") };
        add(&store, &recorder, late, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;

        let past = NewAgent { expires: Some(1), ..new("past") };
        let said = |result: Result<Token, AgentError>| result.unwrap_err().to_string();
        let rotating =
            async |agent: &str, expires| rotate(&store, &recorder, &name(agent), expires, GRACE, None).await;
        let adding = async |agent| said(add(&store, &recorder, agent, None).await);
        assert_eq!(
            adding(new("anonymous")).await,
            "`anonymous` is the name of requests without credentials; choose another"
        );
        assert_eq!(
            adding(new("claude")).await,
            "there is an agent `claude` already, active; `outgate agent rotate` gives it a new token"
        );
        assert_eq!(
            adding(new("gone")).await,
            "there is an agent `gone` already, revoked; names are not used twice, so that records stay clear"
        );
        assert_eq!(adding(past).await, "the time at which it expires has passed already");
        assert_eq!(
            said(rotating("cluade", None).await),
            "there is no agent `cluade`; did you mean `claude`?"
        );
        assert_eq!(said(rotating("other", None).await), "there is no agent `other`");
        assert_eq!(
            said(rotating("gone", None).await),
            "the agent `gone` was revoked, which is for good; register another"
        );
        assert_eq!(
            said(rotating("late", None).await),
            "the agent `late` has expired; give it more time with `--expires`"
        );
        rotating("late", Some(clock::now() + DAY)).await.unwrap();
        let again = revoke(&store, &recorder, &name("gone"), None).await.unwrap_err().to_string();
        assert_eq!(again, "the agent `gone` was revoked, which is for good; register another");

        let listed = store.agents().await.unwrap();
        let now = clock::now();
        let listed: Vec<_> = listed.iter().map(|a| (a.name.as_str(), a.status(now).as_str())).collect();
        assert_eq!(listed, [("claude", "active"), ("gone", "revoked"), ("late", "active")]);
    }

    #[tokio::test]
    async fn what_was_done_is_in_the_chain_and_what_failed_is_not() {
        let (_folder, store, recorder) = started().await;
        let by = Some(Redacted::literal("ana"));
        add(&store, &recorder, new("claude"), by.clone()).await.unwrap();
        rotate(&store, &recorder, &name("claude"), None, GRACE, by.clone()).await.unwrap();
        revoke(&store, &recorder, &name("claude"), by.clone()).await.unwrap();
        assert_eq!(store.last_seq().await.unwrap(), 3);
        // As two people at once: the second finds it done.
        let again = recorder.change(Change::RevokeAgent { agent: name("claude") }, by).await;
        assert_eq!(again, Err(ChangeError::Stale));
        assert_eq!(store.last_seq().await.unwrap(), 3);
        assert!(store.verify().await.unwrap().intact);
    }

    #[tokio::test]
    async fn a_session_has_a_beginning_and_one_end() {
        let (_folder, store, recorder) = started().await;
        let start = SessionStart {
            agent: AgentName::anonymous(),
            label: Some(Redacted::literal("fix-42")),
            tool: Some(Redacted::literal("claude")),
            command: None,
            repo: None,
            branch: Some(Redacted::literal("main")),
            commit: None,
            observe: true,
        };
        let (id, _) = open_session(&store, &recorder, start.clone(), None).await.unwrap();
        assert_eq!(store.sessions_active().await.unwrap(), 1);
        end_session(&recorder, id, Some(3)).await.unwrap();
        let error = end_session(&recorder, id, Some(3)).await.unwrap_err().to_string();
        assert_eq!(error, format!("there is no session `{id}` that has not ended"));
        let session = store.session(id).await.unwrap().unwrap();
        assert_eq!(
            (session.exit_code, session.why, session.observe, session.implicit),
            (Some(3), Some(SessionEnd::Exited), true, false)
        );
        assert_eq!(session.branch, start.branch);
        assert_eq!(store.sessions(Some(5)).await.unwrap(), [session]);
        assert_eq!(store.sessions_active().await.unwrap(), 0);

        let unknown = SessionStart { agent: name("nobody"), ..start };
        let error = open_session(&store, &recorder, unknown, None).await.unwrap_err().to_string();
        assert_eq!(error, "there is no agent `nobody`");
    }
}
