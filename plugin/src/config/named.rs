//! Values that name functions of the guest: they must be in the symbols.

use super::error::ConfigError;
use crate::arch::platform::Platform;
use crate::exposure::Deferral;
use crate::what_if::WithoutAt;
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::entries::fits;

/// A function that the user names: its return commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitFunction {
    /// Its symbol.
    pub symbol: String,
    /// The events by which it makes every CPU serialize before it returns; `None`: it is not asked whether it does.
    pub syncs: Option<SyncEventSet>,
}

/// `SYMBOL`, or `SYMBOL:EVENT` and further events as items of their own. What a function of the kernel's does to make
/// every CPU serialize is taken to be any of the instructions that do nothing else, if the user does not say; one of a
/// program's is not asked: which CPUs it means only the program knows.
pub(super) fn commit_functions(
    items: &[String],
    symbols: &Symbolizer,
    platform: &dyn Platform,
) -> Result<Vec<CommitFunction>, ConfigError> {
    let mut functions: Vec<CommitFunction> = Vec::new();
    let mut takes_events = false;
    for item in items {
        let event = |name: &str| visible_event(platform, name);
        if let (true, Some(event), Some(function)) = (takes_events, event(item), functions.last_mut()) {
            function.syncs = function.syncs.map(|syncs| syncs.with(event));
            continue;
        }
        let (symbol, named) =
            item.split_once(':').map_or((item.as_str(), None), |(symbol, event)| (symbol, Some(event)));
        known_symbol("commit", Some(symbol), symbols)?;
        let kernel = symbols.address_of(symbol).is_some_and(|location| location.kernel);
        let refused = |why| {
            Err(ConfigError::CommitEvent {
                symbol: symbol.to_owned(),
                event: named.unwrap_or_default().to_owned(),
                why,
            })
        };
        let syncs = match named {
            None => kernel.then_some(platform.facts().linux.explicit_syncs),
            Some(_) if !kernel => {
                return refused(
                    "only the kernel's functions are asked whether every CPU has serialized: leave the event out",
                );
            }
            Some(name) => match event(name) {
                Some(event) => Some(SyncEventSet::EMPTY.with(event)),
                None => return refused("no such event, or none that a plugin can see"),
            },
        };
        takes_events = named.is_some();
        functions.push(CommitFunction { symbol: symbol.to_owned(), syncs });
    }
    Ok(functions)
}

/// The event of that name, if the plugin can see it.
fn visible_event(platform: &dyn Platform, name: &str) -> Option<SyncEventId> {
    platform.facts().arch.event_by_name(name).filter(|event| platform.can_see(*event))
}

/// An item of `without=` with a place.
pub(super) fn without_at(platform: &dyn Platform, item: &str, symbols: &Symbolizer) -> Result<WithoutAt, ConfigError> {
    let (event, symbol) = item.split_once('@').unwrap_or((item, ""));
    let arch = platform.facts().arch;
    // For its error.
    Profile::select(arch, None, &[], &[event.to_owned()])?;
    let hint = kernel_hint(symbols);
    let known = arch.event_by_name(event).map(|event| WithoutAt { event, symbol: symbol.to_owned() });
    known.filter(|place| place.is_known(symbols, platform.facts())).ok_or_else(|| ConfigError::NoPlace {
        item: item.to_owned(),
        hint,
        entries: platform.facts().words.entries,
    })
}

/// An item of `defer=`.
pub(super) fn deferral(platform: &dyn Platform, item: &str, symbols: &Symbolizer) -> Result<Deferral, ConfigError> {
    let (name, symbol) = item.split_once('@').map_or((item, None), |(event, symbol)| (event, Some(symbol)));
    let refused = |why| Err(ConfigError::Deferral { item: item.to_owned(), why });
    let Some(event) = visible_event(platform, name) else {
        return refused("no such event, or none that a plugin can see");
    };
    let is_known = |symbol: &str| {
        symbols.kernel_table().is_some_and(|table| table.symbols().any(|known| fits(symbol, known.name)))
    };
    if !symbol.is_none_or(is_known) {
        return refused("no such function in the kernel's symbols (symbols=PATH)");
    }
    Ok(Deferral { event, symbol: symbol.map(str::to_owned) })
}

/// Has the kernel the functions that the profile goes by?
pub(super) fn known_places(profile: &Profile, symbols: &Symbolizer) -> Result<(), ConfigError> {
    let missing = |name: &str| symbols.kernel_table().is_none_or(|table| table.address_of(name).is_none());
    if profile.only_at.iter().any(|only| missing(only.function)) {
        return Err(ConfigError::NeedsKernel { profile: profile.name, hint: kernel_hint(symbols) });
    }
    Ok(())
}

fn kernel_hint(symbols: &Symbolizer) -> &'static str {
    if symbols.kernel_table().is_none() {
        "; give symbols=PATH, its image or its System.map"
    } else {
        ", and this one has no such function"
    }
}

/// A symbol of any of the files.
pub(super) fn known_symbol(
    key: &'static str,
    symbol: Option<&str>,
    symbols: &Symbolizer,
) -> Result<Option<String>, ConfigError> {
    let Some(symbol) = symbol else { return Ok(None) };
    if symbols.address_of(symbol).is_none() {
        let hint = if symbols.kernel_table().is_none() && symbols.program_tables().is_empty() {
            "; give symbols=PATH"
        } else {
            " in the files of symbols="
        };
        return Err(ConfigError::NoSymbol { key, symbol: symbol.to_owned(), hint });
    }
    Ok(Some(symbol.to_owned()))
}
