//! Certificates with their chains: from PEM text to what a handshake shows, and the names in them.
//!
//! A certificate is asked for by name (SNI), so that names are read here; whether it is valid is for
//! clients to judge. Sources: RFC 5280 sections 4.1.2.7 and 4.2.1.6; RFC 9525 section 6.3 for
//! wildcards.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer as _;

use crate::model::tls::KeyId;

/// Certificates of one file at most.
const MAX_CERTIFICATES: usize = 10_000;

/// A certificate, the chain to its authority, and what was read from it.
#[derive(Clone, Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    names: Vec<Box<str>>,
    public_key_info: Box<[u8]>,
    kind: KeyKind,
}

/// The kind of a key, as far as handshakes can use it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// On the curve P-256.
    P256,
    /// On the curve P-384.
    P384,
    /// On the curve P-521.
    P521,
    /// RSA.
    Rsa,
}

/// Why the text of a file is no certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// There is none in it.
    #[error("there is no certificate in the file")]
    None,
    /// It cannot be read.
    #[error("a certificate in the file is damaged")]
    Malformed,
    /// Its key is of a kind that TLS 1.2 and 1.3 do not use any more, or not yet.
    #[error("the certificate's key is neither RSA nor Ed25519 nor on P-256, P-384 or P-521")]
    Key,
}

/// The certificates in PEM text, in their order.
///
/// # Errors
/// There is none, or one is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Malformed)?;
    if found.is_empty() { Err(CertificateError::None) } else { Ok(found) }
}

impl Chain {
    /// The certificates in PEM text: the server's own, then those of its authorities.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let certificates = certificates(pem)?;
        let own = certificates.first().ok_or(CertificateError::None)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|_| CertificateError::Malformed)?;
        let info = parsed.public_key();
        let parameter = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let kind = KeyKind::of(&info.algorithm.algorithm, parameter.as_ref())?;
        let public_key_info = Box::from(info.raw);
        let names = names(&parsed)?;
        Ok(Self { certificates, names, public_key_info, kind })
    }

    /// What a handshake shows.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Names the key that belongs to it.
    #[must_use]
    pub fn key(&self) -> KeyId {
        KeyId::of(&self.public_key_info)
    }

    /// Its public key, as it stands in the certificate (DER).
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// The kind of its key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether it is for the host `name`; case does not count.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.names.iter().any(|pattern| matches(pattern, name))
    }
}

impl KeyKind {
    fn of(algorithm: &Oid<'_>, parameter: Option<&Oid<'_>>) -> Result<Self, CertificateError> {
        // RFC 3279, 5480 and 8410.
        match algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Ok(Self::Rsa),
            "1.3.101.112" => Ok(Self::Ed25519),
            "1.2.840.10045.2.1" => {
                match parameter.map(Oid::to_id_string).unwrap_or_default().as_str() {
                    "1.2.840.10045.3.1.7" => Ok(Self::P256),
                    "1.3.132.0.34" => Ok(Self::P384),
                    "1.3.132.0.35" => Ok(Self::P521),
                    _ => Err(CertificateError::Key),
                }
            }
            _ => Err(CertificateError::Key),
        }
    }

    /// How it signs, the preferred way first.
    #[must_use]
    pub fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::Ed25519 => &[SignatureScheme::ED25519],
            Self::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Self::P521 => &[SignatureScheme::ECDSA_NISTP521_SHA512],
            Self::Rsa => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA512,
            ],
        }
    }

    /// Which cipher suites of TLS 1.2 it goes with.
    #[must_use]
    pub fn algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::Ed25519 => SignatureAlgorithm::ED25519,
            Self::P256 | Self::P384 | Self::P521 => SignatureAlgorithm::ECDSA,
            Self::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

/// The host names in a certificate. The common name counts only where nothing else says for which
/// hosts it is.
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<Box<str>>, CertificateError> {
    let alternative =
        certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    let mut names = Vec::new();
    let mut is_for_hosts = false;
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => {
                is_for_hosts = true;
                names.push(Box::from(name.to_ascii_lowercase()));
            }
            GeneralName::IPAddress(_) => is_for_hosts = true,
            _ => {}
        }
    }
    if !is_for_hosts {
        let common = certificate.subject().iter_common_name();
        let common = common.filter_map(|name| name.as_str().ok());
        names.extend(common.map(|name| Box::from(name.to_ascii_lowercase())));
    }
    Ok(names)
}

/// Whether a name of a certificate, in lower case, stands for this host. `*` is one label at the
/// head of two more.
fn matches(pattern: &str, host: &str) -> bool {
    let Some(domain) = pattern.strip_prefix("*.") else {
        return pattern.eq_ignore_ascii_case(host);
    };
    let Some((label, rest)) = host.split_once('.') else { return false };
    let labels = domain.split('.');
    !label.is_empty()
        && labels.clone().count() >= 2
        && labels.clone().all(|label| !label.is_empty())
        && domain.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::{Kind, certificate, certificate_with};

    #[test]
    fn a_wildcard_is_one_label_before_two_others() {
        let cases = [
            ("mx.example.org", "MX.example.org", true),
            ("mx.example.org", "a.mx.example.org", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "A.EXAMPLE.ORG", true),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.org", "example.org", false),
            ("*.", "a.", false),
            ("*..org", "a..org", false),
            ("a*.example.org", "ab.example.org", false),
            ("*", "a", false),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn the_common_name_counts_only_where_nothing_else_names_a_host() {
        let named = certificate_with(Kind::P256, "cn.example", &["san.example", "*.san.example"]);
        let chain = Chain::from_pem(named.certificate.as_bytes()).unwrap();
        assert!(chain.is_for("san.example.") && chain.is_for("x.SAN.example"));
        assert!(!chain.is_for("cn.example"));
        let address = certificate_with(Kind::P256, "cn.example", &["192.0.2.1"]);
        assert!(!Chain::from_pem(address.certificate.as_bytes()).unwrap().is_for("cn.example"));
        let common = certificate_with(Kind::P256, "cn.example", &[]);
        assert!(Chain::from_pem(common.certificate.as_bytes()).unwrap().is_for("CN.example"));
    }

    #[test]
    fn the_kind_of_a_key_is_in_its_certificate() {
        for (kind, expected) in [
            (Kind::P256, KeyKind::P256),
            (Kind::P384, KeyKind::P384),
            (Kind::Ed25519, KeyKind::Ed25519),
            (Kind::Rsa, KeyKind::Rsa),
        ] {
            let made = certificate(kind, "mx.example.org");
            let chain = Chain::from_pem(made.certificate.as_bytes()).unwrap();
            assert_eq!(chain.kind(), expected);
            assert!(!chain.kind().schemes().is_empty());
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let end = "-----END CERTIFICATE-----\n";
        let cases = [
            (String::new(), CertificateError::None),
            ("junk\n".to_owned(), CertificateError::None),
            (certificate(Kind::P256, "a.example").key, CertificateError::None),
            (format!("{begin}AAAA\n{end}"), CertificateError::Malformed),
            (format!("{begin}!!!!\n{end}"), CertificateError::Malformed),
        ];
        for (text, expected) in cases {
            assert_eq!(Chain::from_pem(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
    }
}
