//! The identity of peers: certificates that are their own root, fingerprints, and useless keys. In
//! memory, and with certificates and peers of OpenSSL.

use std::process::Command;
use std::sync::Arc;

use crate::common::certificates::{self, Authority, Folder, Issued};
use crate::common::programs::*;
use crate::common::tls::{Seen, play};
use crate::common::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SerialNumber};
use ropewalk::endpoints::{client_from_string, quote_string_argument, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::tls::{ClientTls, ConfigError, Fingerprint, Identity, ServerTls, TlsError, TlsVersion, TrustRoots};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

const NAME: &str = "example.org";

const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

/// A certificate that has signed itself as an authority (`CA:TRUE`), as `openssl req -x509` makes
/// it.
fn own_root(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = CertificateParams::new([NAME.to_owned()]).expect("a good name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(key).expect("a certificate");
    Issued { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

fn fingerprint(issued: &Issued) -> Fingerprint {
    Fingerprint::of(&der(&issued.certificate))
}

/// Both ways to trust exactly this certificate.
fn by_itself(issued: &Issued) -> [TrustRoots; 2] {
    let roots = TrustRoots::from_pem(issued.certificate.as_bytes()).expect("a certificate");
    [roots, TrustRoots::from_fingerprints([fingerprint(issued)]).expect("one")]
}

fn client(roots: &TrustRoots, name: &str, version: TlsVersion) -> ClientTls {
    let builder = ClientTls::builder().trust_roots(roots.clone()).only_version(version);
    builder.for_server(name).expect("a configuration")
}

/// The client's error for a server with this certificate.
fn refusal(roots: &TrustRoots, name: &str, identity: &Identity, version: TlsVersion) -> String {
    let server = ServerTls::new(identity.clone()).expect("a configuration");
    let (_pump, asking, serving) = play(client(roots, name, version), server);
    assert_eq!((asking.log.count("secured"), serving.text().as_str()), (0, ""));
    asking.error()
}

/// The server's error for a client with this certificate.
fn refusal_of_client(roots: &TrustRoots, identity: &Identity, version: TlsVersion) -> Option<String> {
    let authority = Authority::new();
    let server = ServerTls::builder().identity(authority.issue(&[NAME]).identity());
    let server = server.require_client_certificates(roots.clone()).build().expect("a configuration");
    let client = authority.client_builder().only_version(version).identity(identity.clone());
    let (_pump, _, serving) = play(client.for_server(NAME).expect("a configuration"), server);
    if serving.log.has("secured") {
        assert_eq!(serving.session().peer_certificates.len(), 1);
        return None;
    }
    Some(serving.error())
}

/// A certificate that is trusted, and is an authority's too, is taken from exactly the peer that
/// has it, in both roles; also one of an unknown issuer, by its fingerprint.
#[test]
fn certificates_that_are_trusted_by_themselves() {
    let key = KeyPair::generate().expect("a key");
    for issued in [own_root(&key, |_| ()), certificates::self_signed(&[NAME]), Authority::new().issue(&[NAME])] {
        for (roots, version) in by_itself(&issued).iter().flat_map(|roots| VERSIONS.map(|version| (roots, version))) {
            let server = ServerTls::new(issued.identity()).expect("a configuration");
            let (_pump, asking, _) = play(client(roots, NAME, version), server);
            assert_eq!(asking.log.all(), ["made", "secured"]);
            assert_eq!(Fingerprint::of(&asking.session().peer_certificates[0]), fingerprint(&issued));
            assert_eq!(refusal_of_client(roots, &issued.identity(), version), None);
        }
    }
}

/// A certificate that is trusted by itself is for its names alone, and in its time alone.
#[test]
fn names_and_dates_are_verified_all_the_same() {
    let key = KeyPair::generate().expect("a key");
    let good = own_root(&key, |_| ());
    let code = own_root(&key, |params| {
        params.is_ca = IsCa::NoCa;
        certificates::for_signing_code(params);
    });
    for (issued, name, expected) in [
        (&good, "example.com", "is not for example.com"),
        (&good, "127.0.0.1", "is not for 127.0.0.1"),
        (&own_root(&key, certificates::expired), NAME, "has expired ("),
        (&own_root(&key, certificates::not_yet_valid), NAME, "is not valid yet ("),
        (&code, NAME, "is not acceptable"),
    ] {
        for (roots, version) in by_itself(issued).iter().flat_map(|roots| VERSIONS.map(|version| (roots, version))) {
            let said = refusal(roots, name, &issued.identity(), version);
            assert!(said.contains(expected), "{said}: not {expected}");
            if !expected.contains("is not for") {
                let said = refusal_of_client(roots, &issued.identity(), version).expect("refused");
                assert!(said.contains(expected), "{said}: not {expected}");
            }
        }
    }
}

/// The certificate alone is nothing: a peer that shows it and has another key is refused.
#[test]
fn a_trusted_certificate_with_another_key() {
    let issued = own_root(&KeyPair::generate().expect("a key"), |_| ());
    let other = KeyPair::generate().expect("a key").serialize_pem();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(other.as_bytes()).expect("PEM");
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
    let stolen = CertifiedKey::new(vec![der(&issued.certificate)], key);
    for (roots, version) in by_itself(&issued).iter().flat_map(|roots| VERSIONS.map(|version| (roots, version))) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("ring has them").with_no_client_auth();
        let config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen.clone())));
        let (_pump, asking, _) = play(client(roots, NAME, version), ServerTls::from(Arc::new(config)));
        assert!(asking.log.is_over() && !asking.log.has("secured"), "{version:?}");
    }
}

