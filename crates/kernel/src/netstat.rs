//! The TCP counters of one network namespace: `/proc/thread-self/net/netstat` and `/proc/thread-self/net/snmp`.
//!
//! Owns the parser and a reader that keeps both files open. It refuses positional parsing: every kernel release adds
//! columns, so names are matched, never places.
//!
//! `/proc/net` is a link to `/proc/self/net`, which follows the thread-group *leader*: after setns(2) in another thread
//! it shows the wrong namespace. `thread-self` follows the caller. Source: `proc_pid_net(5)`, `net/ipv4/proc.c`
//! (`netstat_seq_show`, `snmp_seq_show`); the meaning of each counter is `Documentation/networking/snmp_counter.rst`.

use std::fs::File;
use std::io;

pub use crate::net_counters::{Field, NetCounters};

/// Path of the extended counters (`TcpExt`).
const NETSTAT: &str = "/proc/thread-self/net/netstat";
/// Path of the RFC 1213 counters (`Tcp`).
const SNMP: &str = "/proc/thread-self/net/snmp";

/// The text does not have the form `Prefix: names` followed by `Prefix: values`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A line is not UTF-8 or has no `Prefix:`.
    #[error("parsing {file} line {line}: no 'Prefix:' at the start of the line")]
    NoPrefix {
        /// `netstat` or `snmp`.
        file: &'static str,
        /// Line number from 1.
        line: usize,
    },
    /// The header is the last line.
    #[error("parsing {file} line {line}: header '{prefix}' has no line of values")]
    NoValues {
        /// `netstat` or `snmp`.
        file: &'static str,
        /// Line number from 1.
        line: usize,
        /// Prefix of the header.
        prefix: String,
    },
    /// Header and values start with different prefixes.
    #[error("parsing {file} line {line}: values of '{found}' follow the header of '{expected}'")]
    PrefixDiffers {
        /// `netstat` or `snmp`.
        file: &'static str,
        /// Line number of the values, from 1.
        line: usize,
        /// Prefix of the header.
        expected: String,
        /// Prefix of the values.
        found: String,
    },
    /// Header and values have different numbers of columns.
    #[error("parsing {file} line {line}: {values} values for {names} names of '{prefix}'")]
    ColumnsDiffer {
        /// `netstat` or `snmp`.
        file: &'static str,
        /// Line number of the values, from 1.
        line: usize,
        /// Prefix of both lines.
        prefix: String,
        /// Columns in the header.
        names: usize,
        /// Columns in the values.
        values: usize,
    },
    /// A counter of ours is not an unsigned number.
    #[error("parsing {file} line {line}: {prefix} {name} is '{value}', not an unsigned number")]
    NotANumber {
        /// `netstat` or `snmp`.
        file: &'static str,
        /// Line number of the values, from 1.
        line: usize,
        /// Prefix of both lines.
        prefix: String,
        /// The kernel's name of the column.
        name: String,
        /// What stands there.
        value: String,
    },
}

/// Parses the contents of both files. Columns and groups that are not ours are ignored; a counter the kernel does not
/// have stays 0.
///
/// # Errors
/// [`ParseError`] names the file and line whose form is unexpected.
pub fn parse(netstat: &[u8], snmp: &[u8]) -> Result<NetCounters, ParseError> {
    let mut counters = NetCounters::default();
    parse_file("netstat", netstat, &mut counters)?;
    parse_file("snmp", snmp, &mut counters)?;
    Ok(counters)
}

/// Splits `Prefix: rest`.
fn prefix_and_rest<'a>(bytes: &'a [u8], file: &'static str, line: usize) -> Result<(&'a str, &'a str), ParseError> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.split_once(':')).ok_or(ParseError::NoPrefix { file, line })
}

