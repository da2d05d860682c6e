//! What cannot work is refused when it is loaded: one line that says what is wrong and what to do, and an exit. No
//! crash, no hang, nothing silently ignored.

use crate::boot_sector::{BootSector, Ending, NEVER};
use crate::lab::Lab;
use crate::machine::{Guest, Machine, SOON};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// QEMU's exit code if `exitcode` is asked for and the report proves nothing.
const UNPROVEN: i32 = 125;

/// A refusal takes a tenth of a second on an idle machine.
const QUICKLY: Duration = Duration::from_secs(10);

/// The lines that the plugin wrote.
fn own_lines(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("icsan: ")).collect()
}

/// Gives what is wrong with a refusal whose line must hold all `words`.
fn refusal_fault(mut guest: Guest, words: &[&str]) -> Option<String> {
    let Some(code) = guest.ends_within(QUICKLY) else {
        return Some(format!("it did not end, expected one line with {words:?}\n{}", guest.outputs()));
    };
    let stderr = guest.stderr();
    let lines = own_lines(&stderr);
    let foreign = stderr.lines().any(|line| {
        !line.starts_with("icsan: ") && !line.starts_with("qemu-system-") && !line.starts_with("Please use")
    });
    let told = lines.len() == 1 && words.iter().all(|word| lines[0].contains(word));
    (code == 0 || !told || foreign)
        .then(|| format!("exit code {code}, expected one line with {words:?}\n{}", guest.outputs()))
}

fn assert_no_faults(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{} of the refusals are not as they should be:\n\n{}",
        faults.len(),
        faults.join("\n\n")
    );
}

/// Starts each QEMU with each text of keys, and expects a refusal with those words.
fn refuses(lab: &Lab, cases: &[(&str, &[&str])]) {
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for (keys, words) in cases {
            let guest = Machine::pc(lab, qemu).keys(keys).launch();
            faults.extend(refusal_fault(guest, words).map(|fault| format!("QEMU {}, `{keys}`: {fault}", qemu.version)));
        }
    }
    assert_no_faults(&faults);
}

#[test]
fn keys_that_are_none() {
    let lab = Lab::open();
    refuses(
        &lab,
        &[
            ("nonsense=1", &["unknown key `nonsense`", "known keys are", "profile", "suppress"]),
            // QEMU makes `foo=on` of it, and `de=off` of the other one.
            ("foo", &["unknown key `foo`"]),
            ("node", &["unknown key `de`"]),
            ("Chunk=16", &["unknown key `Chunk`"]),
            ("chunk=16,chunk=16", &["`chunk` is given twice"]),
            ("without=iret,without=cpuid", &["`without` is given twice"]),
        ],
    );
}

#[test]
fn values_that_are_none() {
    let lab = Lab::open();
    refuses(
        &lab,
        &[
            ("chunk=0", &["chunk=0", "power of two"]),
            ("chunk=24", &["chunk=24", "power of two"]),
            ("chunk=8192", &["chunk=8192", "4096"]),
            ("chunk=-16", &["chunk=-16", "power of two"]),
            ("chunk=16k", &["chunk=16k", "power of two"]),
            ("exitcode=256", &["exitcode=256", "0 to 255"]),
            ("exitcode=-1", &["exitcode=-1", "0 to 255"]),
            ("exitcode=bad", &["exitcode=bad", "0 to 255"]),
            ("exitcode=125", &["exitcode=125", "not complete"]),
            ("writers=maybe", &["writers=maybe", "on or off"]),
            ("profile=amd", &["unknown profile `amd`", "amd-apm", "linux-x86"]),
            ("with=nonsense", &["unknown event `nonsense`"]),
            ("without=cpuidd", &["unknown event `cpuidd`", "did you mean `cpuid`?"]),
            ("without=iret+invlgp", &["unknown event `invlgp`", "did you mean `invlpg`?"]),
            ("with=mov-cr33", &["unknown event `mov-cr33`", "did you mean `mov-cr3`?"]),
            ("start=kernel_init", &["start=kernel_init", "no such symbol", "symbols=PATH"]),
            ("stop=kernel_init", &["stop=kernel_init", "no such symbol", "symbols=PATH"]),
        ],
    );
}

