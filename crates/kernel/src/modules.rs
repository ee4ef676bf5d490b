//! Whether the kernel has a module, found out without loading it.
//!
//! Asking for a module by using it loads it, and that changes the machine. Source: `proc(5)`, `modules.builtin(5)`,
//! `modules.dep(5)`.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Module {
    /// Loaded, or part of the kernel.
    Present,
    /// On the disk: the kernel loads it when it is first used.
    Loadable,
    /// Neither seen; in a container the machine may have it all the same.
    NotSeen,
}

/// Looks for a module by its name; `symbol` is one of its functions, by which a kernel that has it built in is known.
pub fn module(name: &str, symbol: &str) -> Module {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let directory = Path::new("/lib/modules").join(release);
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if Path::new("/sys/module").join(name).exists()
        || lists(&text(&directory.join("modules.builtin")), name)
        || has_symbol(&text(Path::new("/proc/kallsyms")), symbol)
    {
        return Module::Present;
    }
    if lists(&text(&directory.join("modules.dep")), name) { Module::Loadable } else { Module::NotSeen }
}

/// Is `kernel/…/NAME.ko`, perhaps compressed, the first path of a line?
fn lists(index: &str, name: &str) -> bool {
    index.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(module, _)| module.replace('-', "_") == name)
    })
}

/// Is there a line `ADDRESS TYPE SYMBOL`? Addresses are 0 for ordinary users, names are there.
fn has_symbol(table: &str, symbol: &str) -> bool {
    table.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some(symbol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_its_file_and_not_by_what_depends_on_it() {
        let dep = "kernel/net/sched/sch_netem.ko.xz: kernel/a/veth.ko\nkernel/drivers/net/dummy.ko:\n";
        assert!(lists(dep, "sch_netem") && lists(dep, "dummy"));
        assert!(!lists(dep, "veth") && !lists(dep, "netem") && !lists("", "veth"));
        assert!(lists("kernel/net/sch-netem.ko\n", "sch_netem"), "files are called either way");
    }

    #[test]
    fn a_symbol_is_a_whole_word() {
        let table = "0000000000000000 t veth_newlink\n0000000000000000 T netem_enqueue\t[sch_netem]\n";
        assert!(has_symbol(table, "veth_newlink") && has_symbol(table, "netem_enqueue"));
        assert!(!has_symbol(table, "veth_new"));
    }

    #[test]
    fn what_nobody_has_is_not_seen() {
        assert_eq!(module("no_such_module", "no_such_function_of_it"), Module::NotSeen);
    }
}
