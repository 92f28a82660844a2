//! Kinds of findings as bits of one column.

use policy::record::Finding;

/// One bit for each kind among the findings.
pub(super) fn bits(findings: &[Finding]) -> i64 {
    findings.iter().filter_map(|finding| bit(finding.kind())).fold(0, |bits, bit| bits | bit)
}

/// The bit of a kind, by its word. Positions are part of the database: new kinds go to the end of
/// [`Finding::KINDS`].
pub(super) fn bit(kind: &str) -> Option<i64> {
    position(kind).map(|position| 1 << position)
}

/// Its place, by which the table `found` knows it.
pub(super) fn position(kind: &str) -> Option<i64> {
    let position = Finding::KINDS.iter().position(|known| *known == kind)?;
    i64::try_from(position).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_never_change() {
        for (kind, expected) in [
            ("large_upload", 1),
            ("secret", 2),
            ("credential_used", 4),
            ("lookalike_domain", 8),
            ("encoded_data_in_name", 16),
            ("model_shaped", 32),
            ("mcp_shaped", 64),
            ("git_push", 128),
            ("undecodable", 256),
            ("dns_over_https", 512),
            ("method_override", 1024),
        ] {
            assert_eq!(bit(kind), Some(expected), "{kind}");
        }
        assert_eq!(bits(&[Finding::GitPush, Finding::McpShaped, Finding::GitPush]), 192);
        assert_eq!(bit("other"), None);
    }
}