/// A shell variable that is not set, or a value that was forgotten, is no reason to run without what the user asked
/// for.
#[test]
fn values_that_are_missing() {
    let lab = Lab::open();
    refuses(
        &lab,
        &[
            ("profile=", &["profile"]),
            ("chunk=", &["chunk=", "expected"]),
            ("exitcode=", &["exitcode=", "expected"]),
            ("emulator=on", &["emulator=", "report or repair"]),
            ("writers=off,emulator=repair", &["emulator=repair", "needs the store side"]),
            ("writers=off,inject=stale", &["inject=stale", "needs the store side"]),
            ("inject=old", &["inject=old", "off, stale, torn, or random:SEED:PERCENT"]),
            ("inject=random:1:101", &["inject=random:1:101", "percentage from 1 to 100"]),
            ("serialize=on", &["serialize=", "off or emulate"]),
            ("report=", &["report=", "expected"]),
            ("suppress=", &["suppress="]),
            ("symbols=", &["symbols="]),
            ("start=", &["start="]),
            ("stop=", &["stop="]),
            ("with=", &["with="]),
            ("without=", &["without="]),
            // QEMU makes `report=on` of it: that would write to a file of that name.
            ("report", &["report=on", "path"]),
            ("record", &["record=on", "path"]),
        ],
    );
}

#[test]
fn keys_of_later_versions() {
    let lab = Lab::open();
    let words: &[&str] = &["not built into this version"];
    let keys = ["lookahead=16", "prefetch=64", "trace=8"];
    refuses(&lab, &keys.into_iter().map(|key| (key, words)).collect::<Vec<_>>());
}

#[test]
fn a_key_of_earlier_versions() {
    refuses(&Lab::open(), &[("widen=30000", &["widen=30000", "was taken away", "unsynced"])]);
}

/// What needs a plugin that may change the program counter.
#[test]
fn keys_of_later_qemus() {
    let lab = Lab::open();
    let mut faults = Vec::new();
    for qemu in lab.qemus.iter().filter(|qemu| qemu.api < 6) {
        for (keys, word) in
            [("inject=stale", "inject"), ("inject=random:1:50", "inject"), ("serialize=emulate", "serialize=emulate")]
        {
            let guest = Machine::pc(&lab, qemu).keys(keys).launch();
            faults.extend(refusal_fault(guest, &[word, "not possible here", "use QEMU 11.1"]));
        }
    }
    assert_no_faults(&faults);
}

/// What is another architecture's, or nothing that QEMU lacks there, is refused on AArch64 by name.
#[test]
fn keys_that_aarch64_has_not() {
    let lab = Lab::open();
    let cases: [(&str, &[&str]); 8] = [
        ("serialize=emulate", &["serialize=emulate", "QEMU lacks no such instruction of this architecture"]),
        ("profile=linux-x86", &["unknown profile `linux-x86`", "known are: linux-arm64"]),
        ("profile=no-luck", &["unknown profile `no-luck`", "known are: linux-arm64"]),
        ("without=iret", &["unknown event `iret`"]),
        ("with=cpuid", &["unknown event `cpuid`"]),
        ("without=exception-retrun", &["did you mean `exception-return`?"]),
        (
            "without=exception-return@asm_exc_int3",
            &["no such function of the kernel's", "with exception-return an entry (el1h_64_irq"],
        ),
        ("writers=off,emulator=repair", &["emulator=repair", "needs the store side"]),
    ];
    let mut faults = Vec::new();
    for qemu in &lab.arm {
        let refused = |keys: &str, words: &[&str]| {
            let guest =
                Machine::virt(&lab, qemu, "cortex-a72").path_key("symbols", &lab.kernel_arm).keys(keys).launch();
            refusal_fault(guest, words).map(|fault| format!("QEMU {} for Arm, `{keys}`: {fault}", qemu.version))
        };
        faults.extend(cases.iter().filter_map(|(keys, words)| refused(keys, words)));
        if qemu.api < 6 {
            faults.extend(refused("inject=stale", &["inject", "not possible here", "use QEMU 11.1"]));
        }
    }
    assert_no_faults(&faults);
    // On x86 it is taken where QEMU lets a plugin do that.
    for qemu in lab.qemus.iter().filter(|qemu| qemu.api >= 6) {
        let sector = BootSector::new(Ending::PowerOff);
        let mut guest = Machine::pc(&lab, qemu).sector(&sector).keys("serialize=emulate").report().launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    }
}

