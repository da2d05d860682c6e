//! The keys that there are.

/// The keys, and whether this version has more than their default.
pub(super) const KEYS: &[(&str, bool)] = &[
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
    ("hooks", true),
    ("check", true),
];

/// Keys that earlier versions had, and why this one has not.
pub(super) const GONE: &[(&str, &str)] = &[(
    "widen",
    "waiting made nothing be found that is not found without (docs/decisions.md, 23); what a patching protocol leaves \
     to luck is told at each commit now, as `unsynced`",
)];

/// Those that this version has, in one phrase.
pub(super) fn known_keys() -> String {
    KEYS.iter().filter(|(_, built)| *built).map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

/// Values of keys of later versions that this version fulfils already.
pub(super) fn is_default(key: &str, value: &str) -> bool {
    match key {
        "lookahead" => value == "0",
        "prefetch" | "trace" => value == "unbounded",
        _ => false,
    }
}

/// QEMU's booleans.
pub(super) fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => None,
    }
}
