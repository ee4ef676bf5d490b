//! Which process holds a socket: from inode to command name, by the descriptors below `/proc`.
//!
//! Owns the walk over `/proc/PID/fd`, in steps of bounded cost, since a host may have a million descriptors. It refuses to
//! guess: a process that the caller may not look at (ptrace(2), `PTRACE_MODE_READ_FSCREDS`: another user's, without
//! privilege) or that belongs to a PID namespace whose `/proc` is not mounted here holds nothing. Source: `proc_pid_fd(5)`,
//! `proc_pid_comm(5)`.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags};

/// What `/proc/PID/comm` has at most (`TASK_COMM_LEN` without its end).
pub const COMMAND_BYTES: usize = 15;

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// The number of its descriptor.
    pub descriptor: u32,
    /// Its command name, without control characters.
    pub command: String,
}

impl Holder {
    /// Does the same descriptor of the same process still mean this socket? One readlink(2).
    pub fn still_holds(&self, inode: u32) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, self.descriptor);
        let mut target = [0; LINK];
        read_link(CWD, path.as_str(), &mut target).and_then(socket_inode) == Some(inode)
    }

    /// The process' command name as it is now; it changes with execve(2). `None` once the process is gone.
    pub fn command_now(&self) -> Option<String> {
        command_of(self.pid)
    }
}

/// Longest link read: `socket:[` and ten digits; longer ones are no sockets.
const LINK: usize = 32;

/// A search for the holders of some sockets, through all processes in ascending order, so that of several holders the
/// one with the lowest id is found. Ends early when every socket has been found.
#[derive(Debug)]
pub struct Search {
    pids: std::vec::IntoIter<u32>,
    wanted: HashSet<u32>,
    open: Option<Process>,
}

/// The process being looked at.
#[derive(Debug)]
struct Process {
    pid: u32,
    descriptors: Dir,
    /// Read when the first socket is found.
    command: Option<String>,
}

/// One of its descriptors.
struct Descriptor {
    number: u32,
    /// Inode of the socket, if it is one.
    socket: Option<u32>,
}

impl Search {
    /// Begins a search for the sockets with these inodes among the processes there are now.
    ///
    /// # Errors
    /// Those of reading the directory `/proc`.
    pub fn begin(wanted: HashSet<u32>) -> io::Result<Self> {
        let mut pids = Vec::new();
        if !wanted.is_empty() {
            let entries = std::fs::read_dir("/proc")?;
            pids.extend(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()));
            pids.sort_unstable();
        }
        Ok(Self { pids: pids.into_iter(), wanted, open: None })
    }

    /// Looks at up to `most` descriptors and processes (about 2 µs each) and hands what is found to `found`. Returns
    /// whether the search is over.
    pub fn step(&mut self, most: usize, mut found: impl FnMut(u32, Holder)) -> bool {
        for _ in 0..most {
            if self.wanted.is_empty() {
                return true;
            }
            let Some(process) = &mut self.open else {
                let Some(pid) = self.pids.next() else { return true };
                self.open = Process::open(pid);
                continue;
            };
            match process.next() {
                Some(Descriptor { number, socket: Some(inode) }) if self.wanted.remove(&inode) => {
                    found(inode, process.holder(number));
                }
                Some(_) => {}
                None => self.open = None,
            }
        }
        false
    }
}

impl Process {
    /// `None` when the process is gone or may not be looked at.
    fn open(pid: u32) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty()).ok()?;
        Some(Self { pid, descriptors: Dir::new(directory).ok()?, command: None })
    }

    /// The next descriptor, `.` and `..` included, which are no sockets. `None` at the end.
    fn next(&mut self) -> Option<Descriptor> {
        let entry = self.descriptors.next()?.ok()?;
        let directory = self.descriptors.fd().ok()?;
        let mut target = [0; LINK];
        let socket = read_link(directory, entry.file_name(), &mut target).and_then(socket_inode);
        Some(Descriptor { number: number(entry.file_name()).unwrap_or(0), socket })
    }

    fn holder(&mut self, descriptor: u32) -> Holder {
        let pid = self.pid;
        let command = self.command.get_or_insert_with(|| command_of(pid).unwrap_or_default());
        Holder { pid, descriptor, command: command.clone() }
    }
}

fn read_link<'a>(directory: BorrowedFd<'_>, path: impl rustix::path::Arg, target: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = rustix::fs::readlinkat_raw(directory, path, &mut *target).ok()?;
    target.get(..length)
}

/// A whole number in decimal, the name of a descriptor.
fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// The inode in `socket:[4242]`.
fn socket_inode(target: &[u8]) -> Option<u32> {
    std::str::from_utf8(target).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn command_of(pid: u32) -> Option<String> {
    std::fs::read(format!("/proc/{pid}/comm")).ok().map(|bytes| printable(&bytes))
}

/// A name any process may choose freely (prctl(2), `PR_SET_NAME`), made fit to be shown.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name.trim_ascii_end()).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, AsRawFd};

    fn inode(listener: &TcpListener) -> u32 {
        u32::try_from(rustix::fs::fstat(listener.as_fd()).unwrap().st_ino).unwrap()
    }

    fn search(wanted: &[u32], most: usize) -> (Vec<(u32, Holder)>, usize) {
        let mut search = Search::begin(wanted.iter().copied().collect()).unwrap();
        let (mut found, mut steps) = (Vec::new(), 1);
        while !search.step(most, |inode, holder| found.push((inode, holder))) {
            steps += 1;
        }
        (found, steps)
    }

    #[test]
    fn our_own_sockets_are_found_with_our_name_in_small_steps_too() {
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let wanted = listeners.each_ref().map(inode);
        for most in [7, usize::MAX] {
            let (mut found, steps) = search(&wanted, most);
            found.sort_by_key(|(inode, _)| *inode);
            let inodes: Vec<u32> = found.iter().map(|(inode, _)| *inode).collect();
            assert_eq!(inodes, wanted);
            assert_eq!(steps == 1, most == usize::MAX, "{steps} steps of {most}");
            for ((inode, holder), listener) in found.iter().zip(&listeners) {
                assert_eq!(holder.pid, std::process::id());
                assert_eq!(i64::from(holder.descriptor), i64::from(listener.as_raw_fd()));
                let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
                assert_eq!(holder.command, comm.trim_end());
                assert!(holder.still_holds(*inode) && !holder.still_holds(inode + 1));
                assert_eq!(holder.command_now().as_ref(), Some(&holder.command));
            }
        }
    }

    #[test]
    fn a_closed_socket_is_held_by_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode(&listener);
        let (found, _) = search(&[inode], usize::MAX);
        drop(listener);
        assert!(!found[0].1.still_holds(inode));
        assert_eq!(search(&[inode], usize::MAX).0, []);
        assert_eq!(search(&[], 1), (Vec::new(), 1));
    }

    #[test]
    fn only_sockets_have_an_inode_and_names_lose_what_a_terminal_would_obey() {
        assert_eq!(socket_inode(b"socket:[4242]"), Some(4242));
        for other in ["pipe:[4242]", "socket:[]", "socket:[-1]", "/tmp/socket:[1]", "anon_inode:[eventpoll]"] {
            assert_eq!(socket_inode(other.as_bytes()), None, "{other}");
        }
        assert_eq!(printable(b"a\x1b[2J\tb\xff c\n"), "a[2Jb\u{fffd} c");
    }
}
