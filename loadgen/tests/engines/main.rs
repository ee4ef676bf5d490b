//! Both engines against real sockets: what becomes of an attempt, what the books say of it, and what the kernel counted.
//!
//! Every case runs once with `epoll` and once with `io_uring`, each in a network of its own, where counters begin at zero.
//! The servers are plain ones made here: the generator knows nothing of acceptbench's own.

mod answers;
mod endings;
mod failures;
mod held;
mod options;
mod support;