/// The same keys with the values that this version fulfils.
#[test]
fn defaults_of_later_keys_are_taken() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = Machine::pc(&lab, qemu)
            .sector(&BootSector::new(Ending::PowerOff))
            .keys("writers=off,inject=off,speculation=off,lookahead=0,prefetch=unbounded,trace=unbounded,serialize=off,emulator=report")
            .report()
            .launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert_eq!(guest.report().summary()["complete"], true);
    }
}

/// Files that are not what they should be.
struct BadFiles {
    folder: TempDir,
}

impl BadFiles {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn fifo(&self) -> PathBuf {
        let path = self.path("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

/// Bytes without any pattern, the same every time (xorshift).
fn random_bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}

/// The System.map next to a kernel in Debian's package.
fn debian_system_map(kernel: &Path) -> PathBuf {
    let image = kernel.canonicalize().unwrap();
    let name = image.file_name().unwrap().to_str().unwrap().replace("vmlinuz", "System.map");
    let map = image.with_file_name(name);
    assert!(map.is_file(), "{} is not there", map.display());
    map
}

#[test]
fn symbol_files_that_are_none() {
    let lab = Lab::open();
    let files = BadFiles::new();
    let kernel = std::fs::read(&lab.kernel_6_1).unwrap();
    let cases: Vec<(PathBuf, &[&str])> = vec![
        (files.path("missing"), &["missing", "cannot read", "No such file"]),
        (files.folder.path().to_owned(), &["cannot read"]),
        (files.with("empty", ""), &["empty: the file is empty"]),
        (files.with("half-of-a-kernel", &kernel[..kernel.len() / 2]), &["half-of-a-kernel", "cut short"]),
        (files.with("head-of-a-kernel", &kernel[..600]), &["head-of-a-kernel", "cut short"]),
        (files.with("random", random_bytes(1 << 20)), &["random", "not a symbol file: give"]),
        (files.with("text", "this is no map\n"), &["text", "not a symbol file: give"]),
        (debian_system_map(&lab.kernel_6_1), &["stub", "give the kernel image itself"]),
        (files.fifo(), &["fifo", "cannot read"]),
        (PathBuf::from("/dev/zero"), &["/dev/zero", "cannot read"]),
    ];
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for (path, words) in &cases {
            let guest = Machine::pc(&lab, qemu).path_key("symbols", path).launch();
            faults.extend(
                refusal_fault(guest, words).map(|fault| format!("QEMU {}, {}: {fault}", qemu.version, path.display())),
            );
        }
    }
    assert_no_faults(&faults);
}

#[test]
fn the_second_of_two_symbol_files_is_read_too() {
    let lab = Lab::open();
    let files = BadFiles::new();
    let good = files.path("good");
    BootSector::new(Ending::Spin).write_symbols(&good);
    let both = format!("symbols={}+{}", good.display(), files.path("missing").display());
    refuses(&lab, &[(&both, &["missing", "cannot read"])]);
    let unknown = format!("symbols={},start=nowhere", good.display());
    refuses(&lab, &[(&unknown, &["start=nowhere", "no such symbol", "symbols="])]);
}

#[test]
fn suppressions_that_are_none() {
    let lab = Lab::open();
    let files = BadFiles::new();
    let cases: Vec<(PathBuf, &[&str])> = vec![
        (files.path("missing"), &["missing", "cannot be read", "No such file"]),
        (files.folder.path().to_owned(), &["no regular file", "text file"]),
        (files.with("malformed", "# mine\n\nfoo bar\n"), &["line 3", "`foo bar`", "symbol:GLOB REASON"]),
        (files.with("field", "color:foo bar\n"), &["line 1", "kind:GLOB REASON"]),
        (files.with("no-reason", "symbol:foo\n"), &["line 1", "say why `symbol:foo` is suppressed"]),
        (files.with("no-glob", "symbol: because\n"), &["line 1", "symbol:GLOB REASON"]),
    ];
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for (path, words) in &cases {
            let guest = Machine::pc(&lab, qemu).path_key("suppress", path).launch();
            faults.extend(
                refusal_fault(guest, words).map(|fault| format!("QEMU {}, {}: {fault}", qemu.version, path.display())),
            );
        }
    }
    assert_no_faults(&faults);
}

