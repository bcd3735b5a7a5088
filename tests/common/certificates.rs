//! Authorities and certificates that are made when a test runs and forgotten with it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use ropewalk::testing::conformance::Begin;
use ropewalk::tls::{ClientTls, ClientTlsBuilder, Identity, ServerTls, Tls, TrustRoots};

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    keys: Keys,
}

/// The algorithm of keys.
type Keys = &'static rcgen::SignatureAlgorithm;

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::with(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// An authority whose signatures all have one length, so a simulated run takes the same course
    /// every time. Older programs can't read its keys.
    pub fn repeatable() -> Self {
        Self::with(&rcgen::PKCS_ED25519)
    }

    fn with(keys: Keys) -> Self {
        let mut params = CertificateParams::new([]).expect("no name is a good name");
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {} for a test", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, key(keys)).expect("a certificate"), keys }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn roots(&self) -> TrustRoots {
        TrustRoots::from_pem(self.pem().as_bytes()).expect("an authority's certificate")
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| ())
    }

    /// A certificate for these names, which `change` changes before it is signed.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let (mut params, key) = (params(names), key(self.keys));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The configuration of a server with a certificate for these names.
    pub fn server(&self, names: &[&str]) -> ServerTls {
        ServerTls::new(self.issue(names).identity()).expect("a configuration")
    }

    /// The builder of a client's configuration that trusts this authority.
    pub fn client_builder(&self) -> ClientTlsBuilder {
        ClientTls::builder().trust_roots(self.roots())
    }

    /// The configuration of a client that trusts this authority, for the server of this name.
    pub fn client(&self, name: &str) -> ClientTls {
        self.client_builder().for_server(name).expect("a configuration")
    }
}

impl Issued {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).expect("a certificate and its key")
    }
}

/// A self-signed certificate.
pub fn self_signed(names: &[&str]) -> Issued {
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let certificate = params(names).self_signed(&key).expect("a certificate");
    Issued { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// Makes it a certificate that ended in 2001.
pub fn expired(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
}

/// Makes it a certificate that begins in 4000.
pub fn not_yet_valid(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(4000, 1, 1), date_time_ymd(4001, 1, 1));
}

/// Makes it a certificate that no server may show.
pub fn for_signing_code(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("good names");
    params.distinguished_name.push(DnType::CommonName, "a certificate for one test");
    params
}

fn key(kind: Keys) -> KeyPair {
    KeyPair::generate_for(kind).expect("a key")
}

/// TLS on every connection of the conformance suite: the layers of the listening side and of the
/// connecting side.
pub fn tls_on_both_sides() -> (Begin, Begin) {
    let authority = Authority::repeatable();
    let (server, client) = (authority.server(&["localhost"]), authority.client("localhost"));
    let begin = |tls: Tls| -> Begin { Rc::new(move |transport| drop(transport.start_tls(tls.clone()))) };
    (begin(server.into()), begin(client.into()))
}

/// A folder that is removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ropewalk-tls-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    /// The path of a file of this name, which need not exist.
    pub fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file. Returns its path.
    pub fn put(&self, name: &str, text: &str) -> String {
        let path = self.at(name);
        std::fs::create_dir_all(Path::new(&path).parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
