//! URLs that pass, and every way to write one that must not.

use super::RefusedUrl as Why;
use super::*;
use proptest::prelude::*;

fn production(text: &str) -> Result<Url, Why> {
    check(&OutboundPolicy::default(), text)
}

fn development(text: &str) -> Result<Url, Why> {
    let policy = OutboundPolicy {
        allow_loopback_http: true,
        ..OutboundPolicy::default()
    };
    check(&policy, text)
}

#[test]
fn plain_https_urls_pass() {
    for text in [
        "https://rp.example",
        "https://RP.example/ciba?x=1&y=%20",
        "https://rp.example:443/",
        "https://rp.example:8443/cb",
        "https://xn--bcher-kva.example/",
        "https://127.0.0.1.rp.example/",
        "https://1.2.3.4x.a1/",
    ] {
        assert!(production(text).is_ok(), "{text}: {:?}", production(text));
        assert!(development(text).is_ok(), "{text}");
    }
}

#[test]
fn everything_else_is_refused_everywhere() {
    let long = format!("https://rp.example/{}", "a".repeat(2000));
    let long_label = format!("https://{}.example/", "a".repeat(64));
    let long_name = format!("https://{}example/", "a.".repeat(124));
    let cases: &[(&str, Why)] = &[
        ("", Why::NotAUrl),
        ("rp.example", Why::NotAUrl),
        ("https://", Why::NotAUrl),
        ("https://rp.example:99999/", Why::NotAUrl),
        (&long, Why::TooLong),
        ("http://rp.example/", Why::Scheme),
        ("ftp://rp.example/", Why::Scheme),
        ("unix://rp.example/", Why::Scheme),
        ("file:///etc/passwd", Why::NotAUrl),
        ("data:text/plain,x", Why::NotAUrl),
        ("https://user@rp.example/", Why::UserInfo),
        ("https://user:secret@rp.example/", Why::UserInfo),
        ("https://@rp.example/", Why::UserInfo),
        ("https://rp.example@169.254.169.254/", Why::UserInfo),
        ("https://rp.example#@evil.example/", Why::Fragment),
        ("https://rp.example/#", Why::Fragment),
        ("https://rp.example:0/", Why::Port),
        // one spelling
        ("https:rp.example/", Why::Spelling),
        ("https:/rp.example/", Why::Spelling),
        ("https:///rp.example/", Why::Spelling),
        ("https://rp.example:/", Why::Spelling),
        ("https://rp.example:0443/", Why::Spelling),
        ("https://rp%2Eexample/", Why::Spelling),
        ("https://%72p.example/", Why::Spelling),
        ("https:\\\\rp.example/", Why::Character),
        ("https://rp.example\\@evil.example/", Why::Character),
        ("https://rp.ex\tample/", Why::Character),
        ("https://rp.example/\r\nHost: x", Why::Character),
        (" https://rp.example/", Why::Character),
        ("https://bücher.example/", Why::Character),
        ("https://rp。example/", Why::Character),
        // names that are none
        ("https://rp/", Why::Host),
        ("https://rp.example./", Why::Host),
        ("https://rp..example/", Why::Host),
        ("https://.rp.example/", Why::Host),
        ("https://r_p.example/", Why::Host),
        ("https://rp!.example/", Why::Host),
        ("https://-rp.example/", Why::Host),
        (&long_label, Why::Host),
        (&long_name, Why::Host),
        // addresses, in every notation that some parser reads as one
        ("https://10.0.0.1/", Why::Host),
        ("https://169.254.169.254/latest/meta-data/", Why::Host),
        ("https://8.8.8.8/", Why::Host),
        ("https://8.8.8.8./", Why::Host),
        ("https://0/", Why::Host),
        ("https://134744072/", Why::Host),
        ("https://0x08080808/", Why::Host),
        ("https://010.010.010.010/", Why::Host),
        ("https://0x8.0x8.0x8.0x8/", Why::Host),
        ("https://8.0x80808/", Why::Host),
        ("https://8.8.2056/", Why::Host),
        ("https://%38.8.8.8/", Why::Host),
        ("https://%EF%BC%98.8.8.8/", Why::Host),
        ("https://%E2%91%A7.8.8.8/", Why::Host),
        ("https://8%E3%80%828.8.8/", Why::Host),
        ("https://８.8.8.8/", Why::Character),
        ("https://①②⑦.0.0.1/", Why::Character),
        ("https://127。0。0。1/", Why::Character),
        ("https://127.0.0.1\u{ad}/", Why::Character),
        ("https://1.2.3.4.5/", Why::NotAUrl),
        ("https://1.2.3.256/", Why::NotAUrl),
        ("https://rp.example.1/", Why::NotAUrl),
        ("https://[2606:4700::1111]/", Why::Host),
        ("https://[::ffff:10.0.0.1]/", Why::Host),
        ("https://[::ffff:7f00:1]/", Why::Host),
        ("https://[::]/", Why::Host),
        ("https://[fe80::1%25eth0]/", Why::NotAUrl),
    ];
    for (text, why) in cases {
        assert_eq!(production(text), Err(*why), "{text:?}");
        assert!(development(text).is_err(), "{text:?}");
    }
}

