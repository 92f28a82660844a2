//! `outgate run`: an agent, or any command, as a session behind the gateway.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use policy::catalogue::Catalogue;
use policy::identity::{AgentName, SessionId};
use policy::view::DecisionView;

use super::changes::{change, operator, redacted, redacted_url};
use super::checkout::Checkout;
use super::context::{running, runtime, variable};
use super::moment::lasted;
use super::output::{bold, note};
use super::policy::files::in_force;
use super::records::Records;
use super::summary::Summary;
use super::supervise::{Ended, Signals, supervise, supervise_fenced};
use super::trust::Trust;
use super::variables::variables;
use super::{Context, Exit, Failure, start};
use crate::agents::{self, SessionStart, Token};
use crate::alive::Alive;
use crate::config::Config;
use crate::fence;
use crate::fence::outside::{Fence as Unstarted, Inhabited, Owner, Unfenced};
use crate::fence::plan::{Plan, default_folder, governing, known_files, replaceable_link};
use crate::policies;
use crate::running::Running;
use crate::store::query::Filter;

/// How long the summary waits for what was under way when the command ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Run a command as a session behind the gateway
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Run a command as a session behind the gateway.

Joins the gateway of the data folder, or starts one. Where the system permits it, the command is fenced in: it has a \
network of its own in which the gateway is the only way out, also for programs that ignore proxy variables, and \
cannot see the gateway's files, the host's sockets and other processes. Prints nothing while the command runs, and at its end what was \
reached, what was denied and the line that would allow it, how much left, and which secrets were stopped. Ends with \
the command's exit code, or 128 and the signal that ended it.",
    after_help = "\
Examples:
  outgate run -- claude
  outgate run --agent claude --label issue-42 -- claude -p \"fix the build\"
  outgate run --observe -- npm install
  outgate run --fence require --publish 3000 -- npm run dev"
)]
pub(crate) struct Arguments {
    /// The agent it runs as [default: anonymous]
    #[arg(long)]
    agent: Option<AgentName>,
    /// What the session is called in records
    #[arg(long)]
    label: Option<String>,
    /// Let pass in this session what policy would stop, and record that it would
    #[arg(long)]
    observe: bool,
    /// Whether programs that ignore proxy variables are fenced in
    #[arg(long, value_enum, default_value_t = Fence::Auto)]
    fence: Fence,
    /// Port inside that this machine's loopback reaches too: a login's answer, a server to look at; any number of times
    #[arg(long, value_name = "PORT", value_parser = port)]
    publish: Vec<u16>,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// A port that can be published.
fn port(text: &str) -> Result<u16, &'static str> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or("write a port that something inside listens on, from 1 to 65535, as in `--publish 3000`")
}

/// How much is asked of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fence {
    /// Where this machine can.
    Auto,
    /// Or refuse to start.
    Require,
    /// Variables alone.
    Off,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    context.refuse_inside_a_session("run")?;
    let config = context.config()?;
    if arguments.fence != Fence::Off {
        refuse_nested(&config)?;
    }
    let gateway = join_or_start(context, &config)?;
    if arguments.fence != Fence::Off {
        refuse_links(&config, &gateway)?;
    }
    let trust = Trust::prepare(&config)?;
    let (session, token) = open_session(arguments, &config)?;
    // Without it, nobody could tell whether this process was killed before it ended the session.
    let _alive = Alive::announce(&config.data_dir, session).map_err(Failure::failed)?;
    let began = Instant::now();
    let owner = Owner { folder: config.data_dir.clone(), session, token: token.reveal().to_owned() };
    let ended = runtime()?.block_on(command(arguments, &config, &gateway, &trust, owner));
    let ended = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            // No command ran, and nothing must look as if one still did.
            let end = async |_: &_, recorder: &_| agents::end_session(recorder, session, None).await;
            let _ = change(&config, end);
            return Err(failure);
        }
    };
    let code = match &ended {
        Ended::Ran(code) | Ended::NeverRan(code, _) => *code,
    };
    if let Ended::NeverRan(_, why) = &ended {
        super::output::error(why);
    }
    finish(&config, session, arguments, code, began.elapsed());
    Ok(Exit::Code(code))
}

fn agent(arguments: &Arguments) -> AgentName {
    arguments.agent.clone().unwrap_or_else(AgentName::anonymous)
}

