//! Every way of presenting credentials, and what becomes of sessions.

use super::*;
use crate::agents::{self, GRACE, NewAgent, SessionStart, Token};
use crate::store::Opened;
use crate::store::tests::Folder;

struct World {
    _folder: Folder,
    store: Store,
    recorder: Recorder,
    identities: Arc<Identities>,
}

async fn world(mode: IdentityMode) -> World {
    let folder = Folder::new();
    let Opened { store, writer, .. } = folder.open().await;
    let recorder = Recorder::start(writer);
    let identities = Identities::load(&store, &recorder, mode).await.unwrap();
    World { _folder: folder, store, recorder, identities }
}

impl World {
    async fn agent(&self, name: &str, expires: Option<i64>) -> Token {
        let owner = Redacted::literal("ana@example.com");
        let new = NewAgent { name: name.parse().unwrap(), owner, purpose: None, expires };
        agents::add(&self.store, &self.recorder, new, None).await.unwrap()
    }

    async fn session(&self, agent: &str, label: Option<&'static str>) -> (SessionId, Token) {
        let start = SessionStart {
            agent: agent.parse().unwrap(),
            label: label.map(Redacted::literal),
            tool: None,
            command: None,
            repo: None,
            branch: None,
            commit: None,
            observe: true,
        };
        agents::open_session(&self.store, &self.recorder, start, None).await.unwrap()
    }

    async fn identify(&self, header: &str) -> Result<Client, IdentityError> {
        self.identities.identify(Some(header.as_bytes())).await
    }

    async fn basic(&self, user: &str, token: &str) -> Result<Client, IdentityError> {
        self.identify(&basic(user, token)).await
    }
}

fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{token}")))
}

#[tokio::test]
async fn headers_are_read_strictly_and_wrong_ones_always_refused() {
    for mode in [IdentityMode::Optional, IdentityMode::Required] {
        let world = world(mode).await;
        let token = world.agent("claude", None).await;
        let other = world.agent("other", None).await;
        let token = token.reveal();
        let ok = Ok("claude");
        let cases = [
            ("user and token", basic("claude", token), ok),
            ("the scheme in any case", basic("claude", token).replace("Basic", "bAsIc"), ok),
            ("without padding", basic("claude", token).trim_end_matches('=').to_owned(), ok),
            ("more spaces than one", basic("claude", token).replace(' ', "   "), ok),
            ("a bearer token", format!("Bearer {token}"), ok),
            ("a wrong token", basic("claude", "og_wrong"), Err(IdentityError::Unknown)),
            ("no token", basic("claude", ""), Err(IdentityError::Unknown)),
            ("another's token", basic("claude", other.reveal()), Err(IdentityError::Unknown)),
            ("another's name", basic("other", token), Err(IdentityError::Unknown)),
            ("a name in capitals", basic("Claude", token), Err(IdentityError::Unknown)),
            ("no name", basic("", token), Err(IdentityError::Unknown)),
            ("anonymous with a token", basic("anonymous", token), Err(IdentityError::Unknown)),
            ("anonymous without", basic("anonymous", ""), Err(IdentityError::Unknown)),
            ("a token with a space", format!("Bearer {token} x"), Err(IdentityError::Unknown)),
            ("another scheme", format!("Digest {token}"), Err(IdentityError::Unknown)),
            ("an empty label", basic("claude+", token), Err(IdentityError::Malformed)),
            ("a label that is no name", basic("claude+a b", token), Err(IdentityError::Malformed)),
            ("two labels", basic("claude+a+b", token), Err(IdentityError::Malformed)),
            ("no scheme", token.to_owned(), Err(IdentityError::Malformed)),
            ("nothing", String::new(), Err(IdentityError::Malformed)),
            ("no base64", format!("Basic claude:{token}"), Err(IdentityError::Malformed)),
            ("base64 of no pair", "Basic Y2xhdWRl".to_owned(), Err(IdentityError::Malformed)),
        ];
        for (sentence, header, expected) in cases {
            let found = world.identify(&header).await;
            let found = found.as_ref().map(|client| client.agent.as_str()).map_err(|error| *error);
            assert_eq!(found, expected, "{sentence}, {mode:?}");
        }
        let none = world.identities.identify(None).await;
        match mode {
            IdentityMode::Optional => assert!(none.unwrap().agent.is_anonymous()),
            IdentityMode::Required => assert_eq!(none.unwrap_err(), IdentityError::Required),
        }
    }
}

#[tokio::test]
async fn a_token_given_or_taken_a_moment_ago_counts() {
    let world = world(IdentityMode::Required).await;
    let first = world.agent("claude", None).await;
    let client = world.basic("claude", first.reveal()).await.unwrap();
    assert_eq!(client.owner.as_ref().map(Redacted::as_str), Some("ana@example.com"));

    let name: AgentName = "claude".parse().unwrap();
    let second = agents::rotate(&world.store, &world.recorder, &name, None, GRACE, None).await.unwrap();
    world.basic("claude", second.reveal()).await.unwrap();
    world.basic("claude", first.reveal()).await.expect("the old one is taken for a while");

    let third =
        agents::rotate(&world.store, &world.recorder, &name, None, Duration::ZERO, None).await.unwrap();
    world.basic("claude", third.reveal()).await.unwrap();
    for old in [&first, &second] {
        assert_eq!(world.basic("claude", old.reveal()).await.unwrap_err(), IdentityError::Expired);
    }

    agents::revoke(&world.store, &world.recorder, &name, None).await.unwrap();
    world.identities.refresh().await;
    assert_eq!(world.basic("claude", third.reveal()).await.unwrap_err(), IdentityError::Expired);
}

