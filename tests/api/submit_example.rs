//! The example `submit`, run as a user would, against aiosmtpd and against servers that misbehave.
//! Its time limit is tested on virtual time.

#[path = "../../examples/submit.rs"]
#[allow(dead_code, reason = "its main is run as a program")]
mod submit;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;

use crate::common::certificates::{Authority, Folder};
use crate::common::programs::python_with;
use crate::common::*;
use crate::running::{Running, executable};
use crate::twisted_programs::{has_twisted, twisted_program};
use ropewalk::deferred::TimedOut;
use ropewalk::endpoints::client_from_string;
use ropewalk::testing::{MemoryReactor, assert_no_result, failure_result_of};
use submit::{Dialogue, REPLY_TIMEOUT};

/// A server that takes mail over TLS alone, and prints each one. Arguments: the certificate, its
/// key, and `login` if a login is required.
const SERVER: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 there is no such box"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        print("mail", envelope.mail_from, *envelope.rcpt_tos, envelope.original_content.hex(), flush=True)
        return "250 taken"

def authenticator(server, session, envelope, mechanism, login):
    return AuthResult(success=(login.login, login.password) == (b"me", b"se:cret"), handled=False)

async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    needs_login = sys.argv[3:] == ["login"]
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Handler(), hostname="localhost", require_starttls=True, tls_context=context,
                     authenticator=authenticator, auth_required=needs_login), "127.0.0.1", 0)
    print("listening on %s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()

asyncio.run(main())
"#;

/// The files of an authority and of a server that it certifies.
struct Files {
    folder: Folder,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let issued = authority.issue(&["localhost"]);
        folder.put("ca.pem", &authority.pem());
        folder.put("other.pem", &Authority::new().pem());
        folder.put("server.pem", &issued.certificate);
        folder.put("server.key", &issued.key);
        Self { folder }
    }

    /// Starts aiosmtpd, if there is a Python with it.
    fn serve(&self, more: &[&str]) -> Option<(Running, SocketAddr)> {
        let mut command = Command::new(python_with("aiosmtpd")?);
        command.args(["-W", "ignore", "-c", SERVER]);
        command.args([self.folder.at("server.pem"), self.folder.at("server.key")]).args(more);
        let server = Running::of(command, Stdio::null());
        let line = server.line();
        let address = line.strip_prefix("listening on ").expect("it says where").parse().expect("an address");
        Some((server, address))
    }

    /// Submits a mail, from `me@example.org` to these addresses. Returns the complaint, which is
    /// empty if the mail was sent.
    fn submit(
        &self,
        command: &mut Command,
        trusted: [&str; 2],
        to: SocketAddr,
        recipients: &[&str],
        mail: &str,
    ) -> String {
        let [authorities, name] = trusted;
        command.arg(format!("tcp:{to}")).args([&*self.folder.at(authorities), name, "me@example.org"]).args(recipients);
        let input = Stdio::from(File::open(self.folder.put("mail", mail)).expect("a file"));
        let (status, lines, errors) = Running::of(std::mem::replace(command, Command::new("")), input).end();
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(status.code(), Some(i32::from(!errors.is_empty())), "{errors}");
        errors
    }
}

fn program() -> Command {
    Command::new(executable("submit"))
}

const TRUSTED: [&str; 2] = ["ca.pem", "localhost"];

/// The envelope and the bytes of a mail that the server prints.
#[track_caller]
fn printed(server: &Running) -> (String, Vec<u8>) {
    let line = server.line();
    let (envelope, digits) = line.rsplit_once(' ').expect("words");
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("digits");
    (envelope.to_owned(), digits.as_bytes().chunks(2).map(byte).collect())
}

