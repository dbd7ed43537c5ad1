//! Everything that needs more than one crate: the real binary, a real Kafka, real tables.

mod azure;
mod bench;
mod broker;
mod certificates;
mod commands;
mod crash;
mod demo;
mod dependency_arrows;
mod disk_full;
mod documentation;
mod end_to_end;
mod event_hub;
mod feed;
mod fencing;
mod files;
mod kafka_cluster;
mod kafka_faults;
mod kafka_login;
mod kafka_topics;
mod millrace;
mod numbers;
mod process;
mod small_disk;
mod table;
mod trouble;
mod wait;
