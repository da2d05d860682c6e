//! The store side: which stores concern code, what they change, and who made them.

pub mod code_store;
pub mod page_filter;
pub mod store_check;
pub mod store_side;
