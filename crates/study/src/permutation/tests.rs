use proptest::prelude::*;
use rayon::prelude::*;

use super::*;
use crate::random::below;

mod simulated;

/// A layout of one metric from rows of blocks.
fn layout(rows: &[Vec<f64>]) -> Layout {
    let mut layout = Layout::new(rows[0].len(), rows.len());
    layout.push(|block, cell| Some(rows[block][cell]));
    layout
}

fn test(rows: &[Vec<f64>]) -> Family {
    Family::test(&[layout(rows)], 999, 1)
}

/// p by cell, the baseline left out.
fn p(family: &Family) -> Vec<f64> {
    family.tested.iter().map(|tested| tested.p).collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
}

#[test]
fn cells_that_repeat_exactly_come_to_the_smallest_p_there_is() {
    let rows = |blocks| vec![vec![17.0, 61.0, 100.0]; blocks];
    // Of 3!^3 relabellings 6 treat blocks alike; 4 of them put an end of the scale first, 4 the second 44 or more from it.
    assert!(close(&p(&test(&rows(3))), &[4.0 / 216.0; 2]));
    assert!(close(&p(&test(&vec![vec![1.0, 2.0]; 6])), &[2.0 / 64.0]));
    assert!(close(&p(&test(&vec![vec![1.0, 2.0]; 3])), &[0.25]), "three blocks of two cells cannot tell");
}

#[test]
fn equal_values_are_no_evidence_even_when_rounding_makes_them_differ() {
    assert!(close(&p(&test(&vec![vec![0.172; 4]; 3])), &[1.0; 3]));
    let third = vec![0.1 + 0.2, 0.3, 0.6 / 2.0];
    assert!(close(&p(&test(&vec![third; 3])), &[1.0; 2]));
}

#[test]
fn one_block_and_a_lonely_cell_cannot_be_tested() {
    assert_eq!(test(&[vec![1.0, 2.0, 3.0]]).tested, []);
    let mut lonely = Layout::new(3, 4);
    // Cell 2 is never where the baseline is.
    lonely.push(|block, cell| (cell != if block % 2 == 0 { 0 } else { 2 }).then_some((block * 7 % 5 + cell) as f64));
    let family = Family::test(&[lonely], 999, 1);
    assert_eq!(family.tested.iter().map(|tested| tested.cell).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_value_that_is_no_number_is_left_out() {
    let mut layout = Layout::new(2, 7);
    layout.push(|block, cell| Some(if (block, cell) == (0, 1) { f64::INFINITY } else { cell as f64 }));
    let family = Family::test(&[layout], 999, 1);
    assert!(close(&p(&family), &[2.0 / 64.0]), "six blocks are left: {family:?}");
}

#[test]
fn random_relabellings_come_close_to_all_of_them() {
    let rows: Vec<Vec<f64>> =
        vec![vec![1.0, 2.1, 0.7, 1.9], vec![1.4, 1.9, 1.6, 2.2], vec![0.8, 1.7, 1.1, 0.9], vec![1.2, 2.6, 0.4, 2.0]];
    // 4!^4 are too many for the exact test.
    let sampled = Family::test(&[layout(&rows)], MONTE_CARLO, 1);
    assert!(!sampled.exact);
    let other = Family::test(&[layout(&rows)], MONTE_CARLO, 2);
    for (a, b) in p(&sampled).iter().zip(p(&other)) {
        assert!((a - b).abs() < 0.02, "{sampled:?} {other:?}");
    }
    assert_eq!(Family::test(&[layout(&rows)], MONTE_CARLO, 1), sampled, "the same seed");
    let three = Family::test(&[layout(&rows[..3])], MONTE_CARLO, 1);
    assert!(three.exact);
    let run = Relabelling::new(&[layout(&rows[..3])]);
    assert_eq!(run.count(), Some(three.relabellings));
}

#[test]
fn every_number_is_another_relabelling() {
    let mut relabelling = Relabelling::new(&[layout(&[vec![0.0; 3], vec![0.0; 3]]), layout(&[vec![0.0; 2]])]);
    let all: std::collections::BTreeSet<String> = (0..72)
        .map(|number| {
            relabelling.become_number(number);
            format!("{relabelling:?}")
        })
        .collect();
    assert_eq!((all.len(), relabelling.count()), (72, Some(72)));
}

#[test]
fn a_second_grid_makes_the_family_larger() {
    let small = [vec![1.0, 2.0, 1.3], vec![1.1, 2.3, 1.0], vec![1.4, 2.2, 1.2]];
    let noise = [vec![1.0, 1.2, 0.8], vec![0.9, 1.3, 1.4], vec![1.1, 0.7, 1.0]];
    let alone = test(&small).tested[0].p;
    let both = Family::test(&[layout(&small), layout(&noise)], MONTE_CARLO, 1).tested[0].p;
    assert!(both > alone, "{both} in a family, {alone} alone");
    assert!(both <= alone + 0.1, "{both} in a family, {alone} alone");
}

prop_compose! {
    /// Three blocks of three cells: few enough for the exact test, so that invariance is exact.
    fn blocks()(rows in prop::collection::vec(prop::collection::vec(-8_i32..8, 3), 3)) -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
    }
}

proptest! {
    #[test]
    fn the_level_of_a_block_and_the_unit_do_not_matter(rows in blocks(), shift in -50.0..50.0_f64, unit in 0.01..100.0_f64) {
        let moved: Vec<Vec<f64>> = rows
            .iter()
            .enumerate()
            .map(|(block, row)| row.iter().map(|value| (value + shift * block as f64) * unit).collect())
            .collect();
        prop_assert!(close(&p(&test(&rows)), &p(&test(&moved))));
    }

    #[test]
    fn the_order_of_blocks_and_of_cells_does_not_matter(rows in blocks()) {
        let mut turned = rows.clone();
        turned.rotate_left(1);
        for row in &mut turned {
            row.swap(1, 2);
        }
        let mut found = p(&test(&turned));
        found.reverse();
        prop_assert!(close(&p(&test(&rows)), &found));
    }

    #[test]
    fn up_and_down_are_alike(rows in blocks()) {
        let mirrored: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|value| -value).collect()).collect();
        prop_assert!(close(&p(&test(&rows)), &p(&test(&mirrored))));
    }

    #[test]
    fn p_is_a_probability_that_falls_with_the_statistic(rows in blocks()) {
        let family = test(&rows);
        for a in &family.tested {
            prop_assert!(a.p > 0.0 && a.p <= 1.0);
            for b in &family.tested {
                prop_assert!(a.statistic.abs() <= b.statistic.abs() || a.p <= b.p, "{family:?}");
            }
        }
    }

    #[test]
    fn another_metric_never_makes_the_most_certain_contrast_more_certain(rows in blocks(), other in blocks()) {
        let mut both = layout(&rows);
        both.push(|block, cell| Some(other[block][cell]));
        let both = Family::test(&[both], 999, 1);
        let least = |family: &Family, metric| {
            family.tested.iter().filter(|t| t.metric == metric).map(|t| t.p).fold(1.0, f64::min)
        };
        prop_assert!(least(&both, 0) >= least(&test(&rows), 0) - 1e-9);
    }
}
