//! The outside of a fence: starts the inside, hands its sockets to the gateway, publishes ports, waits for the end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::identity::SessionId;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::inside::{Asked, CONTROL, Said};
use super::network::PROXY;
use super::pass::{HandOver, Role, Taken, borrowed, receive, send};
use super::plan::{Plan, dead_variables};
use super::{environment, gate, inside, probe};

/// The subcommand that is the inside.
pub const INSIDE: &str = "fence-inside";
/// Every answer within a fence comes from this machine, and from a process that does little else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a gateway that is gone is looked for again.
const RETRY: Duration = Duration::from_millis(500);

/// Why there is no fence.
#[derive(Debug)]
pub struct Unfenced {
    /// What was being done.
    pub step: String,
    /// What the system said.
    pub why: String,
    errno: Option<i32>,
}

impl Unfenced {
    fn new(step: impl Into<String>, error: &io::Error) -> Unfenced {
        Unfenced { step: step.into(), why: error.to_string(), errno: error.raw_os_error() }
    }

    /// A socket of the host could not be found, and so not be hidden.
    pub fn socket(name: &Path) -> Unfenced {
        let why = format!(
            "one that was bound as `{}` has another name now, and was not found by any in time; end the program that \
             listens on it, or use --fence auto",
            name.display()
        );
        Unfenced { step: "hiding the host's sockets".into(), why, errno: None }
    }

    /// What would mend it, in words.
    pub fn mend(&self) -> String {
        probe::mend(self.errno)
    }
}

impl fmt::Display for Unfenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.why)
    }
}

fn at(step: &'static str) -> impl Fn(io::Error) -> Unfenced {
    move |error| Unfenced::new(step, &error)
}

/// Whose traffic comes over the sockets of a fence.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The data folder of the gateway.
    pub folder: PathBuf,
    /// The session.
    pub session: SessionId,
    /// Its token.
    pub token: String,
}

/// A fence that is up, with nobody in it yet.
pub struct Fence {
    inside: Child,
    control: UnixStream,
    roles: Vec<Role>,
    sockets: Vec<OwnedFd>,
}

impl Fence {
    /// Puts up a fence for `command`, which does not run before [`Fence::start`].
    ///
    /// # Errors
    /// Whatever this machine does not permit.
    pub fn put_up(
        plan: &Plan,
        command: &[OsString],
        variables: &[(String, OsString)],
    ) -> Result<Fence, Unfenced> {
        let (control, theirs) = UnixStream::pair().map_err(at("a socket to the inside"))?;
        control.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(at("a socket to the inside"))?;
        fcntl_setfd(&theirs, FdFlags::empty())
            .map_err(|error| Unfenced::new("a socket to the inside", &error.into()))?;
        let program = std::env::current_exe().map_err(at("finding this program"))?;
        let mut spawn = Command::new(program);
        spawn.arg(INSIDE).arg("--").args(command);
        if plan.trial {
            spawn.current_dir("/");
        }
        if std::fs::File::open("/dev/tty").is_err() {
            // Without a terminal nobody needs the group to be shared, and a signal to it stays inside.
            spawn.process_group(0);
        }
        environment::ours().into_iter().for_each(|name| {
            spawn.env_remove(name);
        });
        spawn.envs(variables.iter().map(|(name, value)| (name, value)));
        spawn.env(CONTROL, inside::number(&theirs));
        dead_variables(plan).into_iter().for_each(|name| {
            spawn.env_remove(name);
        });
        let inside = spawn.kill_on_drop(true).spawn().map_err(at("starting the inside"))?;
        drop(theirs);
        send(&control, plan, &[]).map_err(at("telling the inside"))?;
        match answer(&control)? {
            (Said::Made(roles), sockets) => Ok(Fence { inside, control, roles, sockets }),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Finds out whether a fence can be put up and leads nowhere but to the gateway; no gateway is needed for it.
    ///
    /// # Errors
    /// Whatever this machine does not permit.
    pub async fn trial(plan: Plan) -> Result<(), Unfenced> {
        let plan = Plan { trial: true, forward: Vec::new(), ..plan };
        let Fence { mut inside, control, .. } = Fence::put_up(&plan, &["trial".into()], &[])?;
        send(&control, &Asked::Start, &[]).map_err(at("starting the trial"))?;
        match answer(&control)? {
            (Said::Started, _) => {}
            (other, _) => return Err(unexpected(&other)),
        }
        let ended = inside.wait().await.map_err(at("waiting for the trial"))?;
        match ended.success() {
            true => Ok(()),
            false => Err(answer(&control).map_or_else(|failed| failed, |(other, _)| unexpected(&other))),
        }
    }

    /// Hands the sockets to the gateway and starts the command.
    ///
    /// # Errors
    /// A gateway that does not take them, and what the inside could not arrange.
    pub fn start(self, owner: &Owner, publish: &[u16]) -> Result<Inhabited, Unfenced> {
        let Fence { inside, control, roles, sockets } = self;
        let published = Published::bind(publish)?;
        let handed = Handed { owner: owner.clone(), roles, sockets };
        let gateway = handed.over().map_err(at("handing the sockets to the gateway"))?;
        send(&control, &Asked::Start, &[]).map_err(at("starting the command"))?;
        let command = match answer(&control)? {
            (Said::Started, mut beside) => beside.pop(),
            (other, _) => return Err(unexpected(&other)),
        };
        let command = command
            .ok_or_else(|| Unfenced::new("starting the command", &io::ErrorKind::InvalidData.into()))?;
        let control = Arc::new(Mutex::new(Control { stream: control, said: Vec::new() }));
        published.serve(&control);
        tokio::spawn(handed.stay(gateway));
        Ok(Inhabited { inside, control, command: Arc::new(command) })
    }
}

fn answer(control: &UnixStream) -> Result<(Said, Vec<OwnedFd>), Unfenced> {
    match receive::<Said>(control).map_err(at("waiting for the inside"))? {
        Some((Said::Failed { step, why, errno }, _)) => Err(Unfenced { step, why, errno }),
        Some(said) => Ok(said),
        None => Err(Unfenced::new("waiting for the inside", &io::Error::other("it has ended"))),
    }
}

fn unexpected(said: &Said) -> Unfenced {
    Unfenced::new("waiting for the inside", &io::Error::other(format!("it said {said:?}")))
}

/// What the gateway was handed; kept, so that a gateway that comes after it can be handed the same.
struct Handed {
    owner: Owner,
    roles: Vec<Role>,
    sockets: Vec<OwnedFd>,
}

impl Handed {
    fn over(&self) -> io::Result<UnixStream> {
        let Owner { folder, session, token } = &self.owner;
        let gateway = gate::connect(folder).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{error}; is the gateway of `{}` another version?", folder.display()),
            )
        })?;
        gateway.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let message = HandOver { session: *session, token: token.clone(), sockets: self.roles.clone() };
        send(&gateway, &message, &borrowed(&self.sockets))?;
        match receive::<Taken>(&gateway)? {
            Some((Taken::Serving, _)) => Ok(gateway),
            Some((Taken::Refused(why), _)) => Err(io::Error::other(why)),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Stays with the gateway, and with the next one: connections made meanwhile wait in the sockets.
    async fn stay(self, gateway: UnixStream) {
        let mut gateway = gateway;
        let handed = Arc::new(self);
        loop {
            until_closed(gateway).await;
            gateway = loop {
                tokio::time::sleep(RETRY).await;
                let handed = Arc::clone(&handed);
                if let Ok(Ok(gateway)) = tokio::task::spawn_blocking(move || handed.over()).await {
                    break gateway;
                }
            };
        }
    }
}

async fn until_closed(stream: UnixStream) {
    let ready = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    if let Ok(mut stream) = ready {
        let mut nothing = [0; 64];
        while matches!(stream.read(&mut nothing).await, Ok(1..)) {}
    }
}

/// The socket to the inside, and what came over it while something else was waited for.
struct Control {
    stream: UnixStream,
    said: Vec<Said>,
}

/// A fence with a command in it.
pub struct Inhabited {
    inside: Child,
    control: Arc<Mutex<Control>>,
    command: Arc<OwnedFd>,
}

/// A handle to the command inside.
pub struct Handle(Arc<OwnedFd>);

impl Handle {
    /// Passes a signal on to the command.
    pub fn signal(&self, signal: Signal) {
        // It may just have ended, which is what `wait` is about to say.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

/// How a fenced command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, or 128 and the signal.
    pub code: u8,
    /// The error's number, where it could not be executed.
    pub never_ran: Option<i32>,
    /// Descendants that had not ended, and were.
    pub left: usize,
}

impl Inhabited {
    /// A handle by which signals reach the command while somebody waits for it.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.command))
    }

