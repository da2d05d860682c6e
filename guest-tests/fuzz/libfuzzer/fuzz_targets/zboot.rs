#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| icsan_fuzz::by_name("zboot").map_or((), |target| (target.check)(bytes)));
