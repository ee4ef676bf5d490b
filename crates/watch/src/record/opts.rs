//! What may be asked of a recording.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use telemetry::units::Span;

/// Between two looks: 100 µs is a third of a core, and what happens within a second is no burst.
const INTERVALS: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_secs(1);

/// Bytes of a recording: room for its first lines, and what fits a disk.
const SIZES: RangeInclusive<u64> = 16 * 1024..=16 << 30;

/// Flags of `acceptbench watch` about a recording.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Recording one listener for acceptbench replay")]
pub struct RecordOpts {
    /// Record the one listener that --port and --address choose into this new file: when connections came, how deep the
    /// queue was, what was dropped. Watching ends with the recording.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Time between two looks of the recording, from 100us to 1s.
    #[arg(long, value_name = "TIME", requires = "record", default_value_t = RecordOpts::default().record_interval,
          allow_negative_numbers = true, value_parser = interval)]
    pub record_interval: Span,
    /// Size at which the recording ends: 500KB, 64MB, 2GB. A busy second takes some 25 KB.
    #[arg(long, value_name = "SIZE", requires = "record", default_value_t = RecordOpts::default().record_limit,
          allow_negative_numbers = true)]
    pub record_limit: Size,
    /// Time after which the recording ends; without it, when it is stopped or has its size.
    #[arg(long, value_name = "TIME", requires = "record", allow_negative_numbers = true, value_parser = time)]
    pub record_for: Option<Span>,
}

impl Default for RecordOpts {
    fn default() -> Self {
        Self { record: None, record_interval: Span::from_millis(1), record_limit: Size(64_000_000), record_for: None }
    }
}

fn interval(text: &str) -> Result<Span, String> {
    let interval: Span = text.parse().map_err(|error| format!("{error}"))?;
    if INTERVALS.contains(&interval.duration()) {
        Ok(interval)
    } else {
        Err("write a time from 100us to 1s".to_owned())
    }
}

fn time(text: &str) -> Result<Span, String> {
    let time: Span = text.parse().map_err(|error| format!("{error}"))?;
    if time.is_zero() { Err("write a time above 0".to_owned()) } else { Ok(time) }
}

/// The units of a size, greatest first.
const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)];

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    /// How many.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size =
            UNITS.iter().find_map(|(unit, bytes)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*bytes));
        let size = size.filter(|size| SIZES.contains(size)).map(Self);
        size.ok_or_else(|| "write a size from 17KB to 17GB with its unit, e.g. 64MB".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every size was written in one of the units.
        let (unit, bytes) = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        record: RecordOpts,
    }

    fn parse(args: &[&str]) -> Result<RecordOpts, String> {
        let line = ["x"].iter().chain(args);
        Cli::try_parse_from(line).map(|cli| cli.record).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_said_with_the_flag_and_the_fix() {
        assert_eq!(parse(&[]), Ok(RecordOpts::default()));
        let record = "--record=x";
        for (arg, fix) in [
            ("--record-interval=99us", "from 100us to 1s"),
            ("--record-interval=2s", "from 100us to 1s"),
            ("--record-interval=1", "write a unit"),
            ("--record-limit=64", "e.g. 64MB"),
            ("--record-limit=1KB", "from 17KB"),
            ("--record-limit=99999999999999999999GB", "to 17GB"),
            ("--record-for=0s", "above 0"),
        ] {
            let error = parse(&[record, arg]).unwrap_err();
            let (flag, _) = arg.split_once('=').unwrap();
            assert!(error.contains(flag) && error.contains(fix), "{arg}: {error}");
        }
        assert!(parse(&["--record-for=1s"]).unwrap_err().contains("--record <FILE>"));
        let all = parse(&[record, "--record-interval=250us", "--record-limit=500KB", "--record-for=2m"]).unwrap();
        assert_eq!((all.record_limit.bytes(), all.record_limit.to_string().as_str()), (500_000, "500KB"));
        assert_eq!(Size(64_000_000).to_string(), "64MB");
    }
}
