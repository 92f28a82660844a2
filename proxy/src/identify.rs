//! Who is asking: `Proxy-Authorization` becomes a [`Client`], or one of four refusals.
//!
//! Tokens are looked up by their SHA-256 in a map that is replaced whole when agents or sessions change, so that
//! the usual case takes no lock and no query. A token that is not in it is looked for in the store once more, since
//! it may have been given a moment ago.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::redact::Redacted;

use crate::audit::Recorder;
use crate::clock;
use crate::config::IdentityMode;
use crate::store::agents::TokenRow;
use crate::store::{Change, NewSession, Store, StoreError};

/// A session that a label opened ends when nobody used it for so long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How soon a change that another process made to agents and sessions is noticed.
const REFRESH: Duration = Duration::from_secs(1);
/// How often idle sessions are looked for, in refreshes.
const SWEEP: u32 = 60;
/// Sessions that labels may hold open; the one unused for longest makes room.
const LABELS: usize = 10_000;

/// Base64 as RFC 7617 has it; some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whoever asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Caller>);

/// What is known of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// The agent.
    pub agent: AgentName,
    /// Who answers for it.
    pub owner: Option<Redacted>,
    /// The session it is in.
    pub session: Option<SessionId>,
    /// Whether that session only observes.
    pub observe: bool,
}

impl Deref for Client {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Client {
    /// A client without credentials, or known by other means than credentials.
    pub fn new(caller: Caller) -> Client {
        Client(Arc::new(caller))
    }

    /// Whether somebody holds it besides the one who asks.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There are no credentials, and they are required.
    #[error("credentials are required: HTTPS_PROXY=http://AGENT:TOKEN@HOST:PORT")]
    Required,
    /// No agent or session has this token, or it is another's.
    #[error("these credentials are not known")]
    Unknown,
    /// The agent, its session or its token has expired or was revoked.
    #[error("these credentials have expired or were revoked")]
    Expired,
    /// The header is not what RFC 7617 or RFC 6750 say, or the label is no name.
    #[error("the `proxy-authorization` header cannot be read")]
    Malformed,
}

/// All tokens, and the sessions that labels opened.
#[derive(Debug)]
pub struct Identities {
    mode: IdentityMode,
    store: Store,
    recorder: Recorder,
    anonymous: Client,
    known: ArcSwap<Known>,
    /// When the look into the store began that is the latest to have ended.
    looked: tokio::sync::Mutex<Instant>,
    /// By user part, `agent+label`.
    labelled: Mutex<HashMap<String, Labelled>>,
}

#[derive(Debug, Default)]
struct Known {
    version: Option<String>,
    tokens: HashMap<TokenDigest, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    label: Option<String>,
    ends: Option<i64>,
}

#[derive(Debug)]
struct Labelled {
    client: Client,
    used: Instant,
}

/// What a header says.
struct Credentials<'a> {
    user: Option<User<'a>>,
    digest: TokenDigest,
}

struct User<'a> {
    text: &'a str,
    agent: AgentName,
    label: Option<&'a str>,
}

