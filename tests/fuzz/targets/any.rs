//! Every target: the program's name says which check it makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.len() <= conductor_tests::parsers::MAX_INPUT_BYTES {
        (conductor_tests::parsers::Target::named(env!("CARGO_BIN_NAME")).check)(bytes);
    }
});
