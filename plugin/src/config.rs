//! The keys after `-plugin libicsan.so,`: parsed, checked, and refused in one line that says what and what to do.

use crate::arch::platform::Platform;
use crate::exposure::Deferral;
use crate::injection::Inject;
use crate::report::exit_code::UNPROVEN;
use crate::suppress::{SuppressError, Suppressions};
use crate::what_if::WithoutAt;
use icsan_model::arch::profile::{Profile, ProfileError};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_symbols::linux::entries::fits;
use icsan_symbols::{KaslrRange, SymbolError, SymbolTable, Symbolizer};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Everything that the user chose.
#[derive(Debug)]
pub struct Config {
    /// The profile with `with` and `without` applied.
    pub profile: Profile,
    /// Events that were added to it, for the report.
    pub with: Vec<String>,
    /// Events that were taken from it, and places of events that do not count, for the report.
    pub without: Vec<String>,
    /// Places of events that do not count.
    pub without_at: Vec<WithoutAt>,
    /// Where the JSON Lines go.
    pub report: Option<PathBuf>,
    /// Names for addresses.
    pub symbols: Symbolizer,
    /// What the user does not want to hear of.
    pub suppressions: Suppressions,
    /// Are hazards that are known findings reported as any other?
    pub known: bool,
    /// Is a protocol that only chance made good a hazard? If not it is told of, and does not count.
    pub luck: bool,
    /// By which events the user's design means to serialize CPUs that its protocol leaves out.
    pub defer: Vec<Deferral>,
    /// QEMU's exit code if there was an unsuppressed hazard; 0 leaves QEMU's own, whatever there was.
    pub exitcode: u8,
    /// Watch from the first execution of this symbol on.
    pub start: Option<String>,
    /// Stop watching at the first execution of this symbol.
    pub stop: Option<String>,
    /// Are stores watched? Without them it is the light mode.
    pub writers: bool,
    /// More functions whose return commits what was stored in them.
    pub commit: Vec<CommitFunction>,
    /// Are candidates executed?
    pub inject: Option<Inject>,
    /// Is SERIALIZE carried out where TCG lacks it?
    pub serialize: bool,
    /// Are QEMU's own outdated blocks repaired, or only told of?
    pub repair: bool,
    /// Where the event recording goes.
    pub record: Option<PathBuf>,
    /// Is memory compared after each store with what is noted of it?
    pub check: bool,
}

/// A function that the user names: its return commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitFunction {
    /// Its symbol.
    pub symbol: String,
    /// The events by which it makes every CPU serialize before it returns; `None`: it is not asked whether it does.
    pub syncs: Option<SyncEventSet>,
}

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
    #[error(
        "without={item}: no such function of the kernel's{hint}; give EVENT@SYMBOL, with iret an entry (asm_exc_…, asm_sysvec_…, asm_common_interrupt)"
    )]
    NoPlace { item: String, hint: &'static str },
    #[error("profile={profile} goes by places in the kernel{hint}")]
    NeedsKernel { profile: &'static str, hint: &'static str },
    #[error(
        "record={path}: a recording does not name places, so it would not be true: not with without=EVENT@SYMBOL, nor with profile=no-luck"
    )]
    RecordsNoPlaces { path: String },
    #[error("{key}={symbol}: no such symbol{hint}")]
    NoSymbol { key: &'static str, symbol: String, hint: &'static str },
}

/// The keys, and whether this version has more than their default.
const KEYS: &[(&str, bool)] = &[
    ("profile", true),
    ("with", true),
    ("without", true),
    ("report", true),
    ("symbols", true),
    ("writers", true),
    ("chunk", true),
    ("suppress", true),
    ("known", true),
    ("luck", true),
    ("defer", true),
    ("exitcode", true),
    ("start", true),
    ("stop", true),
    ("speculation", true),
    ("lookahead", false),
    ("prefetch", false),
    ("trace", false),
    ("inject", true),
    ("serialize", true),
    ("commit", true),
    ("emulator", true),
    ("record", true),
    ("check", true),
];

/// Keys that earlier versions had, and why this one has not.
const GONE: &[(&str, &str)] = &[(
    "widen",
    "waiting made nothing be found that is not found without (docs/decisions.md, 23); what a patching protocol leaves \
     to luck is told at each commit now, as `unsynced`",
)];

