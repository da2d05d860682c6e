//! What the report's tests are made of: a kernel of a few symbols, and evidence in it.

use super::Report;
use super::evidence::{Evidence, Origin, Shown};
use crate::arch::caller::Caller;
use crate::arch::x86::PLATFORM;
use crate::config::Config;
use crate::patching::{Context, TaskName, Writer};
use crate::qemu::api::Generation;
use crate::qemu::hooks::Hooked;
use crate::qemu::install::Machine;
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::x86::{X86_64, events};
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_model::verdict::hazard::Write;
use icsan_model::verdict::kind::Kind;
use icsan_model::verdict::last_sync::LastSync;

/// Where the kernel was linked, and how far KASLR moved it.
pub const LINK: u64 = 0xffff_ffff_8100_0000;
/// See [`LINK`].
pub const OFFSET: u64 = 0x1a00_0000;

/// The functions, by their distance from [`LINK`].
const FUNCTIONS: &[(u64, &str)] = &[
    (0, "_text"),
    (0x1000, "patched"),
    (0x1080, "target"),
    (0x2000, "memcpy_orig"),
    (0x2130, "apply_returns"),
    (0x2f00, "its_return_thunk"),
    // A function with two names, as 7.3 has it.
    (0x3000, "__pi___x86_return_thunk"),
    (0x3000, "__x86_return_thunk"),
    (0x3002, "text_poke_bp_batch"),
    (0x3100, "__text_poke"),
    (0x3200, "arch_jump_label_transform_apply"),
    (0x3300, "asm_sysvec_reschedule_ipi"),
    (0x4000, "entry_SYSCALL_64"),
    (0x5000, "_etext"),
];

/// The runtime address of a function, or of a place in it.
pub fn at(function: &str, offset: u64) -> Linear {
    let (distance, _) = FUNCTIONS.iter().find(|(_, name)| *name == function).unwrap();
    Linear(LINK + OFFSET + distance + offset)
}

/// Where an address of the kernel lies in memory.
pub fn phys(linear: Linear) -> Phys {
    Phys(linear.0 - LINK - OFFSET + 0x100_0000)
}

/// A run with these keys, and this text in the file of suppressions.
pub struct Run {
    config: Config,
    machine: Machine,
}

impl Run {
    pub fn new(keys: &[&str], suppressions: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let map: String =
            FUNCTIONS.iter().map(|(distance, name)| format!("{:016x} T {name}\n", LINK + distance)).collect();
        let files = [
            format!("symbols={}", file("System.map", &map)),
            format!("suppress={}", file("suppressions", suppressions)),
        ];
        let arguments: Vec<String> = keys.iter().map(|key| (*key).to_owned()).chain(files).collect();
        let config = Config::parse(&arguments, &PLATFORM).unwrap();
        config.symbols.learn_offset("entry_SYSCALL_64", at("entry_SYSCALL_64", 0).0).unwrap();
        let machine = Machine {
            target: "x86_64".to_owned(),
            api: (4, 7),
            generation: Generation::V7,
            system: true,
            vcpus: 2,
            max_vcpus: 2,
        };
        Self { config, machine }
    }

    pub fn report(&self) -> Report<'_> {
        Report { platform: &PLATFORM, arch: &X86_64, config: &self.config, machine: &self.machine, hooks: Hooked::On }
    }
}

/// `jmp target`, and the NOP that was there before.
pub const NOP: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
/// See [`NOP`].
pub const JMP: &[u8] = &[0xe9, 0x6b, 0x00, 0x00, 0x00];

/// What is in memory.
pub fn memory(bytes: &[u8]) -> Shown {
    Shown { bytes: bytes.to_vec(), origin: Origin::Memory }
}

/// A candidate that is older than store 812.
pub fn older(bytes: &[u8], kind: Kind) -> Shown {
    let versions = vec![Seq(640); bytes.len()];
    Shown { bytes: bytes.to_vec(), origin: Origin::Versions { versions, before: Some(Seq(812)), kind, exempt: false } }
}

