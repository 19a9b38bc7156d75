//! Resource URIs, as far as subscriptions compare them.

/// Whether who has subscribed to a resource is to hear of this one: it is the same, or a part of it.
#[must_use]
pub fn covers(subscribed: &str, uri: &str) -> bool {
    match uri.strip_prefix(subscribed) {
        Some("") => true,
        Some(rest) => subscribed.ends_with('/') || rest.starts_with(['/', '?', '#']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_covers_the_resource_and_its_parts() {
        for (subscribed, uri, expected) in [
            ("a://b", "a://b", true),
            ("a://b", "a://b/c", true),
            ("a://b", "a://b#part", true),
            ("a://b/", "a://b/c", true),
            ("a://b", "a://bc", false),
            ("a://b/c", "a://b", false),
        ] {
            assert_eq!(covers(subscribed, uri), expected, "{subscribed} {uri}");
        }
    }
}
