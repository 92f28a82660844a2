//! The account of the catalogue: every number is held in this folder, held by another test, or listed as not held.

/// Cases that other tests hold.
const ELSEWHERE: &[(&str, &str)] = &[
    ("TUN-20", "administration::adm_13_a_key_that_others_may_read_stops_the_start"),
    ("RED-11", "leaks: compressed bodies that pass with an alert are in no record"),
    ("RES-12", "the benches of the scanner: linear time"),
    ("RES-14", "big"),
    ("AUD-04", "kill: killed under load, again and again, it has recorded whatever left"),
    (
        "AUD-06",
        "durability: the store locked under load, where every answer has its row and the rest is refused",
    ),
    ("RES-07", "limits: certificates for random names"),
    (
        "ADM-16",
        "fence: outside processes cannot be signalled; commands: what changes something is refused inside",
    ),
    ("ENV-01", "fence: nothing that is tried inside gets out"),
    ("ENV-03", "fence: nothing that is tried inside gets out"),
    ("ENV-04", "commands: run gives its command the variables and a session of its own"),
    (
        "ENV-06",
        "fence: nothing that is tried inside gets out; fence_gate: only what a session may bring is taken",
    ),
    (
        "AUD-08",
        "framing, uploads, protocols: one row for each request that the HTTP library answers by itself",
    ),
];

/// Cases that cannot apply, with the reason.
const NOT_APPLICABLE: &[(&str, &str)] = &[
    (
        "ALW-07",
        "rules are about methods and paths, not bodies: an LFS batch is one POST, whichever way it goes",
    ),
    ("PRO-10", "a WebSocket is a request like any other: a rule that allows the GET allows it"),
    ("UPL-18", "uploads are bounded by how much, in a request and in a window, and not by how fast"),
    ("RED-22", "the redactor has no input it can fail on: there is nothing to force"),
    ("AUD-10", "there is no request that makes the gateway panic, and no switch in it that would"),
];

/// The numbers of the catalogue, family by family.
const CATALOGUE: &[(&str, &[u8])] = &[
    ("AUT", &[1, 2, 3, 4, 5, 8, 10, 11, 12, 13, 14, 16, 18, 19, 21, 24, 26, 28, 30, 31, 32, 33, 34]),
    ("PAT", &[1, 2, 4, 5, 7, 9, 11, 13, 14, 15, 17]),
    ("DST", &[1, 2, 4, 6, 8, 9, 10, 11, 13, 14, 17, 18, 20, 21, 22]),
    ("TUN", &[1, 2, 3, 4, 6, 9, 10, 11, 12, 14, 16, 18, 19, 20, 22, 23, 25]),
    ("FRM", &[1, 3, 5, 7, 9, 10, 11, 13, 14, 16, 17, 18, 19, 21, 22, 23, 24, 26]),
    ("PRO", &[1, 2, 4, 7, 9, 10, 11, 13, 14, 15]),
    ("ALW", &[1, 4, 5, 7, 9, 11, 12, 13, 14, 15, 16]),
    ("UPL", &[1, 2, 4, 7, 8, 9, 10, 12, 13, 15, 17, 18]),
    ("RED", &[1, 2, 3, 5, 6, 8, 9, 11, 13, 15, 16, 18, 19, 20, 22]),
    ("LOG", &[1, 3, 4, 5, 7]),
    ("AUD", &[1, 2, 4, 6, 8, 10, 11, 13, 14, 15, 17, 18]),
    ("RES", &[1, 3, 5, 7, 9, 10, 12, 13, 14]),
    ("ADM", &[1, 3, 5, 7, 8, 9, 10, 12, 13, 15, 16, 17]),
    ("ENV", &[1, 3, 4, 6]),
];

/// The sources of this folder, in which a case stands as `case("AUT-01", …)` or in a test's name as `aut_01`.
const SOURCES: &[&str] = &[
    include_str!("administration.rs"),
    include_str!("audit.rs"),
    include_str!("authority.rs"),
    include_str!("destination.rs"),
    include_str!("exhaustion.rs"),
    include_str!("framing.rs"),
    include_str!("outlets.rs"),
    include_str!("protocols.rs"),
    include_str!("redaction.rs"),
    include_str!("rules.rs"),
    include_str!("tunnels.rs"),
    include_str!("uploads.rs"),
];

#[test]
fn every_case_of_the_catalogue_is_accounted_for() {
    let (mut held, mut all, mut lost) = (0, 0, Vec::new());
    for (family, numbers) in CATALOGUE {
        for number in *numbers {
            all += 1;
            let id = format!("{family}-{number:02}");
            let listed = |list: &[(&str, &str)]| list.iter().any(|(listed, _)| *listed == id);
            let tried = SOURCES.iter().any(|source| is_in(source, family, *number));
            assert!(!(tried && listed(NOT_APPLICABLE)), "{id} is tried: take it off the list");
            held += usize::from(tried || listed(ELSEWHERE));
            if !tried && !listed(ELSEWHERE) && !listed(NOT_APPLICABLE) {
                lost.push(id);
            }
        }
    }
    for (id, reason) in NOT_APPLICABLE {
        eprintln!("evasion: {id} cannot apply: {reason}");
    }
    eprintln!("evasion: {held} of {} applicable cases are held", all - NOT_APPLICABLE.len());
    assert!(lost.is_empty(), "nobody accounts for {lost:?}");
}

fn is_in(source: &str, family: &str, number: u8) -> bool {
    if source.contains(&format!("case(\"{family}-{number:02}\"")) {
        return true;
    }
    // A test's name begins with the family and goes on with one or more numbers: `dst_17_…`, `pat_04_05_09_…`.
    let prefix = format!("async fn {}_", family.to_ascii_lowercase());
    source.match_indices(&prefix).any(|(at, _)| {
        let rest = &source[at + prefix.len()..];
        rest.split('_').map_while(|part| part.parse::<u8>().ok()).any(|found| found == number)
    })
}
