//! A `[[service]]` table as the catalogue takes it.

use toml::de::{DeTable, DeValue};

use super::advice::nearest;
use super::reader::{Page, Span, Take};
use crate::catalogue::{CredentialSpec, ServiceSpec};
use crate::rule::to_ascii;
use crate::secret::Detector;

/// Reads a service. What the catalogue makes of it is judged when all files are read.
pub(super) fn service_spec(page: &mut Page<'_>, table: &DeTable<'_>) -> ServiceSpec {
    let text = |key: &str| table.text(key).map(|(text, _)| text.to_owned()).unwrap_or_default();
    let texts = |key: &str| table.texts(key).into_iter().map(|(text, _)| text.to_owned()).collect();
    let ports = table.get("ports").and_then(|value| value.get_ref().as_array());
    let ports =
        ports.into_iter().flatten().filter_map(|port| port.get_ref().as_integer()?.as_str().parse().ok());
    let domains = table.table("domains").into_iter().flatten().map(|(suffix, _)| {
        let labels = table.table("domains").map(|table| table.texts(suffix.get_ref()));
        let labels = labels.into_iter().flatten().map(|(text, _)| text.to_owned());
        (suffix.get_ref().to_string(), labels.collect())
    });
    ServiceSpec {
        name: text("name"),
        class: text("class"),
        kind: text("kind"),
        title: text("title"),
        docs: text("docs"),
        aliases: texts("aliases"),
        groups: texts("groups"),
        hosts: service_hosts(page, table),
        domains: domains.collect(),
        ports: ports.collect(),
        wide: table.flag("wide"),
        credentials: table
            .tables("credentials")
            .into_iter()
            .map(|(table, _)| credential_spec(page, table))
            .collect(),
    }
}

fn credential_spec(page: &mut Page<'_>, table: &DeTable<'_>) -> CredentialSpec {
    let detector = table.text("detector");
    if let Some((name, span)) = &detector
        && Detector::named(name).is_none()
    {
        let near = nearest(name, Detector::all().map(Detector::name));
        let advice = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        page.mistake(span, name, &format!("is no detector of secrets{advice}"));
    }
    CredentialSpec {
        detector: detector.map(|(text, _)| text.to_owned()).unwrap_or_default(),
        places: table.texts("in").into_iter().map(|(text, _)| text.to_owned()).collect(),
        hosts: service_hosts(page, table),
    }
}

/// Hosts of a service, international names among them.
fn service_hosts(page: &mut Page<'_>, table: &DeTable<'_>) -> Vec<String> {
    super::draft::parsed(page, table, "hosts", to_ascii)
}

/// Every string in a table, however deep, with its place.
pub(super) fn all_texts(table: &DeTable<'_>) -> Vec<(String, Span)> {
    fn walk(value: &DeValue<'_>, span: Span, found: &mut Vec<(String, Span)>) {
        match value {
            DeValue::String(text) => found.push((text.to_string(), span)),
            DeValue::Array(entries) => {
                entries.iter().for_each(|entry| walk(entry.get_ref(), entry.span(), found));
            }
            DeValue::Table(table) => {
                table.values().for_each(|value| walk(value.get_ref(), value.span(), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    table.values().for_each(|value| walk(value.get_ref(), value.span(), &mut found));
    found
}
