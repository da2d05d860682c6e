//! `kernel/module`: the kernel loads text, patches it, and frees it, again and again at the same addresses, while other
//! CPUs run it.

use crate::executor::{Spinner, wait_until};
use crate::kernel_patching::{LONG, all_ran, other_cpus, user_mode};
use crate::outcome::{Attempt, Outcome};
use crate::sys::{check, pin};
use icsan_guest_tests::table::{MODULES, MODULES_FOLDER, WRITER};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PKTGEN: &str = MODULES[0];
const DUMMY: &str = MODULES[1];

/// pktgen's own code fills this file when it is read. (A thread of it on each CPU runs too, ten times a second.)
const PKTGEN_FILE: &str = "/proc/net/pktgen/pgctrl";
/// The device that dummy makes when it is loaded, and the address that it gets.
const DUMMY_DEVICE: &CStr = c"dummy0";
const DUMMY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 67, 1);
/// Packets to here go through dummy's own code, and nowhere else.
const DUMMY_NEIGHBOUR: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 73, 67, 2), 9);

/// What a user of the modules saw last.
const NOTHING: u64 = 0;
const RAN_PKTGEN: u64 = 1;
const RAN_DUMMY: u64 = 2;

/// How often both are loaded.
const TIMES: u32 = 3;

/// How long a user has to get into a module, and a module to be left.
const PATIENCE: Duration = Duration::from_secs(5);

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::other(format!("{what}: {error}")))
}

/// Loads one of the modules that the runner put there.
pub fn load(name: &str) -> io::Result<()> {
    let image = fs::read(format!("{MODULES_FOLDER}/{name}.ko"))?;
    // SAFETY: the kernel copies the image and the empty parameters.
    let result = check(unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) });
    named(&format!("loading {name}"), result.map(drop))
}

/// Unloads a module as soon as no CPU is in it.
fn unload(name: &str) -> io::Result<()> {
    let text = CString::new(name)?;
    let start = Instant::now();
    loop {
        // SAFETY: the name is a C string.
        match check(unsafe { libc::syscall(libc::SYS_delete_module, text.as_ptr(), libc::O_NONBLOCK) }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(5))
            }
            result => return named(&format!("unloading {name}"), result.map(drop)),
        }
    }
}

/// On each other CPU, or on the only one, a thread that lives in system calls, and enters whichever module is there.
fn users() -> io::Result<Vec<Spinner>> {
    let user = |cpu| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        Spinner::start(cpu, move || {
            if fs::read(PKTGEN_FILE).is_ok() {
                RAN_PKTGEN
            } else if socket.send_to(b"icsan", DUMMY_NEIGHBOUR).is_ok() {
                RAN_DUMMY
            } else {
                NOTHING
            }
        })
    };
    other_cpus().map(user).collect()
}

/// Gives the device its address, and switches it on.
fn switch_on_dummy() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: ifreq is plain bits, for which all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DUMMY_DEVICE.to_bytes()) {
        *to = *from as libc::c_char;
    }
    let call = |what, number, request: &mut libc::ifreq| {
        // SAFETY: each of these requests takes an ifreq, which is a local of ours.
        let result = check(unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), number, request) }.into());
        named(what, result.map(drop))
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(DUMMY_ADDRESS).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain bits of sixteen bytes.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    call("the address of dummy0", libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    call("switching on dummy0", libc::SIOCSIFFLAGS, &mut request)
}

/// The jump labels in a module's own text: its debugging messages, on and off. They stay below the console's level.
fn patch(name: &str) -> io::Result<()> {
    const CONTROL: &str = "/proc/dynamic_debug/control";
    if Path::new(CONTROL).exists() {
        for flag in ["+p", "-p"] {
            named(CONTROL, fs::write(CONTROL, format!("module {name} {flag}\n")))?;
        }
    }
    Ok(())
}

/// Loads both modules in turn, has every other CPU run their code, and unloads them.
pub fn module() -> Attempt {
    for name in MODULES {
        if !Path::new(&format!("{MODULES_FOLDER}/{name}.ko")).exists() {
            return Ok(Outcome::Skipped(format!(
                "no {name}.ko in the initramfs: the runner needs --modules for this kernel"
            )));
        }
        // Of an attempt that was cut short.
        let _ = unload(name);
    }
    pin(WRITER)?;
    let threads = user_mode()?;
    let users = users()?;
    let all = |ran: u64| {
        if wait_until(PATIENCE, || users.iter().all(|user| user.last() == ran)) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the users of the modules saw {:?}, not {ran}",
            users.iter().map(Spinner::last).collect::<Vec<_>>()
        )))
    };
    let start = Instant::now();
    let mut done = 0;
    while done < TIMES && (done == 0 || start.elapsed() < LONG) {
        load(PKTGEN)?;
        all(RAN_PKTGEN)?;
        patch(PKTGEN)?;
        all_ran(threads.iter().chain(&users))?;
        unload(PKTGEN)?;
        load(DUMMY)?;
        switch_on_dummy()?;
        all(RAN_DUMMY)?;
        all_ran(threads.iter().chain(&users))?;
        unload(DUMMY)?;
        done += 1;
    }
    drop(users);
    drop(threads);
    Ok(Outcome::Done { patches: 2 * done, seen: 2 * done, tight: 0, wrong: None })
}