/// Another certificate of the same name and the same key is another: refused, with its fingerprint,
/// so that it can be trusted if that is what is meant.
#[test]
fn a_certificate_that_is_almost_the_same() {
    let key = KeyPair::generate().expect("a key");
    let trusted = own_root(&key, |_| ());
    let another = own_root(&key, |params| params.serial_number = Some(SerialNumber::from(7_u64)));
    let [root, pinned] = by_itself(&trusted);
    for version in VERSIONS {
        let shown = fingerprint(&another).to_string();
        for said in [
            refusal(&root, NAME, &another.identity(), version),
            refusal_of_client(&root, &another.identity(), version).expect("refused"),
        ] {
            assert!(said.contains("an authority's (CA:TRUE)") && said.contains(&shown), "{said}");
        }
        for said in [
            refusal(&pinned, NAME, &another.identity(), version),
            refusal_of_client(&pinned, &another.identity(), version).expect("refused"),
        ] {
            assert!(said.contains("is not among the trusted ones") && said.contains(&shown), "{said}");
        }
    }
    assert!(matches!(TrustRoots::from_fingerprints([]), Err(ConfigError::NoRoots { .. })));
}

/// An authority whose own certificate is trusted by its fingerprint is no authority for others.
#[test]
fn a_fingerprint_makes_no_authority() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([NAME.to_owned()]).expect("a good name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, &key).expect("a certificate");
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([NAME.to_owned()]).expect("a good name").signed_by(&leaf_key, &issuer);
    let chain = format!("{}{}", leaf.expect("a certificate").pem(), issuer.pem());
    let identity = Identity::from_pem(chain.as_bytes(), leaf_key.serialize_pem().as_bytes()).expect("a chain");
    let pinned = TrustRoots::from_fingerprints([Fingerprint::of(&der(&issuer.pem()))]).expect("one");
    for version in VERSIONS {
        assert!(refusal(&pinned, NAME, &identity, version).contains("is not among the trusted ones"));
    }
}

/// Makes certificates with OpenSSL.
struct OpenSsl {
    folder: Folder,
}

