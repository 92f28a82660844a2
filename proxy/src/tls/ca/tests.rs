//! The authority as openssl would show it, and everything that must not pass for one.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use x509_parser::extensions::ParsedExtension;

use super::*;

fn now() -> SystemTime {
    SystemTime::now()
}

fn opened(folder: &Path) -> Result<Authority, String> {
    Authority::open(folder, now()).map_err(|error| error.to_string())
}

#[test]
fn the_authority_is_made_once_private_and_unlike_any_other() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = opened(one.path()).unwrap();
    for name in [CERTIFICATE, KEY] {
        assert_eq!(fs::metadata(one.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(
        opened(one.path()).unwrap().certificate().pem(),
        first.certificate().pem(),
        "opened again it is the same"
    );
    let second = opened(other.path()).unwrap();
    assert_ne!(first.certificate().summary().subject, second.certificate().summary().subject);
    assert_ne!(first.certificate().summary().fingerprint, second.certificate().summary().fingerprint);
}

#[test]
fn the_authority_may_sign_leaves_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let authority = opened(folder.path()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&authority.certificate.der).unwrap();
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    let (mut subject, mut issuer) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuer = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    assert!(subject.is_some() && subject == issuer, "{subject:?} {issuer:?}");
    assert_eq!(certificate.subject(), certificate.issuer());
    assert!(certificate.verify_signature(None).is_ok());
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
    assert_eq!(days, 5 * 365);
    assert!(certificate.raw_serial().len() <= 20 && certificate.raw_serial()[0] < 0x80);
}

#[test]
fn what_cannot_be_the_authority_stops_the_program_with_its_cure() {
    type Damage = fn(&Path);
    let cases: &[(&str, Damage, &str)] = &[
        (
            "a key that others may read",
            |folder| fs::set_permissions(folder.join(KEY), PermissionsExt::from_mode(0o644)).unwrap(),
            "`DIR/ca.key` is a secret that others may read (mode 0644); run: chmod 600 DIR/ca.key",
        ),
        (
            "a key behind a link",
            |folder| {
                fs::rename(folder.join(KEY), folder.join("elsewhere")).unwrap();
                symlink(folder.join("elsewhere"), folder.join(KEY)).unwrap();
            },
            "`DIR/ca.key` is not a plain file; a key is not read through a link",
        ),
        (
            "a certificate that others may replace",
            |folder| fs::set_permissions(folder.join(CERTIFICATE), PermissionsExt::from_mode(0o666)).unwrap(),
            "`DIR/ca.pem` may be written by others (mode 0666); run: chmod go-w DIR/ca.pem",
        ),
        (
            "no key",
            |folder| fs::remove_file(folder.join(KEY)).unwrap(),
            "`DIR/ca.key` is missing but `DIR/ca.pem` is there; restore it, or make a new authority: outgate ca rotate",
        ),
        (
            "no certificate",
            |folder| fs::remove_file(folder.join(CERTIFICATE)).unwrap(),
            "`DIR/ca.pem` is missing but `DIR/ca.key` is there; restore it, or make a new authority: outgate ca rotate",
        ),
        (
            "a key that is none",
            |folder| fs::write(folder.join(KEY), "-----BEGIN PRIVATE KEY-----").unwrap(),
            "`DIR/ca.key` is not a private key; restore it, or make a new authority: outgate ca rotate",
        ),
        (
            "a certificate that is none",
            |folder| fs::write(folder.join(CERTIFICATE), "").unwrap(),
            "`DIR/ca.pem` is not a certificate; restore it, or make a new authority: outgate ca rotate",
        ),
        (
            "another's key",
            |folder| {
                let other = tempfile::tempdir().unwrap();
                Authority::open(other.path(), now()).unwrap();
                fs::copy(other.path().join(KEY), folder.join(KEY)).unwrap();
            },
            "`DIR/ca.pem` does not belong to `ca.key`; restore it, or make a new authority: outgate ca rotate",
        ),
        (
            "a leaf",
            |folder| {
                let leaf = rcgen::generate_simple_self_signed(vec!["leaf.test".to_owned()]).unwrap();
                fs::write(folder.join(KEY), leaf.signing_key.serialize_pem()).unwrap();
                fs::write(folder.join(CERTIFICATE), leaf.cert.pem()).unwrap();
            },
            "`DIR/ca.pem` is not the certificate of an authority; restore it, or make a new authority: outgate ca rotate",
        ),
    ];
    for (what, damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        opened(folder.path()).unwrap();
        damage(folder.path());
        let said = opened(folder.path()).err().unwrap_or_else(|| panic!("{what} passed"));
        assert_eq!(said, expected.replace("DIR", folder.path().to_str().unwrap()), "{what}");
    }
}

#[test]
fn an_expired_authority_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    opened(folder.path()).unwrap();
    let later = now() + VALIDITY + Duration::from_secs(60);
    let error = Authority::open(folder.path(), later).err().unwrap().to_string();
    assert!(
        error.ends_with("has expired; restore it, or make a new authority: outgate ca rotate"),
        "{error}"
    );
}