fn known_keys() -> String {
    KEYS.iter().filter(|(_, built)| *built).map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

/// The pairs as given, each known key at most once.
struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    fn parse(arguments: &[String]) -> Result<Self, ConfigError> {
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

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    fn switch(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.get(key).map_or(Ok(default), |value| switch(value).ok_or_else(|| bad(key, value, "on or off is expected")))
    }

    fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.get(key) {
            // What QEMU makes of a bare key.
            Some(value @ ("on" | "off")) => {
                Err(bad(key, value, "a path is expected (for a file of this name give ./on or ./off)"))
            }
            other => Ok(other.map(PathBuf::from)),
        }
    }

    /// A list whose items are joined by `+`.
    fn list(&self, key: &str) -> Vec<String> {
        self.get(key)
            .map(|value| value.split('+').filter(|item| !item.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

/// Values of keys of later versions that this version fulfils already.
fn is_default(key: &str, value: &str) -> bool {
    match key {
        "lookahead" => value == "0",
        "prefetch" | "trace" => value == "unbounded",
        _ => false,
    }
}

/// QEMU's booleans.
fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

impl Config {
    /// Parses and checks everything; reads the files that it names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(arguments: &[String], platform: &dyn Platform) -> Result<Self, ConfigError> {
        let (arch, linux) = (platform.facts().arch, platform.facts().linux);
        let pairs = Pairs::parse(arguments)?;
        let writers = pairs.switch("writers", true)?;
        let (with, without) = (pairs.list("with"), pairs.list("without"));
        let (places, events): (Vec<_>, Vec<_>) = without.iter().cloned().partition(|item| item.contains('@'));
        let mut profile = Profile::select(arch, pairs.get("profile"), &with, &events)?;
        if let Some(name) =
            with.iter().find(|name| arch.event_by_name(name).is_some_and(|event| !platform.can_see(event)))
        {
            return Err(ConfigError::Unseen { name: name.clone() });
        }
        profile.buffers.speculation = pairs.switch("speculation", false)?;
        for key in ["speculation", "commit", "defer", "record", "inject"] {
            if let Some(value) = pairs.get(key).filter(|value| !writers && switch(value) != Some(false)) {
                return Err(ConfigError::NeedsWriters { key, value: value.to_owned() });
            }
        }
        if let Some(value) = pairs.get("chunk") {
            profile.buffers.chunk = value
                .parse::<u32>()
                .ok()
                .filter(|chunk| chunk.is_power_of_two() && (4..=4096).contains(chunk))
                .ok_or_else(|| bad("chunk", value, "a power of two from 4 to 4096 (bytes) is expected"))?;
        }
        let inject = match pairs.get("inject").filter(|value| switch(value) != Some(false)) {
            None => None,
            Some(value) => Some(Inject::parse(value).ok_or_else(|| {
                bad(
                    "inject",
                    value,
                    "off, stale, torn, or random:SEED:PERCENT with a percentage from 1 to 100 is expected",
                )
            })?),
        };
        let serialize = match pairs.get("serialize") {
            None => false,
            Some("emulate") => true,
            Some(value) if switch(value) == Some(false) => false,
            Some(value) => return Err(bad("serialize", value, "off or emulate is expected")),
        };
        let repair = match pairs.get("emulator") {
            None | Some("report") => false,
            Some("repair") if writers => true,
            Some("repair") => return Err(ConfigError::NeedsWriters { key: "emulator", value: "repair".to_owned() }),
            Some(value) => return Err(bad("emulator", value, "report or repair is expected")),
        };
        let known = match pairs.get("known") {
            None | Some("note") => false,
            Some("report") => true,
            Some(value) => return Err(bad("known", value, "note or report is expected")),
        };
        let luck = match pairs.get("luck") {
            None | Some("report") => true,
            Some("note") => false,
            Some(value) => return Err(bad("luck", value, "report or note is expected")),
        };
        let check = match pairs.get("check") {
            None => false,
            Some("stores") if writers => true,
            Some("stores") => return Err(ConfigError::NeedsWriters { key: "check", value: "stores".to_owned() }),
            Some(value) if switch(value) == Some(false) => false,
            Some(value) => return Err(bad("check", value, "off or stores is expected")),
        };
        let exitcode = match pairs.get("exitcode") {
            None => 0,
            Some(value) => match value.parse() {
                Ok(UNPROVEN) => {
                    return Err(bad(
                        "exitcode",
                        value,
                        "that is the code of a report that is not complete; give another one",
                    ));
                }
                Ok(code) => code,
                Err(_) => return Err(bad("exitcode", value, "a number from 0 to 255 is expected")),
            },
        };
        let symbols = symbolizer(&files(&pairs.list("symbols")), linux.kernel.kaslr)?;
        let without_at =
            places.iter().map(|item| without_at(platform, item, &symbols)).collect::<Result<Vec<_>, _>>()?;
        if let Some(item) = places.first().filter(|_| !writers) {
            return Err(ConfigError::NeedsWriters { key: "without", value: item.clone() });
        }
        if !profile.is_plain() {
            known_places(&profile, &symbols)?;
            if !writers {
                return Err(ConfigError::NeedsWriters { key: "profile", value: profile.name.to_owned() });
            }
        }
        if let Some(path) = pairs.get("record").filter(|_| !without_at.is_empty() || !profile.is_plain()) {
            return Err(ConfigError::RecordsNoPlaces { path: path.to_owned() });
        }
        let suppressions = match pairs.get("suppress") {
            None => Suppressions::default(),
            Some(path) => Suppressions::load(path.as_ref())
                .map_err(|source| ConfigError::Suppress { path: path.to_owned(), source })?,
        };
        let commit = commit_functions(&pairs.list("commit"), &symbols, platform)?;
        let defer =
            pairs.list("defer").iter().map(|item| deferral(platform, item, &symbols)).collect::<Result<Vec<_>, _>>()?;
        let start = known_symbol("start", pairs.get("start"), &symbols)?;
        let stop = known_symbol("stop", pairs.get("stop"), &symbols)?;
        let report = pairs.path("report")?;
        let record = pairs.path("record")?;
        Ok(Self {
            profile,
            with,
            without,
            without_at,
            report,
            symbols,
            suppressions,
            known,
            luck,
            defer,
            exitcode,
            start,
            stop,
            writers,
            commit,
            inject,
            serialize,
            repair,
            record,
            check,
        })
    }
}

/// Puts file names together again that hold a `+` themselves (Debian's do: `vmlinuz-6.12.117+deb12-cloud-amd64`): the
/// longest that exists wins.
fn files(pieces: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    let mut rest = pieces;
    while !rest.is_empty() {
        let taken = (1..=rest.len()).rev().find(|taken| Path::new(&rest[..*taken].join("+")).exists()).unwrap_or(1);
        files.push(rest[..taken].join("+"));
        rest = &rest[taken..];
    }
    files
}

fn symbolizer(paths: &[String], kaslr: KaslrRange) -> Result<Symbolizer, ConfigError> {
    let mut tables = Vec::new();
    for path in paths {
        tables.push(
            SymbolTable::load(path.as_ref()).map_err(|source| ConfigError::Symbols { path: path.clone(), source })?,
        );
    }
    Ok(Symbolizer::new(tables, kaslr))
}

/// `SYMBOL`, or `SYMBOL:EVENT` and further events as items of their own. What a function of the kernel's does to make
/// every CPU serialize is taken to be any of the instructions that do nothing else, if the user does not say; one of a
/// program's is not asked: which CPUs it means only the program knows.
fn commit_functions(
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
fn without_at(platform: &dyn Platform, item: &str, symbols: &Symbolizer) -> Result<WithoutAt, ConfigError> {
    let (event, symbol) = item.split_once('@').unwrap_or((item, ""));
    let arch = platform.facts().arch;
    // For its error.
    Profile::select(arch, None, &[], &[event.to_owned()])?;
    let hint = kernel_hint(symbols);
    let known = arch.event_by_name(event).map(|event| WithoutAt { event, symbol: symbol.to_owned() });
    known
        .filter(|place| place.is_known(symbols, platform.facts()))
        .ok_or_else(|| ConfigError::NoPlace { item: item.to_owned(), hint })
}

/// An item of `defer=`.
fn deferral(platform: &dyn Platform, item: &str, symbols: &Symbolizer) -> Result<Deferral, ConfigError> {
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
fn known_places(profile: &Profile, symbols: &Symbolizer) -> Result<(), ConfigError> {
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

fn known_symbol(key: &'static str, symbol: Option<&str>, symbols: &Symbolizer) -> Result<Option<String>, ConfigError> {
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

fn bad(key: &'static str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { key, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::Config;
    use crate::arch::x86::PLATFORM;
    use icsan_model::arch::x86::X86_64;

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Config::parse(&arguments, &PLATFORM).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.profile, *X86_64.profile("linux-x86").unwrap());
        assert_eq!((config.exitcode, config.report, config.start, config.stop), (0, None, None, None));
        assert!(config.writers && !config.known && !config.profile.buffers.speculation && config.commit.is_empty());
    }

    #[test]
    fn every_profile_loads_and_events_come_and_go() {
        for profile in X86_64.profiles.iter().filter(|profile| profile.is_plain()) {
            assert_eq!(parse(&[&format!("profile={}", profile.name)]).unwrap().profile, *profile);
        }
        let config = parse(&["with=lfence+mfence", "without=cpuid", "chunk=64"]).unwrap();
        let counts = |name: &str| config.profile.serializes(X86_64.event_by_name(name).unwrap());
        assert!(counts("lfence") && counts("mfence") && !counts("cpuid") && counts("iret"));
        assert_eq!(config.profile.buffers.chunk, 64);
    }

    #[test]
    fn what_later_versions_add_is_refused_unless_it_is_the_default() {
        assert!(
            parse(&["writers=off", "inject=off", "speculation=no", "lookahead=0", "emulator=report", "serialize=off"])
                .is_ok()
        );
        for bad in ["prefetch=64", "lookahead=16"] {
            assert!(parse(&[bad]).unwrap_err().contains("is not built into this version"), "{bad}");
        }
    }

    #[test]
    fn functions_that_commit_and_what_they_mean_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("System.map");
        std::fs::write(
            &map,
            "ffffffff81000000 T _text\nffffffff81000010 T mine\nffffffff81000020 T other\nffffffff81000030 T entry_SYSCALL_64\n",
        )
        .unwrap();
        let symbols = format!("symbols={}", map.display());
        let commit = |value: &str| {
            let functions = parse(&[&symbols, &format!("commit={value}")])?.commit;
            let names = |set: icsan_model::arch::sync_event::SyncEventSet| {
                set.iter().map(|event| X86_64.event_name(event)).collect::<Vec<_>>()
            };
            Ok::<_, String>(
                functions.into_iter().map(|function| (function.symbol, function.syncs.map(names))).collect::<Vec<_>>(),
            )
        };
        let named = |symbol: &str, events: &[&'static str]| (symbol.to_owned(), Some(events.to_vec()));
        let mut explicit = ["serialize", "cpuid", "iret-to-self"];
        explicit.sort_by_key(|name| X86_64.event_by_name(name));
        assert_eq!(commit("mine+other").unwrap(), [named("mine", &explicit), named("other", &explicit)]);
        assert_eq!(commit("mine:cpuid+other").unwrap(), [named("mine", &["cpuid"]), named("other", &explicit)]);
        let both = commit("mine:cpuid+mov-cr3+other:wbinvd").unwrap();
        assert_eq!(both[0].1.as_ref().unwrap().len(), 2, "{both:?}");
        assert_eq!(both[1], named("other", &["wbinvd"]));
        for (value, expected) in
            [("mine+cpuid", "no such symbol"), ("mine:cpuit", "no such event"), ("mine:smi", "no such event")]
        {
            assert!(commit(value).unwrap_err().contains(expected), "{value}");
        }
    }

    #[test]
    fn places_are_the_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let map = |name: &str, symbols: &[&str]| {
            let path = folder.path().join(name);
            let lines = symbols
                .iter()
                .zip(1..)
                .map(|(symbol, number)| format!("{:016x} T {symbol}\n", 0xffff_ffff_8100_0000_u64 + (number << 12)));
            std::fs::write(&path, lines.collect::<String>()).unwrap();
            format!("symbols={}", path.display())
        };
        let kernel =
            map("one", &["_text", "__text_poke", "asm_exc_int3", "asm_sysvec_reboot", "entry_SYSCALL_64", "_etext"]);
        let config = parse(&["without=cpuid+iret@asm_sysvec_*+mov-cr3@__text_poke", &kernel]).unwrap();
        assert_eq!(config.without_at.len(), 2);
        let counts = |name: &str| config.profile.serializes(X86_64.event_by_name(name).unwrap());
        assert!(!counts("cpuid") && counts("iret") && counts("mov-cr3"));
        assert_eq!(parse(&["profile=no-luck", &kernel]).unwrap().profile, *X86_64.profile("no-luck").unwrap());
        let (other, place) =
            (map("other", &["_text", "asm_exc_int3", "entry_SYSCALL_64", "_etext"]), "without=iret@asm_exc_int3");
        for (arguments, expected) in [
            (&["profile=no-luck", &other][..], "goes by places in the kernel, and this one has no such function"),
            (
                &["without=iret@__text_poke", &kernel][..],
                "this one has no such function; give EVENT@SYMBOL, with iret an entry",
            ),
            (&["without=iret@asm_exc_nmi", &kernel][..], "this one has no such function"),
            (&["profile=no-luck", "writers=off", &kernel][..], "profile=no-luck needs the store side"),
            (
                &["defer=mov-cr3@nonsense", &kernel][..],
                "defer=mov-cr3@nonsense: no such function in the kernel's symbols",
            ),
            (&[place, "writers=off", &kernel][..], "without=iret@asm_exc_int3 needs the store side"),
            (&[place, "record=/tmp/x", &kernel][..], "record=/tmp/x: a recording does not name places"),
            (&["profile=no-luck", "record=/tmp/x", &kernel][..], "record=/tmp/x: a recording does not name places"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (arguments, expected) in [
            (&["profil=fred"][..], "unknown key `profil`"),
            (&["fred"][..], "key=value"),
            (&["chunk=16", "chunk=32"][..], "`chunk` is given twice"),
            (&["profile=linux"][..], "unknown profile `linux`; known are: linux-x86"),
            (&["with=cpuit"][..], "did you mean `cpuid`"),
            (&["without=nonsense"][..], "unknown event `nonsense`"),
            (&["with=smi"][..], "no plugin can see"),
            (&["chunk=12"][..], "power of two"),
            (&["chunk=2"][..], "power of two"),
            (&["exitcode=256"][..], "from 0 to 255"),
            (&["exitcode=-1"][..], "from 0 to 255"),
            (&["exitcode=125"][..], "the code of a report that is not complete"),
            (&["writers=maybe"][..], "on or off"),
            (&["report="][..], "a value is expected"),
            (&["report=on"][..], "a path is expected"),
            (&["symbols=/nonexistent"][..], "symbols=/nonexistent"),
            (&["suppress=/nonexistent"][..], "suppress=/nonexistent"),
            (&["start=foo"][..], "no such symbol; give symbols=PATH"),
            (&["commit=foo"][..], "no such symbol; give symbols=PATH"),
            (&["without=iret@asm_exc_page_fault"][..], "no such function of the kernel's; give symbols=PATH"),
            (&["without=cpuid+irett@asm_exc_page_fault"][..], "did you mean `iret`?"),
            (&["without=iret@"][..], "no such function of the kernel's"),
            (&["profile=no-luck"][..], "profile=no-luck goes by places in the kernel; give symbols=PATH"),
            (&["speculation=maybe"][..], "on or off"),
            (&["speculation=on", "writers=off"][..], "needs the store side"),
            (&["emulator=repair", "writers=off"][..], "needs the store side"),
            (&["emulator=on"][..], "report or repair"),
            (&["known=off"][..], "note or report"),
            (&["defer=nonsense"][..], "no such event, or none that a plugin can see; give EVENT, or EVENT@SYMBOL"),
            (&["defer=mov-cr3@__text_poke"][..], "no such function in the kernel's symbols (symbols=PATH)"),
            (&["defer=mov-cr3", "writers=off"][..], "defer=mov-cr3 needs the store side"),
            (&["luck=off"][..], "report or note"),
            (&["inject=old"][..], "off, stale, torn, or random:SEED:PERCENT"),
            (&["inject=random:1:0"][..], "off, stale, torn, or random:SEED:PERCENT"),
            (&["inject=stale", "writers=off"][..], "needs the store side"),
            (&["serialize=on"][..], "off or emulate"),
            (&["record=/tmp/x", "writers=off"][..], "needs the store side"),
            (&["record=on"][..], "a path is expected"),
            (&["check=all"][..], "off or stores"),
            (&["check=on"][..], "off or stores"),
            (&["check=stores", "writers=off"][..], "needs the store side"),
            (&["widen=30000"][..], "widen=30000: this key was taken away, since waiting made nothing be found"),
            (&["widen=off"][..], "told at each commit now, as `unsynced`: leave it out"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }
}
