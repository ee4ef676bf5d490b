//! The server of acceptbench: listeners with a chosen backlog, acceptors that take connections in a chosen
//! way, and exact books about both. It knows nothing of the load generator: they meet over TCP.

mod acceptor;
mod blocking;
mod children;
mod connection;
mod connections;
mod depths;
mod epoll;
mod listener;
pub mod metrics;
mod nursery;
mod observer;
mod opening;
pub mod opts;
mod plan;
mod relisten;
mod running;
mod sampler;
mod service;
pub mod snapshot;
mod staff;
mod tally;
mod threads;
mod tokio;
mod uring;

pub use connection::ANSWER;
pub use depths::Depths;
pub use listener::ListenError;
pub use nursery::process;
pub use observer::Observer;
pub use opening::check_engine;
pub use opts::Opts;
pub use plan::{Plan, PlanError};
pub use running::{Origin, Server, StartError};
pub use snapshot::{AcceptorCounts, ListenerCounts, ListenerOptions, Snapshot};