impl OpenSsl {
    fn new() -> Option<Self> {
        has("openssl").then(|| Self { folder: Folder::new() })
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder.at("")).output().expect("openssl");
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    /// A certificate that has signed itself, with a key of this kind: `NAME.pem` and `NAME.key`.
    fn self_signed(&self, name: &str, kind: &[&str]) -> Issued {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let request = ["req", "-x509", "-nodes", "-days", "2", "-keyout", &key, "-out", &certificate, "-newkey"];
        let names = ["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        self.run(&[&request, kind, &names[..]].concat());
        self.issued(name)
    }

    /// A certificate for `localhost` with a usual key, signed by another.
    fn signed_by(&self, issuer: &str, name: &str) -> Issued {
        let (certificate, key, request) = (format!("{name}.pem"), format!("{name}.key"), format!("{name}.csr"));
        self.folder.put("names", "subjectAltName=DNS:localhost");
        let new = ["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=leaf"];
        self.run(&[&new[..], &["-keyout", &key, "-out", &request]].concat());
        let (ca, ca_key) = (format!("{issuer}.pem"), format!("{issuer}.key"));
        let sign =
            ["x509", "-req", "-days", "2", "-extfile", "names", "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
        self.run(&[&sign[..], &["-in", &request, "-out", &certificate]].concat());
        self.issued(name)
    }

    fn issued(&self, name: &str) -> Issued {
        let read = |kind| std::fs::read_to_string(self.folder.at(&format!("{name}.{kind}"))).expect("a file");
        Issued { certificate: read("pem"), key: read("key") }
    }

    /// OpenSSL's server with a certificate of those, which sends every line back reversed.
    fn serve(&self, name: &str) -> Listening {
        let (certificate, key) = (self.folder.at(&format!("{name}.pem")), self.folder.at(&format!("{name}.key")));
        let command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", &certificate, "-key", &key];
        Listening::start(&[&command[..], &["-cipher", "DEFAULT@SECLEVEL=0"]].concat(), "ACCEPT")
    }
}

const P521: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"];

/// Asks the server of a description for a line, and gives what happened.
fn ask(description: &str) -> Seen {
    let (reactor, seen) = (reactor(), Seen::default());
    let script = seen.script().made(|transport| {
        transport.write(b"hello\n");
        Ok(())
    });
    let script = script.data(|transport, data| {
        if data.ends_with(b"\n") {
            transport.lose_connection();
        }
        Ok(())
    });
    let endpoint = client_from_string(&reactor, description).expect(description);
    drop(result_of(&reactor, endpoint.connect(once(script))).expect("somebody listens"));
    run_until(&reactor, || seen.log.is_over());
    seen
}

/// A certificate of `openssl req -x509`, with a server of OpenSSL's: trusted as its own root and by
/// its fingerprint, in descriptions; and a client of OpenSSL's, which trusts that certificate of
/// ours.
#[test]
fn openssls_self_signed_certificate() {
    own_process!();
    let Some(openssl) = OpenSsl::new() else { return };
    let issued = openssl.self_signed("own", &["rsa:2048"]);
    openssl.folder.put("roots/own.pem", &issued.certificate);
    let roots = quote_string_argument(&openssl.folder.at("roots")).into_owned();
    let pin = fingerprint(&issued);
    let (colons, bare) = (pin.to_string().replace(':', "\\:"), pin.to_string().replace(':', "").to_lowercase());
    let other = Fingerprint::of(b"another").to_string().replace(':', "");
    let server = openssl.serve("own");
    let port = server.address.port();
    for client in [
        format!("tls:localhost:{port}:trustRoots={roots}:bindAddress=127.0.0.1"),
        format!("ssl:127.0.0.1:{port}:caCertsDir={roots}"),
        format!("tls:127.0.0.1:{port}:fingerprints={bare}"),
        format!("ssl:127.0.0.1:{port}:fingerprints={other},{colons}:hostname=localhost"),
    ] {
        let seen = ask(&client);
        assert_eq!(
            (seen.text().as_str(), seen.log.reason().as_str()),
            ("olleh\n", "the connection was closed cleanly")
        );
    }
    for (client, expected) in [
        (format!("tls:127.0.0.1:{port}:fingerprints={other}"), pin.to_string()),
        (
            format!("ssl:127.0.0.1:{port}:fingerprints={bare}:hostname=other.example"),
            "is not for other.example".to_owned(),
        ),
    ] {
        let seen = ask(&client);
        assert!(seen.log.reason().contains(&expected), "{}", seen.log.reason());
    }
    let (reactor, served) = (reactor(), Seen::default());
    let [key, certificate] = ["own.key", "own.pem"].map(|file| openssl.folder.at(file));
    let description = format!("ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1");
    let endpoint = server_from_string(&reactor, &description).expect("a description");
    let script = served.script().data(|transport, data| {
        transport.write(data);
        transport.lose_connection();
        Ok(())
    });
    let port = result_of(&reactor, endpoint.listen(once(script))).expect("a port");
    let to = port.host().socket_addr().expect("a TCP port").to_string();
    let command = ["openssl", "s_client", "-connect", &to, "-CAfile", &certificate, "-verify_return_error", "-ign_eof"];
    let output = run_beside(&reactor, run_program(&command, b"hello\n"));
    assert!(output.status.success() && said(&output).contains("hello\n"), "{}", said(&output));
}

/// Errors of fingerprints in a description name the fault.
#[test]
fn fingerprints_that_are_wrong() {
    let reactor = reactor();
    let good = Fingerprint::of(b"one").to_string().replace(':', "");
    for (arguments, expected) in [
        ("fingerprints=".to_owned(), "expected SHA-256 fingerprints"),
        (format!("fingerprints={}", &good[1..]), "expected SHA-256 fingerprints"),
        (format!("fingerprints={good},"), "expected SHA-256 fingerprints"),
        (format!("trustRoots=/nowhere:fingerprints={good}"), "expected nothing beside trustRoots"),
    ] {
        let error =
            client_from_string(&reactor, &format!("tls:localhost:443:{arguments}")).map(drop).expect_err("wrong");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = client_from_string(&reactor, &format!("ssl:localhost:443:caCertsDir=/nowhere:fingerprints={good}"));
    assert!(error.map(drop).expect_err("wrong").to_string().contains("expected nothing beside caCertsDir"));
}

/// True if the cryptography that this was built with knows the keys of that name.
fn is_known(name: &str) -> bool {
    cfg!(feature = "aws-lc-rs") && name == "p521"
}

/// With AWS-LC a key on P-521 is as good as any: a server's with OpenSSL, and our own.
#[cfg(feature = "aws-lc-rs")]
#[test]
fn a_key_on_p521() {
    let Some(openssl) = OpenSsl::new() else { return };
    let issued = openssl.self_signed("p521", P521);
    Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes()).expect("it can be used");
    let server = openssl.serve("p521");
    let bare = fingerprint(&openssl.issued("p521")).to_string().replace(':', "");
    let seen = ask(&format!("tls:127.0.0.1:{}:fingerprints={bare}", server.address.port()));
    assert!(seen.log.has("secured"), "{:?}", seen.log.all());
}

/// Keys that no signature can be verified with are named: our own, a peer's, and those of
/// authorities.
#[test]
fn keys_that_cannot_be_used() {
    let Some(openssl) = OpenSsl::new() else { return };
    for (name, kind, said_to_be) in
        [("p521", P521, "an ECDSA key on P-521"), ("short", &["rsa:1024"], "an RSA key of 1024 bits")]
    {
        if is_known(name) {
            continue;
        }
        let issued = openssl.self_signed(name, kind);
        let error = Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes()).expect_err(name);
        assert!(matches!(&error, ConfigError::UnusableKey { kind: Some(kind), .. } if kind == said_to_be), "{error}");
        assert!(error.to_string().contains("expected RSA of 2048 to 8192 bits"), "{error}");
        // An authority's.
        let leaf = openssl.signed_by(name, &format!("leaf-of-{name}"));
        let roots = TrustRoots::from_pem(issued.certificate.as_bytes()).expect("a certificate");
        for version in VERSIONS {
            let said = refusal(&roots, "localhost", &leaf.identity(), version);
            assert!(said.contains(&format!("or one above it, has {said_to_be}: expected RSA")), "{said}");
            let said = refusal_of_client(&roots, &leaf.identity(), version).expect("refused");
            assert!(said.contains(said_to_be), "{said}");
        }
    }
    // A peer's own key. OpenSSL has no other, so it does not get as far as to show the second.
    for (name, expected) in [
        ("short", "or one above it, has an RSA key of 1024 bits: expected RSA of 2048"),
        (
            "p521",
            "the peer ended TLS: handshake_failure (the peer and this side have no TLS version, cipher suite or kind of",
        ),
    ] {
        if is_known(name) {
            continue;
        }
        let server = openssl.serve(name);
        let bare = fingerprint(&openssl.issued(name)).to_string().replace(':', "");
        let seen = ask(&format!("tls:127.0.0.1:{}:fingerprints={bare}", server.address.port()));
        assert!(seen.log.reason().contains(expected), "{}", seen.log.reason());
        assert!(seen.reason().check::<TlsError>().is_some());
    }
}
