//! What `acceptbench watch` shows beside the queues themselves ([`telemetry::listeners`]) and the namespace
//! ([`telemetry::standard`]).

telemetry::metrics! {
    LISTENER_INFO = Gauge "listener_info" ["listener", "command", "uid"] "Always 1 for each listener there is now. listener is its address, with #2, #3, ... for further sockets on the same one; command is the name of the program that holds it, empty where this user may not look.";
    LISTENERS = Gauge "watch_listeners" [] "Listeners shown.";
    OMITTED = Gauge "watch_listeners_omitted" [] "Listeners that the filters let pass, left out because there are more than --max-listeners.";
    SAMPLES = Counter "watch_samples_total" [] "Looks taken at all listeners.";
    SAMPLER_CPU = Counter "watch_sampler_cpu_seconds_total" [] "CPU time of the thread that samples the listeners.";
}
