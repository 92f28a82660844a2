//! Leaves as a client inspects them, and what happens when many want one at once.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::sync::Barrier;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, RootCertStore, ServerConnection, StreamOwned};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::*;
use crate::tls::UpstreamTls;

fn mint(limit: usize) -> Mint {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), SystemTime::now()).unwrap();
    Mint::new(authority, limit, IntCounter::new("minted", "Minted.").unwrap()).unwrap()
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn authority_of(mint: &Mint) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(mint.certificate().pem().as_bytes()).unwrap()
}

#[test]
fn a_leaf_is_short_lived_for_servers_and_for_its_host_alone() {
    let mint = mint(64);
    let authority_der = authority_of(&mint);
    let (_, authority) = X509Certificate::from_der(&authority_der).unwrap();
    let long = format!("{}.test", "a.".repeat(40).trim_end_matches('.'));
    let mut serials = HashSet::new();
    for name in ["allowed.test", "under_score.test", &long, "127.0.0.2", "[::1]"] {
        let host = host(name);
        let certified = mint.certified(&host).unwrap();
        let (_, leaf) = X509Certificate::from_der(&certified.cert[0]).unwrap();
        assert!(leaf.verify_signature(Some(authority.public_key())).is_ok(), "{name}");
        assert_ne!(leaf.public_key().raw, authority.public_key().raw, "the leaf has a key of its own");
        assert_eq!(leaf.issuer(), authority.subject());
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        match (&names[..], host.ip()) {
            ([GeneralName::DNSName(found)], None) => assert_eq!(*found, host.as_str()),
            ([GeneralName::IPAddress(found)], Some(IpAddr::V4(address))) => {
                assert_eq!(*found, address.octets());
            }
            ([GeneralName::IPAddress(found)], Some(IpAddr::V6(address))) => {
                assert_eq!(*found, address.octets());
            }
            other => panic!("{name}: {other:?}"),
        }
        let constraints = leaf.basic_constraints().unwrap().unwrap();
        assert!(!constraints.value.ca);
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth && !extended.any);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let (from, to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let now = jiff::Timestamp::now().as_second();
        assert!(to - from <= 7 * 86_400, "{name} is valid for {} s", to - from);
        assert!((3600..3660).contains(&(now - from)), "{name} is back-dated by {} s", now - from);
        assert!(serials.insert(leaf.raw_serial().to_vec()), "{name} has another's serial");
    }
}

#[test]
fn however_many_ask_at_once_one_leaf_is_minted() {
    let mint = mint(64);
    let barrier = Barrier::new(8);
    let leaves: HashSet<Vec<u8>> = std::thread::scope(|scope| {
        let ask = || {
            scope.spawn(|| {
                barrier.wait();
                mint.certified(&host("busy.test")).unwrap().cert[0].to_vec()
            })
        };
        let threads: Vec<_> = (0..8).map(|_| ask()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(leaves.len(), 1);
    assert_eq!(mint.minted.get(), 1);
}

#[test]
fn no_more_leaves_are_kept_than_the_limit_says() {
    let mint = mint(16);
    for number in 0..200 {
        mint.certified(&host(&format!("h{number}.test"))).unwrap();
    }
    let current = mint.current.load_full();
    current.leaves.run_pending_tasks();
    assert!(current.leaves.entry_count() <= 16, "{}", current.leaves.entry_count());
    let before = mint.minted.get();
    mint.certified(&host("h199.test")).unwrap();
    assert_eq!(mint.minted.get(), before, "the most recent one is kept");
}

#[test]
fn a_leaf_is_replaced_a_day_before_its_end_and_when_the_clock_was_set_back() {
    let mint = mint(16);
    let (host, start, hour) = (host("old.test"), SystemTime::now(), Duration::from_secs(3600));
    for (moment, minted) in
        [(start, 1), (start + 142 * hour, 1), (start + 144 * hour, 2), (start + 145 * hour, 2), (start, 3)]
    {
        mint.certified_at(&host, moment).unwrap();
        assert_eq!(mint.minted.get(), minted, "{moment:?}");
    }
}

/// One request and response in memory; gives how the handshake went.
fn handshake(mint: &Mint, client: &Arc<rustls::ClientConfig>, target: &str) -> Result<HandshakeKind, String> {
    let config = mint.config_for(&host(target)).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(target.trim_matches(['[', ']']).to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), far);
        // A client that refuses the leaf ends the stream; the client's own error is what counts.
        let _ = stream.read_exact(&mut [0; 4]).and_then(|()| stream.write_all(b"pong"));
        let _ = stream.flush();
    });
    let mut near = near;
    let mut stream = rustls::Stream::new(&mut client, &mut near);
    let exchanged = stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut [0; 4]));
    drop(near);
    server.join().unwrap();
    exchanged.map_err(|error| error.to_string())?;
    Ok(client.handshake_kind().unwrap())
}

#[test]
fn clients_that_trust_the_authority_accept_every_host_and_resume() {
    let mint = mint(16);
    let mut roots = RootCertStore::empty();
    roots.add(authority_of(&mint)).unwrap();
    let client = UpstreamTls::trusting(roots).unwrap().any;
    for target in ["allowed.test", "other.test", "127.0.0.2", "[::1]"] {
        assert_eq!(handshake(&mint, &client, target).unwrap(), HandshakeKind::Full, "{target}");
        assert_eq!(handshake(&mint, &client, target).unwrap(), HandshakeKind::Resumed, "{target}");
    }
}

#[test]
fn clients_that_do_not_trust_the_authority_refuse() {
    let client = UpstreamTls::trusting(RootCertStore::empty()).unwrap().any;
    let error = handshake(&mint(16), &client, "allowed.test").unwrap_err();
    assert_eq!(error, "invalid peer certificate: UnknownIssuer");
}

#[test]
fn another_authority_signs_every_leaf_from_then_on() {
    let mint = mint(16);
    let trusting = |certificate: CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        UpstreamTls::trusting(roots).unwrap().any
    };
    let before = trusting(authority_of(&mint));
    assert!(handshake(&mint, &before, "allowed.test").is_ok());
    let folder = tempfile::tempdir().unwrap();
    mint.replace(Authority::open(folder.path(), SystemTime::now()).unwrap());
    let after = trusting(authority_of(&mint));
    assert!(handshake(&mint, &after, "allowed.test").is_ok(), "its leaf is not the old one's");
    let error = handshake(&mint, &before, "other.test").unwrap_err();
    assert_eq!(error, "invalid peer certificate: UnknownIssuer");
    assert_eq!(mint.minted.get(), 3);
}
