//! Where this program stands, for a process that starts it again later: a hot restart runs what is there *then*.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The program that runs, whatever has become of its file.
const RUNNING: &str = "/proc/self/exe";

/// What the kernel appends to the path of a file that was replaced or removed (proc(5)).
const GONE: &str = " (deleted)";

/// The path by which this program was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// The path that was typed, if it still leads to what runs: a symbolic link that an upgrade points elsewhere is worth
    /// more than the file it led to. Otherwise the file.
    pub(crate) fn of_this_process() -> Self {
        let typed = std::env::args_os().next().map(PathBuf::from).and_then(|name| typed(&name));
        let file = || std::env::current_exe().map_or_else(|_| RUNNING.into(), |path| without_mark(&path));
        Self { path: typed.unwrap_or_else(file) }
    }

    /// The path itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts what stands at the path, or, if there is nothing any more, the program that runs.
    ///
    /// # Errors
    /// Why it does not start, in words.
    pub(crate) fn start(&self, command: impl Fn(&Path) -> io::Result<Command>) -> Result<Child, String> {
        let start = |path: &Path| command(path).and_then(|mut command| command.spawn());
        let started = match start(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => start(Path::new(RUNNING)),
            started => started,
        };
        started.map_err(|error| format!("start {}: {error}", self.path.display()))
    }
}

/// The absolute path that a program's name on a command line meant, if it means the program that runs.
fn typed(name: &Path) -> Option<PathBuf> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let running = identity(Path::new(RUNNING))?;
    let candidates = if name.components().count() > 1 {
        vec![std::path::absolute(name).ok()?]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).filter_map(|directory| std::path::absolute(directory.join(name)).ok()).collect()
    };
    candidates.into_iter().find(|path| identity(path) == Some(running))
}

fn without_mark(path: &Path) -> PathBuf {
    path.to_str().and_then(|text| text.strip_suffix(GONE)).map_or_else(|| path.to_owned(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_only_if_it_means_what_runs() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(typed(&own), Some(own.clone()));
        assert_eq!(typed(Path::new("/bin/sh")), None);
        assert_eq!(typed(Path::new("sh")), None);
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(typed(&link), Some(link), "the link, not where it leads");
    }

    #[test]
    fn the_mark_of_a_replaced_file_is_no_part_of_its_name() {
        assert_eq!(without_mark(Path::new("/usr/bin/x (deleted)")), Path::new("/usr/bin/x"));
        assert_eq!(without_mark(Path::new("/usr/bin/x")), Path::new("/usr/bin/x"));
    }

    #[test]
    fn what_runs_stands_in_for_what_is_gone_but_not_for_what_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let program = Program { path: directory.path().join("program") };
        let command = |path: &Path| {
            let mut command = Command::new(path);
            command.args(["--list", "--quiet"]).stdout(std::process::Stdio::null());
            Ok(command)
        };
        assert!(program.start(command).unwrap().wait().unwrap().success(), "the test program itself");
        std::fs::write(program.path(), "not executable").unwrap();
        let error = program.start(command).unwrap_err();
        assert!(error.contains("Permission denied"), "{error}");
    }
}
