//! [`Verifier`]: verifies the identity of peers.
//!
//! | the peer's certificate | verified by |
//! |---|---|
//! | exactly a trusted one, even an authority's | its dates, its purpose, the server's name |
//! | any other | the same, and a chain of signatures up to a trusted authority |
//!
//! In both cases the handshake's signature proves that the peer has the certificate's key.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::refusal::Refusal;
use super::{ConfigError, Fingerprint, TrustRoots, keys, provider};

/// Verifies the certificates of peers against trust roots.
#[derive(Debug)]
pub(super) struct Verifier<C: ?Sized> {
    authorities: Arc<RootCertStore>,
    certificates: Arc<BTreeSet<Fingerprint>>,
    /// The verifier of chains, if there is an authority that they could lead to.
    chains: Option<Arc<C>>,
    algorithms: WebPkiSupportedAlgorithms,
    subjects: Vec<DistinguishedName>,
    /// For a server: `true` if its clients have to send a certificate.
    is_required: bool,
}

impl Verifier<dyn ServerCertVerifier> {
    /// Creates the verifier of a client, for servers.
    pub(super) fn of_servers(roots: TrustRoots) -> Result<Self, ConfigError> {
        Self::new(roots, true, |roots| Ok(WebPkiServerVerifier::builder_with_provider(roots, provider()).build()? as _))
    }
}

impl Verifier<dyn ClientCertVerifier> {
    /// Creates the verifier of a server, for clients.
    pub(super) fn of_clients(roots: TrustRoots, is_required: bool) -> Result<Self, ConfigError> {
        Self::new(roots, is_required, |roots| WebPkiClientVerifier::builder_with_provider(roots, provider()).build())
    }
}

impl<C: ?Sized> Verifier<C> {
    fn new(
        roots: TrustRoots,
        is_required: bool,
        chains: impl FnOnce(Arc<RootCertStore>) -> Result<Arc<C>, rustls::server::VerifierBuilderError>,
    ) -> Result<Self, ConfigError> {
        let TrustRoots { authorities, certificates } = roots;
        let unusable = |error| ConfigError::Unusable(Error::General(format!("{error}")));
        let made = (!authorities.is_empty()).then(|| chains(Arc::clone(&authorities))).transpose().map_err(unusable)?;
        let algorithms = provider().signature_verification_algorithms;
        let subjects = authorities.subjects();
        Ok(Self { authorities, certificates, chains: made, algorithms, subjects, is_required })
    }

    /// Verifies a certificate without a chain, if it is trusted individually. Returns `false` if it
    /// is not.
    fn verify_alone(&self, certificate: &CertificateDer<'_>, now: UnixTime, usage: KeyUsage) -> Result<bool, Error> {
        if let Some(kind) = keys::unusable_of(certificate) {
            return Err(other(Refusal::UnusableKey { kind }));
        }
        if !self.certificates.contains(&Fingerprint::of(certificate)) {
            return Ok(false);
        }
        let parsed = EndEntityCert::try_from(certificate).map_err(other)?;
        // There is no issuer to verify, so any other error is a fault of the certificate itself.
        // webpki checks the dates before it refuses an authority's certificate for being one.
        match parsed.verify_for_usage(self.algorithms.all, &[], &[], now, usage, None, None) {
            Ok(_) | Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity) => Ok(true),
            Err(webpki::Error::CertExpired { time, not_after }) => {
                Err(CertificateError::ExpiredContext { time, not_after }.into())
            }
            Err(webpki::Error::CertNotValidYet { time, not_before }) => {
                Err(CertificateError::NotValidYetContext { time, not_before }.into())
            }
            Err(error) => Err(other(error)),
        }
    }

    /// Returns the verifier of chains, for a certificate that is not trusted individually.
    fn chains(&self, certificate: &CertificateDer<'_>) -> Result<&C, Error> {
        let nameless = || other(Refusal::NotNamed { fingerprint: Fingerprint::of(certificate) });
        self.chains.as_deref().ok_or_else(nameless)
    }

    /// Replaces an error of the TLS library by a more precise reason, where one is known.
    fn explain(&self, error: Error, certificate: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Error {
        let Error::InvalidCertificate(reason) = &error else { return error };
        let refusal = match reason {
            CertificateError::Other(OtherError(cause)) => match cause.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => {
                    Some(Refusal::Authority { fingerprint: Fingerprint::of(certificate) })
                }
                _ => None,
            },
            CertificateError::BadSignature
            | CertificateError::UnknownIssuer
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                self.unusable_issuer(certificate, above).map(|kind| Refusal::UnusableKey { kind })
            }
            _ => None,
        };
        refusal.map_or(error, other)
    }

    /// Returns the unsupported kind of a key above a certificate, with which its signature cannot
    /// be verified.
    fn unusable_issuer(&self, certificate: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Option<String> {
        let all = std::iter::once(certificate).chain(above).filter_map(|one| EndEntityCert::try_from(one).ok());
        let issuers: Vec<Vec<u8>> = all.map(|one| one.issuer().to_vec()).collect();
        let is_issuer = |subject: &[u8]| issuers.iter().any(|issuer| issuer == subject);
        let trusted = self.authorities.roots.iter().filter(|authority| is_issuer(&authority.subject));
        let mut kinds = trusted.map(|authority| keys::unusable(&authority.subject_public_key_info));
        kinds.find_map(|kind| kind).or_else(|| above.iter().find_map(keys::unusable_of))
    }
}

impl ServerCertVerifier for Verifier<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify_alone(certificate, now, KeyUsage::server_auth())? {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.chains(certificate)?.verify_server_cert(certificate, above, name, ocsp_response, now);
        verified.map_err(|error| self.explain(error, certificate, above))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier<dyn ClientCertVerifier> {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.verify_alone(certificate, now, KeyUsage::client_auth())? {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.chains(certificate)?.verify_client_cert(certificate, above, now);
        verified.map_err(|error| self.explain(error, certificate, above))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn other(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(cause))).into()
}
