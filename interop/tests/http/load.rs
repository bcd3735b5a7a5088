//! Many requests at once: wrk, h2load, and a crowd of curls of which some are slow.

use std::process::Command;

use super::clients::*;

/// wrk on 32 connections of HTTP/1.1, for a second: no answer is lost, and each is 2xx.
#[test]
fn wrk_gets_every_answer() {
    if !has("wrk") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        for path in ["/", "/below/small.txt"] {
            let output = server.run(Command::new("wrk").args(["-t1", "-c32", "-d1s", &server.url(path)]));
            let text = String::from_utf8_lossy(&output.stdout);
            let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
            // Errors of sockets and other answers would each have a line of their own.
            assert!(requests.is_some_and(|requests| requests > 0), "{text}");
            assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        }
        server.run_until(|| server.http.open_connections() == 0);
    });
}

/// h2load on connections of HTTP/2, with many streams each: all answers are 2xx.
#[test]
fn h2load_gets_every_answer() {
    if !has("h2load") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        for (url, requests, clients, streams) in [
            (server.url("/"), "4000", "16", "10"),
            (server.secure_url("/below/small.txt"), "2000", "8", "10"),
            (server.url("/large"), "20", "4", "5"),
        ] {
            let output = server.run(Command::new("h2load").args(["-n", requests, "-c", clients, "-m", streams, &url]));
            let text = String::from_utf8_lossy(&output.stdout);
            let expected = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
            assert!(text.contains(&expected), "{text}");
            let done = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
            assert!(text.contains(&done), "{text}");
        }
        server.end_well();
    });
}

/// Clients at a limited rate hold up none of the others, and get every byte themselves.
#[test]
fn slow_clients_hold_up_none() {
    const SLOW: usize = 1_500_000;
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        server.site.put("served/slow", &pattern(SLOW));
        let start = |number: usize, slow: &[&str], (option, _, is_secure): (&str, &str, bool), path: &str| {
            let url = if is_secure { server.secure_url(path) } else { server.url(path) };
            let body = server.site.at(&format!("body-{number}"));
            let child = spawn(curl().args(slow).arg(option).arg("--output").arg(&body).arg(url));
            (child, body)
        };
        let slow: Vec<_> =
            (0..10).map(|number| start(number, &["--limit-rate", "1M"], VERSIONS[number % 5], "/slow")).collect();
        let fast = (10..20).map(|number| start(number, &[], VERSIONS[number % 5], "/large"));
        for (expected, clients) in [(large().to_vec(), fast.collect()), (pattern(SLOW), slow)] {
            for (mut child, body) in clients {
                server.run_until(|| child.try_wait().unwrap().is_some());
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert!(std::fs::read(&body).unwrap() == expected, "{body:?}");
            }
        }
        server.end_well();
    });
}
