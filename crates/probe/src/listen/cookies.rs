//! What a SYN cookie cannot carry, and what a client's filter can do.

use std::os::fd::AsFd;

use kernel::sockopt;

use super::{PORT, SYNCOOKIES, fill, take};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, info, result_name, start};

const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.cookie-options",
        group: Group::Listen,
        notes: &[],
        facts: &["3.cookie-options"],
        says: "A connection by cookie keeps SACK and window scaling only with timestamps; without a cookie it keeps them anyway.",
        why: "the cookie has room for the MSS; the others hide in the low bits of the timestamp (cookie_init_timestamp)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "cookie, timestamps", is: Is::Text("timestamps SACK scaling") },
            Expect { figure: "cookie, no timestamps", is: Is::Text("none") },
            Expect { figure: "no cookie, no timestamps", is: Is::Text("SACK scaling") },
        ],
        known: Verdict::Holds,
        measure: cookie_options,
    },
    Claim {
        name: "listen.filter-privilege",
        group: Group::Listen,
        notes: &[],
        facts: &["3.filter-privilege"],
        says: "On this kernel SO_ATTACH_FILTER needs a capability, which root of a user namespace has.",
        why: "sk_attach_filter itself asks for none; what refuses it here was not found",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "with capabilities", is: Is::Text("ok") },
            Expect { figure: "without", is: Is::Text("EPERM") },
        ],
        known: Verdict::Holds,
        measure: filter_privilege,
    },
    Claim {
        name: "listen.no-flood-by-freebind",
        group: Group::Listen,
        notes: &[],
        facts: &["3.freebind"],
        says: "IP_FREEBIND binds to a foreign address and cannot connect from it: ENETUNREACH. IP_TRANSPARENT can.",
        why: "ip_route_output_key_hash_rcu wants a local source unless FLOWI_FLAG_ANYSRC is set, which IP_TRANSPARENT does",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "IP_FREEBIND", is: Is::Text("ENETUNREACH") },
            Expect { figure: "IP_TRANSPARENT", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: freebind,
    },
];

fn cookie_options(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const BITS: [(u8, &str); 3] = [(1, "timestamps"), (2, "SACK"), (4, "scaling")];
    let mut observed = Observed::new();
    let mut did = Vec::new();
    let cases = [(2, 1, "cookie, timestamps"), (2, 0, "cookie, no timestamps"), (0, 0, "no cookie, no timestamps")];
    for (port, (cookies, timestamps, case)) in (PORT..).zip(cases) {
        scene.sysctl(SYNCOOKIES, cookies)?;
        scene.sysctl(TIMESTAMPS, timestamps)?;
        let listener = scene.listen(port, 8)?;
        let _client = fill(scene, 1, port)?;
        let options = info(&take(&listener, 1)?[0].0)?.options;
        let names: Vec<_> = BITS.iter().filter(|(bit, _)| options & bit != 0).map(|(_, name)| *name).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        did.push(format!("{case}: {names}"));
        observed = observed.text(case, names);
    }
    Ok(observed.did(did.join("; ")))
}

fn filter_privilege(scene: &mut Scene) -> Result<Observed, ProbeError> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let socket = scene.socket()?;
    let with = result_name(&sockopt::drop_all_filter(socket.as_fd()));
    let none = CapabilitySet::empty();
    // Capabilities belong to a thread, so one is spent on it.
    let without = std::thread::scope(|scope| {
        let plain = scope.spawn(|| {
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .doing("give up capabilities")?;
            Ok::<_, ProbeError>(result_name(&sockopt::drop_all_filter(socket.as_fd())))
        });
        plain.join().map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))?
    })?;
    let did = format!("SO_ATTACH_FILTER: {with} with capabilities, {without} without");
    Ok(Observed::new().text("with capabilities", with).text("without", without).did(did))
}

fn freebind(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = scene.listen(PORT, 8)?;
    let mut foreign = scene.client_address();
    if let std::net::IpAddr::V4(address) = foreign.ip() {
        let [a, b, c, _] = address.octets();
        foreign.set_ip(std::net::Ipv4Addr::new(a, b, c, 99).into());
    }
    let connect = |transparent: bool| {
        let socket = scene.client_socket()?;
        if transparent {
            socket.set_ip_transparent_v4(true).doing("set IP_TRANSPARENT")?;
        } else {
            socket.set_freebind_v4(true).doing("set IP_FREEBIND")?;
        }
        socket.bind(&foreign.into()).doing("bind to a foreign address")?;
        Ok::<_, ProbeError>(result_name(&start(&socket, scene.address(PORT))))
    };
    let (free, transparent) = (connect(false)?, connect(true)?);
    let did = format!("connect from a foreign address: {free} with IP_FREEBIND, {transparent} with IP_TRANSPARENT");
    Ok(Observed::new().text("IP_FREEBIND", free).text("IP_TRANSPARENT", transparent).did(did))
}
