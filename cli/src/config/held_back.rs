//! What of a changed file a running process does not take: found by comparing what the file says, so that no key can be forgotten.

use toml::{Table, Value};

use super::Config;

/// The keys that are taken while a process runs, each with all below it.
const TAKEN: [&str; 11] = [
    "guardrails",
    "http.tls.cert",
    "http.tls.client_ca",
    "http.tls.client_certificates",
    "http.tls.client_crl",
    "http.tls.key",
    "integrity",
    "limits",
    "servers",
    "tool_timeouts_ms",
    "virtual",
];

impl Config {
    /// The keys whose changes hold only in a process that is started anew, in the order of their names.
    #[must_use]
    pub fn held_back(&self, new: &Self) -> Vec<String> {
        let read = |config: &Self| -> Table {
            let text = config.text().unwrap_or_default();
            text.parse().unwrap_or_default()
        };
        let mut changed = Vec::new();
        compare("", &read(self), &read(new), &mut changed);
        changed.retain(|key| !is_taken(key));
        changed.sort_unstable();
        changed
    }
}

fn is_taken(key: &str) -> bool {
    TAKEN.iter().any(|taken| {
        let below = key.strip_prefix(taken);
        below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
    })
}

/// Names the keys that differ, as deep as both have tables. A section that is not there has no keys; what is missing below is one change.
fn compare(within: &str, old: &Table, new: &Table, changed: &mut Vec<String>) {
    let nothing = Table::new();
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let path = match within {
            "" => key.clone(),
            within => format!("{within}.{key}"),
        };
        match (old.get(key), new.get(key)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(&path, old, new, changed),
            (Some(Value::Table(old)), None) if within.is_empty() => compare(&path, old, &nothing, changed),
            (None, Some(Value::Table(new))) if within.is_empty() => compare(&path, &nothing, new, changed),
            (old, new) if old == new => {}
            _ => changed.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn what_a_running_process_does_not_take_is_named_by_its_key() {
        let tls = |cert: &str| format!("[http.tls]\ncert = \"{cert}\"\nkey = \"a.key\"\n");
        let server = "[[servers]]\nid = \"time\"\ncommand = [\"python3\"]\n";
        for (old, new, expected) in [
            ("", "", &[][..]),
            ("threads = 1", "threads = 2", &["threads"]),
            ("# a remark", "", &[]),
            (
                "tenants = [\"acme\"]",
                "tenants = [\"acme\", \"umbrella\"]",
                &["tenants"],
            ),
            ("", server, &[]),
            (server, "[[limits]]\nname = \"l\"\ncalls = 7\n", &[]),
            (&tls("a.crt"), &tls("b.crt"), &[]),
            ("", &tls("a.crt"), &["http.tls"]),
            (&tls("a.crt"), "listen = \"127.0.0.1:1\"", &["http.tls", "listen"]),
            ("", "[policy]\ndefault = \"deny\"\n", &["policy.default"]),
            (
                "[policy.scopes]\na = [\"x__y\"]\n",
                "[policy.scopes]\na = [\"x__z\"]\n[registry]\npublic_catalogue = true\n",
                &["policy.scopes.a", "registry.public_catalogue"],
            ),
        ] {
            let [before, after] = [old, new].map(|text| load(text).expect("loads"));
            assert_eq!(before.held_back(&after), expected, "{old} → {new}");
        }
    }
}
