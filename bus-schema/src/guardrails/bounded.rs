//! That looking at a text costs so many steps a byte, whatever is in it.

/// Tries texts of some bytes that are made of one piece again and again, with what counts the steps over each.
pub(super) fn assert_bounded(
    pieces: &[&str],
    (bytes, most): (usize, u64),
    mut look: impl FnMut(&str, &mut u64),
) {
    for piece in pieces {
        let text = piece.repeat(bytes / piece.len());
        let mut steps = 0;
        look(&text, &mut steps);
        let length = text.len();
        assert!(
            steps <= most * length as u64,
            "{piece}: {steps} steps for {length} bytes"
        );
    }
}
