//! `coverage/`: everyday work, with the kernel's own protocol whole, or with a step taken away by the module.

use crate::kernel_patching::write;
use crate::outcome::Attempt;
use crate::patcher::prepare;

/// Names a function that returns at once from then on; nothing gives it back.
const BROKEN: &str = "/sys/module/icsan_patcher/parameters/broken";

/// Nothing is taken away.
pub fn whole(work: fn() -> Attempt) -> Attempt {
    carried_out(None, work)
}

/// This function of the kernel's does nothing meanwhile.
pub fn without(function: &str, work: fn() -> Attempt) -> Attempt {
    carried_out(Some(function), work)
}

fn carried_out(function: Option<&str>, work: fn() -> Attempt) -> Attempt {
    if let Some(lack) = prepare()? {
        return Ok(lack);
    }
    if let Some(function) = function {
        write(BROKEN, function)?;
    }
    let result = work();
    if function.is_some() {
        write(BROKEN, "\n")?;
    }
    result
}
