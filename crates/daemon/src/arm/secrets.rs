//! The files of the run directory that let a client in: `token`, `identity-header`, `cert.pem` and its key. Made at the
//! first start and kept while the lab runs, so that a daemon after the first takes what clients were given.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::RunDir;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// What the owner's requests carry as a bearer token.
pub(crate) const TOKEN: &str = "token";
/// What the token endpoint wants to see: whoever has it gets tokens.
pub(crate) const IDENTITY_HEADER: &str = "identity-header";
/// What clients are to trust.
pub(crate) const CERTIFICATE: &str = "cert.pem";
/// Of no value beyond this machine, and nobody else's all the same.
const KEY: &str = "key.pem";
/// 256 bits: nobody guesses it, at any rate of requests.
const SECRET_BYTES: usize = 32;
/// Names under which a client on this machine reaches the listener.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Long enough for any lab, and no longer than platforms accept of a certificate.
const VALID_DAYS: u32 = 397;

/// What is compared with what requests bring.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// In hexadecimal.
    token: String,
    identity_header: String,
    /// Signs tokens for principals; follows from the owner's token.
    pub(crate) key: hmac::Key,
}

/// The listener's certificate and key, in PEM.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Secrets {
    /// Those of the run directory, made where there are none.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(crate) fn open(run_dir: &RunDir) -> io::Result<Self> {
        let token = kept(run_dir, TOKEN, random)?;
        let identity_header = kept(run_dir, IDENTITY_HEADER, random)?;
        Ok(Self::of(token, identity_header))
    }

    pub(crate) fn of(token: String, identity_header: String) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()),
            token,
            identity_header,
        }
    }

    /// Whether it is the owner's token.
    pub(crate) fn is_token(&self, said: &str) -> bool {
        self.same(&self.token, said)
    }

    /// Whether it is what the token endpoint wants to see.
    pub(crate) fn is_identity_header(&self, said: &str) -> bool {
        self.same(&self.identity_header, said)
    }

    /// In a time that says nothing of where they differ.
    fn same(&self, secret: &str, said: &str) -> bool {
        let tag = hmac::sign(&self.key, secret.as_bytes());
        hmac::verify(&self.key, said.as_bytes(), tag.as_ref()).is_ok()
    }
}

impl Certificate {
    /// That of the run directory, made where there is none.
    ///
    /// # Errors
    /// The directory cannot be read or written, or the certificate not be made.
    pub(crate) fn open(run_dir: &RunDir) -> io::Result<Self> {
        let (certificate, key) = (run_dir.file(CERTIFICATE), run_dir.file(KEY));
        if let (Ok(certificate), Ok(key)) = (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
            return Ok(Self { certificate, key });
        }
        let made =
            Self::made().map_err(|error| io::Error::other(format!("cannot make a certificate: {error}")))?;
        write(run_dir, KEY, &made.key)?;
        write(run_dir, CERTIFICATE, &made.certificate)?;
        Ok(made)
    }

    /// Self-signed: it is what clients trust, and it vouches for nothing else.
    fn made() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "peerlane");
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // A day back: a clock may have been put right since.
        let day = Duration::from_secs(24 * 60 * 60);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(day);
        params.not_after = epoch + now + VALID_DAYS * day;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The file's line; made by `make` where there is no file.
fn kept(run_dir: &RunDir, name: &str, make: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    match fs::read_to_string(run_dir.file(name)) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = make()?;
    write(run_dir, name, &made)?;
    Ok(made)
}

/// For the owner's eyes alone, and as a whole: a reader finds all of it or nothing.
fn write(run_dir: &RunDir, name: &str, text: &str) -> io::Result<()> {
    let new = run_dir.file(&format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&new, run_dir.file(name))
}

fn random() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_what_they_are_not() {
        let secrets = Secrets::of(random().unwrap(), random().unwrap());
        let (token, header) = (secrets.token.clone(), secrets.identity_header.clone());
        assert_ne!(token, header);
        assert_eq!(token.len(), 2 * SECRET_BYTES);
        assert!(secrets.is_token(&token) && secrets.is_identity_header(&header));
        for wrong in [
            "",
            &header,
            &token[1..],
            &format!("{token}0"),
            &token.to_uppercase(),
        ] {
            assert!(!secrets.is_token(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_is_made_for_this_machine() {
        let made = Certificate::made().unwrap();
        assert!(made.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
