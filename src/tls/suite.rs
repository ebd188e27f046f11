//! Cipher suites and versions: what the configuration says about them as rustls has it, and what a
//! connection uses by its OpenSSL name.

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

use crate::config::{Bulk, Cipher, Ciphers, Protocols};

/// The system's cryptography with the suites that were chosen, the preferred one first. Those of
/// TLS 1.3 cannot be chosen.
#[must_use]
pub fn provider(ciphers: Option<&Ciphers>) -> CryptoProvider {
    let mut provider = platform::tls::crypto_provider();
    let Some(ciphers) = ciphers else { return provider };
    let offered = std::mem::take(&mut provider.cipher_suites);
    let (chosen, old): (Vec<_>, Vec<_>) =
        offered.into_iter().partition(|suite| suite.version() == &TLS13);
    provider.cipher_suites = chosen;
    for cipher in ciphers.iter() {
        let found = old.iter().find(|suite| suite.suite() == suite_of(cipher));
        provider.cipher_suites.extend(found);
    }
    provider
}

/// The versions that were chosen.
#[must_use]
pub fn versions(protocols: Option<Protocols>) -> Vec<&'static SupportedProtocolVersion> {
    let both = Protocols { tls_1_2: true, tls_1_3: true };
    let Protocols { tls_1_2, tls_1_3 } = protocols.unwrap_or(both);
    let all = [(tls_1_3, &TLS13), (tls_1_2, &TLS12)];
    all.into_iter().filter(|(chosen, _)| *chosen).map(|(_, version)| version).collect()
}

fn suite_of(cipher: Cipher) -> CipherSuite {
    match cipher {
        Cipher::Ecdsa(Bulk::Aes128) => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::Ecdsa(Bulk::Aes256) => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::Ecdsa(Bulk::ChaCha20) => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Cipher::Rsa(Bulk::Aes128) => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Cipher::Rsa(Bulk::Aes256) => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::Rsa(Bulk::ChaCha20) => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

/// The OpenSSL name of a suite, and its strength in bits.
#[must_use]
pub fn name_and_bits(suite: SupportedCipherSuite) -> (&'static str, u16) {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => return ("TLS_AES_128_GCM_SHA256", 128),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => return ("TLS_AES_256_GCM_SHA384", 256),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
            return ("TLS_CHACHA20_POLY1305_SHA256", 256);
        }
        _ => {}
    }
    let known = Cipher::ALL.into_iter().find(|cipher| suite_of(*cipher) == suite.suite());
    match known {
        Some(cipher @ (Cipher::Ecdsa(Bulk::Aes128) | Cipher::Rsa(Bulk::Aes128))) => {
            (cipher.name(), 128)
        }
        Some(cipher) => (cipher.name(), 256),
        // The cryptography has no others.
        None => ("UNKNOWN", 0),
    }
}

/// The name of a version, as logs and headers have it.
#[must_use]
pub fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        // No other is offered.
        _ => "TLS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name() {
        for suite in platform::tls::crypto_provider().cipher_suites {
            let (name, bits) = name_and_bits(suite);
            assert!(bits == if name.contains("128_") || name.contains("128-") { 128 } else { 256 });
        }
    }

    #[test]
    fn chosen_suites_come_in_the_order_of_the_choice() {
        let (ciphers, _) = Ciphers::parse("CHACHA20:AES128+ECDSA").unwrap();
        let names: Vec<_> = provider(Some(&ciphers))
            .cipher_suites
            .into_iter()
            .filter(|suite| suite.version() == &TLS12)
            .map(|suite| name_and_bits(suite).0)
            .collect();
        let expected = [
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ];
        assert_eq!(names, expected);
        let one = Protocols { tls_1_2: true, tls_1_3: false };
        assert_eq!(versions(Some(one)), [&TLS12]);
        assert_eq!(versions(None), [&TLS13, &TLS12]);
    }
}