/// Runs the command, in a fence where that is wanted and this machine permits it.
async fn command(
    arguments: &Arguments,
    config: &Config,
    gateway: &Running,
    trust: &Trust,
    owner: Owner,
) -> Result<Ended, Failure> {
    if arguments.fence != Fence::Off {
        let signals = Signals::listen().map_err(Failure::failed)?;
        match fenced(arguments, config, gateway, trust, &owner) {
            Ok(fenced) => {
                let ended = supervise_fenced(&arguments.command, fenced, signals).await;
                let (ended, left) = ended.map_err(Failure::failed)?;
                if left > 0 {
                    note(format_args!(
                        "outgate: ended what the command left running: {left} of its processes"
                    ));
                }
                return Ok(ended);
            }
            // What a program could have caused must not be a way to run without.
            Err(unfenced) if arguments.fence == Fence::Require || machine_permits(config).await => {
                return Err(Failure::Failed(format!(
                    "the fence cannot be put up, so nothing was run: {unfenced}\n{}",
                    unfenced.mend()
                )));
            }
            Err(unfenced) => note(format_args!(
                "outgate: there is no fence here ({unfenced}): programs that ignore proxy variables go past the \
                 gateway; `outgate doctor` tells what would mend it"
            )),
        }
    }
    let proxy = format!("http://{}:{}@{}", agent(arguments), owner.token, gateway.proxy);
    let variables = variables(&proxy, &trust.certificate, &trust.bundle, Some(owner.session));
    supervise(&arguments.command, &text(variables)).await.map_err(Failure::failed)
}

/// A fence round the command. Who asks from inside is known by the sockets: no token is needed there.
fn fenced(
    arguments: &Arguments,
    config: &Config,
    gateway: &Running,
    trust: &Trust,
    owner: &Owner,
) -> Result<Inhabited, Unfenced> {
    let proxy = format!("http://{}", fence::PROXY);
    let mut variables = text(variables(&proxy, &trust.certificate, &trust.bundle, Some(owner.session)));
    let policy = in_force(config).map(|(policy, _)| policy).ok();
    let catalogue =
        policy.as_ref().map_or_else(|| Catalogue::builtin().clone(), |policy| policy.catalogue().clone());
    let git = fence::git::variables(&catalogue, variable);
    variables.extend(git.into_iter().map(|(name, value)| (name, value.into())));
    let mut plan = Plan::new(config, Some(gateway));
    plan.keep_unchanged(&policy.as_ref().map(known_files).unwrap_or_default());
    refuse_unfound(arguments.fence, &plan)?;
    Unstarted::put_up(&plan, &arguments.command, &variables)?.start(owner, &arguments.publish)
}

