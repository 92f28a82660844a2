//! Addresses about to be dialled: what each is ([`AddressClass`]), and which may be ([`AddressRules`]).
//!
//! Names are decided before they are resolved; what they resolve to is judged here. Only public addresses pass
//! unless `[addresses] allow` names them, so that an allowed name cannot be pointed at the gateway's own network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What kind of address it is, as far as dialling it is concerned (RFC 6890 and the registries it began).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Reachable from everywhere.
    Public,
    /// This machine: `127.0.0.0/8`, `::1`.
    Loopback,
    /// A private network: RFC 1918, `fec0::/10`.
    Private,
    /// An IPv6 unique local address, `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// One link only: `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Carrier-grade NAT, `100.64.0.0/10` (RFC 6598).
    CarrierNat,
    /// Where a cloud's machines ask for their credentials.
    Metadata,
    /// IPv6 that carries an IPv4 address, which some router or library would unwrap.
    Embedded,
    /// No address at all; Linux routes it to loopback: `0.0.0.0/8`, `::`.
    Unspecified,
    /// Many receivers: `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// Set aside by the protocol: `192.0.0.0/24`, `240.0.0.0/4`, `100::/64` and the like.
    Reserved,
    /// For examples in books: `192.0.2.0/24`, `2001:db8::/32` and the like.
    Documentation,
    /// For benchmarks, `198.18.0.0/15` and `2001:2::/48`; the fence stands names in for it.
    Benchmarking,
}

impl AddressClass {
    /// What an address is by itself. An embedded IPv4 address counts where it is anything but public; a public
    /// one leaves [`AddressClass::Embedded`].
    pub fn of(address: IpAddr) -> AddressClass {
        match address {
            IpAddr::V4(v4) => class_of_v4(v4),
            IpAddr::V6(v6) => class_of_v6(v6),
        }
    }

    /// For people and records.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressClass::Public => "public",
            AddressClass::Loopback => "loopback",
            AddressClass::Private => "private",
            AddressClass::UniqueLocal => "unique local",
            AddressClass::LinkLocal => "link-local",
            AddressClass::CarrierNat => "carrier-grade NAT",
            AddressClass::Metadata => "cloud metadata",
            AddressClass::Embedded => "embedded IPv4",
            AddressClass::Unspecified => "unspecified",
            AddressClass::Multicast => "multicast",
            AddressClass::Broadcast => "broadcast",
            AddressClass::Reserved => "reserved",
            AddressClass::Documentation => "documentation",
            AddressClass::Benchmarking => "benchmarking",
        }
    }

    /// Whether no rule may let an address of this kind be dialled: nothing can answer there, or it is the
    /// fence's own.
    pub fn is_never_dialled(self) -> bool {
        use AddressClass::{Benchmarking, Broadcast, Multicast, Unspecified};
        matches!(self, Unspecified | Multicast | Broadcast | Benchmarking)
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where clouds answer with a machine's credentials: Amazon, Google, Azure and most others; Amazon over IPv6;
/// Alibaba; Oracle; Azure's host agent.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// `fd00:ec2::254` (Amazon), `fd20:ce::254` (Google).
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254),
];

fn class_of_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [169, 254, ..] => AddressClass::LinkLocal,
        [100, 64..=127, ..] => AddressClass::CarrierNat,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Documentation,
        // 192.88.99.0/24 was the 6to4 relay (RFC 7526), 192.31.196.0/24 and 192.175.48.0/24 are sinks of the DNS.
        [192, 0, 0, _] | [192, 88, 99, _] | [192, 31, 196, _] | [192, 175, 48, _] => AddressClass::Reserved,
        [198, 18..=19, ..] => AddressClass::Benchmarking,
        [224..=239, ..] => AddressClass::Multicast,
        [255, 255, 255, 255] => AddressClass::Broadcast,
        [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn class_of_v6(address: Ipv6Addr) -> AddressClass {
    if let Some(inner) = embedded(address) {
        let class = class_of_v4(inner);
        return if class == AddressClass::Public { AddressClass::Embedded } else { class };
    }
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        [0xfc00..=0xfdff, ..] => AddressClass::UniqueLocal,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => AddressClass::Documentation,
        [0x2001, 2, 0, ..] => AddressClass::Benchmarking,
        // The protocol assignments of RFC 2928, ORCHID among them.
        [0x2001, 0..=0x01ff, ..] => AddressClass::Reserved,
        // Unicast is given out of 2000::/3 alone (RFC 4291, section 2.4): the rest is discard-only, segment
        // routing, or nobody's yet.
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

/// The IPv4 address that some router, translator or library would take out of an IPv6 one.
pub(crate) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => None,
        // Compatible (RFC 4291, 2.5.5.1), mapped (2.5.5.2), translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        // NAT64: well-known prefix (RFC 6052) and the local-use one (RFC 8215) in its /96 form.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo (RFC 4380): the client's address, inverted.
        [0x2001, 0, .., high, low] => v4(!high, !low),
        // ISATAP (RFC 5214): interface identifier 0000:5efe or 0200:5efe.
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => v4(high, low),
        _ => None,
    }
}

