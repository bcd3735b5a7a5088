//! Names of public keys of unsupported kinds, with which no signature can be verified. The TLS
//! library only reports that the verification failed.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The supported kinds, to complete the sentence "expected ..".
pub(super) const USABLE: &str = if KNOWS_P521 {
    "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
} else {
    "RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519"
};

/// AWS-LC supports this curve, and ring does not.
const KNOWS_P521: bool = cfg!(feature = "aws-lc-rs");

/// Returns the kind of a certificate's key, if it is a known and unsupported one.
pub(super) fn unusable_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    unusable(element(&parsed.subject_public_key_info())?.content)
}

/// Returns the same for the content of a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
pub(super) fn unusable(info: &[u8]) -> Option<String> {
    let Element { content: algorithm, rest: key, .. } = element(info)?;
    let Element { content: kind, rest: parameters, .. } = element(algorithm)?;
    match kind {
        RSA => {
            let bits = modulus_bits(key)?;
            (!RSA_BITS.contains(&bits)).then(|| format!("an RSA key of {bits} bits"))
        }
        RSA_PSS => Some("an RSA key for RSASSA-PSS alone".to_owned()),
        DSA => Some("a DSA key".to_owned()),
        ED448 => Some("an Ed448 key".to_owned()),
        ECDSA => match element(parameters)?.content {
            P256 | P384 => None,
            P521 if KNOWS_P521 => None,
            P521 => Some("an ECDSA key on P-521".to_owned()),
            SECP256K1 => Some("an ECDSA key on secp256k1".to_owned()),
            _ => Some("an ECDSA key on an unknown curve".to_owned()),
        },
        _ => None,
    }
}

/// Returns the length of an RSA key, which is inside a bit string.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let Element { content: bits, .. } = element(key)?;
    // The first byte is the number of unused bits in the last: none.
    let Element { content: numbers, .. } = element(bits.get(1..)?)?;
    let Element { content: modulus, .. } = element(numbers)?;
    let begin = modulus.iter().position(|&byte| byte != 0)?;
    let modulus = &modulus[begin..];
    Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
}

/// One element of DER, and the bytes behind it.
struct Element<'a> {
    content: &'a [u8],
    rest: &'a [u8],
}

/// Parses the first element. `None` if it is truncated, or longer than 64 KiB, which no key is.
fn element(input: &[u8]) -> Option<Element<'_>> {
    let (_tag, input) = input.split_first()?;
    let (&first, input) = input.split_first()?;
    let (length, input) = match first {
        0..=0x7f => (usize::from(first), input),
        0x81 => (usize::from(*input.first()?), &input[1..]),
        0x82 => {
            let (length, input) = input.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), input)
        }
        _ => return None,
    };
    let (content, rest) = input.split_at_checked(length)?;
    Some(Element { content, rest })
}

/// The key lengths that ring and AWS-LC verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

// Object identifiers in DER.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
const ED448: &[u8] = &[0x2b, 0x65, 0x71];
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];

#[cfg(test)]
mod tests {
    use super::*;

    /// A truncated key, at any length, or garbage is of no known kind, and causes no panic.
    #[test]
    fn keys_that_are_cut() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made =
            rcgen::CertificateParams::new([]).and_then(|params| params.self_signed(&key)).expect("a certificate");
        assert_eq!(unusable_of(made.der()), None);
        let info = rcgen::PublicKeyData::subject_public_key_info(&key);
        let inside = element(&info).expect("DER").content;
        assert_eq!(unusable(inside), None);
        let p521 = [&[0x30, 16, 0x06, 7], ECDSA, &[0x06, 5], P521, &[0x03, 1, 0]].concat();
        assert_eq!(unusable(&p521).as_deref(), (!KNOWS_P521).then_some("an ECDSA key on P-521"));
        for end in 0..p521.len() - 3 {
            assert_eq!(unusable(&p521[..end]), None, "{end}");
        }
        for nonsense in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x81], &[0; 9]]
        {
            assert_eq!(unusable(nonsense), None, "{nonsense:?}");
        }
    }
}
