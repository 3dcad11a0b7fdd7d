//! JSON bodies of the device API, in every shape they must not have.

use serde_json::{Value, json};

/// What is no label and no version.
pub const BAD_TEXTS: &[&str] = &[
    "",
    "\0",
    "a\0b",
    "a\nb",
    "a\tb",
    "\r",
    "\u{7f}",
    "\u{85}",
    "\u{1b}[2J",
    // Turns what follows around, hides, joins, or ends the line.
    "my\u{202e}enohp",
    "\u{2066}mine",
    "\u{200e}mine",
    "mi\u{200b}ne",
    "mine\u{feff}",
    "mine\u{2028}yours",
    "\u{3164}",
    "\u{e000}",
    "mine\u{a0}too",
];

#[rustfmt::skip]
pub const BAD_PLATFORMS: &[&str] = &[
    "null", "7", "[]", "{}", r#""""#, r#""None""#, r#""none ""#, r#""apple""#, r#"["none"]"#, r#"{"none":null}"#,
];

pub fn bad_push_targets() -> Vec<(&'static str, String)> {
    let long = "t".repeat(4097);
    let mut bad = vec![("none", "token".to_owned()), ("none", String::new())];
    for target in ["", "a\0b", "a\nb", "\u{7f}", &long] {
        bad.push(("apns", target.to_owned()));
        bad.push(("webpush", target.to_owned()));
    }
    bad
}

/// Content types that are not `application/json`, once.
#[rustfmt::skip]
pub const NOT_JSON: &[&[&str]] = &[
    &[], &[""], &["text/plain"], &["application/jose"], &["application/json5"], &["application/problem+json"],
    &["text/json"], &["application/json", "application/json"], &["application/json, text/plain"],
    &["application/x-www-form-urlencoded"],
];

/// Bodies that are almost `good`, whose members our code lists in this order.
pub fn bad_json(good: &Value, members: &[&str]) -> Vec<(String, Vec<u8>)> {
    let text = good.to_string();
    let open = text.strip_suffix('}').unwrap();
    let values: Vec<&Value> = members.iter().map(|name| &good[*name]).collect();
    #[rustfmt::skip]
    let mut bad: Vec<(String, Vec<u8>)> = vec![
        ("nothing".into(), vec![]),
        ("a space".into(), b" ".to_vec()),
        ("null".into(), b"null".to_vec()),
        ("a number".into(), b"1".to_vec()),
        ("an empty array".into(), b"[]".to_vec()),
        ("the values alone".into(), json!(values).to_string().into()),
        ("in an array".into(), format!("[{text}]").into()),
        ("in a string".into(), json!(text).to_string().into()),
        ("cut".into(), open.into()),
        ("twice".into(), format!("{text}{text}").into()),
        ("more behind".into(), format!("{text} x").into()),
        ("a NUL behind".into(), format!("{text}\0").into()),
        ("a byte order mark".into(), format!("\u{feff}{text}").into()),
        ("a comment".into(), format!("/**/{text}").into()),
        ("UTF-16".into(), text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a form".into(), b"code=x&label=y".to_vec()),
        ("a comma too many".into(), format!("{open},}}").into()),
        ("an unknown member".into(), format!(r#"{open},"admin":true}}"#).into()),
        ("a member without name".into(), format!(r#"{open},"":1}}"#).into()),
        ("not UTF-8".into(), [open.as_bytes(), b",\"x\":\"\xff\"}"].concat()),
        ("deep".into(), b"{\"x\":".repeat(20_000)),
        ("deep arrays".into(), b"[".repeat(20_000)),
    ];
    for name in members {
        let value = &good[*name];
        bad.push((
            format!("{name} twice"),
            format!(r#"{open},"{name}":{value}}}"#).into(),
        ));
        for other in [json!(7), json!([value]), json!({ "x": value }), json!(true)] {
            let mut changed = good.clone();
            changed[*name] = other;
            bad.push((
                format!("{name} = {:.40}", changed[*name].to_string()),
                changed.to_string().into(),
            ));
        }
        let upper = text.replace(
            &format!(r#""{name}":"#),
            &format!(r#""{}":"#, name.to_uppercase()),
        );
        bad.push((format!("{name} in capitals"), upper.into()));
        let surrogate = format!(r#""{name}":"\ud800""#);
        let odd = text.replace(&format!(r#""{name}":{value}"#), &surrogate);
        bad.push((format!("{name} a lone surrogate"), odd.into()));
    }
    bad
}
