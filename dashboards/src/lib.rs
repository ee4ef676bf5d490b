//! Grafana dashboards, made from the metric constants.