fn parse_file(file: &'static str, text: &[u8], counters: &mut NetCounters) -> Result<(), ParseError> {
    let mut lines = text.split(|&byte| byte == b'\n').zip(1..).filter(|(bytes, _)| !bytes.trim_ascii().is_empty());
    while let Some((header, header_line)) = lines.next() {
        let (prefix, names) = prefix_and_rest(header, file, header_line)?;
        let Some((values, line)) = lines.next() else {
            return Err(ParseError::NoValues { file, line: header_line, prefix: prefix.to_owned() });
        };
        let (found, values) = prefix_and_rest(values, file, line)?;
        if found != prefix {
            return Err(ParseError::PrefixDiffers { file, line, expected: prefix.to_owned(), found: found.to_owned() });
        }
        let (name_count, value_count) =
            (names.split_ascii_whitespace().count(), values.split_ascii_whitespace().count());
        if name_count != value_count {
            return Err(ParseError::ColumnsDiffer {
                file,
                line,
                prefix: prefix.to_owned(),
                names: name_count,
                values: value_count,
            });
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            // Only our own columns are parsed: others may be negative (Tcp MaxConn is -1).
            if let Some(slot) = counters.slot(prefix, name) {
                *slot = value.parse().map_err(|_| ParseError::NotANumber {
                    file,
                    line,
                    prefix: prefix.to_owned(),
                    name: name.to_owned(),
                    value: value.to_owned(),
                })?;
            }
        }
    }
    Ok(())
}

