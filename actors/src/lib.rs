//! The actors of the platform: everything that offers tools on the bus. One room each; a room never names another room,
//! and none of them knows which door a caller came through. What several domain servers do alike stands in a room without tools: `exports`.

pub mod exports;
pub mod products;
pub mod registry;
pub mod tasks;
pub mod workers;
