#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| icsan_fuzz::by_name("image").map_or((), |target| (target.check)(bytes)));