#[test]
fn reports_that_cannot_be_written() {
    let lab = Lab::open();
    let files = BadFiles::new();
    let cases: Vec<(PathBuf, &[&str])> = vec![
        (files.path("missing/report"), &["No such file", "existing, writable directory"]),
        (files.folder.path().to_owned(), &["directory"]),
        // Not even root can make a file there.
        (PathBuf::from("/sys/icsan-report"), &["cannot be written", "existing, writable directory"]),
        (files.with("file", "").join("report"), &["Not a directory"]),
        // These can be opened.
        (PathBuf::from("/proc/version"), &["/proc/version: cannot be written"]),
        (PathBuf::from("/dev/full"), &["/dev/full: cannot be written", "No space left on device"]),
    ];
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for key in ["report", "record"] {
            for (path, words) in &cases {
                let guest = Machine::pc(&lab, qemu).path_key(key, path).launch();
                faults.extend(
                    refusal_fault(guest, words)
                        .map(|fault| format!("QEMU {}, {key}={}: {fault}", qemu.version, path.display())),
                );
            }
        }
    }
    assert_no_faults(&faults);
}

/// A file belongs to one key of one QEMU, and what stands in it is its.
#[test]
fn a_file_that_another_qemu_writes() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut first = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report().launch();
        first.wait_for_hazards(2, SOON);
        let (path, before) = (first.file("report.jsonl"), first.report_text());
        for key in ["report", "record"] {
            let second = Machine::pc(&lab, qemu).path_key(key, &path).launch();
            let words = [&*format!("{key}="), "process ", "a file of its own"];
            assert_no_faults(&refusal_fault(second, &words).into_iter().collect::<Vec<_>>());
            assert_eq!(first.report_text(), before, "QEMU {}, {key}", qemu.version);
        }
        first.monitor("quit");
        assert_eq!(first.exit_code(SOON), 0, "{}", first.outputs());
        assert_eq!(first.report().hazards.len(), 2, "{}", first.outputs());
        let own = Machine::pc(&lab, qemu).path_key("report", &path).path_key("record", &path).launch();
        assert_no_faults(
            &refusal_fault(own, &["another key of this QEMU", "a file of its own"]).into_iter().collect::<Vec<_>>(),
        );
        assert_eq!(first.report().hazards.len(), 2, "{}", first.outputs());
    }
}

/// Opening a FIFO waits for its reader: QEMU would hang before it has started.
#[test]
fn a_fifo_without_a_reader() {
    let lab = Lab::open();
    let files = BadFiles::new();
    let fifo = files.fifo();
    for qemu in &lab.qemus {
        let guest = Machine::pc(&lab, qemu).path_key("report", &fifo).launch();
        assert_no_faults(&refusal_fault(guest, &["fifo", "cannot be written"]).into_iter().collect::<Vec<_>>());
    }
}

/// A refused line leaves the report of the last run alone.
#[test]
fn a_refusal_does_not_empty_the_last_report() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        // Wrong at first sight; and wrong when everything else was looked at.
        for keys in ["profile=nonsense", "record=/proc/version", "record=/dev/full"] {
            let machine = Machine::pc(&lab, qemu).report().keys(keys);
            std::fs::write(machine.report_path(), "the last one\n").unwrap();
            let mut guest = machine.launch();
            assert_ne!(guest.exit_code(QUICKLY), 0);
            assert_eq!(guest.report_text(), "the last one\n", "QEMU {}, {keys}", qemu.version);
        }
    }
}

#[test]
fn a_qemu_that_is_too_old() {
    let lab = Lab::open();
    let arguments = ["-machine", "q35", "-display", "none", "-nodefaults"];
    let guest = Machine::bare(&lab, &lab.qemu_7_2).arguments(&arguments).launch();
    assert_no_faults(&refusal_fault(guest, &["too old", "use QEMU 10.0 or newer"]).into_iter().collect::<Vec<_>>());
}

