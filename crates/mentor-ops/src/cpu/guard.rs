//! The allocator of this crate's tests: numbers lie against a page that may not be touched, so that a kernel which
//! reads or writes one element beyond a buffer ends the test process instead of finding somebody else's numbers; and new
//! memory is full of NaN, so that what was read before it was written shows in the result.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

/// The environment variable that moves buffers: `front` puts the untouchable page in front of them, where it lies behind
/// them otherwise.
const VARIABLE: &str = "MENTOR_GUARD";

/// Bytes of a page: the largest that x86-64 and 64-bit Arm have by default, a multiple of the smaller ones.
const PAGE: usize = 64 * 1024;

struct Guarded;

/// Buffers of four-byte numbers, as the kernels have them, and all that is large. The rest is the harness's.
fn is_guarded(layout: Layout) -> bool {
    layout.align() <= PAGE && (layout.align() == 4 || layout.size() >= 1024)
}

fn is_front() -> bool {
    // Read without `std::env`, which allocates.
    static FRONT: OnceLock<bool> = OnceLock::new();
    *FRONT.get_or_init(|| {
        let name = std::ffi::CString::new(VARIABLE).expect("a name without a zero");
        // SAFETY: a string that ends in zero; no test changes the environment while others read it.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        // SAFETY: what `getenv` gives is null or a string that ends in zero.
        !value.is_null() && unsafe { std::ffi::CStr::from_ptr(value) } == c"front"
    })
}

/// The bytes of a buffer's own pages.
fn room(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE)
}

// SAFETY: each guarded buffer has pages of its own, with an untouchable one on both sides, and is given back with the
// layout that it was asked for with; the others are the system allocator's.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_guarded(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let room = room(layout);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping anywhere, and rights to the pages inside it.
        unsafe {
            let start = libc::mmap(ptr::null_mut(), room + 2 * PAGE, libc::PROT_NONE, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return ptr::null_mut();
            }
            let inside = start.cast::<u8>().add(PAGE);
            if libc::mprotect(inside.cast(), room, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return ptr::null_mut();
            }
            let place = inside.add(offset(layout));
            place.write_bytes(0xFF, layout.size());
            place
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if !is_guarded(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(place, layout) };
        }
        let start: *mut c_void = place.wrapping_sub(offset(layout) + PAGE).cast();
        // SAFETY: the mapping that `alloc` made for this buffer, whole.
        unsafe { libc::munmap(start, room(layout) + 2 * PAGE) };
    }
}

/// Where a buffer begins in its pages: so that it ends with them, as far as its alignment allows, or at their front.
fn offset(layout: Layout) -> usize {
    if is_front() { 0 } else { (room(layout) - layout.size()) / layout.align() * layout.align() }
}

/// The rights to the page at an address, as the kernel lists them.
#[cfg(target_os = "linux")]
fn rights(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux lists the mappings of a process");
    let line = maps.lines().find(|line| {
        let (start, rest) = line.split_once('-').expect("a range");
        let (end, _) = rest.split_once(' ').expect("rights after the range");
        let number = |text| usize::from_str_radix(text, 16).expect("a hexadecimal address");
        (number(start)..number(end)).contains(&address)
    });
    line.and_then(|line| line.split(' ').nth(1)).unwrap_or("none").to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn the_page_beside_a_buffer_may_not_be_touched() {
    for len in [5, 1000, PAGE / 4, 70_001] {
        let buffer: Vec<f32> = vec![1.0; len];
        let start = buffer.as_ptr() as usize;
        let (inside, outside) = if is_front() { (start, start - 1) } else { (start + 4 * len - 1, start + 4 * len) };
        assert_eq!(rights(inside), "rw-p", "{len}");
        assert_eq!(rights(outside), "---p", "{len}");
    }
}
