//! `examples/submit.rs` on tokio: the same program, so that their lines can be compared.
//!
//! Arguments: where to connect (`mail.example.org:587`), the file with the authorities'
//! certificates, the server's name, the sender, the recipients.

use std::env;
use std::error::Error;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::StreamExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{FramedRead, LinesCodec};

const LONGEST_LINE_BYTES: usize = 2000;
const LONGEST_REPLY_BYTES: usize = 20_000;
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// Time for each reply. RFC 5321 grants the server 10 minutes for the reply to the mail.
const REPLY_LIMIT: Duration = Duration::from_secs(600);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The dialogue over one connection.
struct Dialogue<S> {
    lines: FramedRead<S, LinesCodec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    fn new(stream: S) -> Self {
        Self { lines: FramedRead::new(stream, LinesCodec::new_with_max_length(LONGEST_LINE_BYTES)) }
    }

    /// Reads a reply, whose lines are joined.
    async fn reply(&mut self) -> Result<String> {
        let mut reply = String::new();
        loop {
            let line = self.lines.next().await.ok_or("the connection was closed")??;
            reply += &line;
            if line.len() < 3
                || !line.bytes().take(3).all(|byte| byte.is_ascii_digit())
                || reply.len() > LONGEST_REPLY_BYTES
            {
                return Err(format!("the server sent no reply of SMTP: {reply:?}").into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
            reply += " / ";
        }
    }

    /// Waits for a reply whose code begins with this digit. `what` names the command in errors.
    async fn replied(&mut self, what: &str, digit: char) -> Result<()> {
        let reply = timeout(REPLY_LIMIT, self.reply()).await.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let reply = reply.map_err(|error| format!("no reply to {what}: {error}"))?;
        if !reply.starts_with(digit) {
            return Err(format!("the server refuses {what}: {reply}").into());
        }
        Ok(())
    }

    /// Sends a command, and waits for its reply. `secret` is the part that no error may show.
    async fn ask(&mut self, command: &str, secret: &str, digit: char) -> Result<()> {
        if !self.lines.read_buffer().is_empty() || command.contains(['\r', '\n']) {
            return Err(format!("{command:?} has two lines, or the server has replied to it already").into());
        }
        self.send(&[command, secret, "\r\n"].concat()).await?;
        self.replied(command, digit).await
    }

    /// Submits a mail. The first of the addresses is the sender's.
    async fn submit(&mut self, login: Option<&str>, addresses: &[String], mail: &str) -> Result<()> {
        self.ask("EHLO localhost", "", '2').await?;
        if let Some(login) = login {
            let login = ["\0", &login.replacen(':', "\0", 1)].concat();
            self.ask("AUTH PLAIN ", &BASE64_STANDARD.encode(login), '2').await?;
        }
        for (address, command) in addresses.iter().zip(iter::once("MAIL FROM").chain(iter::repeat("RCPT TO"))) {
            self.ask(&format!("{command}:<{address}>"), "", '2').await?;
        }
        self.ask("DATA", "", '3').await?;
        self.send(&stuffed(mail)).await?;
        self.replied("the mail", '2').await?;
        // The server has the mail: a failure from here on is no reason to send it again.
        if let Err(error) = self.ask("QUIT", "", '2').await {
            eprintln!("the mail is sent. No goodbye: {error}");
        }
        Ok(())
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        let stream = self.lines.get_mut();
        timeout(REPLY_LIMIT, async {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await
        })
        .await?
    }
}

/// Connects to a server, and secures the connection.
async fn connect(
    address: &str,
    tls: TlsConnector,
    name: ServerName<'static>,
) -> Result<Dialogue<TlsStream<TcpStream>>> {
    let mut plain = Dialogue::new(timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??);
    plain.replied("the connection", '2').await?;
    plain.ask("EHLO localhost", "", '2').await?;
    plain.ask("STARTTLS", "", '2').await?;
    let plain = plain.lines.into_parts();
    if !plain.read_buf.is_empty() {
        return Err("the server sent text behind its reply to STARTTLS, and before the handshake".into());
    }
    Ok(Dialogue::new(timeout(HANDSHAKE_LIMIT, tls.connect(name, plain.io)).await??))
}

/// Returns the lines of a mail with CR LF at their ends, a dot before each that begins with one,
/// and the line with a dot that ends the mail.
fn stuffed(mail: &str) -> String {
    let lines = mail.lines().map(|line| [if line.starts_with('.') { "." } else { "" }, line, "\r\n"].concat());
    lines.chain([".\r\n".to_owned()]).collect()
}

async fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: submit ADDRESS AUTHORITIES.pem SERVER SENDER RECIPIENT ..");
    let (address, authorities, name) = (next()?, next()?, next()?);
    let (addresses, login): (Vec<String>, _) = (arguments.collect(), env::var("SUBMIT_LOGIN").ok());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mail = io::read_to_string(io::stdin())?;
    let mut dialogue = connect(&address, Arc::new(config).into(), ServerName::try_from(name)?).await?;
    dialogue.submit(login.as_deref(), &addresses, &mail).await
}

fn main() -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(run())
}
