//! When the kernel received what a socket returns: `SCM_TIMESTAMPNS` in control messages.
//!
//! Pure; [`crate::sockopt::recv_stamped`] does the call. Source: socket(7), cmsg(3).

use libc::c_int;
use serde::{Deserialize, Serialize};

/// The instant at which the kernel received a segment, on `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReceiveStamp {
    /// ns since 1970.
    pub realtime_ns: u64,
}

/// Finds `SCM_TIMESTAMPNS` in zero-padded control messages: `size_t` length, level, type, then the data, each aligned
/// to a `size_t`.
pub(crate) fn stamp_in(control: &[u8]) -> Option<ReceiveStamp> {
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 2 * size_of::<c_int>();
    let mut rest = control;
    loop {
        let length = usize::from_ne_bytes(rest.get(..WORD)?.try_into().ok()?);
        let level = c_int::from_ne_bytes(rest.get(WORD..WORD + 4)?.try_into().ok()?);
        let kind = c_int::from_ne_bytes(rest.get(WORD + 4..WORD + 8)?.try_into().ok()?);
        let data = rest.get(HEADER..length)?;
        if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            // struct timespec of a 64-bit machine.
            let seconds = u64::from_ne_bytes(data.get(..8)?.try_into().ok()?);
            let nanoseconds = u64::from_ne_bytes(data.get(8..16)?.try_into().ok()?);
            return Some(ReceiveStamp { realtime_ns: seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)? });
        }
        rest = rest.get(length.checked_next_multiple_of(WORD)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A control message: length, level, type, data.
    fn message(kind: c_int, data: &[u8]) -> Vec<u8> {
        let length = 16 + data.len();
        let mut bytes = [length.to_ne_bytes().as_slice(), &libc::SOL_SOCKET.to_ne_bytes()].concat();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_stamp_is_found_behind_another_message() {
        let stamp = [3u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
        let mut control = message(libc::SCM_RIGHTS, &[0; 4]);
        control.extend(message(libc::SCM_TIMESTAMPNS, &stamp));
        assert_eq!(stamp_in(&control), Some(ReceiveStamp { realtime_ns: 3_000_000_005 }));
        assert_eq!(stamp_in(&control[..24]), None);
        assert_eq!(stamp_in(&[0; 64]), None);
        let huge = [u64::MAX.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
        assert_eq!(stamp_in(&message(libc::SCM_TIMESTAMPNS, &huge)), None);
    }

    proptest! {
        #[test]
        fn reading_control_messages_never_panics(bytes: Vec<u8>) {
            let _ = stamp_in(&bytes);
        }
    }
}
