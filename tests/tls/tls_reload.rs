//! Certificates that are renewed while a server runs: files that are read again, and configurations
//! that are replaced. In memory; the time after which files are looked at again is tested in
//! `src/tls/files/tests.rs`.

use crate::common::certificates::{Authority, Folder, Issued};
use crate::common::tls::{CLEAN, play};
use crate::common::*;
use ropewalk::tls::{ConfigError, ServerTls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A server of certificates in files, and who has signed them.
struct Served {
    authority: Authority,
    folder: Folder,
    tls: ServerTls,
}

impl Served {
    /// With a certificate for `a.example` in one file, and one for `b.example` in two.
    fn new() -> (Self, Issued, Issued) {
        let (authority, folder) = (Authority::new(), Folder::new());
        let (a, b) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
        folder.put("a.pem", &both(&a));
        folder.put("b/cert.pem", &b.certificate);
        folder.put("b/key.pem", &b.key);
        let tls = ServerTls::from_directory(folder.at("")).expect("good files");
        (Self { authority, folder, tls }, a, b)
    }

    fn put(&self, name: &str, text: &str) {
        self.folder.put(name, text);
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.at(name)).expect("a file");
    }

    /// The certificate that a client is shown which asks for this name.
    #[track_caller]
    fn shown(&self, name: &str) -> Vec<u8> {
        let (_pump, asking, _) = play(self.authority.client(name), &self.tls);
        asking.session().peer_certificates.swap_remove(0)
    }

    /// Returns `true` if a client that asks for this name is shown a certificate for it.
    fn is_for(&self, name: &str) -> bool {
        play(self.authority.client(name), &self.tls).1.log.has("secured")
    }
}

fn both(issued: &Issued) -> String {
    format!("{}{}", issued.certificate, issued.key)
}

fn der(issued: &Issued) -> Vec<u8> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM").to_vec()
}

/// A certificate that was renewed is shown as soon as the program asks for it, by every clone, and
/// old connections go on.
#[test]
fn a_reload_shows_the_renewed_certificate() {
    let (served, a, b) = Served::new();
    let (pump, asking, serving) = play(served.authority.client("a.example"), served.tls.clone());
    let new = served.authority.issue(&["a.example"]);
    served.put("a.pem", &both(&new));
    assert_eq!(served.shown("a.example"), der(&a), "it is not time to look yet");
    served.tls.clone().reload().expect("good files");
    assert_eq!((served.shown("a.example"), served.shown("b.example")), (der(&new), der(&b)));
    pump.client().transport().write(b"still here");
    pump.flush();
    assert_eq!(serving.text(), "still here");
    pump.client().transport().lose_connection();
    pump.flush();
    assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
}

/// A renewal that is half done keeps the old certificate, whichever half is missing: the
/// certificate, a part of it, or the key.
#[test]
fn a_renewal_in_steps() {
    let (served, _, old) = Served::new();
    let new = served.authority.issue(&["b.example"]);
    let half = &new.certificate[..new.certificate.len() / 2];
    for (file, text, expected) in [
        ("b/cert.pem", "", "there is no certificate in PEM format in"),
        ("b/cert.pem", half, "there is no certificate in PEM format in"),
        ("b/cert.pem", &new.certificate, "there is no private key for the certificate in"),
        ("b/key.pem", &new.key[..60], "there is no private key for the certificate in"),
    ] {
        served.put(file, text);
        let (reloaded, lines) = logged(|| served.tls.reload());
        let error = reloaded.expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("b/cert.pem"), "{error}");
        assert!(lines.len() <= 1, "{lines:?}");
        assert_eq!(served.shown("b.example"), der(&old), "{expected}");
        assert!(served.is_for("a.example"));
    }
    served.put("b/key.pem", &new.key);
    served.tls.reload().expect("it is complete");
    assert_eq!(served.shown("b.example"), der(&new));
}

