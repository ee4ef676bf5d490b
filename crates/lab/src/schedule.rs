//! The order of a run: blocks that hold every cell once, so that drift of the machine falls on all cells alike when
//! blocks are shuffled, and steps are seen as steps when they are not.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use schemars::JsonSchema;
use serde::Deserialize;

/// How the cells of each block follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Shuffled anew in every block: randomised complete blocks.
    #[default]
    Random,
    /// As the file lists them, in every block.
    AsWritten,
    /// As the file lists them, then backwards, and so on: a staircase, in which a steady drift falls on all cells alike
    /// after an even number of blocks.
    ThereAndBack,
}

/// One place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Position in the run, from 0.
    pub trial: usize,
    /// Block, from 0.
    pub block: usize,
    /// Index of the cell.
    pub cell: usize,
    /// How often it was run before without counting.
    pub retry: usize,
}

impl Order {
    /// `blocks` blocks of `cells` cells; the same seed gives the same order.
    pub fn plan(self, cells: usize, blocks: usize, seed: u64) -> Vec<Planned> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut planned = Vec::with_capacity(cells * blocks);
        for block in 0..blocks {
            let mut order: Vec<usize> = (0..cells).collect();
            match self {
                Self::Random => shuffle(&mut order, &mut random),
                Self::ThereAndBack if block % 2 == 1 => order.reverse(),
                Self::AsWritten | Self::ThereAndBack => {}
            }
            planned.extend(order.into_iter().map(|cell| (block, cell)));
        }
        let place = |(trial, (block, cell))| Planned { trial, block, cell, retry: 0 };
        planned.into_iter().enumerate().map(place).collect()
    }
}

/// Fisher-Yates; the modulo's bias is below 2^-50 for any number of cells.
fn shuffle(order: &mut [usize], random: &mut Xoshiro256PlusPlus) {
    for last in (1..order.len()).rev() {
        let other = usize::try_from(random.next_u64() % (last as u64 + 1)).unwrap_or(last);
        order.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_holds_every_cell_once_in_an_order_of_its_own() {
        let planned = Order::Random.plan(9, 3, 1);
        let blocks: Vec<Vec<usize>> =
            (0..3).map(|b| planned.iter().filter(|p| p.block == b).map(|p| p.cell).collect()).collect();
        for block in &blocks {
            let mut sorted = block.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..9).collect::<Vec<_>>());
        }
        assert_ne!(blocks[0], blocks[1]);
        assert_eq!(planned, Order::Random.plan(9, 3, 1));
        assert_ne!(planned, Order::Random.plan(9, 3, 2));
        assert!(planned.iter().enumerate().all(|(index, p)| p.trial == index));
    }

    #[test]
    fn a_staircase_goes_up_and_comes_down() {
        let cells = |order: Order| order.plan(3, 3, 1).iter().map(|p| p.cell).collect::<Vec<_>>();
        assert_eq!(cells(Order::ThereAndBack), [0, 1, 2, 2, 1, 0, 0, 1, 2]);
        assert_eq!(cells(Order::AsWritten), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert!(Order::ThereAndBack.plan(3, 2, 1).iter().all(|p| p.block == p.trial / 3));
    }
}