/// The task that patches for the kernel.
pub fn patcher() -> Writer {
    let task = Some(TaskName { pid: 7, comm: "kworker/0:1".into() });
    Writer {
        function: Some(at("text_poke_bp_batch", 0)),
        chain: [Caller { address: at("arch_jump_label_transform_apply", 0x25).0, sure: true }].into(),
        context: Context { space: Some(0x2a_0000), privilege: None, task },
    }
}

/// vCPU 1 runs `patched+0x10`, which vCPU 0 has made a jump.
pub fn evidence(kind: Kind) -> Evidence {
    let site = at("patched", 0x10);
    let write = Write {
        seq: Seq(812),
        vcpu: Some(Vcpu(0)),
        pc: Some(at("__text_poke", 0x43)),
        linear: Some(Linear(0x5555_0000_1010)),
        phys: phys(site),
        old: Some(NOP.to_vec()),
        new: JMP.to_vec(),
    };
    Evidence {
        vcpu: Vcpu(1),
        linear: site,
        physical: Some(phys(site)),
        memory: JMP.to_vec(),
        candidates: vec![memory(JMP), older(NOP, kind)],
        injected: None,
        all_candidates: true,
        writes: Some(vec![write]),
        writers: vec![Some(patcher())],
        context: Context {
            space: Some(0x1c8_e000),
            privilege: Some(3),
            task: Some(TaskName { pid: 140, comm: "init".into() }),
        },
        chain: vec![Caller { address: at("target", 0x8).0, sure: false }],
        moved: false,
        last_sync: Some(LastSync {
            event: Some(events::IRET),
            pc: Some(at("asm_sysvec_reschedule_ipi", 0x1a)),
            seq: Seq(700),
        }),
        last_origin: Some(SyncOrigin::Function(at("asm_sysvec_reschedule_ipi", 0))),
        epoch: Epoch(41),
        marker: 0,
        unsynced: None,
        boot: 1,
    }
}

/// `memcpy_orig` copies `ret` over its own jump to the return thunk, while `apply_returns` patches.
pub fn memcpy_patches_itself() -> Evidence {
    let site = at("memcpy_orig", 0xf3);
    let jump: Vec<u8> = [0xe9]
        .into_iter()
        .chain((at("__x86_return_thunk", 0).0.wrapping_sub(site.0 + 5) as u32).to_le_bytes())
        .collect();
    let write = |seq, pc, offset, old: &[u8], new: &[u8]| Write {
        seq: Seq(seq),
        vcpu: Some(Vcpu(0)),
        pc: Some(at("memcpy_orig", pc)),
        linear: Some(site.offset(offset)),
        phys: phys(site).offset(offset),
        old: Some(old.to_vec()),
        new: new.to_vec(),
    };
    let writer = Writer { function: Some(at("apply_returns", 0)), chain: [].into(), context: Context::default() };
    Evidence {
        vcpu: Vcpu(0),
        linear: site,
        physical: Some(phys(site)),
        memory: vec![0xc3],
        candidates: vec![memory(&[0xc3]), older(&jump, Kind::Smc)],
        writes: Some(vec![
            write(812, 0xec, 0, &jump[..4], &[0xc3, 0xcc, 0xcc, 0xcc]),
            write(813, 0xee, 1, &[0xcc, 0xcc, 0xcc, 0x00], &[0xcc; 4]),
        ]),
        writers: vec![Some(writer.clone()), Some(writer)],
        ..evidence(Kind::Smc)
    }
}

/// What the light mode has of it.
pub fn unwatched(evidence: Evidence) -> Evidence {
    let candidates = evidence.candidates.into_iter().map(|shown| match shown.origin {
        Origin::Versions { .. } => Shown { origin: Origin::Earlier, ..shown },
        _ => shown,
    });
    Evidence {
        candidates: candidates.collect(),
        writes: None,
        writers: Vec::new(),
        context: Context::default(),
        chain: Vec::new(),
        ..evidence
    }
}
