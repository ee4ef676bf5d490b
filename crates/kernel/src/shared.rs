//! Memory that several processes count in: one mapping of a memfd, made once, inherited or passed as a descriptor.
//!
//! Owns the rule what may live there: types for which all bits zero is a value, which hold no pointers and nothing to
//! drop, and which every process may read while another writes, that is atomics and arrays of them. The macro
//! [`shareable!`](crate::shareable) defines structures of such fields, and does not compile for others.
//! Source: `memfd_create(2)`, mmap(2), `F_SEAL_SHRINK` in fcntl(2).
#![expect(unsafe_code, reason = "mmap(2), and the promise that a type may live in shared memory")]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};

/// A type that may live in memory shared between processes. Implemented by [`shareable!`](crate::shareable) only.
///
/// # Safety
/// All bits zero must be a value of it, it must hold no pointer, handle or anything else that means something in one
/// process only, it must have nothing to drop, and every part that changes must be an atomic.
pub unsafe trait Shareable: Sync {}

// SAFETY: an integer that is only touched atomically.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: nothing but shareable elements.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {}

/// Defines a structure whose fields are all [`Shareable`](crate::shared::Shareable), and makes it so itself.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// kernel::shareable! {
///     /// What is counted.
///     #[derive(Debug)]
///     pub struct Counts {
///         /// Everything.
///         pub all: AtomicU64,
///     }
/// }
/// let counts = kernel::shared::Shared::<Counts>::new("counts", 2).unwrap();
/// counts[1].all.store(3, Ordering::Relaxed);
/// assert_eq!(counts[1].all.load(Ordering::Relaxed), 3);
/// ```
///
/// A field that means something in one process only does not compile:
///
/// ```compile_fail
/// kernel::shareable! { pub struct Wrong { text: String } }
/// ```
#[macro_export]
macro_rules! shareable {
    ($(#[$attribute:meta])* $visible:vis struct $name:ident ( $type:ty );) => {
        $(#[$attribute])* $visible struct $name($type);
        $crate::shareable!(@promise $name: $type);
    };
    ($(#[$attribute:meta])* $visible:vis struct $name:ident {
        $($(#[$note:meta])* $field_visible:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$attribute])* $visible struct $name { $($(#[$note])* $field_visible $field: $type),* }
        $crate::shareable!(@promise $name: $($type),*);
    };
    (@promise $name:ident: $($type:ty),*) => {
        #[allow(unsafe_code, reason = "checked field by field here")]
        // SAFETY: every field is shareable, which the function inside proves.
        unsafe impl $crate::shared::Shareable for $name {}
        const _: () = {
            const fn is_shareable<T: $crate::shared::Shareable>() {}
            $(is_shareable::<$type>();)*
        };
    };
}

/// A value of all zero bits on the heap, made without passing through the stack: for structures of many counters.
pub fn zeroed<T: Shareable>() -> Box<T> {
    let value = Box::<T>::new_uninit();
    let pointer = Box::into_raw(value).cast::<T>();
    // SAFETY: the allocation has room for one T and is ours alone.
    unsafe { pointer.write_bytes(0, 1) };
    // SAFETY: all bits zero is a value of a shareable type, and the pointer came from a Box of the same layout.
    unsafe { Box::from_raw(pointer) }
}

/// `count` values of `T` in memory that other processes can map.
pub struct Shared<T: Shareable> {
    base: NonNull<T>,
    count: NonZeroUsize,
    memory: OwnedFd,
    values: PhantomData<T>,
}

// SAFETY: a shareable type is Sync and has nothing to drop; the mapping belongs to no thread.
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// Makes the memory, all zeros. `name` shows in `/proc/self/maps`.
    ///
    /// # Errors
    /// `InvalidInput` for a count of 0; EMFILE, ENFILE or ENOMEM when the system has no more.
    pub fn new(name: &str, count: usize) -> io::Result<Self> {
        let (count, bytes) = Self::size(count)?;
        let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&memory, bytes.get() as u64)?;
        // Memory that cannot shrink cannot turn an access into SIGBUS.
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(memory, count, bytes)
    }

    /// Maps memory that another process made with the same `T` and `count`.
    ///
    /// # Errors
    /// `InvalidData` when it has another size or could shrink; those of mmap(2).
    pub fn open(memory: OwnedFd, count: usize) -> io::Result<Self> {
        let (count, bytes) = Self::size(count)?;
        let length = rustix::fs::fstat(&memory)?.st_size;
        let sealed = rustix::fs::fcntl_get_seals(&memory).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if u64::try_from(length).ok() != Some(bytes.get() as u64) || !sealed {
            let message = format!("shared memory of {length} bytes, not the {bytes} sealed ones expected");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Self::map(memory, count, bytes)
    }

    fn size(count: usize) -> io::Result<(NonZeroUsize, NonZeroUsize)> {
        const { assert!(align_of::<T>() <= 4096, "a mapping begins at a page") };
        let bytes = size_of::<T>().checked_mul(count).and_then(NonZeroUsize::new);
        NonZeroUsize::new(count)
            .zip(bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{count} values in shared memory")))
    }

    fn map(memory: OwnedFd, count: NonZeroUsize, bytes: NonZeroUsize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes.get(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memory.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, count, memory, values: PhantomData })
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `count` values, page aligned, valid from the start (all zeros) and changed by
        // atomics only; it lives as long as `self`, and its file cannot shrink.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count.get()) }
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`. A failure would leave it mapped.
        unsafe { libc::munmap(self.base.as_ptr().cast(), size_of::<T>() * self.count.get()) };
    }
}

impl<T: Shareable> AsFd for Shared<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl<T: Shareable> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("count", &self.count).field("memory", &self.memory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    crate::shareable! {
        struct Pair {
            left: AtomicU64,
            right: [AtomicU64; 3],
        }
    }

    #[test]
    fn two_mappings_are_one_memory() {
        let mine = Shared::<Pair>::new("test", 5).unwrap();
        assert!(mine.iter().all(|pair| pair.left.load(Ordering::Relaxed) == 0));
        let theirs = Shared::<Pair>::open(mine.as_fd().try_clone_to_owned().unwrap(), 5).unwrap();
        mine[4].right[2].store(7, Ordering::Relaxed);
        assert_eq!(theirs[4].right[2].load(Ordering::Relaxed), 7);
        drop(mine);
        assert_eq!(theirs[4].right[2].load(Ordering::Relaxed), 7, "the memory lives as long as one mapping");
    }

    #[test]
    fn memory_of_another_size_or_that_could_shrink_is_refused() {
        let mine = Shared::<Pair>::new("test", 5).unwrap();
        let error = Shared::<Pair>::open(mine.as_fd().try_clone_to_owned().unwrap(), 6).unwrap_err();
        assert!(error.to_string().contains("160 bytes, not the 192 sealed ones"), "{error}");
        let loose = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&loose, 160).unwrap();
        assert_eq!(Shared::<Pair>::open(loose, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Shared::<Pair>::new("none", 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_zeroed_value_is_zero() {
        let pair = zeroed::<Pair>();
        assert_eq!(pair.left.load(Ordering::Relaxed) + pair.right[2].load(Ordering::Relaxed), 0);
    }
}
