//! Text that agents send all day and that holds no secret: none of it may raise a finding.
//!
//! Most samples are made from templates in the language of the detectors' own examples, each with several seeds, so
//! that chance has many tries; the rest are files of this repository.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use policy::scan::{DigestKey, Place, Scanner, SecretAction};
use policy::secret::{Exempt, Secrets};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn of(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| alphabet.as_bytes()[self.next() as usize % alphabet.len()] as char).collect()
    }

    fn hex(&mut self, length: usize) -> String {
        self.of("0123456789abcdef", length)
    }

    fn alnum(&mut self, length: usize) -> String {
        self.of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", length)
    }

    fn uuid(&mut self) -> String {
        [8, 4, 4, 4, 12].map(|length| self.hex(length)).join("-")
    }

    fn base64(&mut self, length: usize) -> String {
        STANDARD.encode(self.bytes(length))
    }
}

/// Samples that differ with the seed.
fn made(seed: u64) -> Vec<(&'static str, String)> {
    let mut random = Random(seed);
    let r = &mut random;
    vec![
        ("uuid", r.uuid()),
        ("uuids", (0..50).map(|_| r.uuid() + "\n").collect()),
        ("ulid", (0..50).map(|_| r.of("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 26) + " ").collect()),
        ("md5", format!("{}  file.txt", r.hex(32))),
        ("sha1", format!("commit {}\ntree {}\nparent {}", r.hex(40), r.hex(40), r.hex(40))),
        ("sha256", format!("sha256:{}", r.hex(64))),
        ("sha512", r.hex(128)),
        ("upper-case hash", r.hex(64).to_uppercase()),
        ("subresource integrity", format!("integrity=\"sha384-{}\" crossorigin", r.base64(48))),
        (
            "package lock",
            format!(
                "\"node_modules/a\":{{\"version\":\"1.2.3\",\"resolved\":\"https://npm.example/a/-/a-1.2.3.tgz\",\"integrity\":\"sha512-{}\",\"dev\":true}}",
                r.base64(64)
            ),
        ),
        (
            "yarn lock",
            format!(
                "\"@scope/a@^1.0.0\":\n  version \"1.0.1\"\n  resolved \"https://npm.example/a.tgz#{}\"\n  integrity sha512-{}\n",
                r.hex(40),
                r.base64(64)
            ),
        ),
        ("cargo lock", format!("name = \"sk-core\"\nchecksum = \"{}\"\n", r.hex(64))),
        (
            "poetry lock",
            format!("    {{file = \"a-1.0-py3-none-any.whl\", hash = \"sha256:{}\"}},\n", r.hex(64))
                .repeat(20),
        ),
        (
            "go sum",
            format!(
                "example.org/mod v1.2.3 h1:{}\nexample.org/mod v1.2.3/go.mod h1:{}\n",
                r.base64(32),
                r.base64(32)
            ),
        ),
        ("pip hashes", format!("requests==2.31.0 --hash=sha256:{} --hash=sha256:{}", r.hex(64), r.hex(64))),
        ("png", format!("data:image/png;base64,iVBORw0KGgo{}", r.base64(20_000))),
        ("jpeg", format!("{{\"type\":\"image\",\"data\":\"/9j/4AAQSkZJRgABAQ{}\"}}", r.base64(60_000))),
        ("wrapped base64", wrap(&r.base64(20_000), 76)),
        ("base64url", URL_SAFE_NO_PAD.encode(r.bytes(20_000))),
        ("zeros in base64", STANDARD.encode([vec![0; 500], r.bytes(100), vec![0xff; 500]].concat())),
        (
            "embedding",
            STANDARD.encode(
                (0..3000).flat_map(|_| (r.next() as f32 / u64::MAX as f32).to_le_bytes()).collect::<Vec<_>>(),
            ),
        ),
        ("binary", r.bytes(100_000).iter().map(|byte| char::from(*byte)).collect()),
        (
            "nano ids",
            (0..500)
                .map(|_| r.of("useandom-26T198340PX75pxJACKVERYMINDBUSHWOLF_GQZbfghjklqvwyzrict", 21) + ",")
                .collect(),
        ),
        ("long alphanumeric", (0..200).map(|_| r.alnum(40) + " ").collect()),
        (
            "certificate",
            format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", wrap(&r.base64(900), 64)),
        ),
        (
            "public key",
            format!("-----BEGIN PUBLIC KEY-----\n{}-----END PUBLIC KEY-----\n", wrap(&r.base64(300), 64)),
        ),
        ("ssh public key", format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me@host", r.base64(32))),
        (
            "pgp signature",
            format!(
                "-----BEGIN PGP SIGNATURE-----\n\n{}-----END PGP SIGNATURE-----\n",
                wrap(&r.base64(400), 64)
            ),
        ),
        ("image digest", format!("FROM ghcr.example/app:1.2@sha256:{}", r.hex(64))),
        (
            "message ids",
            format!(
                "{{\"id\":\"msg_01{}\",\"tool_use_id\":\"toolu_01{}\",\"request\":\"req_011{}\"}}",
                r.alnum(22),
                r.alnum(22),
                r.alnum(21)
            ),
        ),
        (
            "completion ids",
            format!(
                "{{\"id\":\"chatcmpl-{}\",\"system_fingerprint\":\"fp_{}\",\"call\":\"call_{}\",\"org\":\"org-{}\"}}",
                r.alnum(29),
                r.hex(10),
                r.alnum(24),
                r.alnum(24)
            ),
        ),
        (
            "response ids",
            format!(
                "{{\"id\":\"resp_{}\",\"previous\":\"rs_{}\",\"file\":\"file-{}\"}}",
                r.hex(50),
                r.hex(50),
                r.alnum(22)
            ),
        ),
        (
            "payment ids",
            format!(
                "pi_{} cus_{} evt_{} price_{} pk_live_{}",
                r.alnum(24),
                r.alnum(14),
                r.alnum(24),
                r.alnum(24),
                r.alnum(24)
            ),
        ),
        (
            "etag and trace",
            format!(
                "ETag: W/\"{}\"\ntraceparent: 00-{}-{}-01\nx-request-id: {}",
                r.hex(40),
                r.hex(32),
                r.hex(16),
                r.uuid()
            ),
        ),
        ("arn", format!("arn:aws:iam::{}:role/ci-{}", r.of("0123456789", 12), r.alnum(8))),
        (
            "bearer web token",
            format!(
                "Bearer {}.{}.{}",
                URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\",\"typ\":\"JWT\"}"),
                URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{}\",\"iat\":1,\"role\":\"anon\"}}", r.uuid())),
                URL_SAFE_NO_PAD.encode(r.bytes(256))
            ),
        ),
        ("url", format!("https://cdn.example/assets/app.{}.js?v={}&user=a:b@c", r.hex(8), r.hex(20))),
        ("port and at", format!("https://example.com:8443/@scope/pkg@{}", r.hex(6))),
        (
            "minified script",
            format!(
                "!function(e,t){{var n=t.sk_test,r=e[\"sk-{}\"];return n.AKIA||r.ghp_}}(window,{{key_:{}}})",
                r.alnum(6),
                r.hex(8)
            ),
        ),
        (
            "source map",
            format!(
                "//# sourceMappingURL=data:application/json;base64,{}",
                STANDARD
                    .encode(format!("{{\"version\":3,\"mappings\":\"{}\"}}", r.of("AAAA;CACC,GAAG", 3000)))
            ),
        ),
        (
            "css classes",
            format!(".sk-chase-dot{{}} .sk-fading-circle-{}{{}} .task-sk-{}{{}}", r.hex(4), r.hex(8)),
        ),
        ("webpack chunk", format!("{{\"{}\":\"{}\",\"npm.react\":\"{}\"}}", r.hex(20), r.hex(20), r.hex(20))),
        (
            "percent",
            format!("q=%7B%22id%22%3A%22{}%22%7D&next=https%3A%2F%2Fexample.com%3A8443%2Fa%40b", r.uuid()),
        ),
        (
            "json escapes",
            format!(
                "\"line one\\n\\tline \\u00e9 \\u003cb\\u003e {}\\\\n C:\\\\new\\\\{}\"",
                r.hex(32),
                r.alnum(6)
            ),
        ),
        (
            "git diff",
            format!(
                "diff --git a/x b/x\nindex {}..{} 100644\n@@ -1,2 +1,2 @@\n-key-value\n+key-values\n",
                r.hex(7),
                r.hex(7)
            ),
        ),
        ("float array", (0..500).map(|_| format!("{},", r.next() as f64 / 1e19)).collect()),
        (
            "csv",
            (0..100)
                .map(|row| format!("{row},{},{},{}\n", r.uuid(), r.hex(8), r.of("0123456789", 10)))
                .collect(),
        ),
        (
            "cookie",
            format!(
                "_ga=GA1.2.{}.{}; theme=dark; csrftoken={}",
                r.of("0123456789", 9),
                r.of("0123456789", 10),
                r.alnum(32)
            ),
        ),
        (
            "kubernetes",
            format!(
                "    uid: {}\n    image: a@sha256:{}\n    client-certificate-data: {}\n",
                r.uuid(),
                r.hex(64),
                r.base64(1000)
            ),
        ),
        (
            "telegram-like numbers",
            format!("{}:{} {}:AA", r.of("0123456789", 10), r.alnum(10), r.of("0123456789", 9)),
        ),
    ]
}

/// Samples written out.
const WRITTEN: [&str; 42] = [
    "export ANTHROPIC_API_KEY=sk-ant-...",
    "export ANTHROPIC_API_KEY=sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "OPENAI_API_KEY=sk-proj-your-key-goes-here-please",
    "GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "aws_access_key_id = AKIAXXXXXXXXXXXXXXXX",
    "aws_secret_access_key = YOUR_SECRET_ACCESS_KEY_GOES_HERE_40_CHAR",
    "api_key: ${API_KEY}",
    "token = os.environ[\"GITHUB_TOKEN\"]",
    "Authorization: Bearer $TOKEN",
    "postgres://postgres:postgres@localhost:5432/app",
    "postgresql://user:password@host/db",
    "DATABASE_URL=mysql://root:${MYSQL_ROOT_PASSWORD}@db/app",
    "redis://localhost:6379/0",
    "mongodb://mongo1:27017,mongo2:27017/?replicaSet=rs0",
    "amqp://guest:guest@rabbitmq:5672/",
    "https://user:pass@example.com/path",
    "https://{user}:{password}@{host}:{port}/",
    "git clone https://<token>@git.example/org/repo.git",
    "git@git.example:org/repo.git",
    "//npm.example/:_authToken=${NPM_TOKEN}",
    "machine learning login password reset",
    "The task-based risk-averse disk-sk approach asks: is pk-1 a key-value or a monkey-patch?",
    "npm_config_registry npm_package_json npm_lifecycle_event npm_execpath npm_node_execpath",
    "hf_hub_download(repo_id=\"org/model\", filename=\"model.safetensors\")",
    "gsk_ is a prefix, xai- another, pplx- a third; AIza begins a fourth and eyJ a fifth.",
    "rk_live and sk_live_ are documented; use sk_test_ in development",
    "class Sk extends React.Component { render() { return <div className=\"sk-circle sk-child sk-circle12\" /> } }",
    "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
    "if (line.startsWith(\"-----BEGIN PRIVATE KEY-----\")) { return parse(line); }",
    "AccountName=devstoreaccount1;AccountKey=<your key>;EndpointSuffix=core.example",
    "sig=... is the signature; design=modern",
    "whsec_... and xoxb-your-token and xapp-1-...",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "ya29.xxx 1//0xxx GOCSPX-xxx",
    "glpat-xxxxxxxxxxxxxxxxxxxx glrt-<runner token>",
    "dapi lives in the api; dop_v1_ and sbp_ and dckr_pat_ are prefixes; hvs. too.",
    "pat_refactored_handler.register(pattern.compile('pathological'))",
    "AGE-SECRET-KEY-1... age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "LICENSE: THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED",
    "Der Schlüssel lag unter der Fußmatte; 鍵は玄関マットの下にあった。 Ключ лежал под ковриком.",
    "SELECT id, token_hash FROM sessions WHERE expires_at > now() AND api_key_id IS NOT NULL;",
];

const FILES: [(&str, &str); 11] = [
    ("Cargo.lock", include_str!("../../Cargo.lock")),
    ("Cargo.toml", include_str!("../../Cargo.toml")),
    ("lib.rs", include_str!("../src/lib.rs")),
    ("scan.rs", include_str!("../src/scan.rs")),
    ("decode.rs", include_str!("../src/decode.rs")),
    ("redact.rs", include_str!("../src/redact.rs")),
    ("secret/mod.rs", include_str!("../src/secret/mod.rs")),
    ("secret/models.rs", include_str!("../src/secret/models.rs")),
    ("secret/clouds.rs", include_str!("../src/secret/clouds.rs")),
    ("secret/services.rs", include_str!("../src/secret/services.rs")),
    ("detectors.rs", include_str!("detectors.rs")),
];

fn wrap(text: &str, width: usize) -> String {
    let lines = text.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line) + "\n");
    lines.collect()
}