/// What besides public addresses may be dialled: `[addresses] allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    allowed: Vec<AddressEntry>,
}

/// One entry of `[addresses] allow`: a block, on one port or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressEntry {
    /// The block; a single address is a block of one.
    pub block: IpNet,
    /// The port; `None` for every port.
    pub port: Option<u16>,
}

impl AddressRules {
    /// Rules that let these entries pass, and public addresses.
    pub fn new(mut allowed: Vec<AddressEntry>) -> AddressRules {
        allowed.sort_unstable();
        allowed.dedup();
        AddressRules { allowed }
    }

    /// The entries, in canonical order.
    pub fn entries(&self) -> &[AddressEntry] {
        &self.allowed
    }

    /// Whether an address may be dialled on a port.
    ///
    /// An address that embeds another is judged as both, and each must pass. A metadata address passes only
    /// where an entry names it alone: whoever opens a network does not mean the cloud's credentials.
    ///
    /// # Errors
    /// What stands against it.
    pub fn judge(&self, address: IpAddr, port: u16) -> Result<(), AddressClass> {
        if let IpAddr::V6(v6) = address
            && let Some(inner) = embedded(v6)
        {
            self.judge_one(IpAddr::V4(inner), class_of_v4(inner), port)?;
            return self.judge_one(address, AddressClass::Embedded, port);
        }
        self.judge_one(address, AddressClass::of(address), port)
    }

    fn judge_one(&self, address: IpAddr, class: AddressClass, port: u16) -> Result<(), AddressClass> {
        let named = |entry: &AddressEntry| {
            entry.block.contains(&address)
                && entry.port.is_none_or(|allowed| allowed == port)
                && (class != AddressClass::Metadata
                    || entry.block.prefix_len() == entry.block.max_prefix_len())
        };
        let passes =
            class == AddressClass::Public || (!class.is_never_dialled() && self.allowed.iter().any(named));
        if passes { Ok(()) } else { Err(class) }
    }
}

impl AddressEntry {
    /// Reads `10.0.0.0/8`, `127.0.0.1`, `127.0.0.1:11434`, `fd00::/8`, `[::1]:8080`, `[fd00::/8]:8080`.
    ///
    /// # Errors
    /// What is wrong, in words that say how to write it.
    pub fn parse(text: &str) -> Result<AddressEntry, String> {
        let (block, port) = split_port(text)?;
        let block = parse_block(block).ok_or_else(|| {
            "is neither an address nor a block such as `10.20.0.0/16`; names are judged by what they resolve to"
                .to_owned()
        })??;
        let class = AddressClass::of(block.network());
        if class.is_never_dialled() && is_all_of_one_kind(block, class) {
            return Err(format!("is never dialled: it is {class}"));
        }
        Ok(AddressEntry { block, port })
    }
}

/// The address or block, and the port after it.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (block, port) = if let Some(rest) = text.strip_prefix('[') {
        let (block, rest) = rest.split_once(']').ok_or("needs a `]` after the address")?;
        match rest.strip_prefix(':') {
            Some(port) => (block, Some(port)),
            None if rest.is_empty() => (block, None),
            None => return Err(format!("has `{rest}` after `]`: a port is written `:PORT`")),
        }
    } else if text.matches(':').count() == 1 {
        let (block, port) = text.split_once(':').unwrap_or((text, ""));
        (block, Some(port))
    } else {
        (text, None)
    };
    Ok((block, port.map(parse_port).transpose()?))
}

/// A port as policies write it.
pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let port = if plain { text.parse().ok() } else { None };
    let found = || if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
    port.ok_or_else(|| format!("has {} for a port: ports are plain numbers from 1 to 65535", found()))
}

/// A block or a single address; `None` where the text is neither, an error where it has bits outside its prefix.
pub(crate) fn parse_block(text: &str) -> Option<Result<IpNet, String>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Ok(IpNet::from(address)));
    }
    let block: IpNet = text.parse().ok()?;
    let truncated = block.trunc();
    if truncated == block {
        return Some(Ok(block));
    }
    Some(Err(format!("has bits outside its prefix: write `{truncated}`")))
}

fn is_all_of_one_kind(block: IpNet, class: AddressClass) -> bool {
    let last = match block {
        IpNet::V4(v4) => IpAddr::V4(Ipv4Net::broadcast(&v4)),
        IpNet::V6(v6) => IpAddr::V6(Ipv6Net::broadcast(&v6)),
    };
    AddressClass::of(last) == class
}

impl fmt::Display for AddressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = self.block.prefix_len() == self.block.max_prefix_len();
        let brackets = matches!((self.block, self.port), (IpNet::V6(_), Some(_)));
        if brackets {
            f.write_str("[")?;
        }
        if alone {
            self.block.addr().fmt(f)?;
        } else {
            self.block.fmt(f)?;
        }
        if brackets {
            f.write_str("]")?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