#[test]
fn rotation_keeps_the_old_certificate_and_mends_a_broken_pair() {
    let folder = tempfile::tempdir().unwrap();
    let old = opened(folder.path()).unwrap();
    let new = Authority::rotate(folder.path(), now()).unwrap();
    assert_ne!(old.certificate().pem(), new.certificate().pem());
    assert_eq!(opened(folder.path()).unwrap().certificate().pem(), new.certificate().pem());
    assert_eq!(fs::read_to_string(folder.path().join(OLD_CERTIFICATE)).unwrap(), old.certificate().pem());
    fs::remove_file(folder.path().join(KEY)).unwrap();
    Authority::rotate(folder.path(), now()).unwrap();
    assert!(opened(folder.path()).is_ok());
}

#[test]
fn commands_started_at_once_make_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let pems: Vec<String> = std::thread::scope(|scope| {
        let open = || scope.spawn(|| opened(folder.path()).unwrap().certificate().pem().to_owned());
        let threads: Vec<_> = (0..8).map(|_| open()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pems.iter().all(|pem| *pem == pems[0]));
}

#[test]
fn the_bundle_holds_ours_once_and_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let authority = opened(folder.path()).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["root.test".to_owned()]).unwrap();
    let others = [other.cert.der().clone(), authority.certificate.der.clone()];
    let path = authority.certificate().write_bundle(folder.path(), &others).unwrap();
    let bundle = fs::read(path).unwrap();
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bundle).collect();
    assert_eq!(read.unwrap(), [authority.certificate.der.clone(), other.cert.der().clone()]);
}

#[test]
fn a_key_in_memory_is_made_anew_and_lies_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let certificate =
        || Certificate::open(CaKey::Memory, folder.path(), now()).map_err(|error| error.to_string());
    let path = folder.path().display();
    assert_eq!(
        certificate().unwrap_err(),
        format!(
            "`{path}/ca.pem` is made when the gateway starts, since `ca.key` is `memory`; start it: outgate serve"
        )
    );
    let start = || Authority::start(CaKey::Memory, folder.path(), now());
    let first = start().unwrap();
    assert_eq!(certificate().unwrap().pem(), first.certificate().pem());
    let second = start().unwrap();
    assert_ne!(first.certificate().pem(), second.certificate().pem());
    let kept = fs::read_to_string(folder.path().join(OLD_CERTIFICATE)).unwrap();
    assert_eq!(kept, first.certificate().pem());
    for file in fs::read_dir(folder.path()).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
    assert!(matches!(opened(folder.path()), Err(said) if said.contains("outgate ca rotate")));
    Authority::rotate(folder.path(), now()).unwrap();
    assert_eq!(
        start().err().unwrap().to_string(),
        format!(
            "`{path}/ca.key` is there, though `ca.key` is `memory`; remove it, it is not used: rm {path}/ca.key"
        )
    );
}
