//! How the bench's own processes are told what to do: `name=value` arguments, all of them needed. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// `name=value` arguments that have not been asked for yet.
#[derive(Debug)]
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    /// Takes the arguments behind the role.
    ///
    /// # Errors
    /// The argument that has no `=`.
    pub(crate) fn read(args: &[String]) -> Result<Self, String> {
        let pair = |arg: &String| {
            let pair = arg.split_once('=').ok_or_else(|| format!("unknown argument {arg}; write name=value"))?;
            Ok((pair.0.to_owned(), pair.1.to_owned()))
        };
        args.iter().map(pair).collect::<Result<_, String>>().map(Self)
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// It is not there, or does not parse.
    pub(crate) fn take<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T, String> {
        let text = self.0.remove(name).ok_or_else(|| format!("missing argument {name}=..."))?;
        text.parse().map_err(|error| format!("{name}={text}: {error}"))
    }

    /// Everything has been asked for.
    ///
    /// # Errors
    /// The first argument that nobody asked for.
    pub(crate) fn end(self) -> Result<(), String> {
        self.0.into_keys().next().map_or(Ok(()), |name| Err(format!("unknown argument {name}")))
    }
}
