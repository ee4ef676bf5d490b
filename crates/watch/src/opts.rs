//! What a user may ask of `watch`: flags and environment variables in one flat struct, and the text forms of its values.
//! Defaults live in [`Opts::default`] only. Nothing here touches the kernel.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer};
use telemetry::units::Span;

/// Looks per second that can be asked for. A look at 500 listeners costs 0.2 to 0.5 ms; below 10 a second, a
/// queue that was full for less than a tenth of a second would mostly be missed.
const RATES: RangeInclusive<u32> = 10..=100;
/// Most listeners that can be asked for: each is eight series.
const MOST_LISTENERS: u32 = 100_000;
/// Between two tables.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);

/// Everything `watch` can be asked for. Field names are the long flags of `acceptbench watch`.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Opts {
    /// Network namespace to watch: a process id, or a path such as /run/netns/NAME. Default: the caller's own.
    #[arg(long, env = "ACCEPTBENCH_WATCH_NETNS", value_name = "PATH|PID", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// Looks per second at all listeners, from 10 to 100.
    #[arg(long, env = "ACCEPTBENCH_WATCH_RATE", value_name = "HZ", default_value_t = Opts::default().rate,
          allow_negative_numbers = true, value_parser = rate)]
    pub rate: u32,
    /// Only listeners on these ports: 80,443,9000-9010.
    #[arg(
        long,
        env = "ACCEPTBENCH_WATCH_PORT",
        value_name = "PORTS",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "comma_list")]
    pub port: Vec<Ports>,
    /// Only listeners bound to this address or inside this prefix: 10.0.0.0/8; a wildcard listener is bound to 0.0.0.0 or ::.
    #[arg(long, env = "ACCEPTBENCH_WATCH_ADDRESS", value_name = "IP[/PREFIX]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addresses>,
    /// Only listeners held by a program with exactly this command name (/proc/PID/comm).
    #[arg(long, env = "ACCEPTBENCH_WATCH_COMMAND", value_name = "NAME", value_parser = command)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Most listeners shown: those already shown stay, lower addresses and ports come first, the rest are only counted.
    #[arg(long, env = "ACCEPTBENCH_WATCH_MAX_LISTENERS", value_name = "N", default_value_t = Opts::default().max_listeners,
          allow_negative_numbers = true, value_parser = max_listeners)]
    pub max_listeners: NonZeroU32,
    /// Time between two tables, and the time a table tells of.
    #[arg(long, env = "ACCEPTBENCH_WATCH_INTERVAL", value_name = "TIME", default_value_t = Opts::default().interval,
          allow_negative_numbers = true, value_parser = interval)]
    pub interval: Span,
    /// Order of the table: fullest first, then most drops (fill); most drops per second first (drops); or by address.
    #[arg(long, env = "ACCEPTBENCH_WATCH_SORT", value_name = "HOW", default_value_t = Opts::default().sort)]
    pub sort: Sort,
}

impl Default for Opts {
    fn default() -> Self {
        Self {
            netns: None,
            rate: 10,
            port: Vec::new(),
            address: None,
            command: None,
            max_listeners: NonZeroU32::MIN.saturating_add(999),
            interval: Span::from_secs(1),
            sort: Sort::Fill,
        }
    }
}

impl Opts {
    /// The arguments of `acceptbench watch` that give exactly these options: only what differs from the default.
    pub fn to_args(&self) -> Vec<String> {
        telemetry::command_line::to_args(self, &Self::default())
    }
}

fn rate(text: &str) -> Result<u32, String> {
    let rate = text.parse().ok().filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| format!("write a whole number from {} to {} (looks per second)", RATES.start(), RATES.end()))
}

fn max_listeners(text: &str) -> Result<NonZeroU32, String> {
    let most = text.parse().ok().filter(|most: &NonZeroU32| most.get() <= MOST_LISTENERS);
    most.ok_or_else(|| format!("write a whole number from 1 to {MOST_LISTENERS}"))
}

fn interval(text: &str) -> Result<Span, String> {
    let interval: Span = text.parse().map_err(|error| format!("{error}"))?;
    if INTERVALS.contains(&interval.duration()) {
        Ok(interval)
    } else {
        Err("write a time from 100ms to 1h".to_owned())
    }
}

fn command(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("write a command name, e.g. nginx".to_owned()),
        length if length > kernel::socket_owners::COMMAND_BYTES => {
            Err(format!("the kernel keeps {} bytes of a name: write those", kernel::socket_owners::COMMAND_BYTES))
        }
        _ => Ok(text.to_owned()),
    }
}

fn comma_list<S: Serializer>(ports: &[Ports], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&ports.iter().map(Ports::to_string).collect::<Vec<_>>().join(","))
}

/// Another network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// That of a process.
    Pid(u32),
    /// The one behind a path.
    Path(PathBuf),
}

