//! Client certificates: which names in them mean whom.
//!
//! The door has checked that a certificate is genuine before it comes here. The first line that fits says who its owner is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus_schema::{Principal, policy::Scope, principal::DEFAULT_TENANT};
use tokio::time::Instant;

use super::{Admitted, Refusal};
use crate::tls::{Names, Peer};

/// Who vouches for those that come with a certificate.
const ISSUER: &str = "urn:trunkline:certificate";
/// The longest name that is taken, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// Whose certificates mean whom.
#[derive(Clone)]
pub struct CertificateOptions {
    /// Which certificates.
    pub name: CertificateName,
    /// Who comes with them; left out, the name itself.
    pub subject: Option<String>,
    /// Whose servers it may see.
    pub tenant: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// What it is allowed.
    pub scopes: Vec<Scope>,
}

/// A name in a certificate, as a pattern in which `*` stands for one piece of it or a part of one: whatever has no `,` and `+` in a
/// distinguished name, no `.` in a DNS name, no `/` in a URI, and no `@` in an email address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The subject, as RFC 4514 writes it.
    Dn(String),
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// An email address.
    Email(String),
}

impl CertificateOptions {
    /// Certificates by a name, whose owners are called by it.
    #[must_use]
    pub fn new(name: CertificateName) -> Self {
        Self {
            name,
            subject: None,
            tenant: DEFAULT_TENANT.to_owned(),
            roles: Vec::new(),
            scopes: Vec::new(),
        }
    }
}

/// Says who the owner of a certificate is.
///
/// # Errors
/// [`Refusal::BadCertificate`] when it counts no more, or no line fits.
pub(super) fn admit(peer: &Peer, lines: &[CertificateOptions]) -> Result<Admitted, Refusal> {
    if !peer.is_trusted() {
        return Err(Refusal::BadCertificate(
            "the client certificate has ended, or its authority is not trusted any more; connect again with another",
        ));
    }
    let principal = principal(peer.names(), lines).ok_or(Refusal::BadCertificate(
        "the client certificate is genuine, and none of its names is known here; its operator has to add it to [[auth.certificates]]",
    ))?;
    Ok(Admitted {
        principal,
        until: deadline(peer.ends_at()),
        expires_at: Some(peer.ends_at()),
        blocks: None,
        peer: None,
        standing: None,
    })
}

/// The first line that fits, with the name by which it does.
pub(super) fn principal(names: &Names, lines: &[CertificateOptions]) -> Option<Principal> {
    lines.iter().find_map(|line| {
        let name = line.name.found_in(names)?;
        let subject = line.subject.as_deref().unwrap_or(name);
        Some(Principal {
            issuer: Some(ISSUER.to_owned()),
            client: names.dn.clone().filter(|dn| dn.len() <= MAX_NAME_BYTES),
            roles: line.roles.clone(),
            scopes: line
                .scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            ..Principal::new(subject, &line.tenant)
        })
    })
}

impl CertificateName {
    fn found_in<'n>(&self, names: &'n Names) -> Option<&'n str> {
        let fits = |name: &&String| {
            name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control) && self.is(name)
        };
        let found = match self {
            Self::Dn(_) => names.dn.iter().find(fits),
            Self::Dns(_) => names.dns.iter().find(fits),
            Self::Uri(_) => names.uris.iter().find(fits),
            Self::Email(_) => names.emails.iter().find(fits),
        };
        found.map(String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Dn(pattern) => fits(pattern, name, &[',', '+']),
            Self::Dns(pattern) => fits(&pattern.to_ascii_lowercase(), &name.to_ascii_lowercase(), &['.']),
            Self::Uri(pattern) => fits(pattern, name, &['/']),
            Self::Email(pattern) => fits(pattern, name, &['@']),
        }
    }
}

/// Whether a name is what a pattern says, in which `*` stands for at least one character and for none of those that separate.
fn fits(pattern: &str, name: &str, separators: &[char]) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(before) else {
        return false;
    };
    let mut ends = tail.char_indices();
    loop {
        match ends.next() {
            Some((_, letter)) if separators.contains(&letter) => return false,
            Some((at, letter)) if fits(rest, &tail[at + letter.len_utf8()..], separators) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

fn deadline(ends_at: u64) -> Option<Instant> {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(ends_at))?;
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_no_more_than_a_piece() {
        let uri = |pattern: &str| CertificateName::Uri(pattern.to_owned());
        let dns = |pattern: &str| CertificateName::Dns(pattern.to_owned());
        let dn = |pattern: &str| CertificateName::Dn(pattern.to_owned());
        for (pattern, name, expected) in [
            (uri("spiffe://acme/ci"), "spiffe://acme/ci", true),
            (uri("spiffe://acme/ci"), "spiffe://acme/ci2", false),
            (uri("spiffe://acme/ns/*/sa/*"), "spiffe://acme/ns/a/sa/b", true),
            (uri("spiffe://acme/ns/*/sa/*"), "spiffe://acme/ns/a/x/sa/b", false),
            (uri("spiffe://acme/*"), "spiffe://acme/", false),
            (uri("spiffe://acme/*"), "spiffe://acme.evil/ci", false),
            (uri("spiffe://acme/*-bot"), "spiffe://acme/a-bot-bot", true),
            (dns("*.ci.example"), "A.CI.example", true),
            (dns("*.ci.example"), "a.b.ci.example", false),
            (dn("CN=*,O=Acme"), "CN=ci,O=Acme", true),
            (dn("CN=*,O=Acme"), "CN=ci,OU=x,O=Acme", false),
            (dn("CN=*,O=Acme"), "CN=ci\\,O\\=Acme,O=Evil", false),
            (
                CertificateName::Email("*@acme.example".to_owned()),
                "ann@acme.example",
                true,
            ),
            (
                CertificateName::Email("*@acme.example".to_owned()),
                "a@b@acme.example",
                false,
            ),
        ] {
            assert_eq!(pattern.is(name), expected, "{pattern:?} {name}");
        }
    }

    #[test]
    fn the_first_line_that_fits_says_who_it_is() {
        let names = Names {
            dn: Some("CN=ci,O=Acme".to_owned()),
            uris: vec!["spiffe://acme/ci".to_owned()],
            ..Names::default()
        };
        let named = CertificateOptions {
            subject: Some("robot".to_owned()),
            ..CertificateOptions::new(CertificateName::Uri("spiffe://acme/*".to_owned()))
        };
        let any = CertificateOptions::new(CertificateName::Dn("CN=*,O=Acme".to_owned()));
        let found = |lines: &[CertificateOptions]| principal(&names, lines).map(|who| who.subject);
        assert_eq!(found(&[named.clone(), any.clone()]).as_deref(), Some("robot"));
        assert_eq!(found(&[any, named]).as_deref(), Some("CN=ci,O=Acme"));
        assert_eq!(found(&[]), None);
    }
}
