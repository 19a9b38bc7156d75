//! Finds secrets, and what people do not want to be known of them.
//!
//! Secrets of well-known services are told by how they begin ([`secrets`]); numbers are told from others by their checksums
//! ([`numbers`]); what only one enterprise has, by regular expressions of its own. A text is read once for each of them and never
//! backwards further than a fixed length, so the time is bounded by its length, whatever stands in it.

mod numbers;
mod secrets;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use secrets::Secrets;

/// What is looked for, by the name that documents and redactions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    AwsKey,
    GithubToken,
    SlackToken,
    Jwt,
    PrivateKey,
    ApiKey,
    Card,
    Iban,
    Email,
    Phone,
    Ssn,
}

impl What {
    const ALL: [Self; 11] = [
        Self::AwsKey,
        Self::GithubToken,
        Self::SlackToken,
        Self::Jwt,
        Self::PrivateKey,
        Self::ApiKey,
        Self::Card,
        Self::Iban,
        Self::Email,
        Self::Phone,
        Self::Ssn,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::AwsKey => "aws_key",
            Self::GithubToken => "github_token",
            Self::SlackToken => "slack_token",
            Self::Jwt => "jwt",
            Self::PrivateKey => "private_key",
            Self::ApiKey => "api_key",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Ssn => "ssn",
        }
    }

    const fn is_secret(self) -> bool {
        matches!(
            self,
            Self::AwsKey | Self::GithubToken | Self::SlackToken | Self::Jwt | Self::PrivateKey | Self::ApiKey
        )
    }
}

/// Everything that can be looked for, as documents name it.
pub(super) const NAMES: &str = "secrets (aws_key, github_token, slack_token, jwt, private_key, api_key) and pii (card, iban, email, phone, ssn)";

/// How many bytes of program one expression may become.
const MAX_PROGRAM: usize = 256 * 1024;
/// How many findings of one expression are taken out of a text; what stands behind the last of them goes with it.
const MAX_MATCHES: usize = 1_000;

/// Something that was found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'s> {
    pub(super) place: Range<usize>,
    pub(super) what: &'s str,
}

/// What one step looks for.
#[derive(Debug)]
pub(super) struct Sensitive {
    wanted: BTreeSet<What>,
    secrets: Option<Secrets>,
    /// Whether any expression of the operator's matches; then each is asked where.
    own: RegexSet,
    own_each: Vec<(String, Regex)>,
}

impl Sensitive {
    /// # Errors
    /// The field that cannot be meant, and why.
    pub(super) fn of(find: &[String], patterns: &BTreeMap<String, String>) -> Result<Self, (String, String)> {
        let mut wanted = BTreeSet::new();
        for name in find {
            let is_meant = |what: &What| match name.as_str() {
                "secrets" => what.is_secret(),
                "pii" => !what.is_secret(),
                name => what.as_str() == name,
            };
            let meant: Vec<What> = What::ALL.into_iter().filter(is_meant).collect();
            if meant.is_empty() {
                return Err((
                    "find".to_owned(),
                    format!("nothing is called `{name}`; there are {NAMES}"),
                ));
            }
            wanted.extend(meant);
        }
        let mut own_each = Vec::with_capacity(patterns.len());
        for (name, pattern) in patterns {
            let at = format!("patterns.{name}");
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            {
                return Err((at, "a name has lower-case letters, digits and `_`".to_owned()));
            }
            let built = RegexBuilder::new(pattern).size_limit(MAX_PROGRAM).build();
            let regex = built.map_err(|error| {
                (
                    at.clone(),
                    format!("this is no expression that can be used: {error}"),
                )
            })?;
            if regex.is_match("") {
                return Err((at, "the expression also matches where nothing stands".to_owned()));
            }
            own_each.push((name.clone(), regex));
        }
        let own = RegexSetBuilder::new(patterns.values())
            .size_limit(MAX_PROGRAM * 8)
            .build()
            .map_err(|error| {
                (
                    "patterns".to_owned(),
                    format!("together they cannot be used: {error}"),
                )
            })?;
        let secrets = wanted.iter().any(|what| what.is_secret()).then(Secrets::new);
        Ok(Self {
            wanted,
            secrets,
            own,
            own_each,
        })
    }

