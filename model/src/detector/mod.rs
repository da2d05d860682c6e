//! The detector that is fast enough for every execution of a guest: what it knows without a lock, and how that meets
//! the stores, which come with one.
//!
//! [`flags`]: what each vCPU executed in its epoch, and since when; how an executor and a storing vCPU find each other.
//! [`reach`]: which segments a change concerns. [`changes`]: what a store that is told of means for both. The slow path
//! behind it is [`history`] (or [`light`] where no store is watched); [`ledger`] and [`sync_log`] keep what made
//! executions safe.
//!
//! All of it is generic over where flags lie ([`flags::Board`]) and what an atomic number is ([`flags::Word`]): the
//! plugin keeps them in QEMU's scoreboards, the property tests (`tests/history.rs`) in plain ones, and loom
//! (`tests/fence.rs`) in its own, which it lets meet in every order.

pub mod changes;
pub mod flags;
pub mod history;
pub mod ledger;
pub mod light;
pub mod reach;
pub mod sync_log;
pub mod sync_origin;
