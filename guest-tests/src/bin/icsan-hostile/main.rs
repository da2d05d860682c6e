//! `icsan-hostile`: random code that several threads change at random while they run it, under random injection.
//! Whatever the guest does, QEMU must stay alive.
//!
//! As process 1 of a guest it is the guest ([`x86`]); otherwise it boots one ([`host`], with the feature `runner`).

#[cfg(feature = "runner")]
mod host;
mod x86;

fn main() -> std::process::ExitCode {
    if std::process::id() == 1 {
        x86::run();
    }
    #[cfg(feature = "runner")]
    return host::main();
    #[cfg(not(feature = "runner"))]
    {
        eprintln!(
            "icsan-hostile: not process 1: this is the /init of a guest, and switches the machine off; use \
             scripts/hostile"
        );
        std::process::ExitCode::from(2)
    }
}