    /// Waits for the end of the command and of everything that it has started.
    ///
    /// # Errors
    /// A process that cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        let status = self.inside.wait().await?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        let mut ended = Ended { code, never_ran: None, left: 0 };
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        while let Ok(Some((said, _))) = receive::<Said>(&control.stream) {
            control.said.push(said);
        }
        for said in &control.said {
            match said {
                Said::NeverRan(errno) => ended.never_ran = errno.or(Some(0)),
                Said::Ended { left } => ended.left = *left,
                _ => {}
            }
        }
        Ok(ended)
    }
}

/// Ports of the host's loopback that lead to the same ports inside.
struct Published(Vec<(u16, StdListener)>);

impl Published {
    fn bind(ports: &[u16]) -> Result<Published, Unfenced> {
        let mut listeners = Vec::new();
        for port in ports {
            let cannot = |error: io::Error| Unfenced::new(format!("`--publish {port}`"), &error);
            if [80, 443, PROXY.port()].contains(port) {
                return Err(cannot(io::Error::other("inside, that port is the gateway's")));
            }
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, *port)).map_err(cannot)?;
            // Browsers look for `localhost` there too; a machine without IPv6 has nothing to listen on.
            listeners.extend(
                StdListener::bind((Ipv6Addr::LOCALHOST, *port)).ok().map(|listener| (*port, listener)),
            );
            listeners.push((*port, listener));
        }
        Ok(Published(listeners))
    }

    fn serve(self, control: &Arc<Mutex<Control>>) {
        for (port, listener) in self.0 {
            let ready = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
            if let Ok(listener) = ready {
                tokio::spawn(publish(port, listener, Arc::clone(control)));
            }
        }
    }
}

async fn publish(port: u16, listener: TcpListener, control: Arc<Mutex<Control>>) {
    while let Ok((mut outer, _)) = listener.accept().await {
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let asked = tokio::task::spawn_blocking(move || connect_inside(&control, port));
            if let Ok(Ok(inner)) = asked.await
                && let Ok(mut inner) = TcpStream::from_std(inner)
            {
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}

fn connect_inside(control: &Mutex<Control>, port: u16) -> io::Result<StdStream> {
    let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
    send(&control.stream, &Asked::Connect(port), &[])?;
    loop {
        match receive::<Said>(&control.stream)? {
            Some((Said::Connection, mut beside)) => {
                let inner = StdStream::from(beside.pop().ok_or(io::ErrorKind::ConnectionRefused)?);
                inner.set_nonblocking(true)?;
                return Ok(inner);
            }
            Some((other, _)) => control.said.push(other),
            None => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
