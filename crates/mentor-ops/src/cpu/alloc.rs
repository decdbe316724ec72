//! The memory allocator of the process.

/// Keeps freed memory in the process instead of handing it back to the system.
///
/// Feature maps of many megabytes come and go in every step; with glibc's defaults each of them is
/// mapped anew, and the page faults of touching it first cost more than the arithmetic. Call it
/// first in `main`, before other threads run. It does nothing where the C library is not glibc.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // Values of <malloc.h>: no separate mappings, never give memory back, grow by 64 MiB.
        const TRIM_THRESHOLD: i32 = -1;
        const TOP_PAD: i32 = -2;
        const MMAP_MAX: i32 = -4;
        for (parameter, value) in [(MMAP_MAX, 0), (TRIM_THRESHOLD, i32::MAX), (TOP_PAD, 64 << 20)] {
            // SAFETY: `mallopt` takes two plain numbers and locks the allocator itself.
            unsafe { mallopt(parameter, value) };
        }
    }
}
