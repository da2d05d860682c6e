//! What people write: suppressions, and the plugin's arguments.

use icsan::arch::registry::platform;
use icsan::config::Config;
use icsan::config::suppress::Suppressions;
use icsan_model::arch::registry;
use icsan_model::verdict::kind::Kind;

/// A file of suppressions: it is refused with a line number, or each of its patterns has a reason.
pub fn suppressions(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Suppressions::parse(&text) {
        Ok(parsed) => {
            let symbols = text.split([':', ' ', '\n']).take(20).map(Some).chain([None]);
            for symbol in symbols {
                for kind in Kind::ALL {
                    assert!(
                        parsed.reason(&kind.to_string(), symbol).is_none_or(|reason| !reason.trim().is_empty()),
                        "a reason of nothing"
                    );
                }
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
    }
}

/// The plugin's arguments, one a line, for each architecture: they are refused in one line, or make a configuration.
/// Nothing with a path in it, since files would be read.
pub fn arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.contains(['/', '.', '\0']) {
        return;
    }
    let arguments: Vec<String> = text.lines().map(str::to_owned).collect();
    for platform in registry::ALL.iter().filter_map(|architecture| platform(architecture.name)) {
        match Config::parse(&arguments, platform) {
            Ok(config) => drop(format!("{config:?}")),
            // A value may hold a line feed itself where it is quoted; lines here do not.
            Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
        }
    }
}
