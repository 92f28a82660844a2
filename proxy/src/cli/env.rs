//! `outgate env`: the variables that send a shell's programs through the gateway.

use clap::ValueEnum;

use policy::identity::AgentName;

use super::context::{Context, running, variable};
use super::trust::Trust;
use super::variables::{TOKEN, variables};
use super::{Exit, Failure, output};
use crate::config::{Config, ListenAddress};

/// Print the variables that send programs through the gateway, for `eval`
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Print the variables that send programs through the gateway, for `eval`.

They name the proxy and the certificates to trust. Programs that ignore such variables go past the gateway; \
`outgate run` is the way to run an agent.",
    after_help = "\
Examples:
  eval \"$(outgate env)\"
  outgate env --shell fish | source
  outgate env --shell dotenv > .env.proxy
  OUTGATE_TOKEN=… outgate env --agent claude"
)]
pub(crate) struct Arguments {
    /// How the variables are written [default: as $SHELL reads them]
    #[arg(long, value_enum)]
    shell: Option<Shell>,
    /// The agent that requests belong to; its token is read from OUTGATE_TOKEN [default: anonymous]
    #[arg(long)]
    agent: Option<AgentName>,
}

/// A way to write variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    #[value(aliases = ["bash", "zsh", "dash", "ksh"])]
    Sh,
    Fish,
    Powershell,
    Dotenv,
}

impl Shell {
    /// The shell that `SHELL` names.
    fn named_by(path: Option<&str>) -> Shell {
        match path.and_then(|path| path.rsplit('/').next()) {
            Some("fish") => Shell::Fish,
            Some("pwsh" | "powershell") => Shell::Powershell,
            _ => Shell::Sh,
        }
    }

    /// A line that sets a variable, whatever is in its value.
    fn line(self, name: &str, value: &str) -> String {
        match self {
            Shell::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Shell::Fish => {
                format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
            }
            Shell::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
            // Readers of such files agree on plain values only; none of ours holds a quote or a line break.
            Shell::Dotenv => format!("{name}={value}"),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let shell = arguments.shell.unwrap_or_else(|| Shell::named_by(variable("SHELL").as_deref()));
    let proxy = proxy_address(&config)?;
    let user = arguments.agent.as_ref().map(|agent| credentials(agent, variable(TOKEN))).transpose()?;
    let trust = Trust::prepare(&config)?;
    let url = format!("http://{}{proxy}", user.unwrap_or_default());
    for (name, value) in variables(&url, &trust.certificate, &trust.bundle, None) {
        output::line(shell.line(name, &value))?;
    }
    Ok(Exit::Done)
}

/// Where the gateway listens, or will by its settings.
fn proxy_address(config: &Config) -> Result<String, Failure> {
    if let Some(running) = running(config)? {
        return Ok(running.proxy.to_string());
    }
    output::note("# no gateway runs yet; start it: outgate serve");
    let fixed = config.listen.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) if address.port() != 0 => Some(address.to_string()),
        _ => None,
    });
    fixed.ok_or_else(|| {
        Failure::failed("the address is known only once the gateway runs; start it: outgate serve")
    })
}

/// `agent:token@` for a URL.
fn credentials(agent: &AgentName, token: Option<String>) -> Result<String, Failure> {
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::Usage(format!(
            "the token of `{agent}` is kept nowhere in the clear; set OUTGATE_TOKEN to what `outgate agent add` printed"
        ))
    })?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    if !token.bytes().all(plain) {
        return Err(Failure::usage(
            "OUTGATE_TOKEN does not hold a token: it has characters that no token has",
        ));
    }
    Ok(format!("{agent}:{token}@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_every_shells_quoting() {
        for (shell, line) in [
            (Shell::Sh, r"export P='/it'\''s'"),
            (Shell::Fish, r"set -gx P '/it\'s'"),
            (Shell::Powershell, "$env:P = '/it''s'"),
            (Shell::Dotenv, "P=/it's"),
        ] {
            assert_eq!(shell.line("P", "/it's"), line, "{shell:?}");
        }
    }

    #[test]
    fn the_shell_is_the_one_in_use() {
        for (path, shell) in [
            (Some("/usr/bin/fish"), Shell::Fish),
            (Some("/usr/bin/pwsh"), Shell::Powershell),
            (Some("/bin/bash"), Shell::Sh),
            (None, Shell::Sh),
        ] {
            assert_eq!(Shell::named_by(path), shell, "{path:?}");
        }
    }

    #[test]
    fn an_agent_needs_its_token() {
        let agent: AgentName = "claude".parse().unwrap();
        assert_eq!(credentials(&agent, Some("og_0aZ-_".into())).unwrap(), "claude:og_0aZ-_@");
        for (token, words) in
            [(None, "OUTGATE_TOKEN"), (Some(""), "OUTGATE_TOKEN"), (Some("a@b"), "characters")]
        {
            let Err(Failure::Usage(message)) = credentials(&agent, token.map(str::to_owned)) else {
                panic!("{token:?} was taken")
            };
            assert!(message.contains(words), "{message}");
        }
    }
}