/// A mail arrives byte for byte, for all recipients: lines that begin with dots, empty and long
/// ones, and letters beyond ASCII. Line ends become CR LF.
#[test]
fn a_mail_arrives_byte_for_byte() {
    own_process!();
    let files = Files::new();
    let Some((server, address)) = files.serve(&[]) else { return };
    let long = "x".repeat(900);
    let text = format!("Subject: gr\u{fc}n\n\n.\n..\n.dot\n\n{long}\nthe end\n");
    let expected = text.replace('\n', "\r\n");
    for sent in [text.as_str(), text.trim_end(), expected.as_str()] {
        let recipients = ["you@example.com", "them@example.net"];
        assert_eq!(files.submit(&mut program(), TRUSTED, address, &recipients, sent), "");
        let (envelope, bytes) = printed(&server);
        assert_eq!(envelope, "mail me@example.org you@example.com them@example.net");
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}

/// A server that asks for a login gets it. A wrong one is refused, and no output has the password.
#[test]
fn a_login_is_sent() {
    own_process!();
    let files = Files::new();
    let Some((server, address)) = files.serve(&["login"]) else { return };
    let with = |login: &str| {
        let mut command = program();
        command.env("SUBMIT_LOGIN", login);
        files.submit(&mut command, TRUSTED, address, &["you@example.com"], "hello")
    };
    assert_eq!(with("me:se:cret"), "");
    assert_eq!(printed(&server).1, b"hello\r\n");
    let refused = with("me:wrong");
    assert!(refused.starts_with("Error: the server refuses AUTH PLAIN : 535"), "{refused}");
    let missing = files.submit(&mut program(), TRUSTED, address, &["you@example.com"], "hello");
    assert!(missing.starts_with("Error: the server refuses MAIL FROM:<me@example.org>: 530"), "{missing}");
}

/// A wrong name, a wrong authority and a refused recipient are errors that say so, and no mail is
/// taken.
#[test]
fn a_refusal_says_why() {
    own_process!();
    let files = Files::new();
    let Some((server, address)) = files.serve(&[]) else { return };
    let submit = |trusted, to: &str| files.submit(&mut program(), trusted, address, &["you@example.com", to], "hello");
    let name = submit(["ca.pem", "mail.example.org"], "them@example.net");
    assert!(name.contains("mail.example.org") && name.contains("localhost"), "{name}");
    let authority = submit(["other.pem", "localhost"], "them@example.net");
    assert!(authority.contains("authority") || authority.contains("issuer"), "{authority}");
    let recipient = submit(TRUSTED, "nobody@example.net");
    assert_eq!(recipient, "Error: the server refuses RCPT TO:<nobody@example.net>: 550 there is no such box\n");
    let two_lines = submit(TRUSTED, "a@example.org>\r\nRSET");
    assert!(two_lines.contains("has two lines"), "{two_lines}");
    // The next mail is the first one that the server prints.
    assert_eq!(submit(TRUSTED, "them@example.net"), "");
    assert_eq!(printed(&server).1, b"hello\r\n");
}

/// The program on Twisted does the same.
#[test]
fn twisteds_program_sends_mail_too() {
    own_process!();
    if !has_twisted("service_identity, twisted.internet.ssl") {
        return;
    }
    let files = Files::new();
    let Some((server, address)) = files.serve(&["login"]) else { return };
    let mut command = twisted_program("submit");
    command.env("SUBMIT_LOGIN", "me:se:cret");
    assert_eq!(files.submit(&mut command, TRUSTED, address, &["you@example.com", "them@example.net"], ".a\n\nb"), "");
    let (envelope, bytes) = printed(&server);
    assert_eq!(envelope, "mail me@example.org you@example.com them@example.net");
    assert_eq!(bytes, b".a\r\n\r\nb\r\n");
    let submit = |trusted, address| {
        files.submit(&mut twisted_program("submit"), trusted, address, &["you@example.com"], "hello")
    };
    let name = submit(["ca.pem", "mail.example.org"], address);
    assert!(name.contains("VerificationError"), "{name}");
    let slipped = [&b"220 hi\r\n"[..], b"250 STARTTLS\r\n", b"220 go ahead\r\n250 slipped in\r\n"];
    let slipped = submit(TRUSTED, misbehaving(slipped.map(<[u8]>::to_vec).to_vec()));
    assert!(slipped.contains("the server sent text behind its reply to STARTTLS"), "{slipped}");
}

/// A server that gives these answers: the greeting, and one for each line.
fn misbehaving(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).split(b'\n');
        for (place, answer) in answers.iter().enumerate() {
            if place > 0 && lines.next().is_none() {
                return;
            }
            // The client may have gone.
            let _ = (&stream).write_all(answer);
        }
        // Its end comes behind the answers, when the client has gone.
        lines.for_each(drop);
    });
    address
}