impl Identities {
    /// Reads all tokens from the store, and keeps up with it from then on.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn load(
        store: &Store,
        recorder: &Recorder,
        mode: IdentityMode,
    ) -> Result<Arc<Identities>, StoreError> {
        let anonymous = Caller { agent: AgentName::anonymous(), owner: None, session: None, observe: false };
        let identities = Arc::new(Identities {
            mode,
            store: store.clone(),
            recorder: recorder.clone(),
            anonymous: Client::new(anonymous),
            known: ArcSwap::default(),
            looked: tokio::sync::Mutex::new(Instant::now()),
            labelled: Mutex::default(),
        });
        identities.read().await?;
        identities.resume().await?;
        tokio::spawn(keep_up(Arc::downgrade(&identities)));
        Ok(identities)
    }

    /// Who presents this value of `Proxy-Authorization`. Wrong credentials are refused also where none are required.
    ///
    /// # Errors
    /// Credentials that are missing, unknown, expired or not to be read.
    pub async fn identify(&self, header: Option<&[u8]>) -> Result<Client, IdentityError> {
        match self.identify_now(header) {
            Err(IdentityError::Unknown) => {
                self.look(Instant::now()).await;
                self.identify_now(header)
            }
            known => known,
        }
    }

    /// Reads the store again where agents or sessions changed since. To be called by whoever changed them, so that
    /// the change holds from the next request on.
    pub async fn refresh(&self) {
        self.look(Instant::now()).await;
    }

    /// As [`Identities::identify`], by what is in memory.
    fn identify_now(&self, header: Option<&[u8]>) -> Result<Client, IdentityError> {
        let Some(header) = header else {
            return match self.mode {
                IdentityMode::Optional => Ok(self.anonymous.clone()),
                IdentityMode::Required => Err(IdentityError::Required),
            };
        };
        let mut decoded = Vec::new();
        let credentials = Credentials::parse(header, &mut decoded)?;
        let known = self.known.load();
        // Found by digest: how long that takes tells nothing about a token that hashes to something else.
        let entry = known.tokens.get(&credentials.digest).ok_or(IdentityError::Unknown)?;
        let user = credentials.user.as_ref();
        if user.is_some_and(|user| user.agent != entry.client.agent) {
            return Err(IdentityError::Unknown);
        }
        if entry.ends.is_some_and(|ends| ends <= clock::now()) {
            return Err(IdentityError::Expired);
        }
        match (user.and_then(|user| user.label), entry.client.session) {
            (None, _) => Ok(entry.client.clone()),
            (label, Some(_)) if label == entry.label.as_deref() => Ok(entry.client.clone()),
            (Some(_), Some(_)) => Err(IdentityError::Unknown),
            (Some(label), None) => Ok(self.labelled(user.map_or("", |user| user.text), label, &entry.client)),
        }
    }

    /// The session that a label stands for, opened on first use.
    fn labelled(&self, user: &str, label: &str, agent: &Client) -> Client {
        let mut sessions = self.sessions();
        if let Some(labelled) = sessions.get_mut(user)
            && !labelled.is_idle()
        {
            labelled.used = Instant::now();
            return labelled.client.clone();
        }
        if let Some(idle) = sessions.remove(user) {
            self.end(&idle);
        } else if sessions.len() >= LABELS {
            self.make_room(&mut sessions);
        }
        let started = clock::now();
        let id = SessionId(clock::ulid(started));
        let client = Client::new(Caller {
            agent: agent.agent.clone(),
            owner: agent.owner.clone(),
            session: Some(id),
            observe: false,
        });
        let session = NewSession {
            id,
            agent: agent.agent.clone(),
            // A name of a closed alphabet, there is nothing to redact.
            label: Some(Redacted::from_store(label.to_owned())),
            tool: None,
            command: None,
            repo: None,
            branch: None,
            commit: None,
            observe: false,
            implicit: true,
        };
        // Queued ahead of every decision that will name the session.
        self.recorder.note(Change::OpenSession { session, token: None });
        sessions.insert(user.to_owned(), Labelled { client: client.clone(), used: Instant::now() });
        client
    }

    fn make_room(&self, sessions: &mut HashMap<String, Labelled>) {
        let oldest = sessions.iter().min_by_key(|(_, labelled)| labelled.used).map(|(user, _)| user.clone());
        if let Some(ended) = oldest.and_then(|user| sessions.remove(&user)) {
            self.end(&ended);
        }
    }

    fn end_idle(&self) {
        let mut sessions = self.sessions();
        sessions.retain(|_, labelled| {
            let idle = labelled.is_idle();
            if idle {
                self.end(labelled);
            }
            !idle
        });
    }

    fn end(&self, labelled: &Labelled) {
        if let Some(session) = labelled.client.session {
            self.recorder.note(Change::EndSession { session, exit_code: None, why: SessionEnd::Idle });
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Labelled>> {
        // The map is whole after any panic.
        self.labelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the labelled sessions that the gateway before this one left open.
    async fn resume(&self) -> Result<(), StoreError> {
        let left = self.store.labelled_sessions(LABELS).await?;
        let owners = self.known.load();
        let owner = |agent: &AgentName| {
            owners
                .tokens
                .values()
                .find(|entry| entry.client.agent == *agent)
                .and_then(|e| e.client.owner.clone())
        };
        let mut sessions = self.sessions();
        for session in left {
            let Some(label) = &session.label else { continue };
            let user = format!("{}+{}", session.agent, label.as_str());
            let owner = owner(&session.agent);
            let caller =
                Caller { agent: session.agent, owner, session: Some(session.id), observe: session.observe };
            sessions.insert(user, Labelled { client: Client::new(caller), used: Instant::now() });
        }
        Ok(())
    }

    /// Makes sure that the store was looked at after `asked`. Of many who ask at once one looks.
    async fn look(&self, asked: Instant) {
        let mut looked = self.looked.lock().await;
        if *looked > asked {
            return;
        }
        let began = Instant::now();
        match self.read().await {
            Ok(()) => *looked = began,
            Err(error) => tracing::warn!(%error, "agents and sessions could not be read again"),
        }
    }

    async fn read(&self) -> Result<(), StoreError> {
        let version = self.store.identities_version().await?;
        if version == self.known.load().version {
            return Ok(());
        }
        let tokens = self.store.tokens(clock::now()).await?;
        let tokens = tokens.into_iter().map(|row| (row.digest, Entry::from(row))).collect();
        self.known.store(Arc::new(Known { version, tokens }));
        Ok(())
    }
}

/// Looks for changes until nobody has use for them.
async fn keep_up(identities: Weak<Identities>) {
    for round in 1_u32.. {
        tokio::time::sleep(REFRESH).await;
        let Some(identities) = identities.upgrade() else { return };
        identities.refresh().await;
        if round.is_multiple_of(SWEEP) {
            identities.end_idle();
        }
    }
}

impl Labelled {
    fn is_idle(&self) -> bool {
        // A tunnel holds its client for as long as it is open, however quiet.
        !self.client.is_held() && self.used.elapsed() >= IDLE
    }
}

impl From<TokenRow> for Entry {
    fn from(row: TokenRow) -> Entry {
        let TokenRow { agent, owner, ends, session, label, observe, digest: _ } = row;
        Entry { client: Client::new(Caller { agent, owner, session, observe }), label, ends }
    }
}

impl<'a> Credentials<'a> {
    /// Reads a header; `decoded` holds what the result borrows from.
    fn parse(header: &'a [u8], decoded: &'a mut Vec<u8>) -> Result<Credentials<'a>, IdentityError> {
        let text = std::str::from_utf8(header).map_err(|_| IdentityError::Malformed)?;
        let (scheme, value) = text.trim().split_once(' ').ok_or(IdentityError::Malformed)?;
        let value = value.trim_start();
        if scheme.eq_ignore_ascii_case("basic") {
            BASE64.decode_vec(value, decoded).map_err(|_| IdentityError::Malformed)?;
            let pair = std::str::from_utf8(decoded).map_err(|_| IdentityError::Malformed)?;
            let (user, token) = pair.split_once(':').ok_or(IdentityError::Malformed)?;
            return Ok(Credentials {
                user: Some(User::parse(user)?),
                digest: TokenDigest::of(token.as_bytes()),
            });
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Credentials { user: None, digest: TokenDigest::of(value.as_bytes()) });
        }
        Err(IdentityError::Unknown)
    }
}

impl<'a> User<'a> {
    fn parse(text: &'a str) -> Result<User<'a>, IdentityError> {
        let (agent, label) = match text.split_once('+') {
            Some((agent, label)) => (agent, Some(label)),
            None => (text, None),
        };
        // Labels are spelled like agents.
        if label.is_some_and(|label| label.parse::<AgentName>().is_err()) {
            return Err(IdentityError::Malformed);
        }
        let agent = agent.parse().map_err(|_| IdentityError::Unknown)?;
        Ok(User { text, agent, label })
    }
}

#[cfg(test)]
mod tests;
