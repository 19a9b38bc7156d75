//! What a certificate says of its owner: its distinguished name (as RFC 4514 writes it), and its further names.

use x509_parser::{
    certificate::X509Certificate,
    der_parser::oid::Oid,
    extensions::GeneralName,
    prelude::FromDer as _,
    x509::{RelativeDistinguishedName, X509Name},
};

/// How many further names are looked at.
const MAX_NAMES: usize = 64;

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The subject, the most particular part first; `None` when there is none that can be written down.
    pub(crate) dn: Option<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) uris: Vec<String>,
    pub(crate) emails: Vec<String>,
    /// When the certificate ends, in seconds since 1970.
    pub(crate) not_after: u64,
}

impl Names {
    /// Reads a certificate in DER form; `None` when it cannot be read.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Self {
            dn: dn(certificate.subject()),
            not_after: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default(),
            ..Self::default()
        };
        let further = certificate.subject_alternative_name().ok()?;
        let further = further.iter().flat_map(|names| &names.value.general_names);
        for name in further.take(MAX_NAMES) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
                _ => {}
            }
        }
        Some(names)
    }
}

fn dn(name: &X509Name<'_>) -> Option<String> {
    let parts: Option<Vec<String>> = name.iter_rdn().map(part).collect();
    let mut parts = parts?;
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn part(part: &RelativeDistinguishedName<'_>) -> Option<String> {
    let attributes: Option<Vec<String>> = part
        .iter()
        .map(|attribute| {
            let value = attribute.as_str().ok()?;
            Some(format!("{}={}", key(attribute.attr_type()), escaped(value)))
        })
        .collect();
    attributes.map(|attributes| attributes.join("+"))
}

/// The short name of an attribute, or its number.
fn key(oid: &Oid<'_>) -> String {
    let number = oid.to_id_string();
    let short = match number.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return number,
    };
    short.to_owned()
}

/// A value such that it cannot be taken for more than one: what separates has a backslash before it.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let at_an_end = (at == 0 && matches!(letter, ' ' | '#')) || (at == last && letter == ' ');
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', letter]),
            _ if at_an_end => out.extend(['\\', letter]),
            _ if letter.is_control() => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_be_taken_for_more_than_one() {
        for (value, written) in [
            ("ci", "ci"),
            ("ci,O=Acme", "ci\\,O=Acme"),
            ("a+b", "a\\+b"),
            (" a ", "\\ a\\ "),
            ("#a", "\\#a"),
            ("a\\", "a\\\\"),
            ("a\nb", "a\\0Ab"),
            ("Zoë", "Zoë"),
        ] {
            assert_eq!(escaped(value), written);
        }
    }
}
