//! `icsan-interpret [SEED [COUNT]]`: the interpreter of single instructions against the CPU that it runs on, COUNT
//! random cases of each form.
//!
//! A case is an instruction, registers and memory ([`x86::generator`], by the table of [`x86::forms`]). The CPU
//! executes it ([`x86::machine`]), the interpreter works out what it would do, and everything must be equal
//! ([`x86::compare`]): general registers, RFLAGS, memory, and where it went.
//!
//! It runs anywhere: on the host, and as a guest's `/init`, where it switches the machine off in the end and takes its
//! arguments from the kernel's command line, behind `--`. Under QEMU it proves the interpreter against TCG, for which
//! it is made.
//!
//! Of what the manuals leave open only AF after AND, OR, XOR and TEST can be met here. The interpreter clears it, as
//! TCG and an EPYC do. Where the manuals leave nothing open and QEMU still differs, the interpreter follows the
//! manuals: those forms are marked ([`x86::forms::Form::emulated`]), and may differ under TCG. QEMU 11.1 has put all of
//! them right.
//!
//! Exit code 1: they differ somewhere. The first difference of each form is shown.

mod random;
mod x86;

use random::Random;
use std::process::ExitCode;
use x86::machine::Machine;
use x86::{compare, forms, generator};

/// Cases of each form, if the command line does not say how many.
const COUNT: u64 = 2000;

/// Tries all forms, prints a line for each, and says whether all agreed.
fn try_all(seed: u64, count: u64) -> bool {
    let forms = forms::all();
    println!("TAP version 13\n1..{}", forms.len());
    let machine = Machine::new();
    let mut agreed = true;
    for (number, form) in (1..).zip(&forms) {
        // Each form has numbers of its own: one can be added without changing the others' cases.
        let mut random = Random::new(
            seed ^ form.name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into())),
        );
        let (mut mismatches, mut first) = (0_u64, None);
        for _ in 0..count {
            let case = generator::case(form, &machine, &mut random);
            if let Err(difference) = compare::compare(&case, &machine, &mut random) {
                mismatches += 1;
                first.get_or_insert(difference);
            }
        }
        let verdict = if mismatches == 0 { "ok" } else { "not ok" };
        let excuse = form.emulated.filter(|_| machine.emulated);
        let directive = excuse.map(|excuse| format!("TODO {excuse}; ")).unwrap_or_default();
        println!("{verdict} {number} - {} # {directive}{count} cases, {mismatches} mismatches", form.name);
        if let Some(difference) = first {
            agreed &= excuse.is_some();
            difference.lines().for_each(|line| println!("# {line}"));
        }
    }
    agreed
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (seed, count) = (arguments.next().unwrap_or(Ok(1)), arguments.next().unwrap_or(Ok(COUNT)));
    let (Ok(seed), Ok(count)) = (seed, count) else {
        eprintln!("icsan-interpret [SEED [COUNT]]: two numbers");
        return ExitCode::from(2);
    };
    let agreed = try_all(seed, count);
    println!("# icsan-interpret: seed {seed}: {}", if agreed { "all agree" } else { "they differ" });
    if std::process::id() == 1 {
        // SAFETY: writes caches back, and ends the machine: nothing runs after it.
        unsafe {
            libc::sync();
            libc::reboot(libc::RB_POWER_OFF);
        }
        // Without ACPI the kernel comes back; the last process of a machine must not end.
        loop {
            std::thread::park();
        }
    }
    if agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_interpreter_agrees_with_this_cpu() {
        assert!(super::try_all(u64::from(std::process::id()), 300));
    }
}
