//! The client with `io_uring(7)`: a connection is a chain of linked requests on one registered file, of which only the last
//! one and failures are told about. Needs Linux 6.7 for the socket option in the ring.

#![expect(unsafe_code, reason = "submitting a request is a promise that what it points to outlives it")]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, bail};
use io_uring::types::{DestinationSlot, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::Worker;

/// Requests that one submission takes.
const REQUESTS: u32 = 4096;

/// Completions that fit without the kernel having to allocate.
const COMPLETIONS: u32 = 16_384;

/// Requests of the longest chain.
const CHAIN: usize = 4;

/// User data: the slot, and above it whether the chain ends with this request.
const LAST: u64 = 1 << 32;

/// Whose sockets a chain works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sockets {
    /// A new one each time, which is closed with a RST.
    Fresh,
    /// One per slot, disconnected by connect(2) to `AF_UNSPEC`, which also sends a RST.
    Reused,
}

/// What requests point to. It is never freed: closing a ring does not wait for the requests in it.
struct Pointed {
    target: libc::sockaddr_in,
    nowhere: libc::sockaddr,
    linger: libc::linger,
}

impl Pointed {
    fn new(target: SocketAddr) -> anyhow::Result<Self> {
        let SocketAddr::V4(target) = target else { bail!("the raw client knows IPv4 only") };
        let family = |family: i32| libc::sa_family_t::try_from(family);
        Ok(Self {
            target: libc::sockaddr_in {
                sin_family: family(libc::AF_INET)?,
                sin_port: target.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*target.ip()).to_be() },
                sin_zero: [0; 8],
            },
            nowhere: libc::sockaddr { sa_family: family(libc::AF_UNSPEC)?, sa_data: [0; 14] },
            linger: libc::linger { l_onoff: 1, l_linger: 0 },
        })
    }

    /// The requests of one connection on slot `slot`. Each but the last is linked to the next.
    fn chain(&self, sockets: Sockets, slot: u32) -> anyhow::Result<Vec<squeue::Entry>> {
        let file = Fixed(slot);
        let connect = |address: *const libc::sockaddr, length: usize| -> anyhow::Result<_> {
            Ok(opcode::Connect::new(file, address, libc::socklen_t::try_from(length)?).build())
        };
        let target = connect((&raw const self.target).cast(), size_of::<libc::sockaddr_in>())?;
        let mut chain = match sockets {
            Sockets::Fresh => {
                let destination = DestinationSlot::try_from_slot_target(slot)
                    .map_err(|slot| anyhow::anyhow!("slot {slot} is too large"))?;
                let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).file_index(Some(destination));
                let (level, name) = (libc::SOL_SOCKET.unsigned_abs(), libc::SO_LINGER.unsigned_abs());
                let length = u32::try_from(size_of::<libc::linger>())?;
                let linger =
                    opcode::SetSockOpt::new(file, level, name, (&raw const self.linger).cast(), length).build();
                vec![socket.build(), target, linger, opcode::Close::new(file).build()]
            }
            Sockets::Reused => vec![target, connect(&raw const self.nowhere, size_of::<libc::sockaddr>())?],
        };
        let last = chain.pop().context("an empty chain")?.user_data(u64::from(slot) | LAST);
        let linked = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let mut chain: Vec<_> = chain.into_iter().map(|request| request.flags(linked).user_data(slot.into())).collect();
        chain.push(last);
        Ok(chain)
    }
}

/// Connects and resets until told to stop.
pub(super) fn run(worker: &Worker, sockets: Sockets) -> anyhow::Result<()> {
    let slots = u32::try_from(worker.in_flight)?;
    let pointed: &'static Pointed = Box::leak(Box::new(Pointed::new(worker.target)?));
    let chains = (0..slots).map(|slot| pointed.chain(sockets, slot)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(REQUESTS)
        .context("make a ring")?;
    let _files = register(&ring, sockets, slots)?;
    let mut free: Vec<u32> = (0..slots).collect();
    let mut failure = None;
    while failure.is_none() && !worker.is_stopped() {
        fill(&mut ring, &chains, &mut free)?;
        wait(&ring)?;
        failure = reap(worker, &mut ring, &mut free)?;
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Slots for files, filled with sockets that stay if they are to be used again.
fn register(ring: &IoUring, sockets: Sockets, slots: u32) -> anyhow::Result<Vec<OwnedFd>> {
    if sockets == Sockets::Fresh {
        ring.submitter().register_files_sparse(slots).context("register slots for files")?;
        return Ok(Vec::new());
    }
    let socket = |_| socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let files = (0..slots).map(socket).collect::<Result<Vec<_>, _>>().context("make sockets")?;
    let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    ring.submitter().register_files(&descriptors).context("register sockets")?;
    Ok(files)
}

/// A chain for every free slot, as far as the queue takes them: a chain must not be cut by a submission.
fn fill(ring: &mut IoUring, chains: &[Vec<squeue::Entry>], free: &mut Vec<u32>) -> anyhow::Result<()> {
    let mut queue = ring.submission();
    while queue.capacity() - queue.len() >= CHAIN {
        let Some(slot) = free.pop() else { break };
        let chain = &chains[slot as usize];
        // SAFETY: the requests point into the `Pointed` of `run`, which is never freed.
        unsafe { queue.push_multiple(chain) }.context("a full submission queue")?;
    }
    Ok(())
}

/// Submits, and waits for one completion or until it is time to look whether to stop.
fn wait(ring: &IoUring) -> anyhow::Result<()> {
    let look = Timespec::new().nsec(50_000_000);
    match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&look)) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {
            Err(error).context("submit requests")
        }
        _ => Ok(()),
    }
}

/// Counts what is done and frees its slots. `Some` when a request failed as no network makes it fail: this kernel does not
/// know it.
fn reap(worker: &Worker, ring: &mut IoUring, free: &mut Vec<u32>) -> anyhow::Result<Option<std::io::Error>> {
    let mut unknown = None;
    for completion in ring.completion() {
        let (data, result) = (completion.user_data(), completion.result());
        if result < 0 && result != -libc::ECANCELED {
            worker.failed.add(1);
            if matches!(-result, libc::EINVAL | libc::EOPNOTSUPP | libc::ENFILE | libc::EMFILE) {
                unknown = Some(std::io::Error::from_raw_os_error(-result));
            }
        }
        if data & LAST != 0 {
            if result >= 0 {
                worker.connected.add(1);
            }
            free.push(u32::try_from(data & (LAST - 1))?);
        }
    }
    Ok(unknown)
}
