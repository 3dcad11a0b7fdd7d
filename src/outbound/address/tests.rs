//! The classifier against a second copy of the registries, and against std.

use super::*;
use proptest::prelude::*;

/// The registries once more, as first and last address, copied apart from the table above.
const REFUSED_V4: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
];
const REFUSED_V6: &[(&str, &str)] = &[
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

fn number(text: &str) -> u128 {
    bits(text.parse().unwrap()).0
}

fn is_listed(ranges: &[(&str, &str)], address: IpAddr) -> bool {
    let address = bits(address).0;
    ranges
        .iter()
        .any(|(first, last)| (number(first)..=number(last)).contains(&address))
}

/// Any number, and more often one near the edge of a range.
fn near_edges(ranges: &'static [(&str, &str)]) -> impl Strategy<Value = u128> {
    let edges = ranges
        .iter()
        .flat_map(|(first, last)| [number(first), number(last)]);
    let edge = prop::sample::select(edges.collect::<Vec<_>>());
    let near = (edge, 0..3_u128, any::<bool>()).prop_map(|(edge, by, up)| match up {
        true => edge.wrapping_add(by),
        false => edge.wrapping_sub(by),
    });
    prop_oneof![near, any::<u128>()]
}

#[test]
fn well_known_addresses() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "192.0.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
    ] {
        assert!(is_global(text.parse().unwrap()), "{text}");
    }
    for text in [
        "169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2002:7f00:1::",
        "5f00::1",
        "fe80::1",
        "fec0::1",
    ] {
        assert!(!is_global(text.parse().unwrap()), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn ipv4_is_judged_by_the_registry_and_not_milder_than_std(number in near_edges(REFUSED_V4)) {
        let v4 = Ipv4Addr::from_bits(number as u32);
        prop_assert_eq!(is_global(v4.into()), !is_listed(REFUSED_V4, v4.into()), "{}", v4);
        let std_refuses = v4.is_private()
            || v4.is_loopback()
            || v4.is_link_local()
            || v4.is_broadcast()
            || v4.is_documentation()
            || v4.is_multicast()
            || v4.is_unspecified();
        prop_assert!(!(std_refuses && is_global(v4.into())), "{}", v4);
        for inside in [v4.to_ipv6_mapped(), v4.to_ipv6_compatible()] {
            prop_assert!(!is_global(inside.into()), "{}", inside);
        }
    }

    #[test]
    fn ipv6_is_judged_by_the_registry_and_not_milder_than_std(number in near_edges(REFUSED_V6)) {
        let v6 = Ipv6Addr::from_bits(number);
        prop_assert_eq!(is_global(v6.into()), !is_listed(REFUSED_V6, v6.into()), "{}", v6);
        let std_refuses = v6.is_loopback()
            || v6.is_multicast()
            || v6.is_unspecified()
            || v6.is_unique_local()
            || v6.is_unicast_link_local()
            || v6.to_ipv4().is_some();
        prop_assert!(!(std_refuses && is_global(v6.into())), "{}", v6);
    }

    #[test]
    fn a_network_holds_what_lies_between_its_ends(
        number in any::<u32>(), prefix in 0..=32_u32, other in any::<u32>(),
    ) {
        let size = 1_u64 << (32 - prefix);
        let first = u64::from(number) / size * size;
        let network: Network =
            format!("{}/{prefix}", Ipv4Addr::from_bits(first as u32)).parse().unwrap();
        let is_between = (first..first + size).contains(&u64::from(other));
        prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), is_between);
        prop_assert!(network.contains(Ipv4Addr::from_bits(number).into()));
    }
}

#[test]
fn networks_are_read_strictly() {
    for text in [
        "",
        "10.0.0.0",
        "10.0.0.0/",
        "/8",
        "10.0.0.7/8",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "::1/0",
        "::/129",
        "10/8",
    ] {
        assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
    }
}

#[test]
fn an_operator_opens_private_networks_but_never_the_machine_or_its_link() {
    let everything: Vec<Network> = ["0.0.0.0/0", "::/0"]
        .map(|text| text.parse().unwrap())
        .into();
    for text in ["10.1.2.3", "192.168.0.1", "100.64.0.1", "fd12::1"] {
        assert!(is_internal(&everything, text.parse().unwrap()), "{text}");
        assert!(!is_internal(&[], text.parse().unwrap()), "{text}");
    }
    for text in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
    ] {
        assert!(!is_internal(&everything, text.parse().unwrap()), "{text}");
    }
}
