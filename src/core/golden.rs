//! Goldens: encodings as checked-in hex, so that no change of the code changes a byte that was persisted or sent before.
//!
//! A golden is a line `name hex` in `src/core/goldens/FILE`. A released encoding is frozen: when one has to change, add the
//! next version beside it. For a new case, write its lines with `EVERMESH_GOLDENS=write cargo test --lib core::` and review them.

use bytes::Bytes;
use std::{fmt::Write, path::Path};

/// Compares the cases with the checked-in file, name by name and byte by byte.
pub fn check(file: &str, cases: &[(&str, Bytes)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/goldens").join(file);
    let found = cases.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect::<String>();
    if std::env::var_os("EVERMESH_GOLDENS").is_some_and(|v| v == "write") {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, expected,
        "an encoding changed: src/core/goldens/{file} (to add a case: EVERMESH_GOLDENS=write cargo test --lib core::)"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
