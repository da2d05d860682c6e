//! `icsan-guest`: carries the scenarios of the table out, as /init of a guest or as an ordinary program.
//!
//! ```text
//! icsan-guest                     as process 1 only: all that the kernel's command line asks for, then power off
//! icsan-guest list                the scenarios
//! icsan-guest litmus FILTER:ROUNDS
//! icsan-guest run FILTER [TIMES]  as an ordinary program
//! ```

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod bpf_replaced;
mod broken_kernel;
mod child;
mod code_page;
mod command;
mod commit;
mod cross_modify;
mod deferral;
mod executor;
mod hand_over;
mod init;
mod kernel_bpf;
mod kernel_coverage;
mod kernel_cpus;
mod kernel_membarrier;
mod kernel_modules;
mod kernel_patching;
mod kernel_static_keys;
mod kernel_text;
mod kernel_tracing;
mod ktap;
mod mapping;
mod membarrier;
mod outcome;
mod own_code;
mod pace;
mod patcher;
mod processes;
mod say;
mod scenarios;
mod second_kernel;
mod shape;
mod stores;
mod sys;
#[cfg(target_arch = "x86_64")]
mod x86;
mod zoo;

#[cfg(target_arch = "aarch64")]
use aarch64 as architecture;
use architecture::TABLE;
use icsan_guest_tests::table::Selection;
#[cfg(target_arch = "x86_64")]
use x86 as architecture;

/// What runs outside of a guest is never heavy: that is about the kernel.
fn run(filter: &str, times: u16) -> i32 {
    i32::from(!ktap::run(Selection { filter, heavy: false, without: "" }, "", times))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        _ if std::process::id() == 1 => init::run(),
        [processes::EXEC_PROBE] => std::process::exit(processes::exec_probe()),
        ["litmus", asked] => std::process::exit(i32::from(!architecture::litmus(asked))),
        ["list"] => TABLE.iter().for_each(|row| println!("{:28} {}", row.name, row.what)),
        ["run", filter] => std::process::exit(run(filter, 1)),
        ["run", filter, times] if times.parse::<u16>().is_ok() => {
            std::process::exit(run(filter, times.parse().unwrap_or(1)))
        }
        _ => {
            eprintln!(
                "icsan-guest: not process 1, so not acting as init; usage: icsan-guest list | run FILTER [TIMES]"
            );
            std::process::exit(2);
        }
    }
}
