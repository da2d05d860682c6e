//! Replays an event recording on the plain model.
//!
//! Two uses. *What if*: the events of one run, judged under another profile or with other buffers, in seconds and
//! without a guest ([`settings`]). *Proof*: the plugin judges on a fast path, and [`check`] compares each verdict that
//! it recorded with the plain model's on the same events. The comparison is strict: a verdict too few, one too many,
//! another kind, other candidates, other stores are all differences.
//!
//! A recording is replayed in one pass: [`replay`] feeds the records to the model, [`check`] and [`sites`] look at what
//! it says, [`report`] prints it, [`session`] joins them. Nothing of the file is trusted: whatever is in it ends in an
//! error or in a report that says what is wrong.
#![forbid(unsafe_code)]

pub mod check;
pub mod replay;
pub mod report;
pub mod session;
pub mod settings;
pub mod sites;
