//! Stops callers of the tenant, and lets them go.

use bus_schema::{
    Principal, RpcError,
    block::{BadBlock, Block, Blocked, Release, Stop},
    registry::Refusal,
};
use runtime::blocks::{BlockError, Blocks};

use super::refused;

/// Stops somebody, for a time or for good.
pub(super) async fn block(blocks: &Blocks, by: &Principal, wish: Stop) -> Result<Block, RpcError> {
    let who = Blocked::new(&by.tenant, wish.issuer, wish.subject);
    let block = blocks.block(by, who, wish.for_secs, wish.reason).await;
    block.map_err(|error| not_done(&error))
}

/// Lets somebody go.
pub(super) async fn unblock(blocks: &Blocks, by: &Principal, wish: Release) -> Result<(), RpcError> {
    let who = Blocked::new(&by.tenant, wish.issuer, wish.subject);
    let done = blocks.unblock(by, &who).await;
    done.map_err(|error| not_done(&error))
}

fn not_done(error: &BlockError) -> RpcError {
    let refusal = match error {
        BlockError::Bad(bad) => Refusal::Bad {
            field: field_of(bad).to_owned(),
        },
        BlockError::Unknown { .. } => Refusal::Unknown,
        _ => Refusal::Unavailable,
    };
    refused(error.to_string(), &refusal)
}

fn field_of(bad: &BadBlock) -> &'static str {
    match bad {
        BadBlock::TooLong(field) => field,
        BadBlock::Time(_) => "forSecs",
        _ => "subject",
    }
}
