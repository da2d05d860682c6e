//! The arguments as pairs of a key and a value.

use super::error::{ConfigError, bad};
use super::keys::{GONE, KEYS, is_default, switch};
use std::path::PathBuf;

/// The pairs as given, each known key at most once.
pub(super) struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, ConfigError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for argument in arguments {
            let (key, value) = argument.split_once('=').ok_or_else(|| ConfigError::NotAPair(argument.clone()))?;
            if let Some((key, why)) = GONE.iter().find(|(gone, _)| *gone == key) {
                return Err(ConfigError::Gone { key, value: value.to_owned(), why });
            }
            let (key, built) = *KEYS
                .iter()
                .find(|(known, _)| *known == key)
                .ok_or_else(|| ConfigError::UnknownKey { key: key.to_owned() })?;
            if pairs.iter().any(|(seen, _)| *seen == key) {
                return Err(ConfigError::Twice { key });
            }
            if value.is_empty() {
                return Err(bad(key, value, "a value is expected"));
            }
            if !built && !is_default(key, value) {
                return Err(ConfigError::NotBuilt { key, value: value.to_owned() });
            }
            pairs.push((key, value.to_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of a key, if it is given.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// One of QEMU's booleans.
    pub(super) fn switch(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.get(key).map_or(Ok(default), |value| switch(value).ok_or_else(|| bad(key, value, "on or off is expected")))
    }

    /// A path.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.get(key) {
            // What QEMU makes of a bare key.
            Some(value @ ("on" | "off")) => {
                Err(bad(key, value, "a path is expected (for a file of this name give ./on or ./off)"))
            }
            other => Ok(other.map(PathBuf::from)),
        }
    }

    /// A list whose items are joined by `+`.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.get(key)
            .map(|value| value.split('+').filter(|item| !item.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// Which of two words is it? `false`: the first one, which is taken where none is given. `off` may be said in all
    /// of QEMU's ways.
    pub(super) fn is_second(
        &self,
        key: &'static str,
        words: [&str; 2],
        expected: &'static str,
    ) -> Result<bool, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(false) };
        let is = |word: &&str| *word == value || *word == "off" && switch(value) == Some(false);
        words.iter().position(is).map(|which| which == 1).ok_or_else(|| bad(key, value, expected))
    }

    /// A key with this value needs the store side: is that watched?
    pub(super) fn needs_writers(&self, key: &'static str, writers: bool) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(value) if !writers => Err(ConfigError::NeedsWriters { key, value: value.to_owned() }),
            _ => Ok(()),
        }
    }
}