#[test]
fn another_architecture() {
    let lab = Lab::open();
    let arguments = ["-machine", "virt", "-cpu", "cortex-a15", "-display", "none", "-nodefaults"];
    let guest = Machine::bare(&lab, &lab.qemu_arm).arguments(&arguments).launch();
    let fault = refusal_fault(guest, &["arm is not supported", "use qemu-system-x86_64 or qemu-system-aarch64"]);
    assert_no_faults(&fault.into_iter().collect::<Vec<_>>());
}

/// Ways to run vCPUs on one host thread, with one and with two of them.
const ONE_THREAD: [(&[&str], &[&str]); 2] = [
    (&["-accel", "tcg,thread=single", "-smp", "2"], &["-accel", "tcg,thread=single", "-smp", "1"]),
    (
        &["-accel", "tcg", "-icount", "shift=auto", "-smp", "2"],
        &["-accel", "tcg", "-icount", "shift=auto", "-smp", "1"],
    ),
];

#[test]
fn several_vcpus_on_one_thread() {
    let lab = Lab::open();
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for (two, _) in ONE_THREAD {
            let guest = Machine::pc_with(&lab, qemu, two).launch();
            let words = ["share one host thread", "thread=multi", "-smp 1"];
            faults.extend(refusal_fault(guest, &words).map(|fault| format!("QEMU {}, {two:?}: {fault}", qemu.version)));
        }
    }
    assert_no_faults(&faults);
}

#[test]
fn one_vcpu_on_one_thread_works() {
    let lab = Lab::open();
    let sector = BootSector::new(Ending::PowerOff);
    for qemu in &lab.qemus {
        for (_, one) in ONE_THREAD {
            let mut guest = Machine::pc_with(&lab, qemu, one).sector(&sector).report().launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            assert_eq!(
                guest.report().sites(),
                [sector.address("whole"), sector.address("straddle")],
                "QEMU {}, {one:?}",
                qemu.version
            );
        }
    }
}

/// That refusal comes late, when QEMU may have changed the terminal: it must be given back as it was.
#[test]
fn a_late_refusal_gives_the_terminal_back() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (program, plugin) = (qemu.program.display(), lab.plugin.display());
        let line = format!(
            "timeout --foreground 20 {program} -plugin {plugin} -machine q35 -smp 2 -accel tcg,thread=single -nodefaults -display none -serial stdio; stty -a"
        );
        let output = Command::new("script").args(["-q", "-c", &line, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("share one host thread"), "{text}");
        for mode in [" -echo ", " -icanon "] {
            assert!(!text.contains(mode), "QEMU {}: the terminal is left with{mode}\n{text}", qemu.version);
        }
    }
}

/// QEMU takes the same path twice for one plugin with the keys of both.
#[test]
fn given_twice_by_one_path() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let again = format!("{},exitcode=7", lab.plugin.display());
        let machine =
            Machine::pc(&lab, qemu).arguments(&["-plugin", &again]).report().sector(&BootSector::new(Ending::PowerOff));
        let mut guest = machine.launch();
        assert_eq!(guest.exit_code(SOON), 7, "{}", guest.outputs());
        assert_eq!(guest.report().hazards.len(), 2);
    }
}

/// The second one is refused; the first one, which works, may say at QEMU's exit that it saw nothing.
#[test]
fn given_twice_by_two_paths() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu);
        let other = machine.file("other.so");
        std::os::unix::fs::symlink(&lab.plugin, &other).unwrap();
        let mut guest = machine.arguments(&["-plugin", other.to_str().unwrap()]).launch();
        assert_ne!(guest.exit_code(QUICKLY), 0, "{}", guest.outputs());
        let stderr = guest.stderr();
        let told =
            own_lines(&stderr).into_iter().filter(|line| line.contains("twice") && line.contains("once")).count();
        assert_eq!(told, 1, "{}", guest.outputs());
    }
}

