//! The keys after `-plugin libicsan.so,`: parsed, checked, and refused in one line that says what and what to do.

mod error;
mod files;
mod keys;
mod named;
mod pairs;
pub mod suppress;

use crate::arch::platform::Platform;
use crate::exposure::Deferral;
use crate::injection::Inject;
use crate::qemu::hooks::Wish;
use crate::report::exit_code::UNPROVEN;
use crate::what_if::WithoutAt;
pub use error::ConfigError;
use error::bad;
use files::{files, symbolizer};
use icsan_model::arch::maintenance::CacheType;
use icsan_model::arch::profile::Profile;
use icsan_symbols::Symbolizer;
use keys::switch;
pub use named::CommitFunction;
use named::{commit_functions, deferral, known_places, known_symbol, without_at};
use pairs::Pairs;
use std::path::PathBuf;
use suppress::Suppressions;

/// Everything that the user chose.
#[derive(Debug)]
pub struct Config {
    /// The profile with `with` and `without` applied.
    pub profile: Profile,
    /// What the guest's cache type register says, once it has been looked up: then the profile goes by it.
    pub guest_caches: Option<CacheType>,
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
    /// Are QEMU's own functions hooked?
    pub hooks: Wish,
    /// Where the event recording goes.
    pub record: Option<PathBuf>,
    /// Is memory compared after each store with what is noted of it?
    pub check: bool,
}

impl Config {
    /// Parses and checks everything; reads the files that it names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(arguments: &[String], platform: &dyn Platform) -> Result<Self, ConfigError> {
        let pairs = Pairs::parse(arguments)?;
        let writers = pairs.switch("writers", true)?;
        let (with, without) = (pairs.list("with"), pairs.list("without"));
        let (places, events): (Vec<_>, Vec<_>) = without.iter().cloned().partition(|item| item.contains('@'));
        let profile = profile(&pairs, &with, &events, platform)?;
        for key in ["speculation", "commit", "defer", "record", "inject"] {
            if pairs.get(key).is_some_and(|value| switch(value) != Some(false)) {
                pairs.needs_writers(key, writers)?;
            }
        }
        let inject = inject(&pairs)?;
        let serialize = pairs.is_second("serialize", ["off", "emulate"], "off or emulate is expected")?;
        if serialize && platform.facts().in_place_of_lacking.is_empty() {
            return Err(bad("serialize", "emulate", "QEMU lacks no such instruction of this architecture"));
        }
        let repair = pairs.is_second("emulator", ["report", "repair"], "report or repair is expected")?;
        if repair {
            pairs.needs_writers("emulator", writers)?;
        }
        let hooks = hooks(&pairs)?;
        let known = pairs.is_second("known", ["note", "report"], "note or report is expected")?;
        let luck = !pairs.is_second("luck", ["report", "note"], "report or note is expected")?;
        let check = pairs.is_second("check", ["off", "stores"], "off or stores is expected")?;
        if check {
            pairs.needs_writers("check", writers)?;
        }
        let exitcode = exit_code(&pairs)?;
        let symbols = symbolizer(&files(&pairs.list("symbols")), platform.facts().linux.kernel.kaslr)?;
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
            guest_caches: None,
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
            hooks,
            record,
            check,
        })
    }

    /// The same on a guest with such caches.
    #[must_use]
    pub fn on(self, guest: CacheType) -> Self {
        Self { profile: self.profile.on(guest), guest_caches: Some(guest), ..self }
    }
}

/// The profile, with what was added to it and taken from it, and its buffers.
fn profile(
    pairs: &Pairs,
    with: &[String],
    without: &[String],
    platform: &dyn Platform,
) -> Result<Profile, ConfigError> {
    let arch = platform.facts().arch;
    let mut profile = Profile::select(arch, pairs.get("profile"), with, without)?;
    let is_unseen = |name: &&String| arch.event_by_name(name).is_some_and(|event| !platform.can_see(event));
    if let Some(name) = with.iter().find(is_unseen) {
        return Err(ConfigError::Unseen { name: name.clone() });
    }
    profile.buffers.speculation = pairs.switch("speculation", false)?;
    if let Some(value) = pairs.get("chunk") {
        profile.buffers.chunk = value
            .parse::<u32>()
            .ok()
            .filter(|chunk| chunk.is_power_of_two() && (4..=4096).contains(chunk))
            .ok_or_else(|| bad("chunk", value, "a power of two from 4 to 4096 (bytes) is expected"))?;
    }
    Ok(profile)
}

fn inject(pairs: &Pairs) -> Result<Option<Inject>, ConfigError> {
    const EXPECTED: &str = "off, stale, torn, or random:SEED:PERCENT with a percentage from 1 to 100 is expected";
    let Some(value) = pairs.get("inject").filter(|value| switch(value) != Some(false)) else { return Ok(None) };
    Inject::parse(value).map(Some).ok_or_else(|| bad("inject", value, EXPECTED))
}

fn hooks(pairs: &Pairs) -> Result<Wish, ConfigError> {
    match pairs.get("hooks") {
        None | Some("auto") => Ok(Wish::Auto),
        Some(value) => match switch(value) {
            Some(true) => Ok(Wish::On),
            Some(false) => Ok(Wish::Off),
            None => Err(bad("hooks", value, "auto, on or off is expected")),
        },
    }
}

fn exit_code(pairs: &Pairs) -> Result<u8, ConfigError> {
    const TAKEN: &str = "that is the code of a report that is not complete; give another one";
    let Some(value) = pairs.get("exitcode") else { return Ok(0) };
    match value.parse() {
        Ok(UNPROVEN) => Err(bad("exitcode", value, TAKEN)),
        Ok(code) => Ok(code),
        Err(_) => Err(bad("exitcode", value, "a number from 0 to 255 is expected")),
    }
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
            (&["hooks=maybe"][..], "auto, on or off"),
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