/// Text that is slipped in before TLS is refused, whole or in part, and so is everything that is no
/// reply, or too long.
#[test]
fn a_server_that_misbehaves_is_refused() {
    own_process!();
    let files = Files::new();
    let starttls = |injected: &[u8]| {
        let agreed = [&b"220 go ahead\r\n"[..], injected].concat();
        vec![b"220-a\r\n220 greeting\r\n".to_vec(), b"250-localhost\r\n250 STARTTLS\r\n".to_vec(), agreed]
    };
    let slipped = "the server sent text behind its reply to STARTTLS, and before the handshake";
    let many = [b"250-x\r\n".repeat(3000), b"250 x\r\n".to_vec()].concat();
    let cases: [(Vec<Vec<u8>>, &str); 10] = [
        (starttls(b"250 slipped in\r\n"), slipped),
        (starttls(b"250-slipped"), slipped),
        (starttls(b"250-slipped\r\n"), slipped),
        (starttls(b"250 a\r\n250 b\r\n"), "the server sent too many replies: the queue is full"),
        (
            vec![b"220 hi\r\n".to_vec(), b"250 x\r\n".to_vec(), b"454 no TLS now\r\n".to_vec()],
            "refuses STARTTLS: 454 no TLS now",
        ),
        (vec![b"421-busy\r\n421 bye\r\n".to_vec()], "refuses the connection: 421-busy / 421 bye"),
        (vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()], "the server sent no reply of SMTP: \"HTTP/1.1 400"),
        (vec![b"22\r\n".to_vec()], "the server sent no reply of SMTP: \"22\""),
        (vec![b"220 hi\r\n".to_vec(), vec![b'2'; 2003]], "the server sent a line of more than 2000 bytes"),
        (vec![b"220 hi\r\n".to_vec(), many], "the server sent no reply of SMTP: \"250-x / 250-x"),
    ];
    for (answers, expected) in cases {
        let said = files.submit(&mut program(), TRUSTED, misbehaving(answers), &["you@example.com"], "hello");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// A server that does not reply costs ten minutes, and the error names the reply.
#[test]
fn a_reply_has_a_time_limit() {
    let memory = MemoryReactor::new();
    let endpoint = client_from_string(memory.reactor(), "tcp:198.51.100.7:587").unwrap();
    let tls = Authority::new().client("localhost");
    let mut submitted = memory.reactor().spawn(async move {
        let addresses = ["me@example.org".to_owned(), "you@example.com".to_owned()];
        Dialogue::connect(&endpoint, tls).await?.submit(None, &addresses, "hello").await
    });
    let server = memory.attempts().remove(0).accept().expect("it was not given up");
    memory.settle().unwrap();
    server.write(b"220 hi\r\n").unwrap();
    memory.advance(REPLY_TIMEOUT / 2).unwrap();
    assert_eq!(server.read(), b"EHLO localhost\r\n");
    assert_no_result(&mut submitted);
    memory.advance(REPLY_TIMEOUT).unwrap();
    let failure = failure_result_of(&mut submitted);
    assert!(failure.check::<TimedOut>().is_some(), "{failure}");
    assert!(failure.to_string().starts_with("no reply to EHLO localhost: "), "{failure}");
}
