//! Every process below this one, whatever it did to its session, its group or its parent: found by the parents that `/proc`
//! names, known by the ids by which the caller can signal them.
//!
//! A process whose parent ended belongs to the nearest ancestor that is a subreaper, so the caller becomes one
//! ([`adopt_orphans`]) before it starts anybody. `/proc` may belong to an outer PID namespace, as in a trial, and a process to
//! one further in: `NSpid` has its id in each namespace from that of `/proc` on, so the caller's own line says which of them is
//! good here. It refuses zombies: they hold nothing and take no signal. Source: `proc_pid_status(5)`, `pid_namespaces(7)`,
//! `PR_SET_CHILD_SUBREAPER(2const)`.

use std::collections::HashMap;
use std::io;

use rustix::process::Pid;

/// Has the kernel make this process the parent of every process below it whose own parent ends.
///
/// # Errors
/// Those of prctl(2): EINVAL before Linux 3.4.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// One process, as `/proc/PID/status` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    parent: u32,
    /// Its id in each PID namespace that it is in, from that of `/proc` on.
    ids: Vec<i32>,
    zombie: bool,
}

/// The ids of all processes below this one, in this one's PID namespace. One walk over `/proc`, about 20 µs a process of the machine. Whoever forks
/// meanwhile may have a child that is missed: ask again.
///
/// # Errors
/// Those of reading `/proc`.
pub fn of_this_process() -> io::Result<Vec<Pid>> {
    let own = std::fs::read_link("/proc/self")?;
    let own = own.to_str().and_then(|name| name.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended since.
        let Ok(bytes) = std::fs::read(entry.path().join("status")) else { continue };
        // A name may be cut within a character.
        all.extend(parse(&String::from_utf8_lossy(&bytes)).map(|status| (pid, status)));
    }
    Ok(below(own, &all))
}

fn parse(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(Status {
        parent: field("PPid:")?.parse().ok()?,
        ids: field("NSpid:")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?,
        zombie: field("State:")?.starts_with(['Z', 'X']),
    })
}

/// Parents before children, by their ids in the ancestor's namespace.
fn below(ancestor: u32, all: &HashMap<u32, Status>) -> Vec<Pid> {
    let Some(depth) = all.get(&ancestor).map(|status| status.ids.len()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let mut children: Vec<_> = all.iter().filter(|(_, status)| status.parent == parent).collect();
        children.sort_unstable_by_key(|(pid, _)| **pid);
        for (pid, status) in children {
            parents.push(*pid);
            let id = depth.checked_sub(1).and_then(|level| status.ids.get(level)).copied();
            found.extend(id.and_then(Pid::from_raw).filter(|_| !status.zombie));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_each_namespace_and_a_zombie_is_told() {
        let text = "Name:\tnginx\nState:\tS (sleeping)\nTgid:\t900\nPid:\t900\nPPid:\t17\nNSpid:\t900\t12\t5\n";
        assert_eq!(parse(text), Some(Status { parent: 17, ids: vec![900, 12, 5], zombie: false }));
        let ended = text.replace("S (sleeping)", "Z (zombie)");
        assert!(parse(&ended).expect("whole").zombie);
        assert_eq!(parse("Name:\tnginx\nState:\tS\nPPid:\t1\n"), None, "kernels before 4.1 have no NSpid");
    }

    #[test]
    fn grandchildren_are_found_and_others_are_not() {
        let status = |parent, ids: &[i32]| Status { parent, ids: ids.to_vec(), zombie: false };
        let all = HashMap::from([
            (10, status(1, &[10, 2])),
            (11, status(10, &[11, 3])),
            // In a namespace of its own it is process 1, and its child 2, as the ancestor is here.
            (12, status(11, &[12, 4, 1])),
            (15, status(12, &[15, 8, 2])),
            (13, Status { zombie: true, ..status(10, &[13, 5]) }),
            (14, status(13, &[14, 6])),
            (20, status(1, &[20, 7])),
        ]);
        let mut found: Vec<i32> = below(10, &all).iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4, 6, 8]);
        assert!(below(15, &all).is_empty() && below(99, &all).is_empty());
    }

    #[test]
    fn a_child_of_this_process_is_below_it() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().expect("sleep");
        let found = of_this_process().expect("/proc");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(found.iter().any(|below| below.as_raw_nonzero().get() == pid), "{pid} in {found:?}");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
