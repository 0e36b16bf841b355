//! TLS to the broker: whom to trust, and who this side is.

use super::connection::use_crypto;
use crate::error::{Error, Result};
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use std::io;

/// How the connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authority, PEM; the system's when absent.
    pub ca: Option<String>,
    /// This client's certificate, PEM; with `key` or not at all.
    pub cert: Option<String>,
    /// The key to it, PEM.
    pub key: Option<String>,
}

impl Tls {
    /// These, when they can be used.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming the option; no key is in its message.
    pub fn checked(self) -> Result<Self> {
        use_crypto();
        match self.connector() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Error::InvalidArgument(format!("the option {error} (rabbitmq)")))
            }
            // What the system lacks now it may have when it is needed.
            _ => Ok(self),
        }
    }

    /// What makes a socket an encrypted one.
    ///
    /// # Errors
    /// When there is nobody to trust, or what is given is no PEM.
    pub fn connector(&self) -> io::Result<RustlsConnector> {
        let trust = match &self.ca {
            None => RustlsConnectorConfig::new_with_native_certs()?,
            Some(ca) => {
                RustlsConnectorConfig::default().with_parsable_certificates(certificates("ca", ca)?)
            }
        };
        match (&self.cert, &self.key) {
            (None, None) => trust.connector_with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| wrong("key", "it has no private key as PEM"))?;
                trust.connector_with_single_cert(certificates("cert", cert)?, key)
            }
            (Some(_), None) => Err(wrong("cert", "it needs a key")),
            (None, Some(_)) => Err(wrong("key", "it needs a cert")),
        }
    }
}

fn certificates(option: &str, pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong(option, "it has no certificates as PEM"))?;
    if all.is_empty() { Err(wrong(option, "it has no certificates as PEM")) } else { Ok(all) }
}

fn wrong(option: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("tls.{option}: {what}"))
}
