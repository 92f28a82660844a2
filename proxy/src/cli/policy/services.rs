//! `outgate policy services`: what a policy can name.

use policy::catalogue::{Catalogue, Service};

use crate::cli::context::Context;
use crate::cli::output::{self, Shown, bold};
use crate::cli::table::{Column, Table};
use crate::cli::{Exit, Failure};

/// List the services a policy can name, or one with its hosts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outgate policy services
  outgate policy services forges
  outgate policy services github --json")]
pub(super) struct Services {
    /// One service, or a group, kind or class such as `forges` or `models`
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Services, context: &Context) -> Result<Exit, Failure> {
    let policy = super::files::in_force(&context.config()?)?.0;
    let services = select(policy.catalogue(), arguments.name.as_deref())?;
    match &*services {
        services if arguments.json => output::json(&services)?,
        [service] if arguments.name.is_some() => print_one(service)?,
        services => print_all(services)?,
    }
    Ok(Exit::Done)
}

fn select<'a>(catalogue: &'a Catalogue, name: Option<&str>) -> Result<Vec<&'a Service>, Failure> {
    match name {
        None => Ok(catalogue.services().iter().collect()),
        Some(name) => catalogue.named(name).map_err(Failure::usage),
    }
}

fn print_all(services: &[&Service]) -> Result<(), Failure> {
    let mut table = Table::new([
        Column::new("NAME"),
        Column::new("CLASS"),
        Column::new("KIND"),
        Column::new("WHAT"),
        Column::gives_way("HOSTS"),
    ]);
    for service in services {
        table.row([
            format!("@{}", service.name).into(),
            service.class.as_str().into(),
            service.kind.as_str().into(),
            (&service.title).into(),
            hosts(service).join(" ").into(),
        ]);
    }
    table.print()
}

fn print_one(service: &Service) -> Result<(), Failure> {
    output::line(format_args!("{}  {}", bold(&format!("@{}", service.name)), Shown(&service.title)))?;
    let line = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => output::line(format_args!("  {name:<12}{}", Shown(value))),
    };
    let ports: Vec<_> = service.ports.iter().map(|port| format!("loopback:{port}")).collect();
    line("class", service.class.as_str())?;
    line("kind", service.kind.as_str())?;
    line("also", &service.aliases.join(" "))?;
    line("groups", &service.groups.join(" "))?;
    line("docs", &service.docs)?;
    for host in hosts(service).iter().chain(&ports) {
        line("host", host)?;
    }
    Ok(())
}

/// The hosts as a policy would write them.
fn hosts(service: &Service) -> Vec<String> {
    let domains = service.domains.iter().flat_map(|domain| [domain.clone(), format!("*.{domain}")]);
    domains.chain(service.hosts.iter().map(|host| host.as_str().to_owned())).collect()
}
