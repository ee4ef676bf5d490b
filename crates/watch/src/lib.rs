//! Every TCP listener of a network namespace, sampled by `sock_diag`.

pub mod metrics;