#[tokio::test]
async fn a_revocation_by_another_process_counts_within_two_seconds() {
    let world = world(IdentityMode::Required).await;
    let token = world.agent("claude", None).await;
    world.basic("claude", token.reveal()).await.unwrap();
    agents::revoke(&world.store, &world.recorder, &"claude".parse().unwrap(), None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.basic("claude", token.reveal()).await.unwrap_err(), IdentityError::Expired);
}

#[tokio::test]
async fn an_agents_time_ends_to_the_moment() {
    let world = world(IdentityMode::Required).await;
    let token = world.agent("claude", Some(clock::now() + 300_000)).await;
    world.basic("claude", token.reveal()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(world.basic("claude", token.reveal()).await.unwrap_err(), IdentityError::Expired);
}

#[tokio::test]
async fn a_session_token_stands_for_agent_and_session_until_the_session_ends() {
    let world = world(IdentityMode::Required).await;
    world.agent("claude", None).await;
    for (agent, label) in [("claude", Some("fix-42")), ("anonymous", Some("fix-42")), ("anonymous", None)] {
        let (id, token) = world.session(agent, label).await;
        let with = |label: &str| format!("{agent}+{label}");
        let mut users = vec![(agent.to_owned(), true), (with("other"), false), ("nobody".to_owned(), false)];
        users.push((with("fix-42"), label.is_some()));
        for (user, good) in users {
            let found = world.basic(&user, token.reveal()).await;
            let expected = if good { Ok((Some(id), true)) } else { Err(IdentityError::Unknown) };
            assert_eq!(found.map(|client| (client.session, client.observe)), expected, "{user}, {label:?}");
        }
        let bearer = world.identify(&format!("Bearer {}", token.reveal())).await.unwrap();
        assert_eq!(bearer.session, Some(id));
        agents::end_session(&world.recorder, id, Some(0)).await.unwrap();
        world.identities.refresh().await;
        assert_eq!(world.basic(agent, token.reveal()).await.unwrap_err(), IdentityError::Expired);
    }
}

#[tokio::test]
async fn revoking_an_agent_ends_its_sessions_tokens() {
    let world = world(IdentityMode::Required).await;
    world.agent("claude", None).await;
    let (_, token) = world.session("claude", None).await;
    world.basic("claude", token.reveal()).await.unwrap();
    agents::revoke(&world.store, &world.recorder, &"claude".parse().unwrap(), None).await.unwrap();
    world.identities.refresh().await;
    assert_eq!(world.basic("claude", token.reveal()).await.unwrap_err(), IdentityError::Expired);
}

#[tokio::test]
async fn a_label_opens_one_session_that_lasts_until_it_is_idle() {
    let world = world(IdentityMode::Required).await;
    let token = world.agent("claude", None).await;
    let session = async |user: &str| world.basic(user, token.reveal()).await.unwrap().session;
    let first = session("claude+fix-42").await;
    assert!(first.is_some());
    assert_eq!(session("claude+fix-42").await, first, "the same label is the same session");
    assert_ne!(session("claude+fix-43").await, first, "another label is another");
    assert_eq!(session("claude").await, None, "no label is none");

    let age = |world: &World| {
        let long_ago = Instant::now().checked_sub(IDLE).unwrap();
        world.identities.sessions().values_mut().for_each(|labelled| labelled.used = long_ago);
    };
    let tunnel = world.basic("claude+fix-42", token.reveal()).await.unwrap();
    age(&world);
    world.identities.end_idle();
    assert_eq!(session("claude+fix-42").await, first, "a tunnel that is open keeps it");
    drop(tunnel);
    age(&world);
    world.identities.end_idle();
    let second = session("claude+fix-42").await;
    assert_ne!(second, first);

    world.recorder.event(policy::event::Happening::Stopped, None).await.unwrap();
    let stored = world.store.session(first.unwrap()).await.unwrap().unwrap();
    assert_eq!((stored.why, stored.implicit), (Some(SessionEnd::Idle), true));
    assert_eq!(stored.label.as_ref().map(Redacted::as_str), Some("fix-42"));
    assert_eq!(world.store.sessions_active().await.unwrap(), 1);

    let next = Identities::load(&world.store, &world.recorder, IdentityMode::Required).await.unwrap();
    let resumed = next.identify(Some(basic("claude+fix-42", token.reveal()).as_bytes())).await.unwrap();
    assert_eq!(resumed.session, second, "the next gateway goes on with it");
    assert_eq!(resumed.owner.as_ref().map(Redacted::as_str), Some("ana@example.com"));
}
