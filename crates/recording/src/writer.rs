//! From looks at counters to lines: what did not change is no line.

use std::io::{self, Write};

use crate::format::{End, Ending, Header, LimitChange, Sample};

/// What one look found; counters as the kernel has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// µs from the first look.
    pub at: u64,
    /// `PassiveOpens`, read before the depth: then accepts are never counted that did not happen yet.
    pub passive_opens: u64,
    /// The listener's depth.
    pub depth: u32,
    /// The listener's limit.
    pub limit: u32,
    /// The listener's `sk_drops`, which wraps at 2^32.
    pub drops: u32,
    /// `ListenDrops`.
    pub listen_drops: u64,
    /// `SyncookiesSent`.
    pub cookies: u64,
    /// `EmbryonicRsts`.
    pub resets: u64,
    /// `TCPDeferAcceptDrop`.
    pub deferred: u64,
}

/// Bytes kept free for the last line.
const LAST_LINE: u64 = 160;

/// Writes a recording of bounded size.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes that may still be written, the last line aside.
    room: u64,
    bytes: u64,
    lines: u64,
    last: Look,
    /// The instant that the last line is about.
    told: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording of at most `limit` bytes with its header; `first` is what the first look found.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(out: W, limit: u64, header: &Header, first: Look) -> io::Result<Self> {
        let room = limit.saturating_sub(LAST_LINE);
        let mut writer = Self { out, room, bytes: 0, lines: 0, last: first, told: first.at };
        writer.line(header)?;
        Ok(writer)
    }

    /// Takes in a look. False when there is no room for it: then the recording is to be ended.
    ///
    /// # Errors
    /// Those of writing.
    pub fn look(&mut self, look: Look) -> io::Result<bool> {
        if look.limit != self.last.limit
            && !self.line(&LimitChange { limit: look.limit, since_us: look.at.saturating_sub(self.told) })?
        {
            return Ok(false);
        }
        if look.limit != self.last.limit {
            self.told = look.at;
        }
        let last = self.last;
        let sample = Sample {
            at: look.at,
            over: look.at.saturating_sub(last.at),
            entered: look.passive_opens.saturating_sub(last.passive_opens),
            depth: look.depth,
            dropped: look.drops.wrapping_sub(last.drops),
            listen_drops: look.listen_drops.saturating_sub(last.listen_drops),
            cookies: look.cookies.saturating_sub(last.cookies),
            resets: look.resets.saturating_sub(last.resets),
            deferred: look.deferred.saturating_sub(last.deferred),
        };
        let same = sample == Sample { at: sample.at, over: sample.over, depth: last.depth, ..Sample::default() };
        if !same && !self.line(&sample.columns(self.told))? {
            return Ok(false);
        }
        if !same {
            self.told = look.at;
        }
        self.last = look;
        Ok(true)
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// Those of writing.
    pub fn end(mut self, end: Ending, at: u64, looks: u64, late: u64, cpu_us: u64) -> io::Result<Written> {
        self.room = self.room.saturating_add(LAST_LINE);
        self.line(&End { end, since_us: at.saturating_sub(self.told), looks, late, cpu_us })?;
        self.out.flush()?;
        Ok(Written { lines: self.lines, bytes: self.bytes, end, seconds: at as f64 / 1e6, late })
    }

    /// Hands what was written to the system.
    ///
    /// # Errors
    /// Those of writing.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// False when there is no room.
    fn line(&mut self, line: &impl serde::Serialize) -> io::Result<bool> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let length = text.len() as u64;
        let Some(room) = self.room.checked_sub(length) else { return Ok(false) };
        self.room = room;
        self.bytes += length;
        self.lines += 1;
        self.out.write_all(&text)?;
        Ok(true)
    }
}

/// What a recording came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// Lines of the file.
    pub lines: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why it ended.
    pub end: Ending,
    /// How long it took.
    pub seconds: f64,
    /// Looks that came too late for one or more before them.
    pub late: u64,
}
