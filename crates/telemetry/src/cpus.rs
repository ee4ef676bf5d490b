//! Which CPUs the threads of a program run on, as a setting.

use std::fmt;
use std::str::FromStr;

use crate::units::ParseUnitError;

/// On which CPUs threads or processes of one kind run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// Wherever the scheduler puts them.
    Off,
    /// Number i on the ith CPU this process may use, round and round.
    Auto,
    /// Number i on the ith of these, round and round.
    List(Vec<usize>),
}

/// Largest number of a CPU in a list; the kernel's CPU sets of this size are what `sched_setaffinity(2)` is called with.
const LAST_CPU: usize = 1023;

impl FromStr for Cpus {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            ParseUnitError::new(format!(
                "`{text}` is no choice of CPUs; use off, auto or a list such as 0,2-3 (0 to {LAST_CPU})"
            ))
        };
        match text {
            "off" => return Ok(Self::Off),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { return Err(wrong()) };
            if first > last || last > LAST_CPU || cpus.len() > LAST_CPU {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Self::List(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::List(cpus) => {
                let texts: Vec<String> = cpus.iter().map(usize::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}
crate::string_serde!(Cpus);
crate::text_schema!(Cpus, "off|auto|[0-9]+(-[0-9]+)?( *, *[0-9]+(-[0-9]+)?)*", or { "type": "integer", "minimum": 0, "maximum": 1023 });

impl Cpus {
    /// The CPU of each of `count` threads, of the `allowed` ones; `None` where the scheduler decides.
    ///
    /// # Errors
    /// A listed CPU that is not allowed, in words that begin with the name of the setting.
    pub fn assign(&self, allowed: &[usize], count: usize) -> Result<Vec<Option<usize>>, String> {
        let list = match self {
            Self::Off => return Ok(vec![None; count]),
            Self::Auto => allowed,
            Self::List(list) => {
                if let Some(cpu) = list.iter().find(|cpu| !allowed.contains(cpu)) {
                    let texts: Vec<String> = allowed.iter().map(usize::to_string).collect();
                    return Err(format!(
                        "cpus names CPU {cpu}, but this process may run on {} only; choose among them",
                        texts.join(",")
                    ));
                }
                list
            }
        };
        Ok(list.iter().copied().cycle().map(Some).take(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_lists_and_ranges() {
        let text = |text: &str| text.parse::<Cpus>().map(|cpus| cpus.to_string());
        assert_eq!(text("off").unwrap(), "off");
        assert_eq!(text("auto").unwrap(), "auto");
        assert_eq!(text("0,2-4").unwrap(), "0,2,3,4");
        for wrong in ["", "one", "2-1", "1,", "-1", "4096"] {
            assert!(text(wrong).unwrap_err().to_string().contains("no choice of CPUs"), "{wrong}");
        }
    }

    #[test]
    fn threads_take_their_cpus_round_and_round() {
        let assign = |text: &str| text.parse::<Cpus>().unwrap().assign(&[0, 2], 3);
        assert_eq!(assign("off"), Ok(vec![None; 3]));
        assert_eq!(assign("auto"), Ok(vec![Some(0), Some(2), Some(0)]));
        assert_eq!(assign("2"), Ok(vec![Some(2); 3]));
        assert!(assign("0-1").unwrap_err().starts_with("cpus names CPU 1, but this process may run on 0,2 only"));
    }
}
