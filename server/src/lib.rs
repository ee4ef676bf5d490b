//! The server of acceptbench: listeners with a chosen backlog, acceptors that take connections in a chosen
//! way, and exact books about both. It knows nothing of the load generator: they meet over TCP.

mod acceptor;
mod blocking;
mod epoll;
mod listener;
pub mod metrics;
pub mod opts;
mod plan;
mod relisten;
mod running;
mod sampler;
mod service;
pub mod snapshot;

pub use listener::ListenError;
pub use opts::Opts;
pub use plan::{Plan, PlanError};
pub use running::{Observer, Server, StartError};
pub use snapshot::{AcceptorCounts, ListenerCounts, Snapshot};
