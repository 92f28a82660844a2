//! Transparency: what an allowing gateway forwards is what hudsucker forwards, but for a list of intended differences.
//!
//! Every shape of the corpus goes through both proxies to the same server; what the server received and what the
//! client received are compared. `docs/transparency.md` explains each intended difference; one that no shape shows
//! any more fails the test, so the list cannot outlive its reasons.

mod corpus;
mod intended;
mod message;
mod recorder;
mod reference;
mod shape;
mod through;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use corpus::corpus;
use intended::{INTENDED, REFUSED, Side};
use message::{Message, differences};
use reference::Reference;
use shape::{Route, Shape};
use through::{Through, Upstreams};

use crate::harness::{Agent, Gate, TestCa};

/// The page that explains the differences.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transparency.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_allowing_gateway_forwards_is_what_the_reference_forwards() {
    let Some(program) = reference::program() else {
        eprintln!("SKIPPED: the reference is not built; `bash .ci/run reference` builds it");
        assert!(std::env::var_os("CI").is_none(), "CI builds the reference, and it is not there");
        return;
    };
    let ca = TestCa::new();
    let upstreams = Upstreams::start(&ca).await;
    let files = tempfile::tempdir().unwrap();
    let gate = allowing(&ca, &upstreams, files.path()).await;
    let outgate = Agent::new(gate.proxy, &gate.ca().await, (0, 0));
    let reference = Reference::start(&program, &ca).await;
    let (mut unintended, mut shown) = (Vec::new(), BTreeSet::new());
    for shape in corpus() {
        let ours = upstreams.send(&outgate, &shape).await;
        let theirs = upstreams.send(&reference.agent, &shape).await;
        if shape.refused {
            unintended.extend(not_refused(&shape, &ours));
            shown.insert(REFUSED);
            continue;
        }
        compare(&shape, &ours, &theirs, &mut unintended, &mut shown);
    }
    gate.finish().await;
    assert!(unintended.is_empty(), "{} differences:\n{}", unintended.len(), unintended.join("\n"));
    let gone: Vec<_> = titles().difference(&shown).copied().collect();
    assert!(gone.is_empty(), "no shape shows these any more: {gone:#?}");
}

#[test]
fn the_corpus_is_large_and_every_shape_is_another() {
    let corpus = corpus();
    let names: BTreeSet<_> = corpus.iter().map(|shape| (shape.route as u8, &shape.name)).collect();
    assert_eq!(names.len(), corpus.len(), "two shapes of one name");
    assert!(corpus.len() >= 60, "only {} shapes", corpus.len());
    for route in
        [Route::Clear, Route::Http1, Route::Http2ToHttp1, Route::Http1ToHttp2, Route::Http2, Route::WebSocket]
    {
        assert!(corpus.iter().filter(|shape| shape.route == route).count() >= 8, "few shapes for {route:?}");
    }
}

#[test]
fn every_intended_difference_is_explained_and_nothing_else_is() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let explained: BTreeSet<_> = rows.filter(|row| *row != "difference").collect();
    assert_eq!(explained, titles(), "docs/transparency.md and the test's table differ");
}

fn titles() -> BTreeSet<&'static str> {
    INTENDED.iter().map(|one| one.title).chain([REFUSED]).collect()
}

/// A gateway that allows everything at the test's servers.
async fn allowing(ca: &Arc<TestCa>, upstreams: &Upstreams, files: &Path) -> Gate {
    let roots = files.join("roots.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let quoted = |prefix: &str| -> Vec<String> {
        upstreams.ports().iter().map(|port| format!("\"{prefix}:{port}\"")).collect()
    };
    let policy = format!(
        "version = 1\nallow = [{}]\n[addresses]\nallow = [{}]\n",
        quoted("localhost").join(", "),
        quoted("127.0.0.1").join(", "),
    );
    let config = format!(
        "[dns]\nhosts = {{ localhost = [\"127.0.0.1\"] }}\n[upstream]\nca_files = [{:?}]\n",
        roots.to_str().unwrap(),
    );
    Gate::with_policy(&policy).config(&config).start().await
}

/// Says what is wrong where the server saw a whole request, or the client was not told why it did not.
fn not_refused(shape: &Shape, ours: &Through) -> Option<String> {
    let told =
        |answer: &Message| answer.status() == 400 && answer.says("x-outgate-reason", "malformed_request");
    // What only the body shows may be found when the head has left; the server then sees a request broken off.
    let unseen = ours.server.iter().all(|request| request.broken.is_some());
    let refused = unseen && matches!(&ours.client[..], [answer] if told(answer));
    let starts =
        |messages: &[Message]| messages.iter().map(|message| message.start.clone()).collect::<Vec<_>>();
    let (server, client) = (starts(&ours.server), starts(&ours.client));
    (!refused)
        .then(|| format!("{}: not refused; the server saw {server:?}, the client {client:?}", shape.name))
}

fn compare(
    shape: &Shape,
    ours: &Through,
    theirs: &Through,
    unintended: &mut Vec<String>,
    shown: &mut BTreeSet<&'static str>,
) {
    let sides = [
        (Side::Server, differences(&ours.server, &theirs.server)),
        (Side::Client, differences(&ours.client, &theirs.client)),
    ];
    for (side, differences) in sides {
        for difference in differences {
            match INTENDED.iter().find(|one| (one.covers)(shape, side, &difference)) {
                Some(intended) => drop(shown.insert(intended.title)),
                None => unintended.push(format!(
                    "{:?}, {} ({side:?} side): {:?}\n    outgate:   {}\n    reference: {}",
                    shape.route, shape.name, difference.part, difference.outgate, difference.reference,
                )),
            }
        }
    }
}
