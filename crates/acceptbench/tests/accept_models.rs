//! Every way to accept, to own the listener and to serve: that all of them serve, that the books of all of them balance,
//! and that they share the work the way the kernel is known to share it.
//!
//! Each test runs itself again inside a user namespace (unshare(1)), and each case in a network namespace of its own.
#![expect(clippy::print_stdout, reason = "what was measured, for whoever runs this with --nocapture")]

#[path = "accept_models/apart.rs"]
mod apart;
#[path = "accept_models/exhausted.rs"]
mod exhausted;
#[path = "accept_models/matrix.rs"]
mod matrix;
#[path = "accept_models/sharing.rs"]
mod sharing;
#[path = "accept_models/wait.rs"]
mod wait;
