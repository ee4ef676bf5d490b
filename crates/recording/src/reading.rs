//! A recording read back, every error with its `file:line`.

use std::path::Path;

use jiff::SignedDuration;
use serde::Deserialize;
use thiserror::Error;

use crate::format::{Columns, End, Ending, Header, LimitChange, Sample, VERSION, later};

/// What was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The first line.
    pub header: Header,
    /// What changed, in order.
    pub samples: Vec<Sample>,
    /// Other limits, and from when (µs from the first look).
    pub limits: Vec<(u64, u32)>,
    /// The last line, unless it was cut off.
    pub end: Option<End>,
    /// When the last line was about, µs from the first look.
    pub lasts: u64,
}

/// A file that is no recording: one line, `file:line: what and how to mend it`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {message}")]
pub struct RecordingError {
    /// `file:line`, or the file.
    pub place: String,
    /// Cause and fix.
    pub message: String,
}

/// A line after the first.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Line {
    Sample(Columns),
    Limit(LimitChange),
    End(End),
}

/// What to do about a line that is none.
const HOW: &str = "a recording is what acceptbench watch --record wrote, unchanged";

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// What cannot be read or is no recording, with its place.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| RecordingError {
            place: name.clone(),
            message: format!("cannot read the recording: {error}; name the FILE of acceptbench watch --record"),
        })?;
        Self::parse(&name, &bytes)
    }

    /// Reads a file's contents; `name` is how errors call it. A last line that was not written to its end is left out.
    ///
    /// # Errors
    /// What is no recording, with its place.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, RecordingError> {
        let error = |line: usize, message: String| RecordingError { place: format!("{name}:{line}"), message };
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').zip(1..);
        let (first, _) = lines.next().ok_or_else(|| error(1, format!("the file is empty; {HOW}")))?;
        let header: Header = serde_json::from_slice(first)
            .map_err(|cause| error(1, format!("no header of a recording: {cause}; {HOW}")))?;
        if header.acceptbench_recording != VERSION {
            let version = header.acceptbench_recording;
            return Err(error(
                1,
                format!(
                    "a recording of version {version}; this program reads version {VERSION}: record anew, or use the program that recorded it"
                ),
            ));
        }
        let mut recording = Self { header, samples: Vec::new(), limits: Vec::new(), end: None, lasts: 0 };
        for (text, number) in lines {
            let whole = text.ends_with(b"\n");
            if recording.end.is_some() {
                return Err(error(number, format!("something follows the end of the recording; {HOW}")));
            }
            match serde_json::from_slice(text) {
                Ok(line) => recording
                    .push(line)
                    .map_err(|column| error(number, format!("the column `{column}` cannot be so great; {HOW}")))?,
                // Cut off while it was written.
                Err(_) if !whole => {}
                Err(_) => {
                    let shown: String = String::from_utf8_lossy(text).trim_end().chars().take(40).collect();
                    return Err(error(number, format!("`{shown}` is no line of a recording; {HOW}")));
                }
            }
        }
        Ok(recording)
    }

    fn push(&mut self, line: Line) -> Result<(), &'static str> {
        match line {
            Line::Sample(columns) => {
                let sample = Sample::read(columns, self.lasts)?;
                let before = self.samples.last().map_or(0, |sample| sample.at);
                if sample.began() < before {
                    return Err("over");
                }
                self.lasts = sample.at;
                self.samples.push(sample);
            }
            Line::Limit(LimitChange { limit, since_us }) => {
                self.lasts = later(self.lasts, since_us).ok_or("since-us")?;
                self.limits.push((self.lasts, limit));
            }
            Line::End(end) => {
                self.lasts = later(self.lasts, end.since_us).ok_or("since-us")?;
                self.end = Some(end);
            }
        }
        Ok(())
    }

    /// What was recorded between two instants, µs from the first look, as if nothing else had been.
    #[must_use]
    pub fn part(&self, from: u64, to: u64) -> Self {
        let to = to.min(self.lasts);
        let from = from.min(to);
        let header = self.header.clone();
        let mut part = Self { header, samples: Vec::new(), limits: Vec::new(), end: self.end, lasts: to - from };
        let later = SignedDuration::from_micros(from.cast_signed());
        part.header.started = self.header.started.checked_add(later).unwrap_or(self.header.started);
        for (at, limit) in &self.limits {
            match at.checked_sub(from) {
                Some(at) if at > 0 && at <= part.lasts => part.limits.push((at, *limit)),
                Some(at) if at > 0 => {}
                _ => part.header.limit = *limit,
            }
        }
        for sample in &self.samples {
            if sample.at <= from || sample.began() < from {
                part.header.depth = sample.depth;
            } else if sample.at <= to {
                part.samples.push(Sample { at: sample.at - from, ..*sample });
            }
        }
        // What is after it was left out, not missed.
        if let Some(end) = part.end.as_mut().filter(|_| to < self.lasts) {
            end.end = Ending::Stopped;
        }
        part
    }

    /// When the queue was first seen as deep as it ever was, µs from the first look.
    pub fn deepest_at(&self) -> u64 {
        let deepest = self.deepest();
        self.samples
            .iter()
            .find(|sample| sample.depth == deepest && deepest > self.header.depth)
            .map_or(0, |sample| sample.at)
    }

    /// Connections that entered an accept queue.
    pub fn entered(&self) -> u64 {
        self.samples.iter().map(|sample| sample.entered).sum()
    }

    /// Packets that this listener dropped.
    pub fn dropped(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.dropped)).sum()
    }

    /// The deepest queue that was seen.
    pub fn deepest(&self) -> u32 {
        self.samples.iter().map(|sample| sample.depth).max().unwrap_or(0).max(self.header.depth)
    }

    /// A sysctl as a whole number, if it was recorded and is one.
    pub fn sysctl(&self, name: &str) -> Option<u64> {
        self.header.sysctls.get(name)?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests;
