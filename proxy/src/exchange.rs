//! One request from its head to its record: read, decide (and ask), record, send, relay.
//!
//! Every path a request can take (absolute form, HTTP/1.1 or HTTP/2 inside TLS, clear HTTP in a tunnel, WebSocket)
//! comes through [`exchange`], and everything that was refused on the way to it through [`refuse`].

use std::time::Instant;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use policy::verdict::Reason;

use crate::body::ReplyBody;
use crate::connection::Scope;
use crate::head::{BadHead, Head};
use crate::identify::Client;
use crate::pace::Attempt;
use crate::reply::{Audience, Refusal};

mod deciding;
mod holding;
mod refusing;
mod sending;
mod subject;

pub use deciding::{look_up, no_longer_allowed, permit_unread, unreachable, unread_request};
pub use holding::is_offered;
pub use refusing::{
    CloseInstead, Stopped, dial_refusal, overloaded, record, record_refusal, record_unparsed, refuse,
    refused_unjudged,
};
pub use sending::{Failure, WebSocketRequest, ask_for_websocket, forward, outgoing, relay};
pub use subject::Subject;

use deciding::{client_of, tls_only};
use holding::{Decided, Last, Matter, settle};
use refusing::{close_clear, denied, linger, refuse_judged};
use sending::{Permitted, send};

/// Serves one request.
pub async fn exchange(scope: &Scope, mut request: Request<Incoming>) -> Response<ReplyBody> {
    let started = Instant::now();
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let audience = Audience::of(&parts.headers);
    let tunnel = scope.tunnel.as_ref().map(|tunnel| &tunnel.target);
    let (client, attempt) = match paced_client(scope, &parts.headers).await {
        Ok(paced) => paced,
        Err(refusal) => {
            let target =
                Head::read(&parts, tunnel, &scope.gateway.config.limits).ok().map(|head| head.target);
            let opener = scope.tunnel.as_ref().map(|tunnel| tunnel.client.clone());
            return refuse(scope, Subject::of(&parts, target, opener), &refusal, audience, started).await;
        }
    };
    if !scope.admits(&client.agent) {
        let refusal = Refusal::plain(Reason::Overloaded, "this agent has too many connections open");
        return refuse(scope, Subject::of(&parts, None, Some(client)), &refusal, audience, started).await;
    }
    let head = match Head::read(&parts, tunnel, &scope.gateway.config.limits) {
        Ok(head) => head,
        Err(bad) => {
            let BadHead { refusal, target } = *bad;
            return refuse(scope, Subject::of(&parts, target, Some(client)), &refusal, audience, started)
                .await;
        }
    };
    let subject = Subject {
        kind: head.kind,
        path: Some(head.path.forwarded()),
        ..Subject::of(&parts, Some(head.target.clone()), Some(client.clone()))
    };
    let matter = Matter::Request { headers: &parts.headers, head: &head };
    let Decided { policy, verdict, held } = settle(scope, &subject, &matter, client, started).await;
    let subject = Subject { held, ..subject };
    match verdict {
        Last::Allow(permit) => {
            let request = Permitted { parts, body: Some(body), head, permit, upgrade, audience, started };
            let response = send(scope, &policy, subject, request).await;
            attempt.answered();
            response
        }
        Last::Refused { judgement, refusal, .. } => {
            linger(&parts, body);
            refuse_judged(scope, &policy, subject, &judgement, &refusal, audience, started).await
        }
        Last::Deny(denial) => {
            linger(&parts, body);
            let refusal = denied(&denial, &head.target);
            if tls_only(scope, &policy, &denial) {
                return close_clear(scope, subject, started).await;
            }
            refuse_judged(scope, &policy, subject, &denial.judgement, &refusal, audience, started).await
        }
    }
}

/// Who asks, once it may: whoever had to wait may not be known any more.
async fn paced_client<'s>(scope: &'s Scope, headers: &HeaderMap) -> Result<(Client, Attempt<'s>), Refusal> {
    let client = client_of(scope, headers).await?;
    let (attempt, waited) = scope.gateway.pace.attempt(&client.agent).await;
    let client = if waited { client_of(scope, headers).await? } else { client };
    Ok((client, attempt))
}
