//! What a comparison can reach: the p of a difference beyond all doubt. A design in which that is above 0.05 may miss one,
//! however large it is, and is not tested.

/// A finding's adjusted p is at most this.
pub const SIGNIFICANCE: f64 = 0.05;

/// The greatest adjusted p that a cell can come to which differs beyond all doubt and alone, in blocks with so many cells
/// each.
///
/// Only relabellings in which this cell's values stay together, under whatever label, can be as extreme as the order that was
/// run: n of n^b (n cells, b blocks), so p is n^(1 − b) or less. It is exactly that where the other cells are alike to the last
/// digit; their noise makes some of these relabellings less extreme, and p less. Blocks with fewer cells (trials that do not
/// count) have fewer places; the cell is taken to be in all of them. A block with a single cell says nothing.
pub fn reachable_p(cells_of_blocks: &[usize]) -> f64 {
    let places = cells_of_blocks.iter().filter(|cells| **cells > 1).map(|cells| *cells as f64);
    places.clone().reduce(f64::min).map_or(1.0, |labels| labels / places.product::<f64>())
}

/// The fewest blocks with which `cells` cells reach [`SIGNIFICANCE`]; `None` of fewer than two cells.
pub fn blocks_needed(cells: usize) -> Option<usize> {
    // Two cells need the most: six blocks.
    (2..=6).filter(|_| cells >= 2).find(|blocks| reachable_p(&vec![cells; *blocks]) <= SIGNIFICANCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutation::{Family, Layout};
    use crate::random::uniform;

    #[test]
    fn few_cells_need_many_blocks() {
        let needed: Vec<Option<usize>> = [0, 1, 2, 3, 4, 5, 9, 19, 20].map(blocks_needed).to_vec();
        assert_eq!(needed, [None, None, Some(6), Some(4), Some(4), Some(3), Some(3), Some(3), Some(2)]);
    }

    #[test]
    fn it_is_what_a_lone_difference_comes_to() {
        for sizes in [[2; 6].as_slice(), &[3; 4], &[4; 3], &[3, 2, 3, 3], &[2, 2, 1, 2, 2, 2, 2]] {
            let mut layout = Layout::new(sizes[0], sizes.len());
            // The cell that differs is in every block.
            let is_there = |block: usize, cell: usize| if sizes[block] > 1 { cell < sizes[block] } else { cell == 1 };
            layout.push(|block, cell| is_there(block, cell).then_some(if cell == 1 { 5.0 } else { 1.0 }));
            let family = Family::test(&[layout], 999, 1);
            assert!(family.exact);
            let (p, reachable) = (family.tested[0].p, reachable_p(sizes));
            assert!((p - reachable).abs() < 1e-12, "{sizes:?}: {p}, not {reachable}");
        }
    }

    #[test]
    fn noise_of_the_others_can_only_make_it_less() {
        let mut less = 0;
        for mut random in crate::random::streams(5, 50) {
            let noise: Vec<f64> = (0..12).map(|_| uniform(&mut random)).collect();
            let mut layout = Layout::new(3, 4);
            layout.push(|block, cell| Some(noise[block * 3 + cell] + if cell == 1 { 1e6 } else { 0.0 }));
            let (p, reachable) = (Family::test(&[layout], 999, 1).tested[0].p, reachable_p(&[3; 4]));
            assert!(p <= reachable + 1e-12, "{p}, not {reachable} or less");
            less += usize::from(p < reachable - 1e-12);
        }
        assert!(less > 25, "{less} of 50");
    }

    #[test]
    fn nothing_to_relabel_reaches_nothing() {
        assert_eq!(
            [reachable_p(&[]), reachable_p(&[9]), reachable_p(&[1, 0, 1])].map(f64::to_bits),
            [1.0_f64.to_bits(); 3]
        );
    }
}
