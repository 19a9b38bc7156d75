//! JSON-RPC messages and tool schemas: no bytes panic, and a name that is exchanged leaves every other byte.

#![no_main]

use bus_schema::{
    ContentType,
    mcp::mirrored,
    rpc::{Message, splice},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::parse(bytes) {
        let _ = message.kind();
        if let Ok(params) = message.peek_params()
            && let Some(name) = params.name
        {
            assert_eq!(splice(bytes, name.get(), name.get()), bytes);
        }
    }
    if let Ok(schema) = ContentType::Json.decode(bytes) {
        let _ = mirrored::mirrored(&schema);
    }
});

