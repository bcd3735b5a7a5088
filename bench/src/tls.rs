//! TLS for both ends: a certificate made for this process, and the same rustls configuration for
//! every engine.

use std::fmt::Write;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Result;

/// Host name in the certificate.
pub const NAME: &str = "localhost";

/// Returns the configuration of a server and its new certificate.
///
/// # Errors
/// Fails if the certificate cannot be made.
pub fn server() -> Result<(Arc<ServerConfig>, CertificateDer<'static>)> {
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key)?;
    Ok((Arc::new(config), certificate))
}

/// Returns the configuration of a client that trusts only this certificate. All its handshakes are
/// full ones.
///
/// # Errors
/// Fails if the certificate is invalid.
pub fn client(certificate: CertificateDer<'static>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Formats a certificate as hexadecimal digits, the form in which a server passes it to its client.
pub fn to_text(certificate: &CertificateDer<'_>) -> String {
    certificate.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Parses a certificate that [`to_text`] wrote.
///
/// # Errors
/// Fails if the text is malformed.
pub fn from_text(text: &str) -> Result<CertificateDer<'static>> {
    let digits = text.trim().as_bytes().chunks(2);
    let bytes = digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    Ok(CertificateDer::from(bytes.collect::<Result<Vec<u8>>>()?))
}
