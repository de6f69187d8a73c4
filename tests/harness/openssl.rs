//! The `openssl` program, as an implementation that is not ours.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `openssl` in `folder` and returns what it prints; panics when it fails.
pub fn openssl(folder: &Path, args: &[&str]) -> String {
    let output = call(folder, args);
    let text = text(&output);
    assert!(
        output.status.success(),
        "openssl {}: {text}",
        args.join(" ")
    );
    text
}

/// Runs `openssl` in `folder` and returns what it says; panics when it succeeds.
pub fn openssl_fails(folder: &Path, args: &[&str]) -> String {
    let output = call(folder, args);
    let text = text(&output);
    assert!(
        !output.status.success(),
        "openssl {} should have failed: {text}",
        args.join(" ")
    );
    text
}

/// Runs `openssl` in a folder of its own with these files, and returns the content of `result` there.
pub fn openssl_with(files: &[(&str, &str)], args: &[&str], result: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file can be written");
    }
    openssl(folder.path(), args);
    std::fs::read_to_string(folder.path().join(result)).expect("openssl has written its result")
}

fn call(folder: &Path, args: &[&str]) -> Output {
    Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("openssl is installed: `apt-get install openssl`")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
