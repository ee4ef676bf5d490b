//! What a comparison can reach: the p of a difference beyond all doubt. A design in which that is above 0.05 finds nothing,
//! however large the effect.

/// A finding's adjusted p is at most this.
pub const SIGNIFICANCE: f64 = 0.05;

/// The adjusted p of one cell that differs beyond all doubt from others that are alike, in blocks with so many cells each.
///
/// As extreme as the order that was run are those relabellings in which this cell's values stay together, under whatever
/// label: n of n^b (n cells, b blocks), whatever the others do, so p is n^(1 − b). When more cells differ it is less. Blocks
/// with fewer cells (trials that do not count) have fewer places; the cell is taken to be in all of them.
pub fn reachable_p(cells_of_blocks: &[usize]) -> f64 {
    let places = cells_of_blocks.iter().map(|cells| (*cells).max(1) as f64);
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

    #[test]
    fn few_cells_need_many_blocks() {
        let needed: Vec<Option<usize>> = [0, 1, 2, 3, 4, 5, 9, 19, 20].map(blocks_needed).to_vec();
        assert_eq!(needed, [None, None, Some(6), Some(4), Some(4), Some(3), Some(3), Some(3), Some(2)]);
    }

    #[test]
    fn it_is_what_a_lone_difference_comes_to() {
        for sizes in [[2; 6].as_slice(), &[3; 4], &[4; 3], &[3, 2, 3, 3]] {
            let mut layout = Layout::new(sizes[0], sizes.len());
            layout.push(|block, cell| (cell < sizes[block]).then_some(if cell == 1 { 5.0 } else { 1.0 }));
            let family = Family::test(&[layout], 999, 1);
            assert!(family.exact);
            let (p, reachable) = (family.tested[0].p, reachable_p(sizes));
            assert!((p - reachable).abs() < 1e-12, "{sizes:?}: {p}, not {reachable}");
        }
    }

    #[test]
    fn nothing_to_relabel_reaches_nothing() {
        assert_eq!(
            [reachable_p(&[]), reachable_p(&[9]), reachable_p(&[1, 0, 1])].map(f64::to_bits),
            [1.0_f64.to_bits(); 3]
        );
    }
}
