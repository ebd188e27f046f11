//! Certificates of tests, made when they are needed. Scenario tests use this file too.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Making an RSA key takes long, and rcgen does not make any here.
const RSA: &str = include_str!("../../tests/data/rsa-2048.pem");

/// The kind of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Ed25519.
    Ed25519,
    /// On the curve P-256.
    P256,
    /// On the curve P-384.
    P384,
    /// RSA with 2,048 bits.
    Rsa,
}

/// A certificate and its key, as PEM text.
#[derive(Clone, Debug)]
pub struct Made {
    /// The certificate, or its chain.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// An authority that issues certificates.
pub struct Authority {
    /// Its certificate, as PEM text.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn key(kind: Kind) -> KeyPair {
    match kind {
        Kind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        Kind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Kind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        Kind::Rsa => KeyPair::from_pem_and_sign_algo(RSA, &rcgen::PKCS_RSA_SHA256),
    }
    .unwrap()
}

fn parameters(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

/// A certificate for one host that its own key has signed.
pub fn certificate(kind: Kind, name: &str) -> Made {
    certificate_with(kind, name, &[name])
}

/// The same with these names of hosts (or addresses) beside the common name.
pub fn certificate_with(kind: Kind, common_name: &str, names: &[&str]) -> Made {
    let key = key(kind);
    let certificate = parameters(common_name, names).self_signed(&key).unwrap().pem();
    Made { certificate, key: key.serialize_pem() }
}

impl Authority {
    /// An authority that nothing stands above.
    pub fn new(name: &str) -> Self {
        let key = key(Kind::P256);
        let parameters = Self::parameters(name);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let key = key(Kind::P256);
        let parameters = Self::parameters(name);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    fn parameters(name: &str) -> CertificateParams {
        let mut parameters = parameters(name, &[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters
    }

    /// A certificate for a server or a client with this name.
    pub fn issue(&self, kind: Kind, name: &str) -> Made {
        let key = key(kind);
        let mut parameters = parameters(name, &[name]);
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        Made { certificate, key: key.serialize_pem() }
    }
}
