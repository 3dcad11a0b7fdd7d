//! Which addresses belong to the Internet at large.
//!
//! The tables are the IANA special-purpose registries (RFC 6890, and what was registered since). For
//! IPv4 they list what is not global. For IPv6 it is the other way round: only 2000::/3 was ever given
//! out for global unicast (RFC 4291 2.4), so everything else is refused unnamed, among it the forms with
//! an IPv4 address inside: mapped, compatible, NAT64.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses, such as `10.20.0.0/16` or `fd12:3456::/32` (RFC 4632 3.1, RFC 4291 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

/// The text is no block of addresses, or has bits set behind its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network such as 10.20.0.0/16")]
pub struct InvalidNetwork;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32) -> Network {
    let first = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    Network { first, prefix }
}

const fn v6(a: u16, b: u16, prefix: u32) -> Network {
    let first = IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0));
    Network { first, prefix }
}

const GLOBAL_UNICAST_V6: Network = v6(0x2000, 0, 3);

const NOT_GLOBAL: &[Network] = &[
    v4(0, 0, 0, 0, 8),       // this network (RFC 791 3.2)
    v4(10, 0, 0, 0, 8),      // private (RFC 1918)
    v4(100, 64, 0, 0, 10),   // between a carrier and its customers (RFC 6598)
    v4(127, 0, 0, 0, 8),     // loopback (RFC 1122 3.2.1.3)
    v4(169, 254, 0, 0, 16),  // link-local (RFC 3927)
    v4(172, 16, 0, 0, 12),   // private (RFC 1918)
    v4(192, 0, 0, 0, 24),    // protocol assignments (RFC 6890 2.1)
    v4(192, 0, 2, 0, 24),    // documentation (RFC 5737)
    v4(192, 88, 99, 0, 24),  // 6to4 relays (RFC 7526)
    v4(192, 168, 0, 0, 16),  // private (RFC 1918)
    v4(198, 18, 0, 0, 15),   // benchmarks (RFC 2544)
    v4(198, 51, 100, 0, 24), // documentation (RFC 5737)
    v4(203, 0, 113, 0, 24),  // documentation (RFC 5737)
    v4(224, 0, 0, 0, 4),     // multicast (RFC 5771)
    v4(240, 0, 0, 0, 4),     // reserved (RFC 1112 4), broadcast (RFC 919)
    v6(0x2001, 0, 23),       // protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID
    v6(0x2001, 0x0db8, 32),  // documentation (RFC 3849)
    v6(0x2002, 0, 16),       // 6to4 (RFC 3056)
    v6(0x3fff, 0, 20),       // documentation (RFC 9637)
];

/// This machine, its link and whoever runs the virtual machine: never the network of a relying party,
/// so no operator's list opens these.
const NEVER: &[Network] = &[
    v4(0, 0, 0, 0, 8),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),     // metadata services of most clouds
    v4(100, 100, 100, 200, 32), // Alibaba's
    v4(168, 63, 129, 16, 32),   // Azure's: a registered address, but the host answers
    v4(192, 0, 0, 192, 32),     // Oracle's
    v4(224, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
    v6(0, 0, 80),           // unspecified, loopback, IPv4 in IPv6 (RFC 4291 2.5)
    v6(0xfd00, 0x0ec2, 32), // Amazon's metadata service
    v6(0xfd20, 0x00ce, 32), // Google's
    v6(0xfe80, 0, 10),
    v6(0xff00, 0, 8),
];

/// Whether this is an address at which anybody on the Internet can be reached.
pub(super) fn is_global(address: IpAddr) -> bool {
    (address.is_ipv4() || GLOBAL_UNICAST_V6.contains(address))
        && !is_in(NOT_GLOBAL, address)
        && !is_in(NEVER, address)
}

/// Whether the address is in one of the operator's networks, and not one that no list opens.
pub(super) fn is_internal(networks: &[Network], address: IpAddr) -> bool {
    is_in(networks, address) && !is_in(NEVER, address)
}

fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

impl Network {
    /// An IPv4 address in IPv6 clothes is in no IPv4 block.
    fn contains(&self, address: IpAddr) -> bool {
        let ((first, width), (other, other_width)) = (bits(self.first), bits(address));
        let agree = (first ^ other).leading_zeros();
        width == other_width && agree >= u128::BITS - width + self.prefix
    }
}

/// An address as a number, and how many bits of it count.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (v4.to_bits().into(), u32::BITS),
        IpAddr::V6(v6) => (v6.to_bits(), u128::BITS),
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (first, prefix) = text.split_once('/').ok_or(InvalidNetwork)?;
        let first = first.parse().map_err(|_| InvalidNetwork)?;
        let prefix = prefix.parse().map_err(|_| InvalidNetwork)?;
        let (number, width) = bits(first);
        let behind = width.checked_sub(prefix).ok_or(InvalidNetwork)?;
        // Bits behind the prefix are a slip: `10.0.0.7/8` means one machine or sixteen million.
        (number.trailing_zeros() >= behind)
            .then_some(Self { first, prefix })
            .ok_or(InvalidNetwork)
    }
}
