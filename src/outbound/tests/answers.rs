//! What comes back, and answers that never end, end too soon or are none.

use super::*;
use OutboundError as Error;
use std::fmt::Write as _;
use tokio::task::JoinSet;

#[tokio::test]
async fn an_answer_comes_back_with_status_body_and_the_headers_that_count() {
    let act = Act::say(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nCache-Control: max-age=60\r\n\
         cache-control: private\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\nX-Other: 1\r\n\
         Content-Length: 2\r\n\r\n{}",
    );
    let answer = try_against(act).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (403, b"{}".as_slice())
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("max-age=60, private"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("x-other"), None);
}

#[tokio::test]
async fn what_is_sent_is_what_was_given_and_no_cookie_comes_back() {
    let server = Server::plain(Act::say(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
    ))
    .await;
    let client = client(development(), &Arc::default());
    let url = format!("http://127.0.0.1:{}/cb?x=1", server.port());
    for _ in 0..2 {
        let request = OutboundRequest::get(&url).header("authorization", "Bearer t0ken");
        assert_eq!(client.send(request).await.unwrap().status, 200);
    }
    let head = format!(
        "get /cb?x=1 http/1.1\r\nauthorization: bearer t0ken\r\naccept-encoding: identity\r\n\
         user-agent: assent/{}\r\naccept: */*\r\nhost: 127.0.0.1:{}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        server.port(),
    );
    let sorted = |head: &str| {
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for sent in server.heads() {
        assert_eq!(sorted(&sent), sorted(&head));
    }
    assert_eq!(
        server.hits().await,
        1,
        "the second request reuses the connection"
    );
}

#[tokio::test]
async fn a_post_carries_its_body() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let url = format!("http://127.0.0.1:{}/", server.port());
    let request = OutboundRequest::post(&url, "application/json", b"{}".into());
    let answer = client(development(), &Arc::default())
        .send(request)
        .await
        .unwrap();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let head = &server.heads()[0];
    assert!(head.starts_with("post / http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("content-length: 2\r\n"), "{head}");
}

#[tokio::test]
async fn old_and_odd_answers_are_answers() {
    for (text, status, body) in [
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 200\r\nConnection: close\r\n\r\nx", 200, "x"),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            204,
            "",
        ),
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
            500,
            "oops",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
            "ok",
        ),
    ] {
        let answer = try_against(Act::close_after(text)).await.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (status, body.as_bytes()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_is_no_answer_is_broken() {
    for text in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/0.9\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/2 200\r\n\r\n",
        "<html>hello</html>",
    ] {
        let error = try_against(Act::close_after(text)).await.unwrap_err();
        assert!(matches!(error, Error::Broken(_)), "{text:?}: {error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_torn_connection_is_broken() {
    for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"] {
        let error = try_against(Act::Reset(text.to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::Broken(_)), "{error:?}");
    }
}

#[tokio::test]
async fn sixty_four_kibibytes_and_no_more() {
    let full = "x".repeat(LIMITS.body);
    let [length, more] = [full.len(), full.len() + 1];
    for head in [
        format!("Content-Length: {length}\r\n"),
        "Connection: close\r\n".to_owned(),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n{full}");
        assert_eq!(
            try_against(Act::close_after(text))
                .await
                .unwrap()
                .body
                .len(),
            length
        );
    }
    for text in [
        // A length alone is enough; nothing is read.
        format!("HTTP/1.1 200 OK\r\nContent-Length: {more}\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{full}x"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{more:x}\r\n{full}x\r\n0\r\n\r\n"
        ),
    ] {
        let error = try_against(Act::SayAndClose(text.into()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn an_endless_body_ends_at_the_limit() {
    let piece = "x".repeat(8192);
    for (head, again) in [
        ("HTTP/1.1 200 OK\r\n\r\n", piece.clone()),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("2000\r\n{piece}\r\n"),
        ),
    ] {
        let error = try_against(Act::repeat(head, &again, 0)).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_trickle_ends_by_time_wherever_it_is() {
    let mut tries = JoinSet::new();
    for (first, again) in [
        ("", "H"),
        ("HTTP/1.1 200 OK\r\n", "a: b\r\n"),
        ("HTTP/1.1 200 OK\r\nX-Long: ", "x"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", "x"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1\r\nx\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            "x",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            "t: x\r\n",
        ),
    ] {
        tries.spawn(async move { (first, try_against(Act::repeat(first, again, 20)).await) });
    }
    for (first, result) in tries.join_all().await {
        let error = result.unwrap_err();
        // "HHH…" is found out to be no HTTP before the time is over.
        let is_no_http = first.is_empty() && matches!(error, Error::Broken(_));
        assert!(
            matches!(error, Error::Timeout(_)) || is_no_http,
            "{first:?}: {error:?}"
        );
        assert!(error.is_retryable());
    }
    let error = try_against(Act::Hang).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
}

#[tokio::test]
async fn floods_before_and_behind_the_body_end_too() {
    let mut headers = String::new();
    for number in 0..50 {
        write!(headers, "x-{number}: {}\r\n", "y".repeat(100)).unwrap();
    }
    for (first, again) in [
        ("HTTP/1.1 200 OK\r\n", headers.as_str()),
        ("HTTP/1.1 200 OK\r\nX-Long: ", headers.as_str()),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            headers.as_str(),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            headers.as_str(),
        ),
    ] {
        let error = try_against(Act::repeat(first, again, 0)).await.unwrap_err();
        assert!(
            matches!(error, Error::Broken(_) | Error::Timeout(_)),
            "{first:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn compressed_bytes_stay_as_they_are() {
    // The first bytes of a gzip member of any size; unpacking them would fail or grow.
    let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".repeat(100);
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let answer = try_against(Act::close_after([head.as_bytes(), &packed].concat())).await;
    assert_eq!(answer.unwrap().body, packed);
}

#[tokio::test]
async fn a_body_that_does_not_count_is_not_waited_for() {
    for (first, again) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(8192)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
            "x".repeat(8192),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "not hex".to_owned(),
        ),
    ] {
        let server = Server::plain(Act::repeat(first, &again, 0)).await;
        let url = format!("http://127.0.0.1:{}/", server.port());
        let request = OutboundRequest::get(url).ignoring_the_answers_body();
        let answer = client(development(), &Arc::default())
            .send(request)
            .await
            .unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_no_connection() {
    let port = Server::plain(Act::Hang).await.port();
    let error = get(
        &client(development(), &Arc::default()),
        &format!("http://127.0.0.1:{port}/"),
    )
    .await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    assert!(error.is_retryable());
}
