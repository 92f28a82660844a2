//! `outgate ca`: the certificate authority that the gateway's certificates come from.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::context::running;
use super::{Context, Exit, Failure, output};
use crate::config::{CaKey, Config};
use crate::folder;
use crate::tls::ca::Summary;
use crate::tls::{Authority, Certificate};

/// Look at the certificate authority, give it away, replace it
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(Show),
    Export(Export),
    Rotate(Rotate),
}

/// Show the certificate: whose, since when, until when, its fingerprint
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate ca show
  outgate ca show --json")]
struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write the certificate, without its key, for a trust store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate ca export outgate-ca.pem
  outgate ca export - | openssl x509 -noout -text")]
struct Export {
    /// Where to; `-` for standard output
    file: PathBuf,
}

/// Make a new certificate and key; programs have to trust the new one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate ca rotate")]
struct Rotate {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Show(Show { json }) => show(&open(&context.config()?)?.summary(), *json)?,
        Command::Export(Export { file }) => export(&open(&context.config()?)?, file)?,
        Command::Rotate(Rotate { json }) => {
            context.refuse_inside_a_session("ca rotate")?;
            rotate(&context.config()?, *json)?;
        }
    }
    Ok(Exit::Done)
}

fn open(config: &Config) -> Result<Certificate, Failure> {
    folder::prepare(&config.data_dir).map_err(Failure::failed)?;
    Certificate::open(config.ca.key, &config.data_dir, SystemTime::now()).map_err(Failure::failed)
}

fn show(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(summary);
    }
    for (name, value) in [
        ("subject", &summary.subject),
        ("sha-256", &summary.fingerprint),
        ("since", &summary.not_before),
        ("until", &summary.not_after),
    ] {
        output::line(format_args!("{name:<8} {value}"))?;
    }
    Ok(())
}

fn export(certificate: &Certificate, file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") {
        return output::text(certificate.pem());
    }
    std::fs::write(file, certificate.pem())
        .map_err(|error| Failure::Failed(format!("cannot write `{}`: {error}", file.display())))
}

fn rotate(config: &Config, json: bool) -> Result<(), Failure> {
    if config.ca.key == CaKey::Memory {
        return Err(Failure::failed(
            "the key is in the gateway's memory, since `ca.key` is `memory`; start the gateway again for a new one",
        ));
    }
    folder::prepare(&config.data_dir).map_err(Failure::failed)?;
    let authority = Authority::rotate(&config.data_dir, SystemTime::now()).map_err(Failure::failed)?;
    show(&authority.certificate().summary(), json)?;
    if running(config)?.is_some() {
        output::note("the gateway that runs takes it over within two seconds; open connections go on");
    }
    output::note("programs that trusted the old certificate have to trust this one: outgate ca export FILE");
    Ok(())
}