/// Where a fence is required, it must hide every socket; where it is not, it is told which it does not.
fn refuse_unfound(fence: Fence, plan: &Plan) -> Result<(), Unfenced> {
    match plan.unfound.first() {
        Some(name) if fence == Fence::Require => Err(Unfenced::socket(name)),
        Some(name) => {
            note(format_args!(
                "outgate: programs inside may come to a socket of this machine that was bound as `{}` and was not found",
                name.display()
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Whether a fence can be put up here at all.
async fn machine_permits(config: &Config) -> bool {
    Unstarted::trial(Plan::bare(config)).await.is_ok()
}

fn text(variables: Vec<(&'static str, String)>) -> Vec<(String, OsString)> {
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// A fence covers real names: a symbolic link to them could be replaced from inside, and another name of the same file
/// written.
fn refuse_links(config: &Config, gateway: &Running) -> Result<(), Failure> {
    let governing = governing(config, Some(gateway));
    if let Some(linked) = policies::hard_linked(&governing) {
        let (what, mend) = policies::other_name(&linked);
        return Err(Failure::Usage(format!("{what}; mend it with: {mend}, or use --fence off")));
    }
    let files = governing.iter().chain([&config.data_dir]);
    if let Some(link) = files.filter_map(|path| replaceable_link(path)).next() {
        return Err(Failure::Usage(format!(
            "`{}` is a symbolic link that a fenced command could replace, and with it the policy; name what it leads to, \
             or put that in its place, or use --fence off",
            link.display()
        )));
    }
    Ok(())
}

/// What lies in a folder that is covered cannot be shown, and what lies round the data folder is not.
fn refuse_nested(config: &Config) -> Result<(), Failure> {
    let (usual, used) = (default_folder(), &config.data_dir);
    match usual.and_then(|folder| Some((fs::canonicalize(folder).ok()?, fs::canonicalize(used).ok()?))) {
        Some((usual, used)) if used != usual && used.starts_with(&usual) => Err(Failure::Usage(format!(
            "the data folder `{}` lies in the one that is used where none is named, which a fence could then not hide; \
             put it beside `{}`, or use --fence off",
            used.display(),
            usual.display()
        ))),
        _ => Ok(()),
    }
}

/// The gateway of the data folder, started where none runs.
fn join_or_start(context: &Context, config: &Config) -> Result<Running, Failure> {
    match running(config)? {
        Some(running) => refuse_other_files(config, &running).map(|()| running),
        None => {
            let serve = context.arguments().into_iter().chain(["serve", "--until-idle"].map(OsString::from));
            start::start(start::command(serve)?, config).map(|background| background.running)
        }
    }
}

/// A session must not believe in a policy that another gateway does not have.
fn refuse_other_files(config: &Config, running: &Running) -> Result<(), Failure> {
    let list = |files: &[PathBuf]| match files {
        [] => format!("the policy of `{}`", config.data_dir.display()),
        files => files.iter().map(|file| format!("`{}`", file.display())).collect::<Vec<_>>().join(", "),
    };
    let asked: Vec<PathBuf> = config.policy.iter().map(|file| absolute(file)).collect();
    if !asked.is_empty() && asked != running.policies {
        return Err(Failure::Usage(format!(
            "the gateway that runs here has {}, not {}; stop it first, or use another --data-dir",
            list(&running.policies),
            list(&asked),
        )));
    }
    let asked = absolute(&config.config);
    let usual = absolute(&config.data_dir.join("outgate.toml"));
    let has = running.config.clone().unwrap_or_else(|| usual.clone());
    if asked != usual && asked != has {
        return Err(Failure::Usage(format!(
            "the gateway that runs here has the configuration `{}`, not `{}`; stop it first, or use another --data-dir",
            has.display(),
            asked.display(),
        )));
    }
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn open_session(arguments: &Arguments, config: &Config) -> Result<(SessionId, Token), Failure> {
    // The name alone: arguments hold prompts, and passwords that no detector knows.
    let program = arguments.command.first().and_then(|program| Path::new(program).file_name());
    let program = program.map(|program| redacted(&program.to_string_lossy()));
    let checkout = std::env::current_dir().map(|folder| Checkout::around(&folder)).unwrap_or_default();
    let session = SessionStart {
        agent: agent(arguments),
        label: arguments.label.as_deref().map(redacted),
        tool: program.clone(),
        command: program,
        repo: checkout.repo.as_deref().map(redacted_url),
        branch: checkout.branch.as_deref().map(redacted),
        commit: checkout.commit.as_deref().map(redacted),
        observe: arguments.observe,
    };
    change(config, async |store, recorder| agents::open_session(store, recorder, session, operator()).await)
}

/// Ends the session and tells what it came to. The command has ended; nothing that goes wrong here changes its exit
/// code.
fn finish(config: &Config, session: SessionId, arguments: &Arguments, code: u8, took: Duration) {
    let agent = agent(arguments);
    let ended = change(config, async |_, recorder| {
        agents::end_session(recorder, session, Some(i32::from(code))).await
    });
    if let Err(Failure::Failed(why) | Failure::Usage(why)) = ended {
        super::output::error(&format!("the end of session {session} is not recorded: {why}"));
    }
    note(format_args!("\n{} {agent}, {}, exit code {code}", bold("outgate:"), lasted(took)));
    match decisions(config, session) {
        Ok(decisions) => {
            let mut summary = Summary::default();
            decisions.iter().for_each(|view| summary.add(view));
            note(format_args!("{}  outgate log --session {session}", summary.text()));
            if let Some(flag) = misplaced(&arguments.command) {
                note(format_args!(
                    "  {flag} went to the command; flags of `outgate run` stand before it: outgate run {flag} -- …"
                ));
            }
        }
        Err(Failure::Failed(why) | Failure::Usage(why)) => super::output::error(&why),
        Err(Failure::Closed) => {}
    }
}

/// A flag among the command's own that was most likely meant for `run`. Whoever wrote `--` knew where it goes.
fn misplaced(command: &[OsString]) -> Option<&'static str> {
    let separated = std::env::args_os().any(|argument| argument == "--");
    let flags = ["--observe", "--fence", "--publish"].into_iter();
    flags.filter(|_| !separated).find(|flag| command.iter().skip(1).any(|argument| argument == flag))
}

/// The session's decisions, once all have ended or it is no use to wait.
fn decisions(config: &Config, session: SessionId) -> Result<Vec<DecisionView>, Failure> {
    let Some(records) = Records::open(config)? else { return Ok(Vec::new()) };
    let filter = Filter { session: Some(session), ..Filter::default() };
    let deadline = Instant::now() + LAST_WORDS;
    loop {
        let decisions = records.decisions(&filter)?;
        if Instant::now() > deadline || decisions.iter().all(|view| view.outcome.is_some()) {
            return Ok(decisions);
        }
        sleep(Duration::from_millis(50));
    }
}