/// Nothing ran, so nothing was watched: that is no clean verdict.
#[test]
fn a_guest_that_never_runs() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (keys, code) in [("exitcode=0", 0), ("exitcode=7", UNPROVEN)] {
            let mut guest = Machine::pc(&lab, qemu).arguments(&["-S"]).report().keys(keys).launch();
            guest.monitor("info status");
            assert_eq!(guest.stderr(), "", "it may run yet");
            guest.monitor("quit");
            assert_eq!(guest.exit_code(SOON), code, "{}", guest.outputs());
            let report = guest.report();
            assert_eq!((&report.summary()["blocks"], &report.summary()["complete"]), (&0.into(), &false.into()));
            assert!(guest.stderr().contains("icsan: no block was translated"), "{}", guest.outputs());
        }
    }
}

/// QEMU's own accelerator for tests translates nothing, as KVM does: that is said at once, and told by the exit code,
/// however QEMU ends.
#[test]
fn qtest_instead_of_tcg() {
    let lab = Lab::open();
    let ways: [fn(&mut Guest); 2] = [|guest| guest.monitor("quit"), |guest| guest.signal(Signal::TERM)];
    // Debian's 10.0 comes without it.
    for qemu in lab.qemus.iter().filter(|qemu| qemu.version == "11.1") {
        for end in ways {
            let machine = Machine::pc_with(&lab, qemu, &["-accel", "qtest"]).sector(&BootSector::new(Ending::PowerOff));
            let mut guest = machine.report().keys("exitcode=7").launch();
            guest.wait_until("a word", SOON, |guest| guest.stderr().contains("icsan: nothing is watched: "));
            guest.monitor("info status");
            end(&mut guest);
            assert_eq!(guest.exit_code(SOON), UNPROVEN, "{}", guest.outputs());
            assert_eq!(guest.report().summary()["complete"], false, "{}", guest.outputs());
            assert_eq!(
                guest.stderr().matches("does not run under TCG").count(),
                2,
                "at once, and at the end\n{}",
                guest.outputs()
            );
        }
    }
}

/// Under KVM plugins see nothing. (`scripts/test` leaves this one out, by name and counted, on a machine whose /dev/kvm
/// cannot be opened.)
#[test]
fn kvm_instead_of_tcg() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        // Stopped, since KVM guests do not get far on every machine that has the device; and a CPU of which no host
        // lacks much.
        for accelerators in [&["-accel", "kvm", "-smp", "1"][..], &["-machine", "accel=kvm:tcg", "-smp", "1"]] {
            let machine = Machine::pc_with(&lab, qemu, accelerators).arguments(&["-S", "-cpu", "qemu64"]);
            let mut guest = machine.report().keys("exitcode=7").launch();
            if let Some(code) = guest.ends_within(Duration::from_millis(700)) {
                panic!("QEMU {} has no KVM here, and exits with {code}: {}", qemu.version, guest.stderr());
            }
            assert!(
                !guest.stderr().contains("falling back to tcg"),
                "QEMU {} has no KVM here: {}",
                qemu.version,
                guest.stderr()
            );
            guest.wait_until("a word", SOON, |guest| {
                guest.stderr().contains("icsan: nothing is watched: the guest runs under KVM")
            });
            guest.monitor("quit");
            assert_eq!(guest.exit_code(SOON), UNPROVEN, "{}", guest.outputs());
            assert_eq!(guest.report().summary()["complete"], false, "{}", guest.outputs());
            assert!(guest.stderr().contains("KVM") && guest.stderr().contains("-accel tcg"), "{}", guest.outputs());
        }
    }
}

/// A `start=` that never executes means that nothing was watched.
#[test]
fn a_start_that_is_never_reached() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let start = format!("start={NEVER},exitcode=7");
        let mut guest =
            Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff)).keys(&start).report().launch();
        assert_eq!(guest.exit_code(SOON), UNPROVEN, "{}", guest.outputs());
        assert_eq!(guest.report().hazards.len(), 0);
        assert_eq!(
            guest.report().summary()["complete"],
            false,
            "QEMU {}: nothing was watched\n{}",
            qemu.version,
            guest.outputs()
        );
        assert!(own_lines(&guest.stderr()).iter().any(|line| line.contains(NEVER)), "{}", guest.outputs());
    }
}
