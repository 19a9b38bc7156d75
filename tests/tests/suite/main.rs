//! The tests of the whole: one program, a file for each promise.

mod calls;
mod clients;
mod doors;
mod tidy;
