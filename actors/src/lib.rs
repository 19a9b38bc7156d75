//! The actors of the platform: everything that offers tools on the bus. One room each; a room never names another room,
//! and none of them knows which door a caller came through.

pub mod products;
pub mod registry;
pub mod tasks;