    /// What stands in a text, in order; no two of them overlap. `steps` counts up with the bytes that are looked at.
    pub(super) fn find<'s>(&'s self, text: &str, steps: &mut u64) -> Vec<Found<'s>> {
        let mut all = Vec::new();
        let mut take = |what: What, place: Range<usize>| {
            if self.wanted.contains(&what) {
                all.push(Found {
                    place,
                    what: what.as_str(),
                });
            }
        };
        if let Some(secrets) = &self.secrets {
            secrets.find(text, steps, &mut take);
        }
        if self.wanted.contains(&What::Email) {
            numbers::emails(text, steps, &mut take);
        }
        if self
            .wanted
            .iter()
            .any(|what| matches!(what, What::Card | What::Iban | What::Phone | What::Ssn))
        {
            numbers::find(text, steps, &mut take);
        }
        self.find_own(text, &mut all);
        all.sort_by_key(|found| (found.place.start, std::cmp::Reverse(found.place.end)));
        let mut end = 0;
        all.retain(|found| {
            let is_apart = found.place.start >= end;
            if is_apart {
                end = found.place.end;
            }
            is_apart
        });
        all
    }

    /// What is found in a number as it is spelled.
    pub(super) fn find_in_number<'s>(&'s self, spelled: &str, steps: &mut u64) -> Vec<Found<'s>> {
        if spelled.len() < numbers::SHORTEST_CARD && self.own_each.is_empty() {
            return Vec::new();
        }
        self.find(spelled, steps)
    }

    fn find_own<'s>(&'s self, text: &str, all: &mut Vec<Found<'s>>) {
        for at in self.own.matches(text) {
            let (name, regex) = &self.own_each[at];
            for (count, found) in regex
                .find_iter(text)
                .filter(|found| !found.is_empty())
                .enumerate()
            {
                // Each search may read to the end, so there is no search without number.
                let is_last = count + 1 == MAX_MATCHES;
                let end = if is_last { text.len() } else { found.end() };
                let place = found.start()..end;
                all.push(Found { place, what: name });
                if is_last {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bounded::assert_bounded, *};

    fn found(find: &str, text: &str) -> Vec<String> {
        let sensitive = Sensitive::of(&[find.to_owned()], &BTreeMap::new()).expect("a name");
        let found = sensitive.find(text, &mut 0);
        found
            .iter()
            .map(|found| format!("{}:{}", found.what, &text[found.place.clone()]))
            .collect()
    }

    #[test]
    fn secrets_of_known_services_are_found_by_how_they_begin() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let github = format!("ghp_{}", "a1".repeat(18));
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----";
        for (text, expected) in [
            (
                "id AKIAIOSFODNN7EXAMPLE.",
                vec!["aws_key:AKIAIOSFODNN7EXAMPLE".to_owned()],
            ),
            (&format!("Bearer {jwt}"), vec![format!("jwt:{jwt}")]),
            (&format!("a={github}&b"), vec![format!("github_token:{github}")]),
            (
                "xoxb-123456789012-abcdefABCDEF",
                vec!["slack_token:xoxb-123456789012-abcdefABCDEF".to_owned()],
            ),
            (&format!("x\n{key}\ny"), vec![format!("private_key:{key}")]),
            (
                "-----BEGIN PRIVATE KEY-----\ncut off",
                vec!["private_key:-----BEGIN PRIVATE KEY-----\ncut off".to_owned()],
            ),
            (
                "sk-ant-api03-abcdefghijklmnopqrstuv",
                vec!["api_key:sk-ant-api03-abcdefghijklmnopqrstuv".to_owned()],
            ),
            // What only looks so.
            ("AKIAIOSFODNN7EXAMPL", vec![]),
            ("XAKIAIOSFODNN7EXAMPLE", vec![]),
            ("AKIAIOSFODNN7EXAMPLEX", vec![]),
            ("AKIAiosfodnn7example", vec![]),
            ("ghp_short", vec![]),
            ("eyJhbGciOiJIUzI1NiJ9.only-two", vec![]),
            (
                "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
                vec![],
            ),
        ] {
            assert_eq!(found("secrets", text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_told_from_others_by_their_checksums() {
        for (text, expected) in [
            ("pay 4111 1111 1111 1111 now", vec!["card:4111 1111 1111 1111"]),
            ("4111111111111111", vec!["card:4111111111111111"]),
            ("3782-822463-10005", vec!["card:3782-822463-10005"]),
            (
                "4111111111111111 5555555555554444",
                vec!["card:4111111111111111", "card:5555555555554444"],
            ),
            (
                "IBAN DE89 3704 0044 0532 0130 00.",
                vec!["iban:DE89 3704 0044 0532 0130 00"],
            ),
            ("GB82WEST12345698765432", vec!["iban:GB82WEST12345698765432"]),
            ("ssn 078-05-1120", vec!["ssn:078-05-1120"]),
            ("call +49 (30) 901820-0 today", vec!["phone:+49 (30) 901820-0"]),
            ("(212) 555-2368", vec!["phone:(212) 555-2368"]),
            ("212-555-2368", vec!["phone:212-555-2368"]),
            (
                "Ann <ann.o'x+tag@mail.example.co.uk>.",
                vec!["email:x+tag@mail.example.co.uk"],
            ),
            (
                "a@b.example, c@d.example",
                vec!["email:a@b.example", "email:c@d.example"],
            ),
            // One digit is wrong, the issuer does not exist, or it is only a part of something longer.
            ("4111 1111 1111 1112", vec![]),
            ("9111111111111111", vec![]),
            ("41111111111111110000000", vec![]),
            ("a4111111111111111", vec![]),
            ("DE89370400440532013001", vec![]),
            ("XX89370400440532013000", vec![]),
            ("666-05-1120 000-12-1234 123-00-1234 123-45-0000", vec![]),
            ("2026-11-23 12:00 10.0.0.1 v1.2.3", vec![]),
            ("1+1 a@b @x.y user@localhost", vec![]),
        ] {
            assert_eq!(found("pii", text), expected, "{text}");
        }
    }

    #[test]
    fn what_an_enterprise_alone_has_is_found_by_its_own_expressions() {
        let patterns = BTreeMap::from([("staff".to_owned(), "EMP-[0-9]{4}".to_owned())]);
        let sensitive = Sensitive::of(&[], &patterns).expect("an expression");
        let places: Vec<_> = sensitive
            .find("EMP-1234, EMP-12 EMP-9999", &mut 0)
            .into_iter()
            .map(|found| found.place)
            .collect();
        assert_eq!(places, [0..8, 17..25]);
        for (name, pattern, words) in [
            ("Staff", "x", "lower-case letters"),
            ("a", "(", "no expression"),
            ("a", "x*", "nothing stands"),
            ("a", "(?=x)y", "no expression"),
            ("a", "(a{1000}){1000}", "no expression"),
        ] {
            let patterns = BTreeMap::from([(name.to_owned(), pattern.to_owned())]);
            let (at, why) = Sensitive::of(&[], &patterns).expect_err("bad");
            assert!(at.contains(name) && why.contains(words), "{at}: {why}");
        }
        let (at, why) = Sensitive::of(&["passwords".to_owned()], &BTreeMap::new()).expect_err("bad");
        assert!(
            at == "find" && why.contains("`passwords`") && why.contains("iban"),
            "{why}"
        );
    }

    #[test]
    fn the_work_grows_with_the_text_and_no_faster() {
        let all = ["secrets".to_owned(), "pii".to_owned()];
        let sensitive = Sensitive::of(&all, &BTreeMap::new()).expect("names");
        let pieces = [
            "eyJ",
            "eyJ.",
            "a@",
            "@",
            "a.a@a.",
            "4111 ",
            "1",
            "1 ",
            "1-",
            "+1",
            "+",
            "(2",
            "DE89",
            "DE89 ",
            "A1",
            "AKIA",
            "ghp_",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "xoxb-",
            "sk-ant-",
            "212-",
            "078-05-",
        ];
        assert_bounded(&pieces, (60_000, 400), |text, steps| {
            sensitive.find(text, steps);
        });
    }
}
