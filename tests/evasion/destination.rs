//! DST: the address that is really dialled, and who was asked for it.

use std::time::{Duration, Instant};

use super::{Case, Finding, Scene, case, ensure, family};
use crate::harness::{
    Canary, ELSEWHERE, ELSEWHERE6, GateBuilder, NameReply, Request, Way, World, inside_a_network,
    is_inside_a_namespace,
};

/// Every name may be asked for, so that only the judge of addresses stands between a request and a dial.
const OPEN: &str = "defaults = { unknown = \"allow\" }\ndeny = [\"*.evil.test:{tls}\"]";

#[tokio::test]
async fn only_judged_addresses_are_dialled() {
    family("destinations", World::with_policy(OPEN).config("dns = { timeout = \"1s\" }"), CASES).await;
}

const CASES: &[Case] = &[
    case("DST-01", "loopback as a literal", |scene| Box::pin(forbidden(scene, &["127.0.0.1", "127.9.9.9"]))),
    case("DST-02", "a number that some resolvers read as an address", |scene| {
        Box::pin(async move {
            for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001"] {
                let text = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
                scene.refused_and_closed(&text, 400, "malformed_request").await?;
            }
            Ok(())
        })
    }),
    case("DST-04", "the metadata address", |scene| Box::pin(forbidden(scene, &["169.254.169.254"]))),
    case("DST-06", "loopback mapped into IPv6", |scene| {
        Box::pin(forbidden(
            scene,
            &["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"],
        ))
    }),
    case("DST-08", "addresses that mean this machine", |scene| {
        Box::pin(forbidden(scene, &["0.0.0.0", "[::]", "0.1.2.3"]))
    }),
    case("DST-09", "a name at an address that is nobody's on the internet", |scene| {
        Box::pin(async move {
            for address in [
                "100.64.0.1",
                "192.0.0.1",
                "198.18.0.1",
                "240.0.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "10.0.0.1",
                "172.16.0.1",
                "192.168.0.1",
                "169.254.0.1",
                "ff02::1",
                "fe80::1",
                "fc00::1",
                "fd00:ec2::254",
            ] {
                let name = format!("at-{}.test", address.replace(['.', ':'], "-"));
                scene.world.resolver.answers(&name, NameReply::at(&[address]));
                scene
                    .denied(Way::Http1, &Request::get(&name, "/"), "address_forbidden")
                    .await
                    .map_err(|problem| format!("{address}: {problem}"))?;
            }
            Ok(())
        })
    }),
    case("DST-10", "a name at the gateway's own admin listener", |scene| {
        Box::pin(async move {
            scene.world.resolver.answers("inward.test", NameReply::at(&["127.0.0.1"]));
            let admin = scene.world.gate.admin.port();
            for way in Way::ALL {
                scene
                    .denied(way, &Request::get("inward.test", "/metrics").port(admin), "address_forbidden")
                    .await?;
            }
            Ok(())
        })
    }),
    case("DST-11", "a name that changes its address after it was judged", |scene| Box::pin(rebinding(scene))),
    case("DST-13", "a forbidden address beside a good one", |scene| {
        Box::pin(async move {
            let both = NameReply::at(&["127.0.0.2", "::1"]);
            scene.world.resolver.answers("mixed.test", both);
            let (answer, trace) =
                scene.trace(1, scene.agent().send(Way::Http1, &Request::get("mixed.test", "/"))).await;
            let good = format!("127.0.0.2:{}", scene.world.origin.tls);
            let dialled = trace.rows[0].text("upstream");
            ensure(answer.status == 403 || dialled == good, || format!("{answer:?}\n{trace:#?}"))
        })
    }),
    case("DST-14", "a resolver that fails, answers nothing or is silent", |scene| {
        Box::pin(failing_names(scene))
    }),
    case("DST-20", "a redirect is the client's to follow", |scene| {
        Box::pin(async move {
            let (answer, trace) =
                scene.passes(Way::Http1, &Request::get("allowed.test", "/redirect")).await?;
            ensure(answer.status == 302, || format!("{answer:?}"))?;
            ensure(answer.header("location") == Some("http://evil.test/"), || format!("{answer:?}"))?;
            ensure(!trace.names.iter().any(|name| name == "evil.test"), || format!("{:?}", trace.names))
        })
    }),
    case("DST-21", "data in a name that is refused", |scene| {
        Box::pin(async move {
            let request = Request::get("c2vjcmv0lwrhdge.evil.test", "/");
            for way in [Way::Http1, Way::Http2, Way::WebSocket] {
                scene.denied(way, &request, "denied_by_rule").await?;
            }
            scene.world.resolver.must_not_know("c2vjcmv0lwrhdge.evil.test");
            Ok(())
        })
    }),
    case("DST-22", "data in a name that is allowed is at least seen", |scene| {
        Box::pin(async move {
            let host = "mzxw6ytboi4dsnzrgq2tmnzygezdgnbvgy3tqojq.wild.test";
            let (_, trace) = scene.passes(Way::Http1, &Request::get(host, "/")).await?;
            ensure(trace.rows[0].findings().contains(&"encoded_data_in_name"), || format!("{:?}", trace.rows))
        })
    }),
];

async fn forbidden(scene: &Scene, hosts: &[&str]) -> Finding {
    for host in hosts {
        for way in [Way::Absolute, Way::Http1] {
            let denied = scene.denied(way, &Request::get(host, "/"), "address_forbidden").await;
            denied.map_err(|problem| format!("{host}: {problem}"))?;
        }
    }
    Ok(())
}

