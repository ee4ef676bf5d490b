//! Relabellings of cells within blocks: all of them by number, or random ones.

use rand_xoshiro::Xoshiro256PlusPlus;

use super::Layout;
use crate::random::shuffle;

/// Per layout and block: which of the cells that are there stands in for the first, the second and so on.
#[derive(Clone, Debug)]
pub(super) struct Relabelling {
    layouts: Vec<Vec<Vec<usize>>>,
}

impl Relabelling {
    /// The order that was run.
    pub(super) fn new(layouts: &[Layout]) -> Self {
        let blocks = |layout: &Layout| (0..layout.blocks).map(|block| layout.present(block)).collect();
        Self { layouts: layouts.iter().map(blocks).collect() }
    }

    /// The blocks of a layout.
    pub(super) fn of(&self, layout: usize) -> &[Vec<usize>] {
        &self.layouts[layout]
    }

    /// How many there are; nothing when they do not fit a `u64`.
    pub(super) fn count(&self) -> Option<u64> {
        let sizes = self.layouts.iter().flatten().flat_map(|block| 2..=block.len() as u64);
        sizes.into_iter().try_fold(1_u64, u64::checked_mul)
    }

    /// Every number below [`Self::count`] is another one.
    pub(super) fn become_number(&mut self, mut number: u64) {
        for block in self.layouts.iter_mut().flatten() {
            // Digits in the factorial number system choose what is swapped in, as in Fisher-Yates.
            block.sort_unstable();
            for last in (1..block.len()).rev() {
                let digits = last as u64 + 1;
                block.swap(last, usize::try_from(number % digits).unwrap_or(last));
                number /= digits;
            }
        }
    }

    /// Fisher-Yates from wherever it stands.
    pub(super) fn shuffle(&mut self, random: &mut Xoshiro256PlusPlus) {
        for block in self.layouts.iter_mut().flatten() {
            shuffle(block, random);
        }
    }
}