/// The counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Opening or reading a file failed.
    #[error("{operation} {path}: {source} (hint: TCP counters need /proc mounted and visible to this process)")]
    Io {
        /// `opening` or `reading`.
        operation: &'static str,
        /// The file.
        path: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The contents have an unexpected form.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// Reads the counters again and again through two open files.
///
/// The namespace is the one the opening thread was in, for good: the kernel ties it to the open file, which also keeps
/// the namespace alive. One read of both costs some 70 µs, 10 of them for parsing.
#[derive(Debug)]
pub struct NetstatReader {
    netstat: File,
    snmp: File,
    buffers: [Vec<u8>; 2],
}

impl NetstatReader {
    /// Opens both files in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`ReadError::Io`] when `/proc` is not mounted or hides this process.
    pub fn open() -> Result<Self, ReadError> {
        let open = |path| File::open(path).map_err(|source| ReadError::Io { operation: "opening", path, source });
        Ok(Self { netstat: open(NETSTAT)?, snmp: open(SNMP)?, buffers: [Vec::new(), Vec::new()] })
    }

    /// Reads both files. They are two reads, some µs apart: an identity across groups holds only when the namespace is
    /// quiet.
    ///
    /// # Errors
    /// [`ReadError`] when a read fails or the contents do not parse.
    pub fn read(&mut self) -> Result<NetCounters, ReadError> {
        let [netstat, snmp] = &mut self.buffers;
        read_whole(&self.netstat, netstat).map_err(|source| ReadError::Io {
            operation: "reading",
            path: NETSTAT,
            source,
        })?;
        read_whole(&self.snmp, snmp).map_err(|source| ReadError::Io { operation: "reading", path: SNMP, source })?;
        Ok(parse(netstat, snmp)?)
    }

    /// The counters of group `Tcp` alone, the others 0: a third of the cost of all.
    ///
    /// # Errors
    /// [`ReadError`] when the read fails or the contents do not parse.
    pub fn read_tcp(&mut self) -> Result<NetCounters, ReadError> {
        let snmp = &mut self.buffers[1];
        read_whole(&self.snmp, snmp).map_err(|source| ReadError::Io { operation: "reading", path: SNMP, source })?;
        Ok(parse(b"", snmp)?)
    }
}

/// Reads a `seq_file` from its start with pread(2). Reading at offset 0 makes the kernel render it anew, in one go; the
/// following reads only serve the rest of that rendering, so one call never mixes two instants.
fn read_whole(file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    const FIRST: usize = 16 * 1024;
    if buffer.len() < FIRST {
        buffer.resize(FIRST, 0);
    }
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[filled..], filled as u64))?;
        if read == 0 {
            buffer.truncate(filled);
            return Ok(());
        }
        filled += read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NETSTAT_TEXT: &[u8] = b"TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPFuture\n\
        TcpExt: 1 20 300 4000\n\
        IpExt: InNoRoutes\n\
        IpExt: 9\n";
    const SNMP_TEXT: &[u8] = b"Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens OutRsts\n\
        Tcp: 1 -1 18446744073709551615 7 8\n";

    #[test]
    fn columns_are_matched_by_name_and_the_rest_is_ignored() {
        let counters = parse(NETSTAT_TEXT, SNMP_TEXT).unwrap();
        let expected = NetCounters {
            syncookies_sent: 1,
            listen_overflows: 20,
            listen_drops: 300,
            active_opens: u64::MAX,
            passive_opens: 7,
            resets_sent: 8,
            ..NetCounters::default()
        };
        assert_eq!(counters, expected);
    }

    #[test]
    fn a_counter_of_another_group_is_not_taken() {
        let counters = parse(b"IpExt: ListenDrops\nIpExt: 5\n", b"").unwrap();
        assert_eq!(counters, NetCounters::default());
    }

    #[test]
    fn malformed_lines_are_named() {
        let error = |netstat: &[u8]| parse(netstat, b"").unwrap_err().to_string();
        assert_eq!(error(b"nonsense\n"), "parsing netstat line 1: no 'Prefix:' at the start of the line");
        assert_eq!(error(b"\xff: a\n"), "parsing netstat line 1: no 'Prefix:' at the start of the line");
        assert_eq!(error(b"TcpExt: ListenDrops\n"), "parsing netstat line 1: header 'TcpExt' has no line of values");
        assert_eq!(
            error(b"TcpExt: ListenDrops\nIpExt: 1\n"),
            "parsing netstat line 2: values of 'IpExt' follow the header of 'TcpExt'"
        );
        assert_eq!(
            error(b"IpExt: a\nIpExt: 1\nTcpExt: ListenDrops b\nTcpExt: 1\n"),
            "parsing netstat line 4: 1 values for 2 names of 'TcpExt'"
        );
        assert_eq!(
            error(b"TcpExt: ListenDrops\nTcpExt: -1\n"),
            "parsing netstat line 2: TcpExt ListenDrops is '-1', not an unsigned number"
        );
    }

    #[test]
    fn this_machine_has_every_counter_of_a_modern_kernel() {
        let netstat = std::fs::read_to_string(NETSTAT).unwrap();
        let snmp = std::fs::read_to_string(SNMP).unwrap();
        for field in NetCounters::FIELDS.iter().filter(|field| !field.name.starts_with("migrate")) {
            let text = if field.group == "Tcp" { &snmp } else { &netstat };
            let header = text.lines().find(|line| line.starts_with(&format!("{}: ", field.group))).unwrap();
            assert!(header.split(' ').any(|column| column == field.kernel_name), "{}", field.kernel_name);
        }
    }

    #[test]
    fn the_reader_sees_new_counts_through_the_same_files() {
        let mut reader = NetstatReader::open().unwrap();
        let before = reader.read().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let counted = reader.read().unwrap().since(&before);
        assert!(counted.active_opens >= 1 && counted.passive_opens >= 1, "{counted:?}");
        let (tcp, all) = (reader.read_tcp().unwrap(), reader.read().unwrap());
        assert!(tcp.passive_opens > before.passive_opens && tcp.passive_opens <= all.passive_opens);
        assert_eq!(tcp.listen_drops, 0);
    }

    proptest! {
        #[test]
        fn the_parser_never_panics(netstat: Vec<u8>, snmp in "(Tcp|TcpExt|:| |\n|[0-9]|ListenDrops)*") {
            let _ = parse(&netstat, snmp.as_bytes());
            let _ = parse(snmp.as_bytes(), &netstat);
        }
    }
}
