//! What the command line of the bench asks for. Pure: arguments in, settings or one line of complaint out.

use std::path::PathBuf;

/// Rounds of a measurement at most.
const MOST_ROUNDS: u32 = 99;

/// Seconds of one load at most: nothing here runs for long.
const MOST_SECONDS: u32 = 60;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Connections per second in a closed loop, beside the raw baseline.
    Churn,
    /// One HTTP request per connection, beside the tools that Debian packages.
    Http,
    /// How evenly arrivals are spaced, as an independent acceptor sees it.
    Pacing,
}

impl Part {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 3] = [Self::Churn, Self::Http, Self::Pacing];

    /// Its name on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::Http => "http",
            Self::Pacing => "pacing",
        }
    }
}

/// How tables are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned, for a terminal of 80 columns.
    #[default]
    Text,
    /// As `docs/performance.md` holds them.
    Markdown,
}

/// A measurement that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How often each contestant has its turn.
    pub(crate) rounds: u32,
    /// Length of one load, in seconds.
    pub(crate) seconds: u32,
    /// What to compare, in order, each once.
    pub(crate) parts: Vec<Part>,
    /// How to print.
    pub(crate) format: Format,
    /// Where to write every single figure, if anywhere.
    pub(crate) json: Option<PathBuf>,
}

/// What the command line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Not run by `cargo bench`: there is nothing to do.
    Nothing,
    /// Measure.
    Measure(Settings),
}

/// Reads the arguments behind the program's name. Without cargo's `--bench` it does nothing, whatever else is there:
/// `cargo test --all-targets` runs benches too.
///
/// # Errors
/// One line that names the argument that is wrong.
pub(crate) fn parse(args: &[String]) -> Result<Request, String> {
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(Request::Nothing);
    }
    let mut settings = Settings { rounds: 5, seconds: 3, parts: Vec::new(), format: Format::default(), json: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--rounds" => settings.rounds = number(arg, args.next(), MOST_ROUNDS)?,
            "--seconds" => settings.seconds = number(arg, args.next(), MOST_SECONDS)?,
            "--only" => settings.parts.extend(parts(args.next())?),
            "--markdown" => settings.format = Format::Markdown,
            "--json" => {
                let file = args.next().filter(|file| !file.starts_with("--"));
                settings.json = Some(file.ok_or("--json takes the file to write")?.into());
            }
            _ => return Err(format!("unknown argument {arg}; see the head of benches/peers/main.rs")),
        }
    }
    // In the usual order, each once; all when none is named.
    let asked = std::mem::take(&mut settings.parts);
    settings.parts = Part::ALL.into_iter().filter(|part| asked.is_empty() || asked.contains(part)).collect();
    Ok(Request::Measure(settings))
}

fn number(name: &str, value: Option<&String>, most: u32) -> Result<u32, String> {
    let number = value.and_then(|text| text.parse().ok()).filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{name} takes a whole number from 1 to {most}"))
}

/// Names of parts, separated by commas.
fn parts(names: Option<&String>) -> Result<Vec<Part>, String> {
    let known = || Part::ALL.map(Part::name).join(", ");
    let names = names.ok_or_else(|| format!("--only takes one or more of {}", known()))?;
    let part = |name: &str| Part::ALL.into_iter().find(|part| part.name() == name);
    let parts = names.split(',').map(|name| part(name).ok_or_else(|| format!("--only {name}: use {}", known())));
    parts.collect()
}
