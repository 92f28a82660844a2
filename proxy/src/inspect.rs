//! Looking into a request: head fields, body, trailers. The policy crate finds; here is where it is pointed at.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use policy::catalogue::Spot;
use policy::decode::{BodyInspector, InspectError};
use policy::record::{BodyExcerpt, Finding};
use policy::scan::{Place, Scanner, scan_field};
use policy::secret::{Detector, Exempt, KnownId};
use policy::target::Target;
use policy::verdict::{Class, Permit, Reason, SecretAction};

use crate::config::Config;
use crate::entry::Progress;
use crate::gateway::CurrentPolicy;
use crate::head::Head;
