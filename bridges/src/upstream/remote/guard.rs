//! Which addresses the platform connects to, so that a URL cannot lead it into a network that its operator did not mean.
//!
//! Only public addresses are taken, unless the server's line says `allow_private = true`. A cloud's metadata service is never an
//! MCP server, and gives out credentials to whoever reaches it; nothing allows that. Source: MCP security best practices, SSRF.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How far a server's address may lie inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Public addresses only.
    Public,
    /// Private ones as well.
    Private,
}

impl Reach {
    /// What the line of the configuration says.
    pub(super) fn of(allow_private: bool) -> Self {
        if allow_private {
            Self::Private
        } else {
            Self::Public
        }
    }

    /// Why an address may not be connected to, if it may not.
    pub(super) fn refuses(self, address: IpAddr) -> Option<Kind> {
        let kind = kind(address);
        match self {
            _ if kind == Kind::Public => None,
            Self::Private if kind != Kind::Metadata => None,
            _ => Some(kind),
        }
    }
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Public,
    Metadata,
    Loopback,
    Private,
    LinkLocal,
    Unspecified,
    Multicast,
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Metadata => {
                "the address of a cloud's metadata service, which is never connected to; `allow_private` does not change that"
            }
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        })?;
        if matches!(self, Self::Public | Self::Metadata) {
            return Ok(());
        }
        f.write_str("; if it is meant, set allow_private = true for this server")
    }
}

/// Networks of version 4 that are not public, as IANA's special-purpose registry has them.
const V4: [([u8; 4], u8, Kind); 18] = [
    ([169, 254, 169, 254], 32, Kind::Metadata),
    ([169, 254, 170, 2], 32, Kind::Metadata),
    ([100, 100, 100, 200], 32, Kind::Metadata),
    ([168, 63, 129, 16], 32, Kind::Metadata),
    ([0, 0, 0, 0], 32, Kind::Unspecified),
    ([0, 0, 0, 0], 8, Kind::Reserved),
    ([10, 0, 0, 0], 8, Kind::Private),
    ([100, 64, 0, 0], 10, Kind::Private),
    ([127, 0, 0, 0], 8, Kind::Loopback),
    ([169, 254, 0, 0], 16, Kind::LinkLocal),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 0, 0, 0], 24, Kind::Reserved),
    ([192, 0, 2, 0], 24, Kind::Reserved),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([198, 18, 0, 0], 15, Kind::Reserved),
    ([198, 51, 100, 0], 24, Kind::Reserved),
    ([203, 0, 113, 0], 24, Kind::Reserved),
    ([224, 0, 0, 0], 4, Kind::Multicast),
];

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let bits = u32::from(address);
    let found = V4.iter().find(|(network, length, _)| {
        let network = u32::from(Ipv4Addr::from(*network));
        (bits ^ network) >> (32 - length) == 0
    });
    match found {
        Some((_, _, kind)) => *kind,
        // 240.0.0.0/4 is reserved, and ends with the broadcast address.
        None if bits >> 28 == 0xf => Kind::Reserved,
        None => Kind::Public,
    }
}

/// The EC2 metadata service's own address, in a network that is otherwise private.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address == METADATA_V6 {
        return Kind::Metadata;
    }
    let parts = address.segments();
    let within = |at: usize| {
        let [a, b] = parts[at].to_be_bytes();
        let [c, d] = parts[at + 1].to_be_bytes();
        kind_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        // An address of version 4 in another spelling: mapped, compatible, or for a translator (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => within(6),
        // 6to4 leads to the address that it holds (RFC 3056).
        [0x2002, _, _, ..] => within(1),
        [0x64, 0xff9b, 1, ..] => Kind::Private,
        // Teredo tunnels, documentation, discard only, segment routing.
        [0x2001, 0 | 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0x5f00, ..] => Kind::Reserved,
        [first, ..] if first & 0xfff0 == 0x3ff0 => Kind::Reserved,
        [first, ..] if first & 0xfe00 == 0xfc00 => Kind::Private,
        [first, ..] if first & 0xffc0 == 0xfe80 => Kind::LinkLocal,
        [first, ..] if first & 0xffc0 == 0xfec0 => Kind::Private,
        [first, ..] if first & 0xff00 == 0xff00 => Kind::Multicast,
        _ => Kind::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "8.8.8.8 1.1.1.1 100.63.0.1 172.32.0.1 2606:4700::1 ::ffff:8.8.8.8 64:ff9b::808:808";
    const LOOPBACK: &str =
        "127.0.0.1 127.255.0.9 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::";
    const PRIVATE: &str = "10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 fc00::1 fd12::1 fec0::1 ::ffff:10.0.0.1 2002:a00:1:: 64:ff9b:1::1";
    const METADATA: &str = "169.254.169.254 100.100.100.200 168.63.129.16 fd00:ec2::254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe";
    const RESERVED: &str =
        "0.1.2.3 240.0.0.1 255.255.255.255 192.0.2.1 198.19.0.1 2001:db8::1 2001::1 3fff::1 100::1";

    #[test]
    fn addresses_are_told_apart_by_what_they_are_for() {
        for (addresses, expected) in [
            (PUBLIC, Kind::Public),
            (LOOPBACK, Kind::Loopback),
            (PRIVATE, Kind::Private),
            ("169.254.0.1 fe80::1 ::ffff:169.254.1.1", Kind::LinkLocal),
            (METADATA, Kind::Metadata),
            ("0.0.0.0 ::", Kind::Unspecified),
            ("224.0.0.1 239.1.1.1 ff02::1", Kind::Multicast),
            (RESERVED, Kind::Reserved),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(kind(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn only_the_line_of_the_server_opens_the_inside_and_nothing_opens_the_metadata() {
        for (address, public, private) in [
            ("8.8.8.8", true, true),
            ("127.0.0.1", false, true),
            ("fd12::1", false, true),
            ("169.254.1.1", false, true),
            ("169.254.169.254", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Reach::Public.refuses(address).is_none(), public, "{address}");
            assert_eq!(Reach::Private.refuses(address).is_none(), private, "{address}");
        }
        let why = Reach::Public
            .refuses("10.0.0.1".parse().unwrap())
            .unwrap()
            .to_string();
        assert!(why.contains("allow_private = true"), "{why}");
    }
}
