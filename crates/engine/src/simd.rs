//! Hints and kernels that need intrinsics; each has a safe twin that does the same, slower.
#![expect(unsafe_code, reason = "prefetch has no safe form")]

/// Asks for the cache line of `value` ahead of its use. Changes nothing but time.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address, here of a live reference, cannot fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
