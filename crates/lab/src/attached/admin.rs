//! The admin ports of a running deployment: names resolved each time they are asked, books fetched twice in a row,
//! patience for a program that is just coming up.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use study::window::Twice;
use telemetry::Stop;
use telemetry::admin::get_local;

use crate::experiment::{AdminAddress, Attach};

/// How long a program that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Why books could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    /// Told to stop while it waited.
    #[error("interrupted")]
    Interrupted,
    /// Nobody answers, or not as such a program does.
    #[error("{0}")]
    Unreachable(String),
}

/// Why a program did not answer.
#[derive(Debug)]
enum NoAnswer {
    /// It may be coming up.
    Yet(String),
    /// It is another program.
    Ever(String),
}

impl NoAnswer {
    /// Names who did not answer.
    fn of(self, who: &str, name: &impl Display) -> Self {
        match self {
            Self::Yet(why) => Self::Yet(format!("{who} {name}: {why}")),
            Self::Ever(why) => Self::Ever(format!("{who} {name}: {why}")),
        }
    }
}

/// The programs of a deployment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Programs<'a> {
    attach: &'a Attach,
    stop: &'a Stop,
}

/// The books of a whole deployment at one moment.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) server: Twice<server::Snapshot>,
    pub(super) loadgens: BTreeMap<SocketAddr, Twice<loadgen::Snapshot>>,
}

impl<'a> Programs<'a> {
    pub(super) fn new(attach: &'a Attach, stop: &'a Stop) -> Self {
        Self { attach, stop }
    }

    /// Where the load generators are now: every address of every name, each once.
    pub(super) fn generators(&self) -> Result<Vec<SocketAddr>, ReachError> {
        let mut all = Vec::new();
        for name in &self.attach.loadgens {
            all.extend(self.patiently(|| resolve(name).map_err(|error| error.of("load generator", name)))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Everybody's books. One program after the other, each twice in a row: what moves between two readings of one
    /// program is what its own account may be off by.
    pub(super) fn read(&self, generators: &[SocketAddr]) -> Result<Books, ReachError> {
        let server = self.twice(|| {
            let name = &self.attach.server;
            let answer = resolve(name).and_then(|addresses| {
                let mut answer = Err(NoAnswer::Yet(format!("{name} has no address")));
                for address in addresses {
                    answer = snapshot(address);
                    if answer.is_ok() {
                        break;
                    }
                }
                answer
            });
            answer.map_err(|error| error.of("server", name))
        })?;
        let mut loadgens = BTreeMap::new();
        for address in generators {
            let ask = || snapshot(*address).map_err(|error| error.of("load generator", address));
            loadgens.insert(*address, self.twice(ask)?);
        }
        Ok(Books { server, loadgens })
    }

    fn twice<T>(&self, ask: impl Fn() -> Result<T, NoAnswer>) -> Result<Twice<T>, ReachError> {
        Ok(Twice { first: self.patiently(&ask)?, second: self.patiently(&ask)? })
    }

    /// Asks again until there is an answer or patience is at its end.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, NoAnswer>) -> Result<T, ReachError> {
        let began = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Ever(why)) => return Err(ReachError::Unreachable(why)),
                Err(NoAnswer::Yet(why)) if began.elapsed() >= PATIENCE => return Err(ReachError::Unreachable(why)),
                Err(_) if self.stop.wait_timeout(PAUSE) => return Err(ReachError::Interrupted),
                Err(_) => {}
            }
        }
    }
}

/// The addresses of a name, of one family (IPv4 where there is any): a host with both must not count twice.
fn resolve(name: &AdminAddress) -> Result<Vec<SocketAddr>, NoAnswer> {
    let found: Vec<SocketAddr> = name
        .as_str()
        .to_socket_addrs()
        .map_err(|error| NoAnswer::Yet(format!("its name cannot be resolved: {error}; check it, or give an address")))?
        .collect();
    let v4: Vec<SocketAddr> = found.iter().copied().filter(SocketAddr::is_ipv4).collect();
    match if v4.is_empty() { found } else { v4 } {
        none if none.is_empty() => Err(NoAnswer::Yet("it has no address; check the name".to_owned())),
        some => Ok(some),
    }
}

fn snapshot<T: DeserializeOwned>(address: SocketAddr) -> Result<T, NoAnswer> {
    let (status, body) = get_local(address, "/snapshot", ANSWER).map_err(|error| NoAnswer::Yet(error.to_string()))?;
    if status != 200 {
        let why = format!("http://{address}/snapshot answered {status}; is it the admin port of this program?");
        return Err(NoAnswer::Ever(why));
    }
    serde_json::from_str(&body).map_err(|error| {
        NoAnswer::Ever(format!(
            "http://{address}/snapshot has other books ({error}); is it the right program, of the same version?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_of_one_family() {
        let resolved = |name: &str| resolve(&name.parse().expect("an address")).expect("resolved");
        assert_eq!(resolved("127.0.0.1:9711"), ["127.0.0.1:9711".parse().expect("an address")]);
        assert_eq!(resolved("[::1]:9711"), ["[::1]:9711".parse().expect("an address")]);
        assert!(resolved("localhost:9711").iter().all(SocketAddr::is_ipv4), "{:?}", resolved("localhost:9711"));
    }
}
