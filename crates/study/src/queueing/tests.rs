use std::collections::VecDeque;

use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;
use crate::random::uniform;

const RHOS: [f64; 6] = [0.5, 0.8, 0.95, 1.0, 1.1, 1.5];

fn model(rho: f64, k: u32) -> Mm1k {
    // 1 ms of service.
    Mm1k::new(rho * 1000.0, 0.001, k).unwrap()
}

fn close(value: f64, expected: f64, what: &str) {
    assert!((value - expected).abs() <= 1e-11 * expected.abs().max(1e-3), "{what}: {value}, not {expected}");
}

/// The stationary distribution of the birth-death chain with `k` + 1 states, from its balance equations and nothing else:
/// πQ = 0 with Σπ = 1, by Gaussian elimination with pivoting.
#[expect(clippy::needless_range_loop, reason = "linear algebra reads by index")]
fn stationary(lambda: f64, mu: f64, k: usize) -> Vec<f64> {
    let n = k + 1;
    let mut a = vec![vec![0.0; n + 1]; n];
    for state in 0..n {
        let mut rate = |to: usize, rate: f64| {
            a[to][state] += rate;
            a[state][state] -= rate;
        };
        if state < k {
            rate(state + 1, lambda);
        }
        if state > 0 {
            rate(state - 1, mu);
        }
    }
    // The equations depend on each other; the last gives way to the sum.
    a[n - 1] = vec![1.0; n + 1];
    for column in 0..n {
        let pivot = (column..n).max_by(|x, y| a[*x][column].abs().total_cmp(&a[*y][column].abs())).unwrap();
        a.swap(column, pivot);
        for row in 0..n {
            if row != column {
                let factor = a[row][column] / a[column][column];
                for entry in column..=n {
                    a[row][entry] -= factor * a[column][entry];
                }
            }
        }
    }
    (0..n).map(|state| a[state][n] / a[state][state]).collect()
}

#[test]
fn the_formulas_solve_the_birth_death_chain() {
    for rho in RHOS {
        for k in [1, 2, 5, 33] {
            let chain = stationary(rho * 1000.0, 1000.0, k as usize);
            let model = model(rho, k);
            let mean: f64 = chain.iter().enumerate().map(|(n, p)| n as f64 * p).sum();
            close(model.loss(), *chain.last().unwrap(), &format!("loss at rho {rho}, K {k}"));
            close(model.mean_number(), mean, &format!("mean number at rho {rho}, K {k}"));
            // What gets in is what is served: the server works whenever somebody is there.
            close(model.throughput(), 1000.0 * (1.0 - chain[0]), &format!("throughput at rho {rho}, K {k}"));
        }
    }
}

#[test]
fn at_rho_1_all_states_are_equally_likely_and_nearby_there_is_no_jump() {
    for k in [1, 5, 33, 4097, 65_537] {
        close(model(1.0, k).loss(), 1.0 / f64::from(k + 1), "loss");
        close(model(1.0, k).mean_number(), f64::from(k) / 2.0, "mean number");
        for near in [1.0 - 1e-12, 1.0 + 1e-12] {
            let near = model(near, k);
            assert!((near.loss() * f64::from(k + 1) - 1.0).abs() < 1e-6, "{} at K {k}", near.loss());
            assert!((near.mean_number() / f64::from(k) - 0.5).abs() < 1e-6, "{} at K {k}", near.mean_number());
        }
    }
}

#[test]
fn a_large_room_neither_overflows_nor_cancels() {
    let k = 1_000_002;
    // M/M/1 without an end: 4 in the system at rho 0.8; an overloaded one lacks as many of being full.
    close(model(0.8, k).mean_number(), 4.0, "mean number");
    assert!(model(0.8, k).loss() < 1e-300);
    close(model(1.25, k).mean_number(), f64::from(k) - 4.0, "mean number");
    close(model(1.25, k).loss(), 0.2, "loss");
    // One beyond which double precision underflows; the closed form is 0/0 or infinite there.
    let tight = model(1.0 + 1e-9, k);
    let sum: f64 = (0..=k).map(|n| (-f64::from(n) * 1e-9_f64.ln_1p()).exp()).sum();
    assert!((tight.loss() * sum - 1.0).abs() < 1e-9, "{}", tight.loss());
}

#[test]
fn nonsense_is_no_queue() {
    for (rate, service, k) in [(0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0), (f64::NAN, 1.0, 1), (1.0, f64::INFINITY, 1)]
    {
        assert_eq!(Mm1k::new(rate, service, k), None);
    }
}

/// Arrivals of a simulation that are not counted: it begins empty.
const WARM_UP: usize = 2000;

/// Events one by one: who arrives while `k` are there is lost. Returns the loss and the mean time of the others.
fn simulate(rho: f64, k: usize, arrivals: usize, seed: u64) -> (f64, f64) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut exponential = || -uniform(&mut random).ln();
    let (mut now, mut free_at, mut leaving) = (0.0, 0.0_f64, VecDeque::new());
    let (mut lost, mut time) = (0_usize, 0.0);
    for number in 0..WARM_UP + arrivals {
        let counts = number >= WARM_UP;
        now += exponential() / rho;
        while leaving.front().is_some_and(|at| *at <= now) {
            leaving.pop_front();
        }
        if leaving.len() == k {
            lost += usize::from(counts);
            continue;
        }
        free_at = free_at.max(now) + exponential();
        leaving.push_back(free_at);
        time += if counts { free_at - now } else { 0.0 };
    }
    (lost as f64 / arrivals as f64, time / (arrivals - lost) as f64)
}

#[test]
fn a_simulation_event_by_event_comes_to_the_same() {
    for rho in [0.5, 0.8, 1.0, 1.5] {
        for k in [5, 33] {
            let model = Mm1k::new(rho, 1.0, k).unwrap();
            let runs: Vec<(f64, f64)> = (0..20).map(|seed| simulate(rho, k as usize, 100_000, seed)).collect();
            for (name, theory, measured) in [
                ("loss", model.loss(), runs.iter().map(|run| run.0).collect::<Vec<_>>()),
                ("time", model.time_in_system(), runs.iter().map(|run| run.1).collect()),
            ] {
                let mean = measured.iter().sum::<f64>() / 20.0;
                let variance = measured.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 19.0;
                let allowed = 5.0 * (variance / 20.0).sqrt() + 1e-7;
                assert!(
                    (mean - theory).abs() < allowed,
                    "{name} at rho {rho}, K {k}: {mean} ± {allowed}, not {theory}"
                );
            }
        }
    }
}
