//! Checkpoints: when the chain is signed, and where what was signed goes besides the chain.
//!
//! The writer signs; a task of its own carries the signed points to a file and to a webhook, so that neither a slow
//! disk nor a slow peer holds up a request.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::anchor::Anchor;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::reading::check_plain;
use crate::signing::Signer;
use crate::webhook::Webhook;

/// Signed points that wait for their file; while it cannot be written the oldest make room, the newest stand for them.
const WAITING: usize = 10_000;
/// When a file or webhook that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long an end waits for what is still to be carried.
const DRAIN: Duration = Duration::from_secs(5);

/// How the chain is signed.
#[derive(Debug)]
pub struct CheckpointOptions {
    /// With which key.
    pub signer: Arc<Signer>,
    /// After so many records.
    pub records: u64,
    /// After so long, where anything was recorded since.
    pub interval: Duration,
    /// The file that signed points are appended to.
    pub file: PathBuf,
    /// Whether each line is flushed to the disk.
    pub flush: bool,
    /// Who is told of them.
    pub webhook: Option<Webhook>,
}

/// Says when to sign, and hands on what was signed.
#[derive(Debug)]
pub(super) struct Checkpoints {
    signer: Arc<Signer>,
    records: u64,
    interval: Duration,
    /// Records since the last checkpoint.
    unsigned: u64,
    since: Instant,
    /// A checkpoint has been handed to the writer and not yet come back.
    signing: bool,
    outbox: mpsc::UnboundedSender<Anchor>,
    carrier: JoinHandle<()>,
}

impl Checkpoints {
    pub(super) fn start(options: CheckpointOptions) -> Checkpoints {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let CheckpointOptions { signer, records, interval, file, flush, webhook } = options;
        let carrier = Carrier {
            inbox,
            file,
            flush,
            webhook,
            lines: Vec::new(),
            newest: None,
            file_fails: false,
            webhook_fails: false,
        };
        Checkpoints {
            signer,
            records,
            interval,
            unsigned: 0,
            since: Instant::now(),
            signing: false,
            outbox,
            carrier: tokio::spawn(carrier.run()),
        }
    }

    /// Who signs the next checkpoint, where one is due; at an end, where anything is unsigned.
    pub(super) fn due(&mut self, ending: bool) -> Option<Arc<Signer>> {
        let late = self.unsigned >= self.records || self.since.elapsed() >= self.interval;
        let due = self.unsigned > 0 && !self.signing && (late || ending);
        self.signing |= due;
        due.then(|| Arc::clone(&self.signer))
    }

    /// How long until one is due, if nothing more is recorded.
    pub(super) fn wait(&self) -> Option<Duration> {
        let waiting = self.unsigned > 0 && !self.signing;
        waiting.then(|| self.interval.saturating_sub(self.since.elapsed()))
    }

    /// So many records were committed, these checkpoints among them.
    pub(super) fn committed(&mut self, records: u64, anchors: Vec<Anchor>) {
        self.unsigned += records;
        if anchors.is_empty() {
            return;
        }
        (self.unsigned, self.since, self.signing) = (0, Instant::now(), false);
        for anchor in anchors {
            if self.outbox.send(anchor).is_err() {
                tracing::error!("checkpoints are no longer carried out of the store");
            }
        }
    }

    pub(super) async fn close(self) {
        drop(self.outbox);
        if tokio::time::timeout(DRAIN, self.carrier).await.is_err() {
            tracing::warn!("the last checkpoints did not reach their file or webhook; the chain holds them");
        }
    }
}

/// Carries signed points out of the store.
struct Carrier {
    inbox: mpsc::UnboundedReceiver<Anchor>,
    file: PathBuf,
    flush: bool,
    webhook: Option<Webhook>,
    /// What is to be appended to the file.
    lines: Vec<Anchor>,
    /// What the webhook is to be told: a later point speaks for all before it.
    newest: Option<Anchor>,
    file_fails: bool,
    webhook_fails: bool,
}

