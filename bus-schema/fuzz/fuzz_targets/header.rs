//! Header values and trace contexts: no text panics, and every value comes back from its encoding.

#![no_main]

use bus_schema::{ContentType, TraceContext, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = header::decode_value(text);
    let encoded = header::encode_value(text).into_owned();
    assert_eq!(header::decode_value(&encoded).expect("our own encoding decodes"), text);
    let _ = ContentType::parse(text);
    if let Some(context) = TraceContext::parse(text, Some(text)) {
        assert_eq!(context.child(1).trace_id(), context.trace_id());
    }
});
