//! Writes `tests/hostile/corpus` anew: signing requests that try to get something signed that is not the profile, or to do harm
//! to whoever reads them, and some that look odd and are sound. Keys are fresh, so that every run writes other files.
//!
//! `cargo run --package volttron-tests --bin hostile-corpus`, from the top of the repository; needs `openssl`.

#![allow(
    clippy::too_many_lines,
    reason = "a table of cases is as long as it has cases"
)]

mod armour;
mod attributes;
mod der;
mod draft;
mod keys;
mod names;
mod structure;

use std::fmt::Write as _;
use std::path::Path;

/// One request of the corpus.
pub struct Case {
    /// Its file; the common name is `central.hostile.<name>` unless the name is what it is about.
    name: &'static str,
    /// `signed`, or the reason of its refusal.
    expected: &'static str,
    /// What is odd about it.
    what: &'static str,
    /// What `spec.request` is base64 of.
    text: Vec<u8>,
}

/// The instance that the requests are for.
const INSTANCE: &str = "central";

/// The common name of a case.
fn own_name(name: &str) -> String {
    format!("{INSTANCE}.hostile.{name}")
}

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile/corpus");
    std::fs::remove_dir_all(&folder)?;
    std::fs::create_dir(&folder)?;
    let cases = [
        armour::cases(),
        structure::cases(),
        names::cases(),
        attributes::cases(),
        keys::cases(),
    ];
    let mut table = String::new();
    for case in cases.into_iter().flatten() {
        let path = folder.join(format!("{}.csr", case.name));
        assert!(!path.exists(), "two cases are called {}", case.name);
        std::fs::write(path, &case.text)?;
        writeln!(table, "{}\t{}\t{}", case.name, case.expected, case.what).expect("text grows");
    }
    std::fs::write(folder.join("expected.tsv"), table)
}