impl Carrier {
    async fn run(mut self) {
        loop {
            let pending = !self.lines.is_empty() || self.newest.is_some();
            let received = match pending {
                true => tokio::time::timeout(RETRY, self.inbox.recv()).await,
                false => Ok(self.inbox.recv().await),
            };
            match received {
                Ok(Some(anchor)) => self.take(anchor),
                Ok(None) => {
                    self.carry().await;
                    return;
                }
                Err(_) => {}
            }
            while let Ok(anchor) = self.inbox.try_recv() {
                self.take(anchor);
            }
            self.carry().await;
        }
    }

    fn take(&mut self, anchor: Anchor) {
        if self.lines.len() >= WAITING {
            self.lines.remove(0);
        }
        if self.webhook.is_some() {
            self.newest = Some(anchor.clone());
        }
        self.lines.push(anchor);
    }

    async fn carry(&mut self) {
        let written = self.write().await;
        let told = self.tell().await;
        tell_change(&mut self.file_fails, written, "file");
        tell_change(&mut self.webhook_fails, told, "webhook");
    }

    async fn write(&mut self) -> Result<(), String> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let text: String = self.lines.iter().map(|anchor| anchor.to_json() + "\n").collect();
        let (file, flush) = (self.file.clone(), self.flush);
        let appended = tokio::task::spawn_blocking(move || append(&file, &text, flush)).await;
        let failed = |error: &dyn std::fmt::Display| format!("`{}`: {error}", self.file.display());
        appended.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        self.lines.clear();
        Ok(())
    }

    async fn tell(&mut self) -> Result<(), String> {
        let (Some(webhook), Some(newest)) = (&self.webhook, &self.newest) else { return Ok(()) };
        webhook.post(newest.to_json()).await.map_err(|error| error.to_string())?;
        self.newest = None;
        Ok(())
    }
}

/// Tells of a failure once, not every five seconds, and of its end.
fn tell_change(failing: &mut bool, result: Result<(), String>, place: &str) {
    match result {
        Ok(()) if std::mem::take(failing) => tracing::info!("checkpoints reach their {place} again"),
        Err(problem) if !std::mem::replace(failing, true) => {
            tracing::error!("a checkpoint did not reach its {place}, and is tried again: {problem}");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Opens the file for what is signed next, made where it is missing. What somebody put in its place is not written to:
/// a link would have us write elsewhere, and a pipe would hold us up.
///
/// # Errors
/// What is no plain file, or cannot be opened or made.
pub fn open_file(path: &Path) -> std::io::Result<File> {
    match std::fs::symlink_metadata(path) {
        Ok(there) => check_plain(there.file_type())?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    check_plain(file.metadata()?.file_type())?;
    Ok(file)
}

/// Appends, never overwrites: the file may lie where nothing else is possible.
fn append(path: &Path, text: &str, flush: bool) -> std::io::Result<()> {
    let mut file = open_file(path)?;
    // What a full disk or a power cut left of a line must not become the beginning of the next.
    let torn = match file.seek(SeekFrom::End(-1)) {
        Ok(_) => {
            let mut last = [0];
            file.read_exact(&mut last)?;
            last != *b"\n"
        }
        Err(_) => false,
    };
    if torn {
        file.write_all(b"\n")?;
    }
    file.write_all(text.as_bytes())?;
    if flush { file.sync_data() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn the_file_is_made_private_and_nothing_is_written_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let [file, link, dangling, pipe, other] =
            ["file", "link", "dangling", "pipe", "other"].map(|name| root.path().join(name));
        drop(open_file(&file).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        append(&file, "{}\n", false).unwrap();
        append(&file, "{}\n", false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}\n{}\n");
        fs::write(&other, "of somebody else").unwrap();
        symlink(&other, &link).unwrap();
        symlink(root.path().join("new"), &dangling).unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (path, kind) in [
            (&link, "a symbolic link"),
            (&dangling, "a symbolic link"),
            (&pipe, "a pipe"),
            (&root.path().to_owned(), "a folder"),
        ] {
            let error = append(path, "{}\n", false).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind}, not a plain file"), "{}", path.display());
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
        assert!(!root.path().join("new").exists());
    }
}
