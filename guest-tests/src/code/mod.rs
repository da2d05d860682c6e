//! What code looks like on the architecture that a guest program is built for: one folder, or file, of its name each,
//! all with the same words. A scenario that is written in these words alone runs on any of them.
//!
//! | word | what it is |
//! | --- | --- |
//! | [`MARKER`], [`mark()`] | the instruction that tells the plugin which scenario runs |
//! | [`serialize`] | what the corrected twins execute: the CPU forgets all instructions that it has fetched |
//! | [`fences`] | all that orders memory, and makes no CPU forget instructions |
//! | [`pause`] | what a loop that waits executes |
//! | [`store8`], [`store16`], [`store32`], [`store64`] | exactly one store instruction, aligned or not |
//! | [`publish`] | what makes the fetches of all CPUs find what was stored; nothing where they do so of themselves |
//! | [`REMAPPING_SERIALIZES`] | does a CPU serialize where another one takes a mapping away that it may use? |
//! | [`return_value()`], [`change_returned`] | a function that returns a number, and the one store that makes it another |

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
#[cfg(target_arch = "x86_64")]
pub mod x86;

#[cfg(target_arch = "aarch64")]
use aarch64 as architecture;
#[cfg(target_arch = "x86_64")]
use x86 as architecture;

pub use architecture::{
    MARKER, REMAPPING_SERIALIZES, change_returned, fences, mark, pause, publish, return_value, serialize, store8,
    store16, store32, store64,
};

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("guest-tests/src/code has nothing for this architecture");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_changes_what_it_is_to_and_nothing_else() {
        let mut bytes = [0; 24];
        let at = bytes.as_mut_ptr();
        // SAFETY: every store ends within the array.
        unsafe {
            store8(at, 0x11);
            store16(at.add(3), 0x2222);
            store32(at.add(7), 0x3333_3333);
            store64(at.add(13), 0x4444_4444_4444_4444);
        }
        // The compiler knows of the stores by the pointer only.
        let bytes = std::hint::black_box(bytes);
        let expected = [&[0x11, 0, 0, 0x22, 0x22, 0, 0][..], &[0x33; 4], &[0, 0], &[0x44; 8], &[0; 3]].concat();
        assert_eq!(bytes[..], expected[..]);
    }

    #[test]
    fn one_store_makes_it_another_number() {
        let mut code = return_value(0);
        // SAFETY: the array holds such a function.
        unsafe { change_returned(code.as_mut_ptr(), 200) };
        assert_eq!(std::hint::black_box(code), return_value(200));
    }
}
