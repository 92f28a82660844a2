//! A request as a test describes it, to be sent any way there is.

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Host, as the tunnel or the absolute form names it.
    pub host: String,
    /// Port; `None` is the origin's for the way it is sent.
    pub port: Option<u16>,
    /// Path and query.
    pub path: String,
    /// Headers besides the host.
    pub headers: Vec<(String, String)>,
    /// The body; over a WebSocket, its messages.
    pub body: Body,
    /// Trailers, where the body has pieces.
    pub trailers: Vec<(String, String)>,
    /// What `Host` or `:authority` claims instead of the host.
    pub claim: Option<String>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// None.
    Empty,
    /// Declared by its length.
    Declared(Vec<u8>),
    /// In pieces, without a length.
    Pieces(Vec<Vec<u8>>),
}

impl Request {
    /// A GET.
    pub fn get(host: &str, path: &str) -> Request {
        Request {
            method: "GET".into(),
            host: host.into(),
            port: None,
            path: path.into(),
            headers: Vec::new(),
            body: Body::Empty,
            trailers: Vec::new(),
            claim: None,
        }
    }

    /// A POST of plain text, declared.
    pub fn post(host: &str, path: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { body: Body::Declared(body.into()), ..Request::get(host, path).method("POST") }
            .header("content-type", "text/plain")
    }

    /// With another method.
    pub fn method(self, method: &str) -> Request {
        Request { method: method.into(), ..self }
    }

    /// To this port.
    pub fn port(self, port: u16) -> Request {
        Request { port: Some(port), ..self }
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body in pieces, whose length nothing declares.
    pub fn pieces<P: Into<Vec<u8>>>(self, pieces: impl IntoIterator<Item = P>) -> Request {
        Request { body: Body::Pieces(pieces.into_iter().map(Into::into).collect()), ..self }
    }

    /// With one more trailer.
    pub fn trailer(mut self, name: &str, value: &str) -> Request {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// Claiming another host than the one it is sent to.
    pub fn claiming(self, host: &str) -> Request {
        Request { claim: Some(host.into()), ..self }
    }

    /// The pieces of the body, however it is sent.
    pub fn body_pieces(&self) -> Vec<Vec<u8>> {
        match &self.body {
            Body::Empty => Vec::new(),
            Body::Declared(bytes) => vec![bytes.clone()],
            Body::Pieces(pieces) => pieces.clone(),
        }
    }
}