impl Netns {
    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
            Self::Path(path) => path.clone(),
        }
    }
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            // Linux' pids are positive C ints.
            Ok(pid) if (1..=i32::MAX.unsigned_abs()).contains(&pid) => Ok(Self::Pid(pid)),
            _ if is_number => Err("write the id of a running process, or a path such as /run/netns/NAME".to_owned()),
            _ => Ok(Self::Path(text.into())),
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => pid.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}
telemetry::string_serde!(Netns);

/// A port, or ports from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl Ports {
    /// Is this one of them?
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HOW: &str = "write ports from 1 to 65535 and ranges, e.g. 80,443,9000-9010";
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or(HOW);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the lower port comes first: write {last}-{first}"));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            self.0.start().fmt(f)
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}
telemetry::string_serde!(Ports);

/// An address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    address: IpAddr,
    prefix: u32,
}

impl Addresses {
    /// Is this one of them? An address of the other family is not.
    pub fn contains(&self, address: IpAddr) -> bool {
        // As the upper bits of 128: shifting by all of them is what checked_shl refuses, and then nothing is left to differ.
        let same = |a: u128, b: u128, bits: u32| (a ^ b).checked_shr(bits - self.prefix).unwrap_or(0) == 0;
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// Bits of an address.
const fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr =
            address.parse().map_err(|_| "write IP or IP/PREFIX, e.g. 10.0.0.0/8 or ::1".to_owned())?;
        let width = width(address);
        let prefix = match prefix {
            None => width,
            Some(text) => text.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(|| {
                format!(
                    "the prefix of this address is a number of bits from 0 to {width}, e.g. {address}/{}",
                    width / 2
                )
            })?,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}
telemetry::string_serde!(Addresses);

/// Order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Fullest first, then most drops.
    Fill,
    /// Most drops per second first, then most drops.
    Drops,
    /// By address and port.
    Address,
}

telemetry::value_enum_display!(Sort);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        opts: Opts,
    }

    fn parse(args: &[&str]) -> Result<Opts, String> {
        let line = ["x"].iter().chain(args);
        Cli::try_parse_from(line).map(|cli| cli.opts).map_err(|error| error.to_string())
    }

    #[test]
    fn printed_options_parse_back() {
        let all = [
            "--address=10.0.0.0/8",
            "--command=nginx",
            "--interval=250ms",
            "--max-listeners=5",
            "--netns=/run/netns/blue",
            "--port=80,443,9000-9010",
            "--rate=100",
            "--sort=drops",
        ];
        let opts = parse(&all).unwrap();
        assert_eq!(opts.netns, Some(Netns::Path("/run/netns/blue".into())));
        assert_eq!(opts.port.len(), 3);
        assert_eq!(opts.to_args(), all);
        assert_eq!(parse(&[]).unwrap(), Opts::default());
        assert_eq!(Opts::default().to_args(), [""; 0]);
        assert_eq!(parse(&["--port", "80", "--port=81-82"]).unwrap().to_args(), ["--port=80,81-82"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_flag_and_the_fix() {
        for (arg, fix) in [
            ("--rate=9", "from 10 to 100"),
            ("--rate=101", "from 10 to 100"),
            ("--port=0", "from 1 to 65535"),
            ("--port=80,", "from 1 to 65535"),
            ("--port=9010-9000", "write 9000-9010"),
            ("--address=10.0.0.0/33", "from 0 to 32"),
            ("--address=localhost", "10.0.0.0/8"),
            ("--command=a-name-of-16-byt", "15 bytes"),
            ("--max-listeners=0", "from 1 to"),
            ("--interval=1ms", "100ms to 1h"),
            ("--interval=5", "write a unit"),
            ("--netns=0", "id of a running process"),
            ("--netns=-5", "id of a running process"),
            ("--netns=99999999999", "id of a running process"),
        ] {
            let error = parse(&[arg]).unwrap_err();
            let (flag, _) = arg.split_once('=').unwrap();
            assert!(error.contains(flag) && error.contains(fix), "{arg}: {error}");
        }
    }

    #[test]
    fn a_bare_number_is_a_process() {
        assert_eq!("42".parse(), Ok(Netns::Pid(42)));
        assert_eq!(Netns::Pid(42).path(), PathBuf::from("/proc/42/ns/net"));
        assert_eq!("./42".parse(), Ok(Netns::Path("./42".into())));
    }

    #[test]
    fn prefixes_hold_what_begins_like_them() {
        let holds = |prefix: &str, address: &str| {
            prefix.parse::<Addresses>().unwrap().contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.2"));
        assert!(holds("1.2.3.4/0", "255.0.0.1") && !holds("0.0.0.0/0", "::"));
        assert!(holds("fe80::/10", "febf::1") && !holds("fe80::/10", "fec0::1"));
        assert!(holds("::/0", "ffff::1") && holds("::", "::") && !holds("::", "::1"));
    }
}
