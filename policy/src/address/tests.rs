//! Tables of addresses: what each is, what passes, how entries are read.

use super::*;

fn rules(entries: &[&str]) -> AddressRules {
    AddressRules::new(entries.iter().map(|text| AddressEntry::parse(text).unwrap()).collect())
}

#[test]
fn every_address_has_its_class() {
    use AddressClass::*;
    for (address, class) in [
        ("93.184.216.34", Public),
        ("8.8.8.8", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("198.17.255.255", Public),
        ("198.20.0.0", Public),
        ("223.255.255.255", Public),
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("10.0.0.1", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("169.254.0.1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("168.63.129.16", Metadata),
        ("100.64.0.1", CarrierNat),
        ("100.127.255.255", CarrierNat),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("192.0.0.1", Reserved),
        ("192.88.99.1", Reserved),
        ("240.0.0.1", Reserved),
        ("255.255.255.254", Reserved),
        ("255.255.255.255", Broadcast),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("192.0.2.1", Documentation),
        ("198.51.100.7", Documentation),
        ("203.0.113.9", Documentation),
        ("198.18.0.1", Benchmarking),
        ("198.19.255.255", Benchmarking),
        ("2606:2800:220:1::1", Public),
        ("2a00:1450::1", Public),
        ("::", Unspecified),
        ("::1", Loopback),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", Private),
        ("fc00::1", UniqueLocal),
        ("fd12:3456::1", UniqueLocal),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("ff02::1", Multicast),
        ("2001:db8::1", Documentation),
        ("3fff::1", Documentation),
        ("2001:2::1", Benchmarking),
        ("2001:10::1", Reserved),
        ("100::1", Reserved),
        ("4000::1", Reserved),
        ("5f00::1", Reserved),
        // mapped, compatible, translated
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:7f00:1", Loopback),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:8.8.8.8", Embedded),
        ("::127.0.0.1", Loopback),
        ("::8.8.8.8", Embedded),
        ("::ffff:0:10.0.0.1", Private),
        // NAT64
        ("64:ff9b::7f00:1", Loopback),
        ("64:ff9b::808:808", Embedded),
        ("64:ff9b:1::a00:1", Private),
        ("64:ff9b:1:2:3:4:a9fe:a9fe", Metadata),
        // 6to4, Teredo, ISATAP
        ("2002:7f00:1::", Loopback),
        ("2002:808:808::1", Embedded),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", Loopback),
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", Embedded),
        ("2606:2800:220:1:0:5efe:10.0.0.1", Private),
        ("2606:2800:220:1:200:5efe:8.8.8.8", Embedded),
        ("fe80::5efe:192.168.0.1", Private),
    ] {
        assert_eq!(AddressClass::of(address.parse().unwrap()), class, "{address}");
    }
}

#[test]
fn only_public_addresses_pass_by_default() {
    let none = AddressRules::default();
    for (address, verdict) in [
        ("8.8.8.8", Ok(())),
        ("2a00:1450::1", Ok(())),
        ("127.0.0.1", Err(AddressClass::Loopback)),
        ("10.1.2.3", Err(AddressClass::Private)),
        ("169.254.169.254", Err(AddressClass::Metadata)),
        ("198.18.0.1", Err(AddressClass::Benchmarking)),
        ("0.0.0.0", Err(AddressClass::Unspecified)),
        ("::ffff:127.0.0.1", Err(AddressClass::Loopback)),
        ("64:ff9b::808:808", Err(AddressClass::Embedded)),
        ("2002:808:808::1", Err(AddressClass::Embedded)),
    ] {
        assert_eq!(none.judge(address.parse().unwrap(), 443), verdict, "{address}");
    }
}

#[test]
fn entries_open_what_they_name_and_no_more() {
    for (entries, address, port, verdict) in [
        (&["10.20.0.0/16"][..], "10.20.3.4", 443, Ok(())),
        (&["10.20.0.0/16"], "10.21.0.1", 443, Err(AddressClass::Private)),
        (&["127.0.0.1:11434"], "127.0.0.1", 11434, Ok(())),
        (&["127.0.0.1:11434"], "127.0.0.1", 11435, Err(AddressClass::Loopback)),
        (&["127.0.0.1:11434"], "127.0.0.2", 11434, Err(AddressClass::Loopback)),
        (&["127.0.0.0/8"], "127.9.9.9", 1, Ok(())),
        (&["[::1]:8080"], "::1", 8080, Ok(())),
        (&["::1"], "::1", 1, Ok(())),
        (&["fd00::/8"], "fd12::1", 443, Ok(())),
        (&["[fd00::/8]:443"], "fd12::1", 80, Err(AddressClass::UniqueLocal)),
        (&["0.0.0.0/0", "::/0"], "198.18.0.1", 443, Err(AddressClass::Benchmarking)),
        (&["0.0.0.0/0", "::/0"], "0.0.0.0", 443, Err(AddressClass::Unspecified)),
        (&["0.0.0.0/0", "::/0"], "224.0.0.1", 443, Err(AddressClass::Multicast)),
        (&["0.0.0.0/0", "::/0"], "255.255.255.255", 443, Err(AddressClass::Broadcast)),
        (&["0.0.0.0/0", "::/0"], "169.254.169.254", 80, Err(AddressClass::Metadata)),
        (&["169.254.0.0/16"], "169.254.169.254", 80, Err(AddressClass::Metadata)),
        (&["169.254.169.254"], "169.254.169.254", 80, Ok(())),
        (&["127.0.0.0/8"], "::ffff:127.0.0.1", 80, Err(AddressClass::Embedded)),
        (&["::ffff:0:0/96"], "::ffff:127.0.0.1", 80, Err(AddressClass::Loopback)),
        (&["::ffff:0:0/96", "127.0.0.0/8"], "::ffff:127.0.0.1", 80, Ok(())),
        (&["64:ff9b::/96"], "64:ff9b::808:808", 443, Ok(())),
        (&["64:ff9b::/96"], "64:ff9b::a9fe:a9fe", 80, Err(AddressClass::Metadata)),
        (&["::/0"], "::ffff:198.18.0.1", 443, Err(AddressClass::Benchmarking)),
    ] {
        assert_eq!(
            rules(entries).judge(address.parse().unwrap(), port),
            verdict,
            "{entries:?} {address}:{port}"
        );
    }
}

#[test]
fn entries_are_read_and_printed_in_one_spelling() {
    for (given, printed) in [
        ("10.20.0.0/16", "10.20.0.0/16"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.1"),
        ("127.0.0.1:11434", "127.0.0.1:11434"),
        ("10.0.0.0/8:8080", "10.0.0.0/8:8080"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:8080", "[::1]:8080"),
        ("[FD00::/8]:8080", "[fd00::/8]:8080"),
    ] {
        let entry = AddressEntry::parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
        assert_eq!(entry.to_string(), printed, "{given}");
        assert_eq!(AddressEntry::parse(printed), Ok(entry), "{given}");
    }
    for (given, message) in [
        ("localhost", "is neither an address nor a block"),
        ("10.0.0.1/8", "write `10.0.0.0/8`"),
        ("127.0.0.1:0", "has `0` for a port"),
        ("127.0.0.1:http", "has `http` for a port"),
        ("[::1]8080", "a port is written `:PORT`"),
        ("[::1", "needs a `]`"),
        ("198.18.0.0/15", "is never dialled: it is benchmarking"),
        ("0.0.0.0", "is never dialled: it is unspecified"),
        ("224.0.0.0/4", "is never dialled: it is multicast"),
        ("127.1", "is neither an address nor a block"),
    ] {
        let error = AddressEntry::parse(given).unwrap_err();
        assert!(error.contains(message), "{given}: {error}");
    }
}
