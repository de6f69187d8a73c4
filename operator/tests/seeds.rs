//! The fuzz targets on their seeds: what fuzzing has found once stays found, without the tools of fuzzing.

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};

#[test]
fn every_fuzz_target_gets_along_with_its_seeds() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    for (name, target) in targets::ALL {
        let mut inputs = files(&tests.join("fuzz/seeds").join(name));
        if *name == "csr" {
            inputs.extend(files(&tests.join("hostile/corpus")));
        }
        assert!(!inputs.is_empty(), "{name} has no seeds");
        for path in inputs {
            let input = std::fs::read(&path).expect("a seed");
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "{name} fails with {}", path.display());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}
