//! Bakes the commit into the program, read from the repository's own files: `unknown` outside a checkout.

use std::fs;
use std::path::Path;

fn main() {
    let git = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.git");
    println!("cargo::rerun-if-changed=build.rs");
    let head = git.join("HEAD");
    if head.exists() {
        println!("cargo::rerun-if-changed={}", head.display());
    }
    let revision = revision(&git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ACCEPTBENCH_REVISION={revision}");
}

/// HEAD is a commit, or names a reference that is a file or a line of packed-refs.
fn revision(git: &Path) -> Option<String> {
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => {
            let file = git.join(name);
            if file.exists() {
                println!("cargo::rerun-if-changed={}", file.display());
            }
            let loose = fs::read_to_string(file).ok();
            let packed = || {
                let references = fs::read_to_string(git.join("packed-refs")).ok()?;
                references.lines().find_map(|line| line.strip_suffix(name)).map(str::to_owned)
            };
            loose.or_else(packed)?.trim().to_owned()
        }
    };
    commit.get(..12).map(str::to_owned)
}
