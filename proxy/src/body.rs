//! Bodies as they pass: uploads counted, looked into and cut off in time, downloads counted to their end.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use policy::catalogue::registrable_domain;
use policy::identity::AgentName;
use policy::record::{Finding, OutcomeKind};
use policy::usage::Usage;
use policy::verdict::{Class, Permit, Reason, UploadLimits};
use tokio::time::Sleep;

use crate::connection::Scope;
use crate::entry::{Entry, Progress, Stop};
use crate::gateway::{CurrentPolicy, Gateway};
use crate::head::{Head, clean_response};
use crate::inspect::{Inspection, Refused};

/// How often a request's body is asked for before the request is sent without having seen any of it.
const PRIMING_TURNS: usize = 4;

/// The body of a response to the client.
#[expect(clippy::large_enum_variant, reason = "nearly every body is a download, and it is not moved about")]
pub enum ReplyBody {
    /// Words of our own.
    Full(Full<Bytes>),
    /// The destination's response.
    Download(Download),
}

impl ReplyBody {
    /// Nothing.
    pub fn empty() -> ReplyBody {
        ReplyBody::Full(Full::new(Bytes::new()))
    }
}

/// A response that does not come to its end; the client sees it broken off.
#[derive(Debug, thiserror::Error)]
pub enum DownloadBroken {
    /// The destination broke it off.
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    /// Nothing came for longer than `upstream.idle_timeout`.
    #[error("nothing moved for too long")]
    Idle,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = DownloadBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadBroken>>> {
        match self.get_mut() {
            ReplyBody::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            ReplyBody::Download(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Full(body) => body.is_end_stream(),
            ReplyBody::Download(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Full(body) => body.size_hint(),
            ReplyBody::Download(body) => body.inner.size_hint(),
        }
    }
}

/// Counts what leaves, against the request's limits and the windows alike.
pub struct Meter {
    gateway: Arc<Gateway>,
    progress: Arc<Progress>,
    limits: UploadLimits,
    enforces: bool,
    class: Class,
    agent: AgentName,
    domain: Arc<str>,
    /// Counted against the request's limit: the larger of wire and decoded size.
    counted: u64,
    noted: Noted,
}

/// Which limits have been noted; each is, once.
#[derive(Default)]
struct Noted {
    request_alert: bool,
    window_alert: bool,
    block: bool,
}

impl Meter {
    /// A meter for one permitted exchange of which nothing has left.
    pub fn new(gateway: &Arc<Gateway>, permit: &Permit, entry: &Entry) -> Meter {
        Meter {
            gateway: Arc::clone(gateway),
            progress: Arc::clone(entry.progress()),
            limits: *permit.limits(),
            enforces: permit.enforces(),
            class: permit.judgement().class,
            agent: entry.agent().clone(),
            domain: registrable_domain(&permit.target().host).into(),
            counted: 0,
            noted: Noted::default(),
        }
    }

    /// A meter for a request whose head of `head` bytes is about to leave. The head was judged with the request, but
    /// others may have been charged while the decision was committed, so it is judged again with its charge.
    ///
    /// # Errors
    /// Why the request may not be sent after all.
    pub fn begin(gateway: &Arc<Gateway>, permit: &Permit, entry: &Entry, head: u64) -> Result<Meter, Stop> {
        let mut meter = Meter::new(gateway, permit, entry);
        if meter.admit(head, 0) {
            return Ok(meter);
        }
        let unsaid = || Stop { reason: Reason::UploadWindowExceeded, what: String::new() };
        Err(meter.progress.stopped().unwrap_or_else(unsaid))
    }

    /// Where the counts are kept.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether `wire` bytes more may leave; `decoded` is what they decode to, where that is more. They weigh on the
    /// windows from here on, and count as having left with [`Meter::left`].
    pub fn admit(&mut self, wire: u64, decoded: u64) -> bool {
        let more = wire.max(decoded);
        let mut over = None;
        let charged = self.gateway.charge_unless(&self.agent, &self.domain, more, |usage| {
            over = exceeded(&self.limits, self.counted, usage, more);
            over.is_some() && self.enforces
        });
        if let Some(over) = over {
            self.note_block(over, more);
        }
        if let Some(usage) = &charged {
            self.weigh(more, usage);
        }
        charged.is_some()
    }

    /// Counts bytes that are on their way.
    pub fn left(&self, wire: u64) {
        self.progress.sent.fetch_add(wire, Ordering::Relaxed);
        self.gateway.metrics.uploaded(self.class, &self.agent, wire);
    }

    /// [`Meter::admit`] and [`Meter::left`] at once.
    pub fn release(&mut self, wire: u64) -> bool {
        let admitted = self.admit(wire, 0);
        if admitted {
            self.left(wire);
        }
        admitted
    }

    fn note_block(&mut self, (reason, limit, of): Over, more: u64) {
        if std::mem::replace(&mut self.noted.block, true) {
            return;
        }
        self.find(self.counted.saturating_add(more), limit, of);
        if self.enforces {
            let what = match reason {
                Reason::UploadTooLarge => {
                    format!("it sends more than the {limit} bytes the policy allows at once")
                }
                _ => format!("more was sent lately than the {limit} bytes the policy allows"),
            };
            self.progress.stop(reason, what);
        } else {
            self.progress.would_stop(reason);
        }
    }

    fn weigh(&mut self, bytes: u64, usage: &Usage) {
        self.counted = self.counted.saturating_add(bytes);
        let limits = self.limits;
        if self.counted > limits.request_alert && !std::mem::replace(&mut self.noted.request_alert, true) {
            self.find(self.counted, limits.request_alert, "request_alert");
        }
        if usage.domain > limits.window_alert && !std::mem::replace(&mut self.noted.window_alert, true) {
            self.find(usage.domain, limits.window_alert, "window_alert");
        }
    }

    fn find(&self, bytes: u64, limit: u64, of: &'static str) {
        self.gateway.metrics.upload_alert(self.class, of);
        self.progress.find(Finding::LargeUpload { bytes, limit, of: of.into() });
    }
}

/// A limit that is met: the reason, the limit in bytes, and its name.
type Over = (Reason, u64, &'static str);

fn exceeded(limits: &UploadLimits, counted: u64, usage: &Usage, more: u64) -> Option<Over> {
    let checks = [
        (counted, limits.request_block, "request_block", Reason::UploadTooLarge),
        (usage.domain, limits.window_block, "window_block", Reason::UploadWindowExceeded),
        (usage.agent, limits.window_block_agent, "window_block_agent", Reason::UploadWindowExceeded),
    ];
    let (_, limit, of, reason) =
        checks.into_iter().find(|(before, limit, ..)| before.saturating_add(more) > *limit)?;
    Some((reason, limit, of))
}

/// A request body on its way: what comes out has been counted, and holds no secret that policy stops.
///
/// An error means that the upload was stopped or the client went; the HTTP library then breaks the request off,
/// so that the destination never takes it for a complete, shorter one.
pub struct Upload {
    state: Option<Box<UploadState>>,
}

struct UploadState {
    /// `None` once the rest of it was given up.
    body: Option<Incoming>,
    meter: Meter,
    inspection: Inspection,
    ready: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
    broken: bool,
    /// Nothing was taken from the body yet, so its length is what it was declared to be.
    untouched: bool,
    /// The HTTP library has begun to send it. Until then no end shows: a body of no bytes would be taken for none, and
    /// a POST would leave without any length.
    sending: bool,
    /// How long the client may be silent once the response is over.
    idle: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The upload was broken off; [`Progress`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the upload was broken off")]
pub struct UploadBroken;

impl Upload {
    /// No body.
    pub fn empty() -> Upload {
        Upload { state: None }
    }

    /// The body of a permitted request.
    pub fn new(
        scope: &Scope,
        policy: &Arc<CurrentPolicy>,
        permit: &Permit,
        parts: &Parts,
        head: &Head,
        body: Incoming,
        meter: Meter,
    ) -> Upload {
        if body.is_end_stream() {
            return Upload::empty();
        }
        let inspection = Inspection::new(&scope.gateway.config, policy, permit, parts, head);
        let state = UploadState {
            body: Some(body),
            meter,
            inspection,
            ready: VecDeque::new(),
            trailers: None,
            ended: false,
            broken: false,
            untouched: true,
            sending: false,
            idle: scope.gateway.config.upstream.idle_timeout,
            sleep: None,
        };
        state.meter.progress().upload_began();
        Upload { state: Some(Box::new(state)) }
    }
}

impl Upload {
    /// What the client still sends, for an upload that was broken off.
    pub fn into_rest(mut self) -> Option<Incoming> {
        self.state.as_mut()?.body.take()
    }

    /// Takes what the client has sent with the head already, so that a request which is small and not allowed is
    /// refused before anything of it leaves. Never waits: the other side may have to speak first.
    ///
    /// # Errors
    /// The upload is broken off.
    pub async fn prime(&mut self) -> Result<(), UploadBroken> {
        for _ in 0..PRIMING_TURNS {
            let Some(state) = &mut self.state else { return Ok(()) };
            match poll_fn(|cx| Poll::Ready(state.poll_body(cx))).await {
                Poll::Ready(taken) => return taken,
                // The connection reads on once this task has yielded.
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        Ok(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        match &mut self.get_mut().state {
            None => Poll::Ready(None),
            Some(state) => state.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state.as_ref().is_none_or(|state| {
            state.sending && state.ended && state.ready.is_empty() && state.trailers.is_none()
        })
    }

    fn size_hint(&self) -> SizeHint {
        // Masking keeps lengths, so what was declared stays true.
        match self.state.as_deref() {
            None => SizeHint::with_exact(0),
            Some(UploadState { untouched: true, body: Some(body), .. }) => body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

impl UploadState {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        self.sending = true;
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.meter.left(bytes.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let Some(trailers) = self.trailers.take() {
                self.meter.left(trailer_bytes(&trailers));
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.broken {
                return Poll::Ready(Some(Err(UploadBroken)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            // An error shows in the next round.
            if self.poll_body(cx).is_pending() {
                ready!(self.poll_given_up(cx));
                self.broken = true;
            }
        }
    }

    /// Whether nobody waits for the rest any more: the response is over, and the client has long said nothing.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let idle = self.idle;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            if self.meter.progress().outlived() {
                return Poll::Ready(());
            }
        }
    }

    /// Takes the next piece from the client and makes ready what of it may go.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadBroken>> {
        self.untouched = false;
        let Some(body) = &mut self.body else { return Poll::Ready(Err(UploadBroken)) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.sleep = None;
        // The HTTP library asks for no end where a declared length is reached, so the end may come with the last bytes.
        let last = body.is_end_stream();
        let taken = match frame {
            Some(Ok(frame)) => self.take(frame).and_then(|()| if last { self.end() } else { Ok(()) }),
            Some(Err(_)) => Err(UploadBroken),
            None => self.end(),
        };
        if taken.is_err() {
            self.broken = true;
            self.ready.clear();
            self.trailers = None;
            self.inspection.note(self.meter.progress());
        }
        Poll::Ready(taken)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), UploadBroken> {
        let frame = match frame.into_data() {
            Ok(data) => return self.take_data(data),
            Err(frame) => frame,
        };
        let Ok(trailers) = frame.into_trailers() else { return Ok(()) };
        self.end()?;
        self.take_trailers(trailers)
    }

    fn take_data(&mut self, data: Bytes) -> Result<(), UploadBroken> {
        let wire = data.len() as u64;
        let before = self.inspection.decoded_bytes();
        let mut released = Vec::new();
        let looked = self.inspection.push(data, &mut released);
        let decoded = self.inspection.decoded_bytes().saturating_sub(before);
        self.settle(looked)?;
        if !self.meter.admit(wire, decoded) {
            return Err(UploadBroken);
        }
        self.ready.extend(released);
        Ok(())
    }

    fn end(&mut self) -> Result<(), UploadBroken> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let mut released = Vec::new();
        let looked = self.inspection.finish(&mut released);
        self.settle(looked)?;
        // Now, and not when the HTTP library lets go of this: the response may be quicker, and the record be closed.
        self.inspection.note(self.meter.progress());
        self.ready.extend(released);
        Ok(())
    }

    /// Trailers count and are looked into like a head; those that would change the head's meaning are dropped.
    fn take_trailers(&mut self, mut trailers: HeaderMap) -> Result<(), UploadBroken> {
        for name in
            ["host", "content-length", "transfer-encoding", "content-encoding", "authorization", "trailer"]
        {
            trailers.remove(name);
        }
        if !self.meter.admit(trailer_bytes(&trailers), 0) {
            return Err(UploadBroken);
        }
        let looked = self.inspection.trailers(&trailers, self.meter.progress());
        self.settle(looked)?;
        self.trailers = Some(trailers);
        Ok(())
    }

    fn settle(&mut self, looked: Result<(), Refused>) -> Result<(), UploadBroken> {
        match looked {
            Ok(()) => Ok(()),
            Err(Refused { reason, what }) => {
                self.meter.progress().stop(reason, what);
                Err(UploadBroken)
            }
        }
    }
}

fn trailer_bytes(trailers: &HeaderMap) -> u64 {
    trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64
}

impl Drop for UploadState {
    fn drop(&mut self) {
        let progress = Arc::clone(self.meter.progress());
        self.inspection.note(&progress);
        progress.upload_ended();
    }
}

/// A response body on its way to the client: counted, and at its end the outcome.
pub struct Download {
    inner: Incoming,
    entry: Option<Entry>,
    class: Class,
    gateway: Arc<Gateway>,
    idle: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Download {
    /// The body of the response to the exchange `entry` keeps.
    pub fn new(scope: &Scope, inner: Incoming, entry: Entry) -> Download {
        let gateway = Arc::clone(&scope.gateway);
        let idle = gateway.config.upstream.idle_timeout;
        Download { inner, class: entry.class(), entry: Some(entry), gateway, idle, sleep: None }
    }

    fn close(&mut self, kind: OutcomeKind) {
        if let Some(entry) = self.entry.take() {
            entry.finish(kind);
        }
    }

    fn count(&self, frame: &Frame<Bytes>) {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.gateway.metrics.downloaded(self.class, bytes);
        if let Some(entry) = &self.entry {
            entry.progress().received.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether nothing has come for so long that the stream is given up.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        sleep.as_mut().poll(cx)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadBroken>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                this.sleep = None;
                this.count(&frame);
                if let Some(trailers) = frame.trailers_mut() {
                    clean_response(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.close(OutcomeKind::Failed);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.close(OutcomeKind::Completed);
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.poll_idle(cx));
                this.close(OutcomeKind::Failed);
                Poll::Ready(Some(Err(DownloadBroken::Idle)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body of declared length is not asked for its end.
        let complete = self.inner.is_end_stream();
        self.close(if complete { OutcomeKind::Completed } else { OutcomeKind::Abandoned });
    }
}