/// A fault of the files is logged once, not with every handshake that makes the server look at
/// them, and again when it has changed.
#[test]
fn what_is_wrong_is_logged_once() {
    let (served, ..) = Served::new();
    let looks = || (0..5).for_each(|_| assert!(!served.is_for("unknown.example")));
    let logged = |looks: &dyn Fn()| {
        let ((), mut lines) = logged(looks);
        // The handshakes fail, of course.
        lines.retain(|line| !line.contains("TLS failed"));
        lines
    };
    served.put("a.pem", "-----BEGIN CERTIFICATE-----\nnonsense");
    let lines = logged(&looks);
    assert!(lines.len() == 1 && lines[0].contains("a.pem"), "{lines:?}");
    assert!(served.tls.reload().is_err());
    assert_eq!(logged(&looks), Vec::<String>::new());
    served.remove("b/key.pem");
    let lines = logged(&looks);
    assert!(lines.len() == 1 && lines[0].contains("b/cert.pem"), "{lines:?}");
    assert!(served.is_for("a.example") && served.is_for("b.example"), "the old ones stay");
}

/// A certificate whose file is removed is not shown any more; the last one stays.
#[test]
fn certificates_that_are_removed() {
    let (served, a, b) = Served::new();
    served.remove("b/cert.pem");
    served.tls.reload().expect("good files");
    assert!(served.is_for("a.example") && !served.is_for("b.example"));
    served.put("c.pem", &both(&b));
    assert!(served.is_for("b.example"), "looked for at once");
    served.remove("a.pem");
    served.remove("c.pem");
    let error = served.tls.reload().expect_err("nothing is left");
    assert!(matches!(error, ConfigError::Missing { what: "certificate with its private key", .. }), "{error}");
    assert_eq!((served.shown("a.example"), served.shown("b.example")), (der(&a), der(&b)));
    std::fs::remove_dir_all(served.folder.at("")).expect("a folder");
    assert!(matches!(served.tls.reload(), Err(ConfigError::Io { .. })));
    assert!(served.is_for("a.example"));
}

/// A link that leads nowhere, and a useless key, are passed over. A folder whose files can't be
/// read at the start is an error.
#[test]
fn files_that_cannot_be_used() {
    let (served, ..) = Served::new();
    std::os::unix::fs::symlink("nowhere", served.folder.at("lost.pem")).expect("a link");
    served.put("useless.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let new = served.authority.issue(&["a.example"]);
    served.put("a.pem", &both(&new));
    assert!(served.tls.reload().is_err());
    assert_eq!(served.shown("a.example"), der(&new));
    assert!(matches!(ServerTls::from_directory(served.folder.at("")), Err(ConfigError::Io { .. })));
    served.remove("lost.pem");
    let (made, lines) = logged(|| ServerTls::from_directory(served.folder.at("")));
    assert!(made.is_ok() && lines.len() == 1 && lines[0].contains("useless.pem"), "{lines:?}");
}

/// A configuration is replaced for the connections to come, and for all clones; those that are
/// there keep what they have, and a session of the old one is not resumed.
#[test]
fn a_replaced_configuration() {
    let (authority, name) = (Authority::new(), "example.org");
    let (serving, client) = (authority.server(&[name]), authority.client(name));
    let (first, asking, answered) = play(&client, serving.clone());
    let required = ServerTls::builder().identity(authority.issue(&[name]).identity());
    let required = required.require_client_certificates(authority.roots()).build().expect("a configuration");
    serving.replace_with(&required);
    first.server().transport().write(b"as before");
    first.flush();
    assert_eq!(asking.text(), "as before");
    assert!(!answered.log.is_over());
    let (_pump, _, refused) = play(&client, serving.clone());
    assert_eq!(refused.error(), "the peer sent no certificate");
    let me = authority.client_builder().identity(authority.issue(&["a.client"]).identity());
    let (_pump, _, accepted) = play(me.for_server(name).expect("a configuration"), serving.clone());
    assert!(!accepted.session().resumed && accepted.session().peer_certificates.len() == 1);
    serving.replace_with(&serving);
    assert!(matches!(serving.reload(), Err(ConfigError::NoFiles)));
    serving.replace_with(&Served::new().0.tls);
    let (_pump, asking, _) = play(&client, &serving);
    assert!(asking.log.is_over(), "its certificates are another authority's, for other names");
}
