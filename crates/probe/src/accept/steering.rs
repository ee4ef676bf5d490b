//! Which of several `SO_REUSEPORT` listeners a connection goes to, when the server says by which CPU.

use kernel::{process, sockopt};
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, info, outcome};
use crate::talk::SOON;

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Clients on each CPU.
const CLIENTS: usize = 50;

/// What both ways of steering must come to: all clients of a CPU at its listener.
const EXACT: &[Expect] = &[
    Expect { figure: "clients-on-first-cpu", is: Is::Text("50, 0") },
    Expect { figure: "clients-on-second-cpu", is: Is::Text("0, 50") },
];

/// Claims about steering.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.steering-by-program",
        group: Group::Accept,
        notes: &[],
        facts: &["5.reuseport-cpu"],
        says: "A BPF program `cpu % 2` on a SO_REUSEPORT group gives each CPU's connections to that CPU's listener, exactly.",
        why: "reuseport_select_sock runs the program where the SYN is processed: over loopback on the client's CPU",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: EXACT,
        known: Verdict::Holds,
        measure: by_program,
    },
    Claim {
        name: "accept.steering-by-incoming-cpu",
        group: Group::Accept,
        notes: &[],
        facts: &["5.reuseport-cpu"],
        says: "SO_INCOMING_CPU on each listener of a SO_REUSEPORT group steers by CPU, exactly.",
        why: "reuseport_select_sock_by_hash prefers the listener whose sk_incoming_cpu is the CPU the SYN is processed on",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: EXACT,
        known: Verdict::Holds,
        measure: by_incoming_cpu,
    },
];

/// An even and an odd CPU this process may run on.
fn two_cpus() -> Result<[usize; 2], ProbeError> {
    let allowed = process::allowed_cpus().doing("read the allowed CPUs")?;
    let of_parity = |parity| allowed.iter().copied().find(|cpu| cpu % 2 == parity);
    match (of_parity(0), of_parity(1)) {
        (Some(even), Some(odd)) => Ok([even, odd]),
        _ => Err(ProbeError::CannotHere("needs two CPUs, one with an even number and one with an odd".to_owned())),
    }
}

fn listeners(scene: &Scene) -> Result<[Socket; 2], ProbeError> {
    let listener = || {
        let socket = scene.socket()?;
        socket.set_reuse_port(true).doing("set SO_REUSEPORT")?;
        socket.bind(&scene.address(PORT).into()).doing("bind a listener")?;
        socket.listen(256).doing("listen")?;
        Ok(socket)
    };
    Ok([listener()?, listener()?])
}

/// Connects from each CPU in turn and reads where the connections are.
fn steer(scene: &Scene, listeners: &[Socket; 2], cpus: [usize; 2]) -> Result<Observed, ProbeError> {
    let mut observed = Observed::new();
    let mut sentences = Vec::new();
    let mut clients = Vec::new();
    for (figure, cpu) in ["clients-on-first-cpu", "clients-on-second-cpu"].into_iter().zip(cpus) {
        process::pin_to_cpu(cpu).doing("pin to a CPU")?;
        let before = [info(&listeners[0])?.unacked, info(&listeners[1])?.unacked];
        for client in scene.connect_many(CLIENTS, PORT)? {
            outcome(&client, SOON)?;
            clients.push(client);
        }
        let depths =
            format!("{}, {}", info(&listeners[0])?.unacked - before[0], info(&listeners[1])?.unacked - before[1]);
        sentences.push(depths.clone());
        observed = observed.text(figure, depths);
    }
    Ok(observed.did(format!(
        "{CLIENTS} clients on the even CPU: {} per listener; on the odd CPU: {}",
        sentences[0], sentences[1]
    )))
}

fn by_program(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let cpus = two_cpus()?;
    let listeners = listeners(scene)?;
    sockopt::steer_by_cpu(&listeners[0], 2).doing("attach the program")?;
    steer(scene, &listeners, cpus)
}

fn by_incoming_cpu(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let cpus = two_cpus()?;
    let listeners = listeners(scene)?;
    for (listener, cpu) in listeners.iter().zip(cpus) {
        listener.set_cpu_affinity(cpu).doing("set SO_INCOMING_CPU")?;
    }
    steer(scene, &listeners, cpus)
}
