//! Engine × reuseport × workers × what is done on accept, over IPv4 and IPv6: N in, N accepted, N served, every line of
//! the ledger at 0.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use loadgen::opts::{ArrivalKind, Confirm};
use loadgen::verdict::Verdict;
use server::opts::{Close, Engine, Handler, OnAccept, Reuseport, Workers, values};
use server::{Opts, Plan};

use crate::apart::{Outcome, apart, in_namespaces, run};

/// Connections per case.
const N: u32 = 48;

/// Cases at the same time: as many as the machine has CPUs, for they mostly wait.
const AT_ONCE: usize = 3;

#[test]
fn every_model_serves_everyone_and_balances() {
    in_namespaces("matrix::every_model_serves_everyone_and_balances", inside);
}

/// Every combination of settings, those that the plan refuses included.
fn combinations() -> Vec<Opts> {
    let mut all = Vec::new();
    for engine in values::<Engine>() {
        for reuseport in values::<Reuseport>() {
            for workers in values::<Workers>() {
                for on_accept in values::<OnAccept>() {
                    for address in ["127.0.0.1:9700", "[::1]:9700"] {
                        all.push(Opts {
                            listen: address.parse().expect("an address"),
                            backlog: 256,
                            acceptors: 2.try_into().expect("above 0"),
                            engine: *engine,
                            reuseport: *reuseport,
                            workers: *workers,
                            on_accept: *on_accept,
                            hold: if *on_accept == OnAccept::Hold { "5ms" } else { "0s" }.parse().expect("a time"),
                            ..Opts::default()
                        });
                    }
                }
            }
        }
    }
    // Who closes first, and a child per connection.
    for engine in values::<Engine>() {
        for close in [Close::HalfClose, Close::Wait] {
            for on_accept in [OnAccept::Greet, OnAccept::Reply, OnAccept::Close, OnAccept::Echo] {
                let base = Opts { engine: *engine, close, on_accept, backlog: 256, ..Opts::default() };
                all.push(base.clone());
                all.push(Opts { workers: Workers::Processes, handler: Handler::Fork, ..base });
            }
        }
    }
    all
}

fn load(on_accept: OnAccept) -> loadgen::Opts {
    let confirm = match on_accept {
        OnAccept::Greet => Confirm::Greeting,
        OnAccept::Reply | OnAccept::Echo => Confirm::Reply,
        OnAccept::Close | OnAccept::Reset | OnAccept::Hold => Confirm::None,
    };
    loadgen::Opts {
        arrivals: ArrivalKind::Constant,
        rate: "2000".parse().expect("a rate"),
        duration: format!("{}us", N * 500).parse().expect("a time"),
        deadline: "5s".parse().expect("a time"),
        confirm,
        workers: "1".parse().expect("a count"),
        ..loadgen::Opts::default()
    }
}

fn judge(opts: &Opts, outcome: &Outcome) -> Result<(), String> {
    let n = u64::from(N);
    let whole = outcome.loadgen.whole();
    let (accepted, raced) = (outcome.server.accepted(), outcome.ledger.terms.raced);
    let mut wrong = outcome.imbalances();
    let mut expect = |what: &str, is: u64, should: u64| {
        if is != should {
            wrong.push(format!("{what} {is}, not {should}"));
        }
    };
    expect("planned", whole.planned, n);
    expect("accepted + raced", accepted + raced, n);
    let served = match load(opts.on_accept).confirm {
        Confirm::None => Verdict::Connected,
        _ => Verdict::Served,
    };
    // A client that does not wait for anything may be reset in its connect already.
    let early = if opts.on_accept == OnAccept::Reset { whole.verdict(Verdict::Reset) } else { 0 };
    expect("served", whole.verdict(served) + early, n);
    expect(
        "answered",
        outcome.server.total(server::AcceptorCounts::answered),
        if served == Verdict::Served { n } else { 0 },
    );
    expect("still open", outcome.server.total(server::AcceptorCounts::open), 0);
    expect("forks", outcome.server.total(|a| a.forks), if opts.handler == Handler::Fork { n } else { 0 });
    expect("errors", outcome.server.acceptors.iter().flat_map(|a| a.errors.values()).sum(), 0);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn inside() {
    let (valid, refused): (Vec<Opts>, Vec<Opts>) =
        combinations().into_iter().partition(|opts| Plan::try_from(opts.clone()).is_ok());
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let by_engine = Mutex::new(BTreeMap::<String, (u64, u64)>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(opts) = valid.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (server, address) = (opts.clone(), opts.listen.first());
                    let outcome = apart(move || run(server.clone(), &load(server.on_accept), address));
                    let mut by_engine = by_engine.lock().expect("not poisoned");
                    let (cases, accepted) = by_engine.entry(opts.engine.to_string()).or_default();
                    *cases += 1;
                    *accepted += outcome.server.accepted();
                    if let Err(wrong) = judge(opts, &outcome) {
                        failures.lock().expect("not poisoned").push(format!("{}: {wrong}", opts.to_args().join(" ")));
                    }
                }
            });
        }
    });
    for (engine, (cases, accepted)) in by_engine.lock().expect("not poisoned").iter() {
        println!("{engine:<20} {cases:>4} cases  {accepted:>6} accepted");
    }
    println!("{} cases ran, {} refused by their plan", valid.len(), refused.len());
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), valid.len(), failures.join("\n"));
    assert!(valid.len() > 500 && refused.len() > 50, "{} valid, {} refused", valid.len(), refused.len());
}
