//! A certificate for `localhost` and an authority that signs it, made when an example starts. A
//! real server has its certificate in a file (`Identity::from_pem_files`), signed by an authority
//! that the clients trust already.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use ropewalk::Result;
use ropewalk::failure::Context;
use ropewalk::tls::Identity;

/// Returns an identity for `localhost`, and writes the authority's certificate to a file for the
/// clients.
pub(crate) fn for_localhost(authority_file: &Path) -> Result<Identity> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, "the authority of an example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(authority_file, authority.pem()).context(format!("cannot write {}", authority_file.display()))?;

    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    Ok(Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?)
}
