use super::*;
use crate::testing::Scene;

/// 200 at once, into a queue that holds them.
fn burst(service_us: u64) -> Scene {
    let arrivals = (0..200).map(|i| 100_300 + i * 20).collect();
    Scene { arrivals, limit: 4096, service_us, ..Scene::default() }
}

fn mean(scene: &Scene) -> f64 {
    Service::of(&scene.record().0).mean_us.expect("accepts were seen")
}

#[test]
fn the_service_time_is_found_whatever_the_looks_are() {
    for (service, interval) in [(50, 1000), (330, 1000), (1000, 1000), (2700, 1000), (9000, 1000), (1000, 10_000)] {
        let found = mean(&Scene { interval, ..burst(service) });
        // One look more or less in the whole stretch.
        let allowed = 0.02 + interval as f64 / (190 * service) as f64;
        assert!((found / service as f64 - 1.0).abs() < allowed, "{service} µs looked at every {interval} µs: {found}");
    }
}

#[test]
fn short_queues_are_measured_between_their_accepts() {
    // Bursts of 4: one is taken at once, three wait; the idle time between bursts is no service.
    let arrivals = (0..40).flat_map(|n| [n * 50_000 + 1_500; 4]).collect();
    let scene = Scene { arrivals, service_us: 5_000, ..Scene::default() };
    let found = mean(&scene);
    assert!((found - 5_000.0).abs() < 150.0, "{found}");
}

#[test]
fn a_stall_is_told_from_a_slow_service() {
    let scene = Scene { stall: (150_000, 450_000), ..burst(1000) };
    let service = Service::of(&scene.record().0);
    let (from, to) = service.stall.expect("a stall");
    assert!(from.abs_diff(150_000) <= 2_000 && to.abs_diff(450_000) <= 2_000, "{service:?}");
    assert!((service.mean_us.unwrap() - 1000.0).abs() < 30.0, "{service:?}");
    assert_eq!(Service::of(&burst(25_000).record().0).stall, None, "evenly slow");
}

#[test]
fn a_stall_that_came_first_is_one_too() {
    let scene = Scene { stall: (0, 400_000), ..burst(1000) };
    let service = Service::of(&scene.record().0);
    let (from, to) = service.stall.expect("a stall");
    assert!(from <= 100_300 && to.abs_diff(400_000) <= 2_000, "the first to arrive waited: {service:?}");
    assert!((service.mean_us.unwrap() - 1000.0).abs() < 30.0, "{service:?}");
}

#[test]
fn who_never_accepts_stalls_to_the_end() {
    let scene = Scene { stall: (0, u64::MAX), ..burst(1000) };
    let service = Service::of(&scene.record().0);
    assert_eq!((service.mean_us, service.accepts), (None, 0));
    assert_eq!(service.stall, Some((100_000, 3_000_000)));
}

#[test]
fn nothing_is_known_of_an_acceptor_that_nobody_waited_for() {
    let arrivals = (0..100).map(|n| n * 20_000 + 500).collect();
    let service = Service::of(&Scene { arrivals, service_us: 100, ..Scene::default() }.record().0);
    assert_eq!(service, Service::default());
}
