//! Everything that needs more than one crate: the real binary, a real Kafka, real tables.

mod broker;
mod commands;
mod crash;
mod dependency_arrows;
mod documentation;
mod documents;
mod end_to_end;
mod feed;
mod fencing;
mod files;
mod millrace;
mod process;
mod table;
mod trouble;
mod wait;
