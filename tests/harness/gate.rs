//! The real program, started as its users start it, and what it says about itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::raw::Raw;
use super::row::Row;
use super::{PATIENCE, eventually};

/// A running gateway with a data folder of its own.
pub struct Gate {
    /// The proxy listener.
    pub proxy: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    child: Child,
    said: Arc<Mutex<String>>,
    complained: Arc<Mutex<String>>,
    plan: GateBuilder,
    secrets: Vec<String>,
}

/// A gateway about to be started.
pub struct GateBuilder {
    files: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Runs as nobody in particular, from a copy of the program that such a one may execute.
    unprivileged: bool,
    /// The policy is the data folder's own.
    own_policy: bool,
}

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65534;

/// The program: the one that was built with these tests, or another that is to be measured by them.
fn program() -> String {
    std::env::var("OUTGATE_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_outgate").to_owned())
}

/// The program, with an environment in which nothing of ours or of a proxy's is set.
pub fn command() -> Command {
    without_our_settings(program().as_ref())
}

fn without_our_settings(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("outgate_") || lower.ends_with("_proxy") || lower.starts_with("ssl_cert") {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

impl GateBuilder {
    /// With `text` as its configuration file.
    pub fn config(self, text: &str) -> GateBuilder {
        std::fs::write(self.files.path().join("outgate.toml"), text).unwrap();
        self
    }

    /// Writes one more file that lives as long as the gateway, and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// With one more argument of `serve`.
    pub fn argument(mut self, argument: &str) -> GateBuilder {
        self.arguments.push(argument.into());
        self
    }

    /// With one more environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> GateBuilder {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As a user without any privilege, where these tests run with them.
    pub fn unprivileged(mut self) -> GateBuilder {
        self.unprivileged = rustix::process::geteuid().is_root();
        if self.unprivileged {
            let program = self.files.path().join("outgate");
            std::fs::copy(super::gate::program(), &program).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            self.give_away();
        }
        self
    }

    /// Whose the files are that were made so far.
    fn give_away(&self) {
        for path in files_below(self.files.path()).iter().map(PathBuf::as_path).chain([self.files.path()]) {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Any program, as the user that the gateway runs as.
    pub fn program(&self, program: &std::ffi::OsStr) -> Command {
        let mut command = without_our_settings(program);
        if self.unprivileged {
            command.uid(NOBODY).gid(NOBODY).env("HOME", self.files.path());
        }
        command
    }

    /// With its policy in the data folder, where commands and answers may add to it.
    pub fn own_policy(mut self) -> GateBuilder {
        use std::os::unix::fs::DirBuilderExt;
        let before = self.policy_file();
        self.own_policy = true;
        std::fs::DirBuilder::new().mode(0o700).create(self.data()).unwrap();
        std::fs::rename(before, self.policy_file()).unwrap();
        self
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.files.path().join("data")
    }

    /// The policy file.
    pub fn policy_file(&self) -> PathBuf {
        if self.own_policy { self.data().join("policy.toml") } else { self.files.path().join("policy.toml") }
    }

    /// Any other command of the program, on the same files.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let ours = self.files.path().join("outgate");
        let mut command = match self.unprivileged {
            true => self.program(ours.as_os_str()),
            false => command(),
        };
        command.arg("--data-dir").arg(self.data());
        command.arg("--config").arg(self.files.path().join("outgate.toml"));
        if !self.own_policy {
            command.arg("--policy").arg(self.policy_file());
        }
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs such a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        timeout(PATIENCE, self.command(arguments).output()).await.expect("the command did not end").unwrap()
    }

    /// Starts `serve`, expecting it to refuse, and gives what it said.
    pub async fn refuses(&self) -> Output {
        let output = self.serve().output();
        timeout(PATIENCE, output).await.expect("it did not refuse, it serves").unwrap()
    }

    fn serve(&self) -> Command {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts `serve` and waits until it is ready.
    ///
    /// # Panics
    /// Where it refuses.
    pub async fn start(self) -> Gate {
        match self.try_start().await {
            Ok(gate) => gate,
            Err((_, refusal)) => panic!("the gateway did not get ready: {refusal:?}"),
        }
    }

    /// Starts `serve` and waits until it is ready.
    ///
    /// # Errors
    /// Where it ends instead: these files again, and what it said.
    pub async fn try_start(self) -> Result<Gate, (GateBuilder, Refusal)> {
        let mut child = self.serve().spawn().unwrap();
        let said = collect(child.stdout.take().unwrap());
        let complained = collect(child.stderr.take().unwrap());
        let ready = async {
            loop {
                let text = said.lock().unwrap().clone();
                if let (Some(proxy), Some(admin)) = (address(&text, "proxy"), address(&text, "admin")) {
                    return Ok((proxy, admin));
                }
                if let Some(status) = child.try_wait().unwrap() {
                    return Err(status);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(PATIENCE, ready).await {
            Ok(Ok((proxy, admin))) => {
                Ok(Gate { proxy, admin, child, said, complained, plan: self, secrets: Vec::new() })
            }
            late => {
                // What it said last may still be on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let code = late.ok().and_then(Result::err).and_then(|status| status.code());
                let text = |text: Arc<Mutex<String>>| text.lock().unwrap().clone();
                Err((self, Refusal { code, stdout: text(said), stderr: text(complained) }))
            }
        }
    }
}

/// What a gateway said that did not start.
#[derive(Debug)]
pub struct Refusal {
    /// Exit code; `None` where it did not end, or was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The address in a line such as `proxy http://127.0.0.1:4480`.
fn address(text: &str, what: &str) -> Option<SocketAddr> {
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(" http://"))?;
    line.trim().parse().ok()
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::<Mutex<String>>::default();
    let collected = text.clone();
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
            collected.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

impl Gate {
    /// A gateway with `policy` as its policy file.
    pub fn with_policy(policy: &str) -> GateBuilder {
        let files = tempfile::Builder::new().prefix("outgate-test-").tempdir().unwrap();
        std::fs::write(files.path().join("policy.toml"), policy).unwrap();
        std::fs::write(files.path().join("outgate.toml"), "").unwrap();
        GateBuilder {
            files,
            arguments: Vec::new(),
            environment: Vec::new(),
            unprivileged: false,
            own_policy: false,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the gateway runs")
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.plan.data()
    }

    /// Any other command, on the same files, to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.plan.run(arguments).await
    }

    /// Any other command, on the same files, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.plan.command(arguments)
    }

    /// Any program, as the user that the gateway runs as.
    pub fn program(&self, program: &str) -> Command {
        self.plan.program(program.as_ref())
    }

    /// The folder of its files: the data folder, the configuration, the policy.
    pub fn files(&self) -> &std::path::Path {
        self.plan.files.path()
    }

    /// Standard output of a command that must succeed.
    pub async fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`outgate {}` failed: {complaint}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes another policy without telling the gateway.
    pub fn write_policy(&self, text: &str) {
        std::fs::write(self.plan.policy_file(), text).unwrap();
    }

    /// Starts a second `serve` on the same files, expecting it to refuse.
    pub async fn second_serve(&self) -> Output {
        self.plan.refuses().await
    }

    /// The certificate of its authority.
    pub async fn ca(&self) -> String {
        let file = self.plan.files.path().join("exported.pem");
        self.told(&["ca", "export", file.to_str().unwrap()]).await;
        std::fs::read_to_string(file).unwrap()
    }

    /// The token that the admin listener wants.
    pub fn admin_token(&self) -> String {
        std::fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned()
    }

    /// Everything said on standard output so far.
    pub fn stdout(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Everything said on standard error so far.
    pub fn stderr(&self) -> String {
        self.complained.lock().unwrap().clone()
    }

    /// Every decision, oldest first, once all of them have their outcome or two seconds have passed.
    pub async fn decisions(&self) -> Vec<Row> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        loop {
            let rows = self.decisions_now().await;
            if rows.iter().all(Row::has_ended) || tokio::time::Instant::now() > deadline {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every decision as it stands, oldest first.
    pub async fn decisions_now(&self) -> Vec<Row> {
        let text = self.told(&["log", "--json", "--limit", "1000000"]).await;
        let mut rows: Vec<Row> = text.lines().map(|line| Row(serde_json::from_str(line).unwrap())).collect();
        rows.sort_by_key(|row| row.number("seq"));
        rows
    }

    /// Waits until there are `count` decisions, all with an outcome, and gives them.
    pub async fn decisions_reach(&self, count: usize) -> Vec<Row> {
        eventually(&format!("{count} decisions"), async || {
            let rows = self.decisions().await;
            (rows.len() >= count).then_some(rows)
        })
        .await
    }

    /// The one decision there is.
    ///
    /// # Panics
    /// Where there are more, or none in time.
    pub async fn only_decision(&self) -> Row {
        let rows = self.decisions_reach(1).await;
        assert_eq!(rows.len(), 1, "there is more than one decision: {rows:#?}");
        rows.into_iter().next().unwrap()
    }

    /// An answer of the admin listener.
    pub async fn admin(&self, path: &str, fields: &str) -> super::Answer {
        let mut raw = Raw::open(self.admin).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n", self.admin))
            .await;
        raw.answer().await
    }

    /// What the admin listener says, with the token, to a request with or without a body.
    pub async fn ask_admin(
        &self,
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> super::Answer {
        let mut raw = Raw::open(self.admin).await;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        raw.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.admin,
            self.admin_token(),
            body.len()
        ))
        .await;
        raw.answer().await
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        let answer = self.admin("/metrics", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    }

    /// The sum of a metric over all series that carry the given `label="value"` texts.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.metrics().await;
        let series = page.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Tells it to read its policy again, and waits until it has tried.
    pub async fn reload(&self) {
        let before = self.metric("outgate_policy_reloads_total", &[]).await;
        self.signal(Signal::HUP);
        eventually("the policy to be read again", async || {
            (self.metric("outgate_policy_reloads_total", &[]).await > before).then_some(())
        })
        .await;
    }

    /// Ends it as a supervisor would, and waits for it.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        timeout(2 * PATIENCE, self.child.wait()).await.expect("it did not stop when told to").unwrap()
    }

    /// Ends it without warning.
    pub async fn kill9(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same files, after it ended, and ends it without warning while it starts.
    pub async fn dies_starting(&self, after: Duration) {
        let mut child = self.plan.serve().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(after).await;
        child.kill().await.unwrap();
    }

    /// Starts it again on the same files, after it ended.
    pub async fn again(self) -> Gate {
        let secrets = self.secrets;
        Gate { secrets, ..self.plan.start().await }
    }

    /// Starts it again on the same files, after it ended, whether or not it will.
    ///
    /// # Errors
    /// As [`GateBuilder::try_start`].
    pub async fn try_again(self) -> Result<Gate, (GateBuilder, Refusal)> {
        self.plan.try_start().await
    }

    /// Remembers a secret that must be nowhere at the end.
    pub fn plant(&mut self, secret: &str) {
        self.secrets.push(secret.into());
    }

    /// What holds at the end of every test: it still answers, it has not panicked, it stops when told to, and what
    /// was planted is in no file, no output, no metric and no row.
    pub async fn finish(mut self) {
        let mut raw = Raw::open(self.proxy).await;
        raw.send("GET http://still-there.invalid/ HTTP/1.1\r\nHost: still-there.invalid\r\n\r\n").await;
        let answer = raw.answer().await;
        assert_ne!(answer.status, 0, "the proxy does not answer any more: {answer:?}\n{}", self.stderr());
        let mut told = self.told(&["log", "--json", "--limit", "1000000"]).await + &self.metrics().await;
        let status = self.stop().await;
        assert!(status.success(), "it ended with {status}: {}", self.stderr());
        told += &self.stdout();
        told += &self.stderr();
        assert!(!told.contains("panicked at"), "it panicked: {}", self.stderr());
        for file in files_below(&self.data()) {
            told += &String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default());
        }
        for secret in &self.secrets {
            let at = told.find(&secret[..]);
            let around = at.map(|at| {
                told[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect::<String>()
            });
            assert!(at.is_none(), "a secret is in a file, an output, a metric or a row, after {around:?}");
        }
    }
}

/// Resident memory of a process, in bytes; 0 once it is gone.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