#[test]
fn loopback_is_for_development_only() {
    for text in [
        "http://localhost/cb",
        "http://localhost:4711/cb",
        "http://rp.localhost:4711/",
        "http://127.0.0.1:4711/",
        "http://127.8.9.10:4711/",
        "http://[::1]:4711/",
        "https://localhost:4711/",
        "https://127.0.0.1:4711/",
    ] {
        assert!(development(text).is_ok(), "{text}: {:?}", development(text));
        assert!(production(text).is_err(), "{text}");
    }
    for text in [
        "https://localhost/",
        "https://LOCALHOST/",
        "https://rp.localhost/",
        "https://localhost./",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://127.1/",
    ] {
        assert_eq!(production(text), Err(Why::Host), "{text}");
    }
    for text in [
        "http://rp.example:4711/",
        "http://10.0.0.1/",
        "http://localhost.example/",
        "http://127.1/",
        "http://2130706433/",
        "http://0.0.0.0/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost./",
    ] {
        assert!(development(text).is_err(), "{text}");
    }
}

#[test]
fn ports_are_the_operators_choice() {
    let policy = OutboundPolicy {
        allowed_ports: vec![9443],
        ..OutboundPolicy::default()
    };
    assert!(check(&policy, "https://rp.example:9443/").is_ok());
    for text in ["https://rp.example/", "https://rp.example:8443/"] {
        assert_eq!(check(&policy, text), Err(Why::Port));
    }
    for text in [
        "https://rp.example:22/",
        "https://rp.example:80/",
        "https://rp.example:8080/",
    ] {
        assert_eq!(production(text), Err(Why::Port));
        assert!(development(text).is_ok());
    }
}

proptest! {
    #[test]
    fn what_passes_names_its_host_in_plain_sight(
        text in "https://[a-zA-Z0-9.%:@\\[\\]x_-]{0,24}(/[!-~]{0,8})?|\\PC{0,40}|https:[/\\\\a-z0-9.①。]{0,20}",
    ) {
        if let Ok(url) = production(&text) {
            let Some(Host::Domain(name)) = url.host() else { panic!("{url} has no name") };
            let rest = text.to_ascii_lowercase();
            prop_assert!(rest.starts_with(&format!("https://{name}")), "{}", text);
            prop_assert!(name.parse::<std::net::IpAddr>().is_err());
            prop_assert!(is_full_name(name));
            prop_assert_eq!(production(url.as_str()), Ok(url.clone()));
        }
    }

    #[test]
    fn no_number_is_a_host(parts in prop::collection::vec(any::<u32>(), 1..5), notation in 0..3) {
        let parts: Vec<String> = parts.iter().map(|part| match notation {
            0 => part.to_string(),
            1 => format!("0x{part:x}"),
            _ => format!("0{part:o}"),
        }).collect();
        let host = parts.join(".");
        prop_assert!(production(&format!("https://{host}/")).is_err(), "{}", host);
    }
}
