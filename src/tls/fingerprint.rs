//! [`Fingerprint`]: the hash that identifies one certificate.

use std::fmt;
use std::str::FromStr;

use rustls::SupportedCipherSuite;

use super::cryptography::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// The SHA-256 hash of a certificate in DER. It identifies exactly this certificate, and can be
/// trusted ([`TrustRoots::from_fingerprints`](super::TrustRoots::from_fingerprints)).
///
/// It is parsed and displayed in hexadecimal, as `openssl x509 -noout -fingerprint -sha256` prints
/// it. When it is parsed, the colons between the bytes may be missing, and letters may be lower
/// case.
///
/// ```
/// use ropewalk::tls::Fingerprint;
///
/// # fn main() -> Result<(), ropewalk::tls::BadFingerprint> {
/// let text = "2C:F2:4D:BA:5F:B0:A3:0E:26:E8:3B:2A:C5:B9:E2:9E:1B:16:1E:5C:1F:A7:42:5E:73:04:33:62:93:8B:98:24";
/// let fingerprint: Fingerprint = text.parse()?;
/// assert_eq!(fingerprint, Fingerprint::of(b"hello"));
/// assert_eq!(fingerprint.to_string(), text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; LENGTH]);

impl Fingerprint {
    /// Returns the fingerprint of a certificate in DER, such as those of
    /// [`TlsSession::peer_certificates`](super::TlsSession::peer_certificates).
    pub fn of(certificate: &[u8]) -> Self {
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
            unreachable!("a cipher suite of TLS 1.3");
        };
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(suite.common.hash_provider.hash(certificate).as_ref());
        Self(bytes)
    }

    /// Returns the bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl From<[u8; LENGTH]> for Fingerprint {
    fn from(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let bad = || BadFingerprint { text: text.to_owned() };
        // There are colons between all bytes, or none.
        let width = if text.contains(':') { 3 } else { 2 };
        let digits = text.as_bytes();
        if !text.is_ascii() || digits.len() != LENGTH * width - (width - 2) {
            return Err(bad());
        }
        let mut bytes = [0; LENGTH];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(width)) {
            let is_separated = pair.get(2).is_none_or(|&colon| colon == b':');
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte =
                high.zip(low).filter(|_| is_separated).map(|(high, low)| (high * 16 + low) as u8).ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text is not a [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a SHA-256 fingerprint: expected 64 hexadecimal digits, with colons between all pairs or with none"
)]
pub struct BadFingerprint {
    text: String,
}

/// Length of a SHA-256 hash in bytes.
const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_fingerprints_are_read() {
        let good = Fingerprint::of(b"").to_string();
        let bare = good.replace(':', "").to_lowercase();
        assert_eq!(good.parse(), Ok(Fingerprint::of(b"")));
        assert_eq!(bare.parse(), Ok(Fingerprint::of(b"")));
        for bad in [
            "",
            ":",
            "é",
            &bare[1..],
            &format!("{bare}00"),
            &good[1..],
            &format!("{good}:"),
            &good.replace(':', "-"),
            &good.replacen(':', "", 1),
            &bare.replacen('e', "g", 1),
            &bare.replacen("e3", "+3", 1),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
