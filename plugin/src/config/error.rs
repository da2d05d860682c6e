//! Why a command line is refused.

use super::keys::known_keys;
use super::suppress::SuppressError;
use icsan_model::arch::profile::ProfileError;
use icsan_symbols::SymbolError;
use thiserror::Error;

/// Why a command line is refused.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("`{0}`: arguments are key=value; known keys are {known}", known = known_keys())]
    NotAPair(String),
    #[error("unknown key `{key}`; known keys are {known}", known = known_keys())]
    UnknownKey { key: String },
    #[error("`{key}` is given twice")]
    Twice { key: &'static str },
    #[error("{key}={value}: {expected}")]
    BadValue { key: &'static str, value: String, expected: &'static str },
    #[error("{key}={value} is not built into this version: leave it out")]
    NotBuilt { key: &'static str, value: String },
    #[error("{key}={value}: this key was taken away, since {why}: leave it out")]
    Gone { key: &'static str, value: String, why: &'static str },
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("with={name}: no plugin can see this event, so counting it would change nothing")]
    Unseen { name: String },
    #[error("symbols={path}: {source}")]
    Symbols { path: String, source: SymbolError },
    #[error("suppress={path}: {source}")]
    Suppress { path: String, source: SuppressError },
    #[error("{key}={value} needs the store side: not with writers=off")]
    NeedsWriters { key: &'static str, value: String },
    #[error("defer={item}: {why}; give EVENT, or EVENT@SYMBOL")]
    Deferral { item: String, why: &'static str },
    #[error("commit={symbol}:{event}: {why}")]
    CommitEvent { symbol: String, event: String, why: &'static str },
    #[error("without={item}: no such function of the kernel's{hint}; give EVENT@SYMBOL, with {entries}")]
    NoPlace { item: String, hint: &'static str, entries: &'static str },
    #[error("profile={profile} goes by places in the kernel{hint}")]
    NeedsKernel { profile: &'static str, hint: &'static str },
    #[error(
        "record={path}: a recording does not name places, so it would not be true: not with without=EVENT@SYMBOL, nor with profile=no-luck"
    )]
    RecordsNoPlaces { path: String },
    #[error("{key}={symbol}: no such symbol{hint}")]
    NoSymbol { key: &'static str, symbol: String, hint: &'static str },
}

/// A value that the key does not take.
pub(super) fn bad(key: &'static str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { key, value: value.to_owned(), expected }
}
