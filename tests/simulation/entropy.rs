//! Chance from a seed: this binary has a `getrandom` of its own, which the linker puts before the C library's.
//!
//! Everything random in this process comes from there: the keys of std's hash maps (and so their order), tokio's choice of a
//! `select!` arm (its seed is drawn from such a key), `rand`'s generators (openraft's election timeouts), and the library's own
//! draws. A process has one seed, set before anything is drawn; so the same seed gives the same bytes without a flag to the
//! compiler and without a seam in production code.

use evermesh::store::crash::Random;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

static STATE: Mutex<Random> = Mutex::new(Random(0));

fn fill(buffer: &mut [u8]) {
    let mut random = STATE.lock().expect("nobody panics while holding it");
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&random.draw().to_le_bytes()[..chunk.len()]);
    }
}

/// The C library's function, from the seed.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes, as for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's promise, see above.
    fill(unsafe { std::slice::from_raw_parts_mut(buffer, length) });
    length as isize
}

/// Begins this process's chance. Must come before anything is drawn; checks that whoever draws, draws here.
pub fn seed(seed: u64) {
    let begin = || *STATE.lock().expect("nobody panics while holding it") = Random(seed ^ 0x5eed_5eed_5eed_5eed);
    begin();
    let mut drawn = [0; 8];
    fill(&mut drawn);
    begin();
    let crate_drew = getrandom::u64().expect("it cannot fail");
    assert_eq!(crate_drew.to_le_bytes(), drawn, "the getrandom crate does not draw from the seed");
    begin();
    let hash = || std::thread::spawn(|| RandomState::new().hash_one(1)).join().expect("it does not panic");
    let first = hash();
    begin();
    assert_eq!(hash(), first, "the standard library does not draw from the seed");
    begin();
}