async fn rebinding(scene: &Scene) -> Finding {
    let world = &scene.world;
    let inside = Canary::at("127.0.0.1", &[world.origin.tls]).await.map_err(|error| error.to_string())?;
    let turns = vec![NameReply::at(&["127.0.0.2"]), NameReply::at(&["127.0.0.1"])];
    world.resolver.answers_in_turn("rebind.test", turns);
    let (_, trace) = scene.passes(Way::Http1, &Request::get("rebind.test", "/")).await?;
    ensure(world.resolver.lookups("rebind.test") == 1, || format!("{:?}", trace.names))?;
    // A second request may use the same connection or ask again; it never arrives at the other address.
    let again = scene.agent().send(Way::Http1, &Request::get("rebind.test", "/")).await;
    ensure(again.status == 200 || again.reason() == Some("address_forbidden"), || format!("{again:?}"))?;
    inside.must_be_untouched();
    Ok(())
}

async fn failing_names(scene: &Scene) -> Finding {
    for (name, reply) in [
        ("failing.test", NameReply::Failure),
        ("silent.test", NameReply::Silence),
        ("empty.test", NameReply::at(&[])),
        ("missing.test", NameReply::NoName),
    ] {
        scene.world.resolver.answers(name, reply);
        let begun = Instant::now();
        let (answer, trace) = scene.trace(1, scene.agent().send(Way::Http1, &Request::get(name, "/"))).await;
        ensure(matches!(answer.status, 502 | 504), || format!("{name}: {answer:?}"))?;
        ensure(begun.elapsed() < Duration::from_secs(6), || format!("{name} took {:?}", begun.elapsed()))?;
        ensure(trace.rows.len() == 1 && trace.rows[0].text("outcome") == "failed", || {
            format!("{name}: {trace:#?}")
        })?;
        trace.must_reach_nobody()?;
    }
    Ok(())
}

#[tokio::test]
async fn dst_04_the_metadata_address_is_not_dialled_though_a_rule_names_it() {
    let world = World::with_policy("allow = [\"169.254.169.254\"]").start().await;
    let answer =
        world.send(Way::Absolute, &Request::get("169.254.169.254", "/latest/meta-data/").port(80)).await;
    assert_eq!((answer.status, answer.reason()), (403, Some("address_forbidden")), "{answer:?}");
    let row = world.gate.only_decision().await;
    row.is("deny", "address_forbidden");
    assert_eq!(
        row.text("upstream"),
        "169.254.169.254:80",
        "whoever reads the record learns which address it was"
    );
    world.finish().await;
}

#[tokio::test]
async fn dst_17_the_gateway_never_dials_itself() {
    let policy = "defaults = { unknown = \"allow\" }\naddresses = { allow = [\"127.0.0.0/8\"] }";
    let world = World::with_policy(policy).start().await;
    world.resolver.answers("self.test", NameReply::at(&["127.0.0.1"]));
    for port in [world.gate.proxy.port(), world.gate.admin.port()] {
        for host in ["127.0.0.1", "self.test"] {
            for way in [Way::Absolute, Way::Http1] {
                let answer = world.send(way, &Request::get(host, "/metrics").port(port)).await;
                assert_eq!(
                    (answer.status, answer.reason()),
                    (403, Some("address_forbidden")),
                    "{way:?} {host}:{port}: {answer:?}"
                );
            }
        }
    }
    world.finish().await;
}

/// Who listens everywhere is reached by every address of the machine, those of its interfaces too.
#[tokio::test]
async fn dst_19_the_gateway_never_dials_itself_by_an_interface() {
    inside_a_network("evasion::destination::by_an_interface").await;
}

#[tokio::test]
#[ignore = "run by another test, in a network of its own"]
async fn by_an_interface() {
    if !is_inside_a_namespace() {
        return;
    }
    let policy = format!(
        "defaults = {{ unknown = \"allow\" }}\naddresses = {{ allow = [\"{ELSEWHERE}\", \"{ELSEWHERE6}\"] }}"
    );
    let everywhere = |gate: GateBuilder| gate.argument("--listen").argument("[::]:4999");
    let world = World::with_policy(&policy).gate(everywhere).start().await;
    world.resolver.answers("self.test", NameReply::at(&[ELSEWHERE]));
    let ipv6 = format!("[{ELSEWHERE6}]");
    for host in [ELSEWHERE, ipv6.as_str(), "self.test"] {
        for way in [Way::Absolute, Way::Http1] {
            let answer = world.send(way, &Request::get(host, "/metrics").port(4999)).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, Some("address_forbidden")),
                "{way:?} {host}: {answer:?}"
            );
        }
    }
    // What listens there and is not the gateway is what the policy says it is.
    let other = tokio::net::TcpListener::bind((ELSEWHERE, 4998)).await.unwrap();
    let request = Request::get(ELSEWHERE, "/").port(4998);
    let answer = world.send(Way::Absolute, &request);
    let taken = async { drop(other.accept().await.unwrap()) };
    let (answer, ()) = tokio::join!(answer, taken);
    assert_ne!(answer.reason(), Some("address_forbidden"), "{answer:?}");
    world.finish().await;
}

#[tokio::test]
async fn dst_18_the_gateways_own_proxy_variables_are_not_followed() {
    let canary = Canary::at("127.0.0.3", &[0]).await.unwrap();
    let proxy = format!("http://127.0.0.3:{}", canary.ports[0]);
    let world =
        World::with_policy("allow = [\"allowed.test:{http}\", \"allowed.test:{tls}\"]").gate(move |gate| {
            let names = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];
            names.iter().fold(gate, |gate, name| gate.environment(name, &proxy))
        });
    let world = world.start().await;
    for way in Way::ALL {
        let answer = world.send(way, &Request::get("allowed.test", "/echo")).await;
        assert!(answer.status < 400 && answer.status > 0, "{way:?}: {answer:?}");
    }
    canary.must_be_untouched();
    world.finish().await;
}
