//! Physical limits of this machine, single thread: what the unavoidable parts of a MITM proxy's
//! request cost. Prints "name<TAB>value<TAB>unit". Args: workdir (for SQLite files).
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;
use tokio_rustls::rustls::{self, pki_types::*};

fn time<F: FnMut()>(name: &str, min_s: f64, unit_scale: f64, unit: &str, mut f: F) {
    for _ in 0..3 {
        f();
    }
    let mut best = f64::MAX;
    let mut meds = vec![];
    for _ in 0..5 {
        let t = Instant::now();
        let mut n = 0u64;
        while t.elapsed().as_secs_f64() < min_s / 5.0 {
            for _ in 0..8 {
                f();
            }
            n += 8;
        }
        let per = t.elapsed().as_secs_f64() / n as f64;
        meds.push(per);
        best = best.min(per);
    }
    meds.sort_by(|a, b| a.total_cmp(b));
    println!("{name}\t{:.3}\t{unit}\t(best {:.3})", unit_scale / (1.0 / meds[2]), unit_scale * best);
}

fn handshake(cc: &Arc<rustls::ClientConfig>, sc: &Arc<rustls::ServerConfig>) -> (f64, f64) {
    let mut c =
        rustls::ClientConnection::new(cc.clone(), ServerName::try_from("host0001.bench.test").unwrap())
            .unwrap();
    let mut s = rustls::ServerConnection::new(sc.clone()).unwrap();
    let (mut tc, mut ts) = (0.0, 0.0);
    let mut b = vec![];
    while c.is_handshaking() || s.is_handshaking() || c.wants_write() || s.wants_write() {
        let t = Instant::now();
        b.clear();
        while c.wants_write() {
            c.write_tls(&mut b).unwrap();
        }
        tc += t.elapsed().as_secs_f64();
        let t = Instant::now();
        let mut r = &b[..];
        while !r.is_empty() {
            s.read_tls(&mut r).unwrap();
            s.process_new_packets().unwrap();
        }
        let mut b2 = vec![];
        while s.wants_write() {
            s.write_tls(&mut b2).unwrap();
        }
        ts += t.elapsed().as_secs_f64();
        let t = Instant::now();
        let mut r = &b2[..];
        while !r.is_empty() {
            c.read_tls(&mut r).unwrap();
            c.process_new_packets().unwrap();
        }
        tc += t.elapsed().as_secs_f64();
    }
    (tc, ts)
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    // --- signatures / key agreement / AEAD (aws-lc-rs) ---
    use aws_lc_rs::{aead, agreement, digest, rand::SystemRandom, signature::*};
    let rng = SystemRandom::new();
    let pk = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
    let kp = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pk.as_ref()).unwrap();
    let msg = [7u8; 200];
    time("aws-lc-rs ECDSA P-256 sign", 1.0, 1e6, "us", || {
        std::hint::black_box(kp.sign(&rng, &msg).unwrap());
    });
    let sig = kp.sign(&rng, &msg).unwrap();
    let pubk = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, kp.public_key().as_ref().to_vec());
    time("aws-lc-rs ECDSA P-256 verify", 1.0, 1e6, "us", || pubk.verify(&msg, sig.as_ref()).unwrap());
    time("aws-lc-rs ECDSA P-256 keygen", 1.0, 1e6, "us", || {
        std::hint::black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap());
    });
    time("aws-lc-rs X25519 keygen+agree", 1.0, 1e6, "us", || {
        let a = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &rng).unwrap();
        let p = a.compute_public_key().unwrap();
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, p.as_ref().to_vec());
        agreement::agree_ephemeral(a, &peer, (), |k| {
            std::hint::black_box(k[0]);
            Ok(())
        })
        .unwrap();
    });
    for (n, alg, kl) in [
        ("AES-128-GCM", &aead::AES_128_GCM, 16),
        ("AES-256-GCM", &aead::AES_256_GCM, 32),
        ("CHACHA20-POLY1305", &aead::CHACHA20_POLY1305, 32),
    ] {
        for sz in [1024usize, 16384] {
            let k = aead::LessSafeKey::new(aead::UnboundKey::new(alg, &vec![1u8; kl]).unwrap());
            let mut buf = vec![0u8; sz];
            time(&format!("aws-lc-rs {n} seal {sz} B"), 0.5, 1e6, "us", || {
                let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
                std::hint::black_box(
                    k.seal_in_place_separate_tag(nonce, aead::Aad::empty(), &mut buf).unwrap(),
                );
            });
        }
    }
    let m1 = vec![3u8; 1 << 20];
    time("SHA-256 1 MiB (aws-lc-rs)", 0.5, 1e6, "us", || {
        std::hint::black_box(digest::digest(&digest::SHA256, &m1));
    });
    time("SHA-256 256 B (aws-lc-rs)", 0.5, 1e6, "us", || {
        std::hint::black_box(digest::digest(&digest::SHA256, &m1[..256]));
    });
    let mut dst = vec![0u8; 1 << 20];
    time("memcpy 1 MiB", 0.5, 1e6, "us", || {
        dst.copy_from_slice(std::hint::black_box(&m1));
        std::hint::black_box(&dst);
    });

    // --- leaf minting (rcgen) ---
    let cakey = rcgen::KeyPair::generate().unwrap();
    let mut cap = rcgen::CertificateParams::new(vec![]).unwrap();
    cap.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cacert = cap.self_signed(&cakey).unwrap();
    let ca = rcgen::Issuer::from_params(&cap, &cakey);
    let leafkey = rcgen::KeyPair::generate().unwrap();
    time("rcgen mint P-256 leaf, shared leaf key", 1.0, 1e6, "us", || {
        let p = rcgen::CertificateParams::new(vec!["host0001.bench.test".to_string()]).unwrap();
        std::hint::black_box(p.signed_by(&leafkey, &ca).unwrap());
    });
    time("rcgen mint P-256 leaf, fresh key each", 1.0, 1e6, "us", || {
        let k = rcgen::KeyPair::generate().unwrap();
        let p = rcgen::CertificateParams::new(vec!["host0001.bench.test".to_string()]).unwrap();
        std::hint::black_box(p.signed_by(&k, &ca).unwrap());
    });

    // --- in-memory rustls handshakes ---
    let leaf = rcgen::CertificateParams::new(vec!["host0001.bench.test".to_string()])
        .unwrap()
        .signed_by(&leafkey, &ca)
        .unwrap();
    for (name, groups) in [
        ("X25519", vec![rustls::crypto::aws_lc_rs::kx_group::X25519]),
        ("X25519MLKEM768", vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768]),
    ] {
        let mut p = rustls::crypto::aws_lc_rs::default_provider();
        p.kx_groups = groups;
        let p = Arc::new(p);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cacert.der().clone()).unwrap();
        for resume in [false, true] {
            let mut cc = rustls::ClientConfig::builder_with_provider(p.clone())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            if !resume {
                cc.resumption = rustls::client::Resumption::disabled();
            }
            let sc = rustls::ServerConfig::builder_with_provider(p.clone())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![leaf.der().clone()],
                    PrivateKeyDer::Pkcs8(leafkey.serialize_der().into()),
                )
                .unwrap();
            let (cc, sc) = (Arc::new(cc), Arc::new(sc));
            let mut v: Vec<(f64, f64)> = (0..3000).map(|_| handshake(&cc, &sc)).collect();
            let med = |v: &mut Vec<(f64, f64)>, f: fn(&(f64, f64)) -> f64| {
                v.sort_by(|a, b| f(a).total_cmp(&f(b)));
                f(&v[v.len() / 2]) * 1e6
            };
            let c = med(&mut v, |x| x.0);
            let s = med(&mut v, |x| x.1);
            let r = if resume { "resumed" } else { "full" };
            println!("rustls TLS1.3 {name} {r} handshake, client side\t{c:.3}\tus");
            println!("rustls TLS1.3 {name} {r} handshake, server side\t{s:.3}\tus");
        }
        if name == "X25519" {
            // bulk: rustls encrypt+decrypt of 16 KiB records, in memory
            let cc = Arc::new(
                rustls::ClientConfig::builder_with_provider(p.clone())
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots.clone())
                    .with_no_client_auth(),
            );
            let sc = Arc::new(
                rustls::ServerConfig::builder_with_provider(p.clone())
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(
                        vec![leaf.der().clone()],
                        PrivateKeyDer::Pkcs8(leafkey.serialize_der().into()),
                    )
                    .unwrap(),
            );
            let mut c =
                rustls::ClientConnection::new(cc, ServerName::try_from("host0001.bench.test").unwrap())
                    .unwrap();
            let mut s = rustls::ServerConnection::new(sc).unwrap();
            let mut wire = vec![];
            for _ in 0..4 {
                wire.clear();
                while c.wants_write() {
                    c.write_tls(&mut wire).unwrap();
                }
                let mut r = &wire[..];
                while !r.is_empty() {
                    s.read_tls(&mut r).unwrap();
                    s.process_new_packets().unwrap();
                }
                wire.clear();
                while s.wants_write() {
                    s.write_tls(&mut wire).unwrap();
                }
                let mut r = &wire[..];
                while !r.is_empty() {
                    c.read_tls(&mut r).unwrap();
                    c.process_new_packets().unwrap();
                }
            }
            let data = vec![9u8; 16384];
            let mut plain = vec![0u8; 16384];
            let (mut te, mut td, mut n) = (0.0, 0.0, 0);
            while te + td < 1.0 {
                let t = Instant::now();
                c.writer().write_all(&data).unwrap();
                wire.clear();
                while c.wants_write() {
                    c.write_tls(&mut wire).unwrap();
                }
                te += t.elapsed().as_secs_f64();
                let t = Instant::now();
                let mut r = &wire[..];
                while !r.is_empty() {
                    s.read_tls(&mut r).unwrap();
                    s.process_new_packets().unwrap();
                }
                s.reader().read_exact(&mut plain).unwrap();
                td += t.elapsed().as_secs_f64();
                n += 1;
            }
            let mib = n as f64 / 64.0;
            println!("rustls record encrypt 16 KiB (in memory)\t{:.1}\tMiB/s", mib / te);
            println!("rustls record decrypt 16 KiB (in memory)\t{:.1}\tMiB/s", mib / td);
        }
    }

    // --- loopback TCP round trip & new connection (blocking sockets, 2 threads) ---
    {
        let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let a = l.local_addr().unwrap();
        std::thread::spawn(move || {
            for s in l.incoming() {
                let Ok(mut s) = s else { return };
                let _ = s.set_nodelay(true);
                let mut b = [0u8; 2048];
                while let Ok(n) = s.read(&mut b) {
                    if n == 0 || s.write_all(&b[..n]).is_err() {
                        break;
                    }
                }
            }
        });
        let mut s = std::net::TcpStream::connect(a).unwrap();
        s.set_nodelay(true).unwrap();
        let (m, mut b) = ([1u8; 1024], [0u8; 1024]);
        time("loopback TCP echo 1 KiB round trip (2 threads)", 1.0, 1e6, "us", || {
            s.write_all(&m).unwrap();
            s.read_exact(&mut b).unwrap();
        });
        drop(s);
        time("loopback TCP connect+close", 0.5, 1e6, "us", || drop(std::net::TcpStream::connect(a).unwrap()));
    }

    // --- SQLite ---
    for sync in ["NORMAL", "FULL", "OFF"] {
        for batch in [1usize, 100, 1000] {
            let p = format!("{dir}/limits-{sync}-{batch}.db");
            for s in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{p}{s}"));
            }
            let mut c = rusqlite::Connection::open(&p).unwrap();
            let _: String = c.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0)).unwrap();
            c.execute_batch(&format!("PRAGMA synchronous={sync}; CREATE TABLE ev(id INTEGER PRIMARY KEY, ts INTEGER, host TEXT, method TEXT, path TEXT, status INTEGER, bytes_in INTEGER, bytes_out INTEGER, verdict TEXT, rule TEXT, prev BLOB, hash BLOB);")).unwrap();
            let (t0, mut n) = (Instant::now(), 0u64);
            let mut cpu0 = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut cpu0) };
            while t0.elapsed().as_secs_f64() < 1.5 && n < 400_000 {
                let tx = c.transaction().unwrap();
                {
                    let mut st = tx.prepare_cached("INSERT INTO ev(ts,host,method,path,status,bytes_in,bytes_out,verdict,rule,prev,hash) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)").unwrap();
                    for _ in 0..batch {
                        st.execute(rusqlite::params![
                            n as i64,
                            "api.github.com",
                            "GET",
                            "/repos/foo/bar/issues?page=1",
                            200,
                            1024,
                            300,
                            "allow",
                            "github-readonly",
                            &[1u8; 32][..],
                            &[2u8; 32][..]
                        ])
                        .unwrap();
                        n += 1;
                    }
                }
                tx.commit().unwrap();
            }
            let mut cpu1 = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut cpu1) };
            let cpu = (cpu1.tv_sec - cpu0.tv_sec) as f64 + (cpu1.tv_nsec - cpu0.tv_nsec) as f64 / 1e9;
            println!(
                "SQLite WAL sync={sync} batch={batch}\t{:.0}\trows/s\t(CPU {:.2} us/row)",
                n as f64 / t0.elapsed().as_secs_f64(),
                cpu * 1e6 / n as f64
            );
            drop(c);
            for s in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{p}{s}"));
            }
        }
    }
    // --- append + fdatasync ---
    {
        let p = format!("{dir}/limits.log");
        let mut f = std::fs::File::create(&p).unwrap();
        let line = [b'x'; 300];
        time("append 300 B line (no sync)", 0.5, 1e6, "us", || f.write_all(&line).unwrap());
        time("append 300 B line + fdatasync", 1.0, 1e6, "us", || {
            f.write_all(&line).unwrap();
            f.sync_data().unwrap();
        });
        let _ = std::fs::remove_file(p);
    }
}
