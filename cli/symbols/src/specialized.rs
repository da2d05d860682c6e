//! Names of functions as the compiler changes them.

/// Is a symbol of this name the function? The compiler may have specialized it (`.isra.0`, `.constprop.0`,
/// `.llvm.123`); a part of it (`.cold`, `.part.0`) is not the function.
#[must_use]
pub fn is_function(symbol: &str, name: &str) -> bool {
    let Some(suffixes) = symbol.strip_prefix(name) else { return false };
    let mut words = suffixes.split('.');
    words.next() == Some("")
        && words.all(|word| {
            matches!(word, "isra" | "constprop" | "llvm")
                || (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
        })
}
