//! Envelopes: no bytes make a decoder panic, and what decodes comes back equal after encoding.

#![no_main]

use bus_schema::{ContentType, Frame, Request, ServerCard, envelope::Control};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for codec in [ContentType::Json, ContentType::MessagePack] {
        if let Ok(request) = codec.decode::<Request>(bytes) {
            let again = codec.encode(&request).expect("what was read can be written");
            assert_eq!(codec.decode::<Request>(&again).expect("and read again"), request);
        }
        if let Ok(frame) = codec.decode::<Frame>(bytes) {
            let again = codec.encode(&frame).expect("what was read can be written");
            assert_eq!(codec.decode::<Frame>(&again).expect("and read again"), frame);
        }
        let _ = codec.decode::<Control>(bytes);
        let _ = codec.decode::<ServerCard>(bytes);
        let _ = codec.to_json(bytes);
        let _ = codec.from_json(bytes);
    }
});
