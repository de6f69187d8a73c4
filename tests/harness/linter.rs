//! zlint, which knows what RFCs ask of certificates and CRLs.

use local_cluster::{Cache, Steps, Tool};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Whose rules are looked at. The others are those of browsers and public CAs (CA/Browser Forum, Mozilla, Apple, Chrome, ETSI) and of
/// certificate transparency, which bind nobody here.
const SOURCES: &str = "RFC3279,RFC5280,RFC5480,RFC5891,RFC8813,Community";

/// What the linter says of one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `warn`, `error` or `fatal`.
    pub level: String,
    /// The rule.
    pub rule: String,
    /// More about it.
    pub details: String,
}

#[derive(Deserialize)]
struct Verdict {
    result: String,
    #[serde(default)]
    details: String,
}

/// Lints one certificate or CRL (PEM): what is not as it should be, advice left out. Panics where fewer rules applied than any certificate has.
pub fn lint(pem: &str) -> Vec<Finding> {
    static ZLINT: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = Cache::open().and_then(|cache| Tool::Zlint.path(&cache, &Steps::silent()));
        built.unwrap_or_else(|error| panic!("no zlint: {error}"))
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("object.pem");
    std::fs::write(&path, pem).expect("a file can be written");
    let output = Command::new(&*ZLINT)
        .args(["-includeSources", SOURCES])
        .arg(path)
        .output()
        .expect("zlint runs");
    let verdicts: BTreeMap<String, Verdict> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| {
            panic!(
                "zlint: {error}: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
    let passed = verdicts.values().filter(|it| it.result == "pass").count();
    assert!(passed >= 10, "zlint has only found {passed} rules in order");
    verdicts
        .into_iter()
        .filter(|(_, verdict)| {
            !matches!(
                verdict.result.as_str(),
                "pass" | "NA" | "NE" | "info" | "notice"
            )
        })
        .map(|(rule, verdict)| Finding {
            level: verdict.result,
            rule,
            details: verdict.details,
        })
        .collect()
}
