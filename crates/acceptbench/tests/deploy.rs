//! The files of `deploy/` keep the promises of docs/deploy.md: each is what its engine reads, agrees with itself, and gives
//! this program what it takes. No engine is started here: that they run is shown by deploy/compose-test.sh and
//! deploy/swarm/test.sh.

#[path = "deploy/compose.rs"]
mod compose;
#[path = "deploy/files.rs"]
mod files;
#[path = "deploy/kubernetes.rs"]
mod kubernetes;
#[path = "deploy/swarm.rs"]
mod swarm;
