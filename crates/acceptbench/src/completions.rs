//! `acceptbench completions` and `acceptbench man`: both made from the definition of the command line, so that neither can
//! name an option that is not there.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap_mangen::Man;

use crate::cli::{CompletionsArgs, ManArgs, definition};
use crate::exit::{End, Failure};
use crate::terminal::{note, say};

/// The program's name in both.
const NAME: &str = "acceptbench";

/// Prints a shell's completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<End, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), NAME, &mut script);
    say(String::from_utf8(script).map_err(Failure::requirement)?.trim_end());
    Ok(End::Success)
}

/// Prints the manual page, or writes all of them.
pub(crate) fn man(args: &ManArgs) -> Result<End, Failure> {
    match &args.directory {
        None => {
            let mut page = Vec::new();
            Man::new(definition()).render(&mut page).map_err(Failure::requirement)?;
            say(String::from_utf8(page).map_err(Failure::requirement)?.trim_end());
        }
        Some(directory) => {
            write(directory).map_err(Failure::usage)?;
            note(&format!(
                "manual pages in {}; try: man {}",
                directory.display(),
                directory.join("acceptbench.1").display()
            ));
        }
    }
    Ok(End::Success)
}

fn write(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(definition(), directory)
        .with_context(|| format!("cannot write manual pages into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    fn visible() -> Vec<String> {
        let definition = definition();
        let commands = definition.get_subcommands().filter(|command| !command.is_hide_set());
        commands.map(|command| command.get_name().to_owned()).collect()
    }

    #[test]
    fn every_shell_completes_every_visible_command_and_its_options() {
        assert!(visible().len() >= 13, "{:?}", visible());
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut definition(), NAME, &mut script);
            let script = String::from_utf8(script).expect("text");
            for command in visible() {
                assert!(script.contains(&command), "{shell}: {command}");
            }
            for option in ["accept-delay", "max-in-flight", "sysctl-path", "openmetrics"] {
                assert!(script.contains(option), "{shell}: {option}");
            }
        }
    }

    #[test]
    fn every_visible_command_has_a_manual_page_and_stands_in_the_first() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(directory.path()).expect("pages");
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).expect(name);
        let first = page("acceptbench.1");
        assert!(first.contains("Exit codes: 0 all well"), "{first}");
        for command in visible() {
            let roff = command.replace('-', "\\-");
            assert!(first.contains(&roff), "{command} in acceptbench.1");
            assert!(page(&format!("acceptbench-{command}.1")).starts_with(".ie"), "{command}");
        }
        assert!(page("acceptbench-server.1").contains("accept\\-delay"));
        assert!(!directory.path().join("acceptbench-healthcheck.1").exists(), "hidden");
    }
}
