use super::*;
use crate::random::{normal, streams, uniform};

fn search(between: [u64; 2], within: f64) -> Search {
    Search {
        find: "loadgen.rate".to_owned(),
        holds: "served-ratio >= 0.999".parse().unwrap(),
        levels: ladder(between, within),
        votes: 3,
        tries: 3,
    }
}

/// Searches a system to the end; what it said, and what was found.
fn run(search: &Search, mut system: impl FnMut(u64) -> Outcome) -> (Vec<(u64, Outcome)>, Estimate) {
    let mut said = Vec::new();
    loop {
        let state = search.state(&said);
        let Some(level) = state.next else { return (said, state.estimate) };
        said.push((level, system(level)));
        // Places are for trials that count, and for those that are given up.
        let void = said.iter().filter(|(_, outcome)| *outcome == Outcome::Void).count();
        assert!(said.len() - void <= search.most_trials(), "more than {} trials", search.most_trials());
    }
}

fn up_to(capacity: u64) -> impl Fn(u64) -> Outcome {
    move |level| if level <= capacity { Outcome::Held } else { Outcome::Failed }
}

/// Share of 1000 searches whose interval covers the capacity when that of each trial is off by a normal number of rungs, and
/// the mean number of their trials.
fn coverage(rungs: f64, seed: u64) -> (f64, f64) {
    let search = search([500, 200_000], 0.05);
    let ratio = (search.levels[100] as f64 / search.levels[50] as f64).ln() / 50.0;
    let (mut covered, mut trials) = (0, 0);
    for mut random in streams(seed, 1_000) {
        let capacity = 2_000.0 * 25_f64.powf(uniform(&mut random));
        let (said, found) = run(&search, |level| {
            if level as f64 <= capacity * (normal(&mut random) * rungs * ratio).exp() {
                Outcome::Held
            } else {
                Outcome::Failed
            }
        });
        let [low, high] = found.interval;
        let inside = low.is_none_or(|low| low as f64 <= capacity) && high.is_none_or(|high| high as f64 >= capacity);
        covered += usize::from(inside);
        trials += said.len();
    }
    (covered as f64 / 1e3, trials as f64 / 1e3)
}

#[test]
fn rungs_are_equal_ratios_and_no_further_apart_than_asked() {
    let levels = ladder([500, 200_000], 0.05);
    assert_eq!((levels.len(), levels[0], levels[64], levels[128]), (129, 500, 10_000, 200_000));
    assert!(levels.windows(2).all(|pair| pair[1] as f64 / pair[0] as f64 <= 1.0505), "{levels:?}");
    assert_eq!(ladder([1, 8], 0.05), [1, 2, 3, 4, 5, 6, 7, 8], "no rung twice");
    assert_eq!(ladder([100, 101], 0.5), [100, 101]);
}

#[test]
fn without_noise_the_capacity_is_between_two_neighbours() {
    let search = search([500, 200_000], 0.05);
    for capacity in [500, 501, 9_999, 10_000, 31_234, 199_000] {
        let (said, found) = run(&search, up_to(capacity));
        let low = search.levels.iter().rposition(|level| *level <= capacity).unwrap();
        let expected = [low, low + 1].map(|rung| search.levels.get(rung).copied());
        assert_eq!(found.interval, expected, "{capacity}");
        assert_eq!([found.held, found.failed], expected);
        assert!(found.monotone && found.complete && found.unasked.is_none());
        assert!(said.len() <= 7 * 2 + 2 * AGREE, "{} trials", said.len());
    }
}

#[test]
fn a_capacity_beyond_the_ladder_leaves_its_end_open() {
    let search = search([500, 8_000], 0.1);
    let (_, below) = run(&search, up_to(499));
    assert_eq!((below.held, below.interval), (None, [None, Some(search.levels[1])]));
    let (_, above) = run(&search, up_to(9_000));
    assert_eq!((above.failed, above.interval[1], above.complete), (None, None, true));
    assert!(above.interval[0].is_some());
}

#[test]
fn an_interrupted_search_goes_on_as_it_would_have() {
    let search = search([500, 200_000], 0.05);
    let (said, _) = run(&search, up_to(7_000));
    for kept in 0..said.len() {
        assert_eq!(search.state(&said[..kept]).next, Some(said[kept].0), "after {kept}");
    }
    assert_eq!(search.state(&said).next, None);
}

#[test]
fn intervals_cover_the_capacity_of_noisy_systems() {
    for (rungs, seed) in [(0.1, 1), (0.5, 2), (1.0, 3), (2.0, 4), (4.0, 5)] {
        let (covered, trials) = coverage(rungs, seed);
        assert!(covered >= 0.9, "noise of {rungs} rungs: {covered}");
        assert!(trials < 50.0, "noise of {rungs} rungs: {trials} trials");
    }
}

#[test]
fn levels_that_cannot_be_asked_end_the_search_and_no_interval() {
    let search = search([500, 200_000], 0.05);
    let (said, found) = run(&search, |level| if level > 12_000 { Outcome::Void } else { Outcome::Held });
    let limit = *search.levels.iter().find(|level| **level > 12_000).unwrap();
    assert_eq!((found.unasked, found.interval[1]), (Some(limit), None));
    assert_eq!(found.interval[0], found.held);
    assert!(found.complete && found.monotone);
    let at_limit = said.iter().filter(|(level, _)| *level == limit).count();
    assert_eq!(at_limit, search.tries, "not asked again and again");
}

#[test]
fn a_level_that_fails_below_one_that_holds_is_told() {
    let search = search([500, 8_000], 0.1);
    let middle = search.levels.len() / 2;
    // Its first two trials fail, those of its neighbours hold.
    let mut asked = 0;
    let (_, found) = run(&search, |level| {
        asked += usize::from(level == search.levels[middle]);
        let fails = level == search.levels[middle] && asked <= 2;
        if fails { Outcome::Failed } else { up_to(search.levels[middle + 1])(level) }
    });
    assert!(!found.monotone, "{found:?}");
    assert_eq!(found.interval, [Some(search.levels[middle - 1]), Some(search.levels[middle + 3])], "both are in it");
}
