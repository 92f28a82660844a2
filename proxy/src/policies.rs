//! The policy from its files: read together with the exact values it names, checked, and watched for changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use policy::catalogue::Catalogue;
use policy::decide::Policy;
use policy::document::{Mistake, STARTER, Source};
use policy::scan::DigestKey;
use policy::secret::Secrets;
use tokio::sync::oneshot;

use crate::config::{Config, Environment};
use crate::folder::{self, FolderError};
use crate::reading;

pub mod added;
pub mod files;
pub mod known;

use known::Known;

/// How long reading a whole policy may take, such as from a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks a variable up from any thread, for as long as the program runs.
pub type SharedEnvironment = &'static (dyn Fn(&str) -> Option<String> + Sync);

/// A policy with the exact values it looks for.
pub struct Loaded {
    /// The rules.
    pub rules: Policy,
    /// Detectors and known values. The place of a value among them names its source by [`Loaded::sources`].
    pub secrets: Secrets,
    /// For each known value the number of the `known` entry it comes from.
    pub sources: Vec<usize>,
    /// Those values, to be handed to the next [`load`].
    pub known: Known,
    /// What is not wrong, but will not do what its author means.
    pub warnings: Vec<String>,
}

/// Why a policy cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A file could be changed by others than its owner.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file system that does not answer.
    #[error("the policy's files were not read within {} s", PATIENCE.as_secs())]
    Slow,
    /// The files say something that is not a policy.
    #[error("{}", list(.0))]
    Mistakes(Vec<Mistake>),
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Writes the starter policy where a data folder has none and no other policy is named.
///
/// # Errors
/// A folder that cannot be written.
pub fn make_starter(config: &Config) -> Result<(), FolderError> {
    let path = config.data_dir.join("policy.toml");
    let wanted = config.policy.is_empty() && !path.exists();
    if wanted { folder::write_private(&path, STARTER.as_bytes()) } else { Ok(()) }
}

/// The key under which this data folder digests secrets; made on first use.
///
/// # Errors
/// A folder that cannot be written, or a file that is not the key.
pub fn digest_key(data_dir: &Path) -> anyhow::Result<DigestKey> {
    let path = data_dir.join("digest.key");
    if let Some(bytes) = folder::read_secret(&path)? {
        let key: [u8; 32] = bytes.try_into().map_err(|_| {
            anyhow::anyhow!("`{}` is not a key of 32 bytes; restore or remove it", path.display())
        })?;
        return Ok(DigestKey::new(key));
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    folder::write_private(&path, &key)?;
    Ok(DigestKey::new(key))
}

/// As [`load`], on a thread of its own and not waited for longer than a while: a file that cannot be read to its end must
/// hold up neither signals nor the end.
///
/// # Errors
/// As [`load`], and where it takes too long.
pub async fn load_in_time(
    config: &Config,
    before: &Known,
    environment: SharedEnvironment,
) -> Result<Loaded, LoadError> {
    let (config, before) = (config.clone(), before.clone());
    let (sender, loaded) = oneshot::channel();
    // Not a task of the runtime, whose end would wait for it.
    std::thread::spawn(move || sender.send(load(&config, &before, environment)).is_ok());
    match tokio::time::timeout(PATIENCE, loaded).await {
        Ok(Ok(loaded)) => loaded,
        _ => Err(LoadError::Slow),
    }
}

/// Reads and checks the whole policy. What was known `before` stays known where the policy still names its source.
///
/// # Errors
/// Every mistake of every file at once; or the file that cannot be read.
pub fn load(config: &Config, before: &Known, environment: Environment<'_>) -> Result<Loaded, LoadError> {
    let mut texts = Vec::new();
    for path in files(config)? {
        folder::check_trusted(&path)?;
        let text = reading::text(&path).map_err(|error| LoadError::Read { path: path.clone(), error })?;
        texts.push((path.display().to_string(), text));
    }
    let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let rules = Policy::parse(&sources, Catalogue::builtin()).map_err(LoadError::Mistakes)?;
    let mut warnings: Vec<String> = rules.warnings().iter().map(ToString::to_string).collect();
    let linked = guarded(config).into_iter().filter(|path| hard_links(path) > 1);
    warnings.extend(linked.map(|path| other_name(&path)).map(|(what, mend)| format!("{what}; run: {mend}")));
    let known::Values { secrets, sources, known } = known::read(&rules, before, environment, &mut warnings);
    Ok(Loaded { rules, secrets, sources, known, warnings })
}

/// The files that say what may leave: those of the policy, and the configuration.
pub fn guarded(config: &Config) -> Vec<PathBuf> {
    config.policy_files().unwrap_or_default().into_iter().chain([config.config.clone()]).collect()
}

/// The first of these files that has another name, by which a fenced command could write it. What root owns only root
/// can write, by whatever name.
pub fn hard_linked(paths: &[PathBuf]) -> Option<PathBuf> {
    paths.iter().find(|path| hard_links(path) > 1).cloned()
}

/// What is wrong with such a file, and the command that mends it.
pub fn other_name(path: &Path) -> (String, String) {
    let path = path.display();
    (
        format!("`{path}` is a hard link: a fenced command can write it by its other name"),
        format!("cp -p {path} {path}.new && mv {path}.new {path}"),
    )
}

/// How many names a file has by which this user could write it.
fn hard_links(path: &Path) -> u64 {
    let own = rustix::process::geteuid();
    let ours = |file: &fs::Metadata| own.is_root() || file.uid() == own.as_raw();
    fs::metadata(path).ok().filter(|file| file.is_file() && ours(file)).map_or(0, |file| file.nlink())
}

fn files(config: &Config) -> Result<Vec<PathBuf>, LoadError> {
    config.policy_files().map_err(|error| LoadError::Read { path: config.data_dir.join("policy.d"), error })
}

/// What a change of the policy's files shows in: their names, sizes and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, Option<(u64, SystemTime)>>);

impl Fingerprint {
    /// Looks at the files as they are now. A missing file shows too.
    pub fn take(config: &Config) -> Fingerprint {
        let files = config.policy_files().unwrap_or_default();
        let seen =
            |path: &Path| fs::metadata(path).ok().and_then(|file| Some((file.len(), file.modified().ok()?)));
        Fingerprint(files.into_iter().map(|path| (path.clone(), seen(&path))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_name_is_found_and_warned_of() {
        let root = tempfile::tempdir().unwrap();
        let [policy, config, other] =
            ["policy.toml", "outgate.toml", "other"].map(|name| root.path().join(name));
        fs::write(&policy, STARTER).unwrap();
        fs::write(&config, "").unwrap();
        let settings =
            Config { data_dir: root.path().to_owned(), config: config.clone(), ..Config::default() };
        let warnings = || load(&settings, &Known::default(), &|_| None).unwrap().warnings;
        assert_eq!(guarded(&settings), [policy.clone(), config.clone()]);
        assert_eq!((hard_linked(&guarded(&settings)), warnings()), (None, vec![]));
        for linked in [policy, config] {
            fs::hard_link(&linked, &other).unwrap();
            assert_eq!(hard_linked(&guarded(&settings)), Some(linked.clone()));
            let (what, mend) = other_name(&linked);
            assert_eq!(warnings(), [format!("{what}; run: {mend}")]);
            fs::remove_file(&other).unwrap();
            std::os::unix::fs::symlink(&linked, &other).unwrap();
            assert_eq!(hard_linked(&guarded(&settings)), None, "a symbolic link is no other name");
            fs::remove_file(&other).unwrap();
        }
    }
}
