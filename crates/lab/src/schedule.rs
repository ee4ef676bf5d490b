//! The order of a run: randomised complete blocks. Every block holds every cell once in an order of its own, so
//! that drift of the machine falls on all cells alike.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// One place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Position in the run, from 0.
    pub trial: usize,
    /// Block, from 0.
    pub block: usize,
    /// Index of the cell.
    pub cell: usize,
}

/// The order of `blocks` blocks of `cells` cells; the same seed gives the same order.
pub fn order(cells: usize, blocks: usize, seed: u64) -> Vec<Planned> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut planned = Vec::with_capacity(cells * blocks);
    for block in 0..blocks {
        let mut block_order: Vec<usize> = (0..cells).collect();
        // Fisher-Yates; the modulo's bias is below 2^-50 for any number of cells.
        for last in (1..cells).rev() {
            let other = usize::try_from(random.next_u64() % (last as u64 + 1)).unwrap_or(last);
            block_order.swap(last, other);
        }
        planned.extend(block_order.into_iter().map(|cell| (block, cell)));
    }
    planned.into_iter().enumerate().map(|(trial, (block, cell))| Planned { trial, block, cell }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_holds_every_cell_once_in_an_order_of_its_own() {
        let planned = order(9, 3, 1);
        let blocks: Vec<Vec<usize>> =
            (0..3).map(|b| planned.iter().filter(|p| p.block == b).map(|p| p.cell).collect()).collect();
        for block in &blocks {
            let mut sorted = block.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..9).collect::<Vec<_>>());
        }
        assert_ne!(blocks[0], blocks[1]);
        assert_eq!(planned, order(9, 3, 1));
        assert_ne!(planned, order(9, 3, 2));
        assert!(planned.iter().enumerate().all(|(index, p)| p.trial == index));
    }
}
