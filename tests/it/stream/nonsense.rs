//! What no phone should send.

use super::ends::until_held;
use super::line::{Line, PATH};
use crate::support::{Backend, TestApp};
use assent::phone::Phone;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

async fn scene() -> (TestApp, crate::support::RelyingParty, Phone) {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    (app, bank, phone)
}

fn proof(phone: &Phone, change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = phone.proof_claims("GET", PATH, b"");
    change(&mut claims);
    json!({ "proof": phone.sign("device-proof+jwt", &claims) })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_proof_for_this_stream_opens_it() {
    let (app, _, phone) = scene().await;
    let good = proof(&phone, |_| {});
    let once = good["proof"].as_str().unwrap().to_owned();
    for (name, message) in [
        ("nothing", json!({})),
        ("null", Value::Null),
        ("a list", json!([once])),
        ("a list in the member", json!({ "proof": [once] })),
        ("one member more", json!({ "proof": once, "more": 1 })),
        ("no statement", json!({ "proof": "x" })),
        (
            "another path",
            proof(&phone, |claims| {
                claims["htu"] = format!("{}/device/v1/requests", app.url).into();
            }),
        ),
        (
            "with a query",
            proof(&phone, |claims| {
                claims["htu"] = format!("{}{PATH}?x", app.url).into();
            }),
        ),
        (
            "another method",
            proof(&phone, |claims| claims["htm"] = "POST".into()),
        ),
        (
            "another body",
            proof(&phone, |claims| claims["bh"] = "x".into()),
        ),
        (
            "another issuer",
            proof(&phone, |claims| claims["aud"] = "https://x.example".into()),
        ),
        (
            "not a device",
            proof(&phone, |claims| claims["iss"] = "x".into()),
        ),
    ] {
        let mut line = Line::open(&app).await;
        line.say(message).await;
        let problem = line.ends_with("invalid_proof", 1008).await;
        assert_eq!(problem["status"], 401, "{name}");
    }
    // A member that stands twice, and what is no JSON at all.
    for text in [
        format!(r#"{{"proof":"x","proof":"{once}"}}"#),
        once.clone(),
        String::new(),
    ] {
        let mut line = Line::open(&app).await;
        line.send(Message::text(text)).await;
        line.ends_with("invalid_proof", 1008).await;
    }
    // None of these has used up the good one; now it is used.
    let mut line = Line::open(&app).await;
    line.say(good.clone()).await;
    assert_eq!(line.next().await["type"], "ready");
    let mut again = Line::open(&app).await;
    again.say(good).await;
    again.ends_with("proof_replayed", 1008).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_with_a_wrong_clock_is_given_a_nonce() {
    let (app, _, phone) = scene().await;
    let mut line = Line::open(&app).await;
    line.say(proof(&phone, |claims| claims["iat"] = 0.into()))
        .await;
    let problem = line.ends_with("clock_skew", 1008).await;
    let mut line = Line::open(&app).await;
    line.say(proof(&phone, |claims| {
        claims["iat"] = 0.into();
        claims["nonce"] = problem["nonce"].clone();
    }))
    .await;
    assert_eq!(line.next().await["type"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_for_confirmation_hears_nothing() {
    let confirm = vec![("devices.confirm", "true".into())];
    let app = TestApp::with(Backend::sqlite(), confirm).await;
    let (_, _, phone) = app.cast().await;
    let mut line = Line::open(&app).await;
    line.prove(&phone, PATH).await;
    line.ends_with("device_unconfirmed", 1008).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_another_kind_or_too_large() {
    let (app, _, phone) = scene().await;
    let mut line = Line::open(&app).await;
    let bytes = proof(&phone, |_| {}).to_string().into_bytes();
    line.send(Message::binary(bytes)).await;
    line.ends_with("message_not_text", 1008).await;

    let mut line = Line::open(&app).await;
    line.send(Message::text("x".repeat(16 * 1024 + 1))).await;
    line.ends_with("message_too_large", 1009).await;

    // In pieces, each of them small.
    let piece = |code, last| {
        Message::Frame(Frame::message(
            vec![b'x'; 6 * 1024],
            OpCode::Data(code),
            last,
        ))
    };
    let mut line = Line::open(&app).await;
    line.send(piece(Data::Text, false)).await;
    line.send(piece(Data::Continue, false)).await;
    line.send(piece(Data::Continue, false)).await;
    line.ends_with("message_too_large", 1009).await;

    // A phone whose library cuts messages up is understood.
    let text = proof(&phone, |_| {}).to_string();
    let (head, tail) = text.split_at(100);
    let piece = |text: &str, code, last| {
        Message::Frame(Frame::message(
            text.as_bytes().to_vec(),
            OpCode::Data(code),
            last,
        ))
    };
    let mut line = Line::open(&app).await;
    line.send(piece(head, Data::Text, false)).await;
    line.send(piece(tail, Data::Continue, true)).await;
    assert_eq!(line.next().await["type"], "ready");
}

/// After the proof the phone has nothing to say, and may say it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_phone_says_later_is_not_listened_to() {
    let (app, bank, phone) = scene().await;
    let (mut line, _) = Line::of(&app, &phone).await;
    line.say(json!({ "type": "request" })).await;
    line.say(json!({ "proof": "x" })).await;
    line.send(Message::binary("x")).await;
    line.send(Message::Ping("x".into())).await;
    bank.start("alice").await;
    assert_eq!(line.next().await["type"], "request");
    line.send(Message::text("x".repeat(17 * 1024))).await;
    line.ends_with("message_too_large", 1009).await;
}

/// A frame that claims to be larger than any memory is not collected until it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_end_is_cut() {
    let (app, _, phone) = scene().await;
    for proven in [false, true] {
        let mut line = if proven {
            Line::of(&app, &phone).await.0
        } else {
            Line::open(&app).await
        };
        let huge = [&[0x81, 0xff][..], &[0x7f; 8], &[0; 4]].concat();
        line.0.get_mut().write_all(&huge).await.unwrap();
        // More than is ever kept; whether all of it is still taken does not matter.
        let _ = line.0.get_mut().write_all(&[b'x'; 512 * 1024]).await;
        line.ends_with("message_too_large", 1009).await;
    }
    // Many small ones are no large one.
    let (mut line, _) = Line::of(&app, &phone).await;
    for _ in 0..90 {
        line.send(Message::text("x".repeat(8 * 1024))).await;
    }
    line.send(Message::Close(None)).await;
    assert_eq!(line.next().await, json!({ "closed": null }));
}

/// What it is answered fills no buffer, before the proof and after it; nor does what it is told later.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_talks_and_does_not_read_is_cut() {
    let (app, _, phone) = scene().await;
    let (mut line, _) = Line::of(&app, &phone).await;
    for _ in 0..100 {
        line.send(Message::text("hello?")).await;
    }
    line.ends_with("too_many_messages", 1008).await;
    for proven in [false, true] {
        let mut line = if proven {
            Line::of(&app, &phone).await.0
        } else {
            Line::open(&app).await
        };
        // A masked ping with as much in it as a ping can hold, and far more of them than can be answered.
        let ping = [&[0x89, 0xfd][..], &[0; 4 + 125]].concat();
        let _ = line.0.get_mut().write_all(&ping.repeat(100_000)).await;
        until_held(&app, 0).await;
    }
    // One that says little enough, and pongs that answer nothing.
    let (mut line, _) = Line::of(&app, &phone).await;
    for _ in 0..4 {
        let pong = [&[0x8a, 0xfd][..], &[0; 4 + 125]].concat();
        line.0.get_mut().write_all(&pong).await.unwrap();
        app.advance(20);
        // The ping, or in the end the goodbye.
        let mut frame = [0; 2 + 22];
        line.0.get_mut().read_exact(&mut frame).await.unwrap();
    }
    until_held(&app, 0).await;
}

/// Bytes that are no frames, before the proof and after it.
#[tokio::test(flavor = "multi_thread")]
async fn rubbish_closes_the_stream() {
    let (app, bank, phone) = scene().await;
    let long_ping = [&[0x89, 0xfe, 0x01, 0x00][..], &[0; 4 + 256]].concat();
    let rubbish: [(&str, &[u8]); 7] = [
        ("a frame without a mask", &[0x81, 0x01, b'x']),
        ("a kind that there is not", &[0x83, 0x80, 0, 0, 0, 0]),
        ("a ping in pieces", &[0x09, 0x80, 0, 0, 0, 0]),
        ("a ping too long", &long_ping),
        ("a piece of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
        ("text that is none", &[0x81, 0x81, 0, 0, 0, 0, 0xff]),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    ];
    for (name, bytes) in rubbish {
        for proven in [false, true] {
            let mut line = if proven {
                Line::of(&app, &phone).await.0
            } else {
                Line::open(&app).await
            };
            line.0.get_mut().write_all(bytes).await.unwrap();
            let end = line.next().await;
            assert_eq!(end, json!({ "closed": 1002 }), "{name}, {proven}");
            if name == "HTTP" {
                line.falls_silent().await;
            }
        }
    }
    // The server is well.
    bank.start("alice").await;
    let (mut line, ready) = Line::of(&app, &phone).await;
    assert_eq!(ready["requests"].as_array().unwrap().len(), 1);
    let goodbye = CloseFrame {
        code: 1000.into(),
        reason: "goodbye".into(),
    };
    line.send(Message::Close(Some(goodbye))).await;
    line.closes_with(1000).await;
}