fn findings(text: &str) -> Vec<String> {
    let key = DigestKey::new([3; 32]);
    let mut scanner =
        Scanner::new(Secrets::detectors(), key, SecretAction::Mask, Exempt::none(), Place::Body);
    let mut out = Vec::new();
    scanner.push(Bytes::copy_from_slice(text.as_bytes()), &mut out).expect("mask lets pass");
    scanner.finish(&mut out).expect("mask lets pass");
    let left = out.concat();
    let at = left.iter().zip(text.as_bytes()).position(|(left, came)| left != came).unwrap_or(0);
    let around = String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(20)..(at + 60).min(text.len())])
        .into_owned();
    scanner.findings().iter().map(|finding| format!("{finding:?} at {around:?}")).collect()
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let mut samples: Vec<(String, String)> = Vec::new();
    for seed in 0..10 {
        samples.extend(made(seed).into_iter().map(|(name, text)| (format!("{name} {seed}"), text)));
    }
    samples.extend(WRITTEN.iter().map(|text| ((*text).to_owned(), (*text).to_owned())));
    samples.extend(FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    assert!(samples.len() >= 500);
    let mut wrong = Vec::new();
    for (name, text) in &samples {
        let dressed = serde_json::json!({ "content": text }).to_string();
        for text in [text, &dressed, &STANDARD.encode(text)] {
            wrong.extend(findings(text).into_iter().map(|finding| format!("{name}: {finding}")));
        }
    }
    assert!(wrong.is_empty(), "{} findings\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
