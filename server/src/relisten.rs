//! `relisten = on-change`: listen(2) again with the same backlog when somaxconn has changed. The kernel caps the backlog
//! at that call only, and a second call on a listening socket applies the new limit without touching what is queued
//! (`net/ipv4/af_inet.c`, `__inet_listen_sk`).

use kernel::sysctl;

use crate::sampler::Slot;

/// The parameter that caps a listen backlog, one per network namespace.
pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

/// Ticks of the timer thread between two looks at somaxconn: a tenth of a second.
const TICKS: u32 = 20;

/// Follows somaxconn of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Relisten {
    /// Its value when the listeners' limits were last in agreement with it, as text.
    applied: Option<String>,
    ticks: u32,
}

impl Relisten {
    /// `applied` is the value that the listeners were opened under.
    pub(crate) fn new(applied: Option<String>) -> Self {
        Self { applied, ticks: 0 }
    }

    /// Called at every tick. A value that cannot be read now is no change.
    pub(crate) fn tick(&mut self, slots: &[Slot]) {
        self.ticks += 1;
        if self.ticks < TICKS {
            return;
        }
        self.ticks = 0;
        let Ok(now) = sysctl::read(SOMAXCONN) else { return };
        if self.applied.as_ref() == Some(&now) {
            return;
        }
        for (index, slot) in slots.iter().enumerate() {
            match slot.listener().as_ref().map(|listener| listener.listen_again()) {
                Some(Ok(())) => slot.relistens.add(1),
                Some(Err(error)) => tracing::warn!(%error, listener = index, "listen again: the old limit stays"),
                None => {}
            }
        }
        self.applied = Some(now);
    }
}
