//! Where a target's program is, and what to do when it is nowhere.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs of a system stand. An ordinary user's PATH may lack some, where nginx and sshd are.
const SYSTEM: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Programs that people put in the server's place, and the Debian package that has each.
const PACKAGES: [(&str, &str); 8] = [
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("haproxy", "haproxy"),
    ("memcached", "memcached"),
    ("python3", "python3"),
    ("lighttpd", "lighttpd"),
    ("varnishd", "varnish"),
    ("socat", "socat"),
];

/// The Debian package that has a program, if we know of one.
pub fn package_of(program: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

/// The directories in which programs are looked for: PATH, then the system's own.
pub(super) fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain(SYSTEM.iter().map(PathBuf::from)).filter(|entry| entry.is_absolute());
    // Only a directory with a colon in its name cannot be joined, and PATH has none.
    env::join_paths(all).unwrap_or_default()
}

/// Where `program` is: its path made absolute, or a name looked up as a shell would. `None` when there is nothing that can be
/// started.
pub fn find(program: &str) -> Option<PathBuf> {
    let startable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(|path| startable(path));
    }
    env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|path| startable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_name_and_by_path_and_a_file_is_no_program() {
        let sh = find("sh").expect("a shell");
        assert!(sh.is_absolute());
        assert_eq!(find(sh.to_str().expect("text")), Some(sh));
        assert_eq!(find("no-such-program"), None);
        assert_eq!((find("/etc/passwd"), find("/etc")), (None, None));
    }

    #[test]
    fn packages_are_known_by_program() {
        assert_eq!((package_of("nginx"), package_of("ngnix")), (Some("nginx-light"), None));
    }
}
