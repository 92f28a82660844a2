//! Private keys and signed tokens, by their published formats.

use super::Check::{ServiceRole, WebToken};

super::detectors! {
    "gcp-service-account-key" r#"private_key["'\\]{1,2}[ ]{0,2}:[ ]{0,2}["'\\]{1,2}-----BEGIN PRIVATE KEY-----<\p{64,}>"# => "\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n{64e}\\n{64e}\\n-----END PRIVATE KEY-----\\n\"", "{\"private_key\":\"-----BEGIN PRIVATE KEY-----\\n{128e}\\n-----END\""; not "\"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMII…\"", "\"private_key_id\": \"{40h}\""
    "openssh-private-key" r"(?<=-----)BEGIN OPENSSH PRIVATE KEY-----<\p{64,}>" => "-----BEGIN OPENSSH PRIVATE KEY-----\n{70e}\n{70e}\n-----END OPENSSH PRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY-----\\n{140e}\\n"; not "-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN OPENSSH PUBLIC KEY-----\n{140e}"
    "private-key" r"(?<=-----)BEGIN (RSA |EC |DSA |ENCRYPTED |ANY |SSH2 ENCRYPTED |)PRIVATE KEY-----<\p{64,}>" => "-----BEGIN RSA PRIVATE KEY-----\n{64e}\n{64e}\n-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\r\n{64e}\r\n{64e}"; not "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----\n{64e}\n{64e}"
    "pgp-private-key" r"(?<=-----)BEGIN PGP PRIVATE KEY BLOCK-----<\p{64,}>" => "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{64e}\n{64e}", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{128e}"; not "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{128e}", "-----BEGIN PGP PRIVATE KEY BLOCK-----"
    "putty-private-key" r"PuTTY-User-Key-File-[23]: [ -~]{5,40}[\r\n]{1,2}Encryption: <[ !#-~\r\n]{64,}>" => "PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: me\r\nPublic-Lines: 2\r\n{64e}\r\nPrivate-Lines: 1\r\n{48e}\r\n", "PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nComment: a\nPublic-Lines: 1\n{64e}\n"; not "PuTTY-User-Key-File-2", "PuTTY-User-Key-File-9: ssh-rsa\nEncryption: none\n{64e}"
    "age-secret-key" r"\bAGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}" => "AGE-SECRET-KEY-1{58q}", "# key\nAGE-SECRET-KEY-1{58q}\n"; not "AGE-SECRET-KEY-1{20q}", "AGE-SECRET-KEY-1{58=Q}"
    "supabase-service-key" [check ServiceRole] r"\beyJhbGciOi\k{10,100}\.eyJ\k{20,2000}\.\k{20,}" => "{service-role}", "SUPABASE_SERVICE_ROLE_KEY={service-role}"; not "{jwt}", "eyJ{40k}"
    "jwt" [records_only true] [check WebToken] r"\beyJ\k{10,400}\.eyJ\k{10,}\.\k{10,}" => "{jwt}", "Bearer {jwt}"; not "eyJ{40k}", "eyJ{40k}.{40k}"
}
