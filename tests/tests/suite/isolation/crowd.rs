//! Many servers at once, of which some fail in different ways.
