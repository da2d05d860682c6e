//! Under which rules a recording is judged: its own, or others.

use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::profile::{Profile, ProfileError};
use icsan_model::arch::registry;
use icsan_model::error::ModelError;
use icsan_model::machine::model::Model;
use icsan_recording::Header;
use thiserror::Error;

/// What the user wants to be different from the recording. The default is nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    /// Another profile: the recording's `with` and `without` do not count then.
    pub profile: Option<String>,
    /// Events that serialize as well.
    pub with: Vec<String>,
    /// Events that do not serialize.
    pub without: Vec<String>,
    /// Another fetch chunk, in bytes.
    pub chunk: Option<u32>,
    /// Another look-ahead, in bytes.
    pub lookahead: Option<u32>,
    /// Another capacity of the prefetch buffer, in bytes; `Some(None)`: unbounded.
    pub prefetch: Option<Option<u32>>,
    /// Another capacity of the trace buffer, in runs; `Some(None)`: unbounded.
    pub trace: Option<Option<u32>>,
    /// Speculation on or off.
    pub speculation: Option<bool>,
}

/// Why a recording cannot be replayed as it is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SettingsError {
    /// The recording is of another architecture.
    #[error("a recording of {0}; this program replays {known}", known = known())]
    Architecture(String),
    /// Unknown names of profiles or events: of the command line, or of a recorder that knows more than this build.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Impossible buffers.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A profile that asks where an event happened: a recording does not name places.
    #[error("profile {0} goes by the kernel's symbols, which a recording does not have: give it to the plugin")]
    Places(&'static str),
}

/// The architectures that can be replayed.
fn known() -> String {
    let decoded = registry::ALL.iter().filter(|arch| arch.decoder.is_some());
    decoded.map(|arch| arch.name).collect::<Vec<_>>().join(", ")
}

impl Settings {
    /// The profile that these settings make of the recording's.
    ///
    /// # Errors
    /// Names that are not known.
    pub fn profile(&self, header: &Header) -> Result<(&'static Architecture, Profile), SettingsError> {
        let arch = registry::by_name(&header.architecture)
            .ok_or_else(|| SettingsError::Architecture(header.architecture.clone()))?;
        let Self { profile: name, with, without, chunk, lookahead, prefetch, trace, speculation } = self;
        let mut profile = match name {
            Some(name) => Profile::select(arch, Some(name), with, without)?,
            None => {
                let mut profile = Profile::select(arch, Some(&header.profile), &header.with, &header.without)?;
                // For its errors: the names are good afterwards.
                Profile::select(arch, None, with, without)?;
                let events =
                    |names: &[String]| names.iter().filter_map(|name| arch.event_by_name(name)).collect::<Vec<_>>();
                profile.serializing = events(with).into_iter().fold(profile.serializing, |set, event| set.with(event));
                profile.serializing =
                    events(without).into_iter().fold(profile.serializing, |set, event| set.without(event));
                profile
            }
        };
        if let Some(caches) = header.caches {
            profile = profile.on(caches);
        }
        if !profile.is_plain() {
            return Err(SettingsError::Places(profile.name));
        }
        let mut buffers = header.buffers.apply(profile.buffers);
        buffers.chunk = chunk.unwrap_or(buffers.chunk);
        buffers.lookahead = lookahead.unwrap_or(buffers.lookahead);
        buffers.prefetch = prefetch.unwrap_or(buffers.prefetch);
        buffers.trace = trace.unwrap_or(buffers.trace);
        buffers.speculation = speculation.unwrap_or(buffers.speculation);
        profile.buffers = buffers;
        Ok((arch, profile))
    }

    /// A model that has seen nothing yet. Instruction lengths are those of the plugin's decoder, so that candidates are
    /// the same.
    ///
    /// # Errors
    /// Unknown names, impossible buffers.
    pub fn model(&self, header: &Header) -> Result<(&'static Architecture, Model), SettingsError> {
        let (arch, profile) = self.profile(header)?;
        let decoder = arch.decoder.ok_or_else(|| SettingsError::Architecture(header.architecture.clone()))?;
        Ok((arch, Model::new(profile, decoder, usize::from(header.vcpus))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::arch::x86::X86_64;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn header() -> Header {
        let mut header = Header { without: names(&["iret"]), ..Header::new(&X86_64, "0", 2) };
        header.buffers.chunk = 64;
        header
    }

    fn counts(profile: &Profile, name: &str) -> bool {
        profile.serializes(X86_64.event_by_name(name).unwrap())
    }

    #[test]
    fn the_recordings_own_rules_are_the_default() {
        let (_, profile) = Settings::default().profile(&header()).unwrap();
        assert_eq!((profile.name, profile.buffers.chunk, profile.buffers.prefetch), ("linux-x86", 64, None));
        assert!(!counts(&profile, "iret") && counts(&profile, "cpuid"));
    }

    #[test]
    fn changes_add_up_unless_the_profile_is_another() {
        let changes = Settings {
            without: names(&["cpuid"]),
            with: names(&["lfence"]),
            prefetch: Some(Some(32)),
            ..Settings::default()
        };
        let (_, profile) = changes.profile(&header()).unwrap();
        assert!(!counts(&profile, "iret") && !counts(&profile, "cpuid") && counts(&profile, "lfence"));
        assert_eq!((profile.buffers.chunk, profile.buffers.prefetch), (64, Some(32)));
        let (_, profile) = Settings { profile: Some("sdm-strict".to_owned()), ..changes }.profile(&header()).unwrap();
        assert!(counts(&profile, "iret") && !counts(&profile, "cpuid"));
        assert!(profile.exemptions.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |settings: Settings, header: Header| settings.model(&header).unwrap_err().to_string();
        let change = |with: &[&str]| Settings { with: names(with), ..Settings::default() };
        assert!(error(change(&["cpuit"]), header()).contains("did you mean `cpuid`"));
        assert!(error(Settings { chunk: Some(12), ..Settings::default() }, header()).contains("power of two"));
        let no_luck = Settings { profile: Some("no-luck".to_owned()), ..Settings::default() };
        assert!(error(no_luck, header()).contains("goes by the kernel's symbols"));
        assert!(
            error(Settings::default(), Header { profile: "x99".to_owned(), ..header() })
                .contains("unknown profile `x99`")
        );
        assert!(
            error(Settings::default(), Header { architecture: "vax".to_owned(), ..header() })
                .contains("vax; this program replays x86_64")
        );
    }
}
