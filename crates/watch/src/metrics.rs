//! What `acceptbench watch` shows beside the queues themselves ([`telemetry::listeners`]) and the namespace
//! ([`telemetry::standard`]).

use telemetry::exposition::Families;
use telemetry::{listeners, standard};

use crate::snapshot::Snapshot;

telemetry::metrics! {
    LISTENER_INFO = Gauge "listener_info" ["listener", "command", "uid"] "Always 1 for each listener there is now. listener is its address, with #2, #3, ... for further sockets on the same one; command is the name of the program that holds it, empty where this user may not look.";
    LISTENERS = Gauge "watch_listeners" [] "Listeners shown.";
    OMITTED = Gauge "watch_listeners_omitted" [] "Listeners that the filters let pass, left out because there are more than --max-listeners.";
    SAMPLES = Counter "watch_samples_total" [] "Looks taken at all listeners.";
    SAMPLER_CPU = Counter "watch_sampler_cpu_seconds_total" [] "CPU time of the thread that samples the listeners.";
}

/// Adds everything `watch` exposes.
pub fn expose(snapshot: &Snapshot, families: &mut Families) {
    for listener in &snapshot.listeners {
        listeners::expose(families, &listener.listener, &listener.queue());
        let labels = [listener.listener.as_str(), &listener.command, &listener.uid.to_string()];
        families.gauge(&LISTENER_INFO, &labels, 1.0);
    }
    families.gauge(&LISTENERS, &[], snapshot.listeners.len() as f64);
    families.gauge(&OMITTED, &[], snapshot.omitted as f64);
    families.counter(&SAMPLES, &[], snapshot.samples);
    families.counter_seconds(&SAMPLER_CPU, &[], snapshot.sampler_cpu_ns);
    standard::namespace(families, &snapshot.kernel);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Listener;

    #[test]
    fn a_page_has_every_listener_and_no_more_series_than_that() {
        let listener = |label: &str| Listener {
            listener: label.to_owned(),
            command: "my\"sql".to_owned(),
            uid: 7,
            depth: 3,
            limit: 2,
            deepest: 3,
            drops: Some(17),
            ..Listener::default()
        };
        let snapshot = Snapshot {
            listeners: vec![listener("[::]:80"), listener("[::]:80#2")],
            omitted: 4,
            samples: 10,
            sampler_cpu_ns: 1_500_000,
            ..Snapshot::default()
        };
        let mut families = Families::new();
        expose(&snapshot, &mut families);
        let page = families.render();
        for line in [
            "acceptbench_listener_accept_queue_depth{listener=\"[::]:80\"} 3",
            "acceptbench_listener_accept_queue_max_fill_ratio{listener=\"[::]:80#2\"} 1",
            "acceptbench_listener_drops_total{listener=\"[::]:80\"} 17",
            "acceptbench_listener_info{listener=\"[::]:80\",command=\"my\\\"sql\",uid=\"7\"} 1",
            "acceptbench_watch_listeners 2",
            "acceptbench_watch_listeners_omitted 4",
            "acceptbench_watch_samples_total 10",
            "acceptbench_watch_sampler_cpu_seconds_total 0.0015",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        let per_listener = page.lines().filter(|line| line.contains("listener=\"[::]:80\"")).count();
        assert_eq!(per_listener, listeners::ALL.len() + 1);
    }
}
