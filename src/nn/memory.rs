//! How long freed memory stays with the process.

// Links the allocator even where nothing else names it.
use mimalloc as _;
use std::ffi::{c_int, c_long};

unsafe extern "C" {
    /// A function of the allocator that the crate `mimalloc` links; its `extended` bindings declare it too.
    fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay` of mimalloc 2 and 3.
const PURGE_DELAY: c_int = 15;
/// Freed pages are never returned to the operating system.
const NEVER: c_long = -1;

/// Keeps freed pages for the next training step, which needs as many.
///
/// By default mimalloc returns them within 10 to 100 ms, so in every step the operating system clears all pages again:
/// a quarter of the time of a step that trains the whole network. Call it once, at the start of a program whose global
/// allocator is mimalloc; without that it does nothing. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
pub fn keep_pages() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the signature is mimalloc's (`mi_option_t` is a C enum, passed as an int); it may be called at any
        // time.
        unsafe { mi_option_set(PURGE_DELAY, NEVER) }
    }
}
