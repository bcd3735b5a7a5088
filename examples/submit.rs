//! Submits a mail: SMTP with STARTTLS, one reply after another.
//!
//! ```sh
//! cargo run --example submit -- tcp:mail.example.org:587 authority.pem mail.example.org \
//!     me@example.org you@example.com them@example.net < mail.txt
//! ```
//!
//! Arguments:
//!
//! 1. where to connect;
//! 2. the file with the certificates of the server's authorities;
//! 3. the server's name;
//! 4. the sender's address;
//! 5. the recipients' addresses, one or more.
//!
//! The mail comes on standard input, as text in UTF-8 with any line ends. `SUBMIT_LOGIN` in the
//! environment, `user:password`, is used for AUTH PLAIN. Nothing of it is sent before the server
//! has proved its name. The exit status is 0 if the server has taken the mail for all recipients,
//! and 1 if it has taken it for none.
//!
//! The protocol puts each reply into a queue, and closes the queue with the reason of the
//! connection's end. So the dialogue is an `async` function that reads from top to bottom, and the
//! bytes of the network stay callbacks.

use std::iter;
use std::process::ExitCode;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ropewalk::deferred::DeferredQueue;
use ropewalk::endpoints::{client_from_string, connect_protocol};
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::tls::{ClientTls, TrustRoots};
use ropewalk::{Connection, Failure, Result, Transport, bail};

/// Longest line of a reply, in bytes. RFC 5321 allows 512.
const LONGEST_LINE_BYTES: usize = 2000;
/// Longest reply, in bytes. Arbitrary: servers offer some 15 extensions.
const LONGEST_REPLY_BYTES: usize = 20_000;
/// Time for each reply. RFC 5321 grants the server 10 minutes for the reply to the mail.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// The protocol. A reply that no command waits for is kept, and a second one is an error.
pub(crate) struct Smtp {
    lines: LineReceiver,
    reply: String,
    replies: DeferredQueue<String>,
}

impl LineProtocol for Smtp {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
        self.reply += &String::from_utf8_lossy(line);
        if line.len() < 3 || !line[..3].iter().all(u8::is_ascii_digit) || self.reply.len() > LONGEST_REPLY_BYTES {
            bail!("the server sent no reply of SMTP: {:?}", self.reply);
        }
        if line.get(3) == Some(&b'-') {
            self.reply += " / ";
            return Ok(());
        }
        self.replies.put(std::mem::take(&mut self.reply)).context("the server sent too many replies")
    }

    fn line_length_exceeded(&mut self, _transport: &Transport, _start: &[u8]) -> Result<()> {
        bail!("the server sent a line of more than {LONGEST_LINE_BYTES} bytes");
    }
}

impl Protocol for Smtp {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.replies.close(reason.clone());
    }
}

/// The dialogue over one connection.
pub(crate) struct Dialogue {
    smtp: Connection<Smtp>,
    replies: DeferredQueue<String>,
    tls: ClientTls,
}

impl Dialogue {
    pub(crate) async fn connect(endpoint: &dyn ClientEndpoint, tls: ClientTls) -> Result<Self> {
        let replies = DeferredQueue::with_limits(Some(1), None);
        let lines = LineReceiver::new().max_length(LONGEST_LINE_BYTES);
        let smtp = Smtp { lines, reply: String::new(), replies: replies.clone() };
        Ok(Self { smtp: connect_protocol(endpoint, smtp).await?, replies, tls })
    }

    /// Waits for a reply whose code begins with this digit. `what` names the command in errors.
    async fn replied(&self, what: &str, digit: char) -> Result<()> {
        let reply = self.replies.get().add_timeout(REPLY_TIMEOUT, &self.smtp.transport().timers());
        let reply = reply.await.context(format!("no reply to {what}"))?;
        if !reply.starts_with(digit) {
            bail!("the server refuses {what}: {reply}");
        }
        Ok(())
    }

    /// Sends a command, and waits for its reply. `secret` is the part that no error may show.
    async fn ask(&self, command: &str, secret: &str, digit: char) -> Result<()> {
        if !self.replies.is_empty() || command.contains(['\r', '\n']) {
            bail!("{command:?} has two lines, or the server has replied to it already");
        }
        self.smtp.transport().write_sequence([command, secret, "\r\n"]);
        self.replied(command, digit).await
    }

    /// Submits a mail. The first of the addresses is the sender's.
    pub(crate) async fn submit(&self, login: Option<&str>, addresses: &[String], mail: &str) -> Result<()> {
        self.replied("the connection", '2').await?;
        self.ask("EHLO localhost", "", '2').await?;
        self.ask("STARTTLS", "", '2').await?;
        let kept = self.smtp.with(|smtp, _| smtp.reply.len() + smtp.lines.clear_line_buffer().len())?;
        if kept > 0 || !self.replies.is_empty() {
            bail!("the server sent text behind its reply to STARTTLS, and before the handshake");
        }
        self.smtp.transport().start_tls(&self.tls)?;
        self.ask("EHLO localhost", "", '2').await?;
        if let Some(login) = login {
            let login = ["\0", &login.replacen(':', "\0", 1)].concat();
            self.ask("AUTH PLAIN ", &BASE64_STANDARD.encode(login), '2').await?;
        }
        for (address, command) in addresses.iter().zip(iter::once("MAIL FROM").chain(iter::repeat("RCPT TO"))) {
            self.ask(&format!("{command}:<{address}>"), "", '2').await?;
        }
        self.ask("DATA", "", '3').await?;
        self.smtp.transport().write(stuffed(mail).as_bytes());
        self.replied("the mail", '2').await?;
        // The server has the mail: a failure from here on is no reason to send it again.
        self.ask("QUIT", "", '2').await.unwrap_or_else(|failure| eprintln!("the mail is sent. No goodbye: {failure}"));
        Ok(())
    }
}

/// Returns the lines of a mail with CR LF at their ends, a dot before each that begins with one,
/// and the line with a dot that ends the mail.
fn stuffed(mail: &str) -> String {
    let lines = mail.lines().map(|line| [if line.starts_with('.') { "." } else { "" }, line, "\r\n"].concat());
    lines.chain([".\r\n".to_owned()]).collect()
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let mut next = || arguments.next().ok_or("usage: submit ENDPOINT AUTHORITIES.pem SERVER SENDER RECIPIENT ..");
        let (endpoint, authorities, name) = (next()?, next()?, next()?);
        let (addresses, login): (Vec<String>, _) = (arguments.collect(), std::env::var("SUBMIT_LOGIN").ok());
        let tls = ClientTls::builder().trust_roots(TrustRoots::from_pem_file(authorities)?).for_server(&name)?;
        let endpoint = client_from_string(reactor, &endpoint)?;
        let mail = std::io::read_to_string(std::io::stdin()).context("the mail")?;
        Ok(reactor.spawn(async move {
            Dialogue::connect(&endpoint, tls).await?.submit(login.as_deref(), &addresses, &mail).await
        }))
    })
}
