//! Stretches in which nothing came and nobody waited, and a recording's time without most of them.

use crate::reading::Recording;

/// Time with the quiet stretches cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// From and to of what is left out, µs from the first look, in order.
    out: Vec<(u64, u64)>,
}

impl Cut {
    /// Leaves out of every quiet stretch what is longer than `gap_us`.
    pub fn new(recording: &Recording, gap_us: u64) -> Self {
        let mut out = Vec::new();
        let (mut since, mut depth) = (0, recording.header.depth);
        for sample in &recording.samples {
            if depth == 0 && sample.began().saturating_sub(since) > gap_us {
                out.push((since + gap_us, sample.began()));
            }
            (since, depth) = (sample.at, sample.depth);
        }
        Self { out }
    }

    /// The instant in the time that is left.
    pub fn shorten(&self, at: u64) -> u64 {
        let before = self.out.iter().take_while(|(from, _)| *from < at);
        at - before.map(|(from, to)| (*to).min(at) - from).sum::<u64>()
    }

    /// What is left out in all, µs.
    pub fn left_out(&self) -> u64 {
        self.out.iter().map(|(from, to)| to - from).sum()
    }
}
