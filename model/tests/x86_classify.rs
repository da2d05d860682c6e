//! Classification of instructions against iced-x86, an independent decoder: both ways, over all one- and two-byte
//! opcodes.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::X86_64;
use icsan_model::arch::x86::classify::{Class, Encoding, Form, Gives, LOCKED, Mandatory, Map, PLAIN, classify};
use icsan_model::arch::x86::events::{self, EVENTS, Seen, seen};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn event(name: &str) -> SyncEventId {
    X86_64.event_by_name(name).unwrap_or_else(|| panic!("no event {name}"))
}

/// The class of an instruction that iced decoded, from its mnemonic and operands: the oracle. Names, not ids, so that a
/// renamed row shows.
fn oracle(instruction: &Instruction) -> Option<Class> {
    use Mnemonic as M;
    if instruction.has_lock_prefix() && instruction.op_code().can_use_lock_prefix() {
        return Some(Class::Fixed(event("lock-prefixed")));
    }
    let name = match instruction.mnemonic() {
        M::Iret => return Some(Class::Iret { operand_bytes: 2 }),
        M::Iretd => return Some(Class::Iret { operand_bytes: 4 }),
        M::Iretq => return Some(Class::Iret { operand_bytes: 8 }),
        M::Wrmsr => return Some(Class::Wrmsr),
        M::Mov => match (register(instruction, 0), register(instruction, 1)) {
            (Register::CR0, _) => "mov-cr0",
            (Register::CR2, _) => "mov-cr2",
            (Register::CR3, source) => return Some(Class::MovCr3 { register: source.number() as u8 }),
            (Register::CR4, _) => "mov-cr4",
            (Register::CR8, _) => "mov-cr8",
            (to, _) if to.is_dr() => "mov-dr",
            (_, from) if from.is_cr() => "mov-from-cr",
            _ => return None,
        },
        M::Cpuid => "cpuid",
        M::Rsm => "rsm",
        M::Serialize => "serialize",
        M::Lmsw => "lmsw",
        M::Clts => "clts",
        M::Wrmsrns => "wrmsrns",
        M::Wrmsrlist => "wrmsrlist",
        M::Wrfsbase => "wrfsbase",
        M::Wrgsbase => "wrgsbase",
        M::Swapgs => "swapgs",
        M::Wrpkru => "wrpkru",
        M::Xsetbv => "xsetbv",
        M::Invd => "invd",
        M::Wbinvd => "wbinvd",
        M::Wbnoinvd => "wbnoinvd",
        M::Invlpg => "invlpg",
        M::Invpcid => "invpcid",
        M::Invept => "invept",
        M::Invvpid => "invvpid",
        M::Invlpga => "invlpga",
        M::Invlpgb => "invlpgb",
        M::Tlbsync => "tlbsync",
        M::Lgdt => "lgdt",
        M::Lidt => "lidt",
        M::Lldt => "lldt",
        M::Ltr => "ltr",
        M::Lfence => "lfence",
        M::Mfence => "mfence",
        M::Sfence => "sfence",
        M::Xchg if memory_operand(instruction) => "lock-prefixed",
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => "in-out",
        M::Syscall => "syscall",
        M::Sysenter => "sysenter",
        M::Sysret | M::Sysretq => "sysret",
        M::Sysexit | M::Sysexitq => "sysexit",
        M::Eretu => "eretu",
        M::Erets => "erets",
        M::Uiret => "uiret",
        M::Int | M::Int1 | M::Int3 | M::Into => "int",
        M::Retf => "far-branch",
        M::Jmp | M::Call if instruction.is_jmp_far() || instruction.is_call_far() => "far-branch",
        M::Jmp | M::Call if instruction.is_jmp_far_indirect() || instruction.is_call_far_indirect() => "far-branch",
        M::Jmp | M::Call | M::Ret => "near-branch",
        M::Hlt => "hlt",
        M::Mwait => "mwait",
        M::Monitor => "monitor",
        M::Pause => "pause",
        M::Vmlaunch => "vmlaunch",
        M::Vmresume => "vmresume",
        M::Vmrun => "vmrun",
        // Conditional branches that are no fused compare-and-jump of another instruction set (Knights Corner's JKZD and
        // JKNZD).
        _ if instruction.flow_control() == FlowControl::ConditionalBranch => "near-branch",
        _ => return None,
    };
    Some(Class::Fixed(event(name)))
}

fn register(instruction: &Instruction, operand: u32) -> Register {
    if operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register {
        instruction.op_register(operand)
    } else {
        Register::None
    }
}

fn memory_operand(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory)
}

fn decode(bytes: &[u8], bits: u32) -> Option<Instruction> {
    // AMD's options only for LOCK MOV CR: they change the length of other instructions.
    [DecoderOptions::NONE, DecoderOptions::AMD].into_iter().find_map(|options| {
        let instruction = Decoder::new(bits, bytes, options).decode();
        let wanted =
            options == DecoderOptions::NONE || (instruction.mnemonic() == Mnemonic::Mov && bytes.contains(&0xf0));
        (!instruction.is_invalid() && wanted).then_some(instruction)
    })
}

/// The class of the instruction that these bytes begin with, if iced agrees. `None`: iced finds no instruction in that
/// mode.
fn compare(bytes: &[u8], bits: u32) -> Option<Result<Option<Class>, String>> {
    let instruction = decode(bytes, bits)?;
    let (exact, mut expected) = (&bytes[..instruction.len()], oracle(&instruction));
    // In 16-bit code the operand size is the other way round, which `classify` cannot know.
    if bits == 16
        && let Some(Class::Iret { operand_bytes }) = &mut expected
    {
        *operand_bytes = 6 - *operand_bytes;
    }
    let found = classify(exact);
    Some(if found == expected {
        Ok(found)
    } else {
        Err(format!("{bits} bits, {exact:02x?}: found {found:?}, iced says {expected:?}"))
    })
}

const PADDING: [u8; 12] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x08, 0x19, 0x2a, 0x3b, 0x4c];

const PREFIXES: [&[u8]; 16] = [
    &[],
    &[0x66],
    &[0xf2],
    &[0xf3],
    &[0xf0],
    &[0x67],
    &[0x66, 0xf3],
    &[0xf3, 0xf2],
    &[0x66, 0xf0],
    &[0x48],
    &[0x44],
    &[0x41],
    &[0x66, 0x48],
    &[0xf3, 0x4f],
    &[0xf0, 0x44],
    &[0xf2, 0x40],
];

/// Compares all opcodes of one map with all ModRM bytes and some prefixes; gives the number of byte strings, the events
/// met, the differences.
fn enumerate(map: &[u8], prefixes: &[&[u8]]) -> (usize, BTreeSet<u8>, Vec<String>) {
    let (mut met, mut count, mut failures) = (BTreeSet::new(), 0, Vec::new());
    for prefix in prefixes {
        for opcode in 0..=u8::MAX {
            for modrm in 0..=u8::MAX {
                let mut bytes = [*prefix, map, &[opcode, modrm], &PADDING].concat();
                bytes.truncate(15);
                count += 1;
                let mut valid = false;
                for bits in [16, 32, 64] {
                    match compare(&bytes, bits) {
                        Some(Ok(class)) => {
                            valid = true;
                            met.extend(class.map(|class| match class {
                                Class::Fixed(event) => event.0,
                                Class::Iret { .. } => events::IRET.0,
                                Class::Wrmsr => events::WRMSR.0,
                                Class::MovCr3 { .. } => events::MOV_CR3.0,
                            }));
                        }
                        Some(Err(failure)) => failures.push(failure),
                        None => {}
                    }
                }
                // No instruction in any mode: no event either, but for a REX (so 64-bit code) with an opcode of other
                // modes, which we let pass.
                let opcode = bytes.iter().find(
                    |byte| !matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3),
                );
                let not_in_64_bits = matches!(opcode, Some(0x82 | 0x9a | 0xce | 0xea));
                if !valid
                    && !not_in_64_bits
                    && let Some(class) = classify(&bytes)
                {
                    failures.push(format!("{bytes:02x?}: found {class:?}, iced says that it is invalid in every mode"));
                }
            }
        }
    }
    failures.dedup();
    (count, met, failures)
}

#[test]
fn every_opcode_agrees_with_iced() {
    // The two longer maps hold three events: the first prefixes (none, 66, F2, F3, F0) do.
    let maps: [(&[u8], usize); 4] =
        [(&[], PREFIXES.len()), (&[0x0f], PREFIXES.len()), (&[0x0f, 0x38], 5), (&[0x0f, 0x3a], 5)];
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = maps
            .map(|(map, count)| scope.spawn(move || (count, enumerate(map, &PREFIXES[..count]))))
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a comparing thread panicked")).collect()
    });
    let mut met = BTreeSet::new();
    for (prefixes, (count, events, failures)) in results {
        assert!(
            failures.is_empty(),
            "{} differences, among them:\n{}",
            failures.len(),
            failures[..failures.len().min(40)].join("\n")
        );
        assert_eq!(count, prefixes * 65536);
        met.extend(events);
    }
    // And the other way: every row with an instruction was met, but for those that only run-time values tell apart.
    for (index, row) in EVENTS.iter().enumerate() {
        let id = SyncEventId(index as u8);
        let by_value =
            [events::IRET_TO_SELF, events::WRMSR_NONSERIALIZING, events::MOV_CR3_NOFLUSH, events::MOV_CR3_PTI]
                .contains(&id);
        let instruction = matches!(seen(id), Seen::Instruction | Seen::Hot | Seen::Resolved) && !by_value;
        assert_eq!(met.contains(&id.0), instruction, "{}", row.name);
    }
}

/// Every byte string of an encoding row: each opcode, each ModRM byte that fits, the mandatory prefix, and LOCK if
/// asked for.
fn strings(encoding: &Encoding, lock: bool) -> Vec<Vec<u8>> {
    let mut prefixes = match encoding.prefix {
        Mandatory::Any | Mandatory::No | Mandatory::NotF3 => vec![],
        Mandatory::P66 => vec![0x66],
        Mandatory::F2 => vec![0xf2],
        Mandatory::F3 => vec![0xf3],
    };
    if lock {
        prefixes.push(0xf0);
    }
    let map: &[u8] = match encoding.map {
        Map::One => &[],
        Map::Two => &[0x0f],
        Map::Three38 => &[0x0f, 0x38],
    };
    let modrms: Vec<(u8, u8)> = (0..=u8::MAX)
        .flat_map(|modrm| [(0, modrm), (0x44, modrm)])
        .filter(|(rex, modrm)| {
            let reg = modrm >> 3 & 7;
            let in_set = |regs: u8| regs >> reg & 1 == 1;
            match encoding.form {
                Form::Any => *modrm == 0xc0 && *rex == 0,
                Form::Memory(regs) => *rex == 0 && *modrm < 0xc0 && in_set(regs),
                Form::Register(regs) => *rex == 0 && *modrm >= 0xc0 && in_set(regs),
                Form::Either(regs) => *rex == 0 && in_set(regs),
                Form::ModRm(first, last) => *rex == 0 && (first..=last).contains(modrm),
                Form::Extended(regs) => regs >> (reg + if *rex == 0 { 0 } else { 8 }) & 1 == 1,
            }
        })
        .collect();
    (encoding.first..=encoding.last)
        .flat_map(|opcode| {
            let prefixes = prefixes.clone();
            modrms.iter().map(move |(rex, modrm)| {
                let rex: &[u8] = if *rex == 0 { &[] } else { &[0x44] };
                [&prefixes, rex, map, &[opcode, *modrm], &PADDING[..8]].concat()
            })
        })
        .collect()
}

#[test]
fn every_row_with_every_harmless_prefix_and_every_rex() {
    let rows = PLAIN.iter().map(|row| (row, false)).chain(LOCKED.iter().map(|row| (row, true)));
    let mut compared = 0;
    for (encoding, lock) in rows {
        let strings = strings(encoding, lock);
        assert!(!strings.is_empty(), "{encoding:?}");
        for bytes in strings {
            let class = classify(&bytes);
            let fits = match (encoding.gives, class) {
                (Gives::Event(event), Some(Class::Fixed(found))) => event == found,
                (Gives::Iret, Some(Class::Iret { .. }))
                | (Gives::Wrmsr, Some(Class::Wrmsr))
                | (Gives::MovCr3, Some(Class::MovCr3 { .. })) => true,
                _ => false,
            };
            assert!(fits, "{bytes:02x?}: {class:?}, row {encoding:?}");
            // Segment and address-size prefixes, one or two of them, in front and behind the mandatory one: nothing
            // changes.
            let mandatory = bytes.iter().take_while(|byte| [0x66, 0xf0, 0xf2, 0xf3].contains(*byte)).count();
            const HARMLESS: [u8; 7] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67];
            for (first, second) in HARMLESS.iter().flat_map(|first| HARMLESS.iter().map(move |second| (first, second)))
            {
                let around = [&[*first][..], &bytes[..mandatory], &[*second], &bytes[mandatory..]].concat();
                assert_eq!(classify(&around), class, "{around:02x?}");
            }
            for rex in 0x40..=0x4f {
                let plain = if bytes[mandatory] == 0x44 { mandatory + 1 } else { mandatory };
                let mut with_rex = [&bytes[..mandatory], &[rex], &bytes[plain..]].concat();
                with_rex.truncate(15);
                if let Some(Err(failure)) = compare(&with_rex, 64) {
                    panic!("{failure}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 50_000, "only {compared} compared");
}

#[test]
fn every_register_of_control_and_debug_moves() {
    for control in 0..16u8 {
        for register in 0..16u8 {
            for mode in 0..4u8 {
                let rex = 0x40 | (control >> 3) << 2 | register >> 3;
                let modrm = mode << 6 | (control & 7) << 3 | register & 7;
                let writes = match control {
                    0 => Some(Class::Fixed(events::MOV_CR0)),
                    2 => Some(Class::Fixed(events::MOV_CR2)),
                    3 => Some(Class::MovCr3 { register }),
                    4 => Some(Class::Fixed(events::MOV_CR4)),
                    8 => Some(Class::Fixed(events::MOV_CR8)),
                    _ => None,
                };
                assert_eq!(classify(&[rex, 0x0f, 0x22, modrm]), writes, "cr{control}, register {register}, mod {mode}");
                let reads = writes.map(|_| Class::Fixed(events::MOV_FROM_CR));
                assert_eq!(classify(&[rex, 0x0f, 0x20, modrm]), reads, "from cr{control}");
                let debug = (control < 8).then_some(Class::Fixed(events::MOV_DR));
                assert_eq!(classify(&[rex, 0x0f, 0x23, modrm]), debug, "dr{control}");
                assert_eq!(classify(&[rex, 0x0f, 0x21, modrm]), None, "from dr{control}");
            }
        }
    }
}

/// Byte strings with what they are, by hand; `-` is no event.
const BY_HAND: &[(&[u8], &str)] = &[
    (&[0x0f, 0xa2], "cpuid"),
    (&[0x0f, 0x01, 0xe8], "serialize"),
    (&[0xf3, 0x0f, 0x01, 0xe8], "-"), // SETSSBSY
    (&[0xf2, 0x0f, 0x01, 0xe8], "-"), // XSUSLDTRK
    (&[0x66, 0x0f, 0x01, 0xe8], "-"),
    (&[0xf0, 0x0f, 0x01, 0xe8], "-"), // #UD
    (&[0x0f, 0x01, 0xe9], "-"),
    (&[0x0f, 0x01, 0xca], "-"), // CLAC
    (&[0x0f, 0x01, 0xcb], "-"), // STAC
    (&[0xf3, 0x0f, 0x01, 0xca], "eretu"),
    (&[0xf2, 0x0f, 0x01, 0xca], "erets"),
    (&[0xf2, 0xf3, 0x0f, 0x01, 0xca], "eretu"), // the last one counts
    (&[0xf3, 0xf2, 0x0f, 0x01, 0xca], "erets"),
    (&[0x66, 0xf3, 0x0f, 0x01, 0xca], "eretu"),
    (&[0x0f, 0x01, 0xc6], "wrmsrns"),
    (&[0xf3, 0x0f, 0x01, 0xc6], "wrmsrlist"),
    (&[0xf2, 0x0f, 0x01, 0xc6], "-"), // RDMSRLIST
    (&[0xc4, 0xe7, 0x7a, 0xf6, 0xc0, 0x10, 0, 0, 0], "wrmsrns"),
    (&[0x2e, 0xc4, 0xe7, 0x7a, 0xf6, 0xc0, 0x10, 0, 0, 0], "wrmsrns"),
    (&[0xc4, 0xc7, 0x7a, 0xf6, 0xc7, 0x10, 0, 0, 0], "wrmsrns"), // R15
    (&[0xc4, 0xe7, 0x7b, 0xf6, 0xc0, 0x10, 0, 0, 0], "-"),       // RDMSR with an immediate
    (&[0xc4, 0xa7, 0x7a, 0xf6, 0xc0, 0x10], "-"),                // LES in 32-bit code
    (&[0x0f, 0x01, 0x38], "invlpg"),
    (&[0x0f, 0x01, 0xf8], "swapgs"),
    (&[0x0f, 0x01, 0xf9], "-"), // RDTSCP
    (&[0x0f, 0x01, 0xfa], "-"), // MONITORX
    (&[0x0f, 0x01, 0xfb], "-"), // MWAITX
    (&[0x0f, 0x01, 0xfc], "-"), // CLZERO
    (&[0x0f, 0x01, 0xfd], "-"), // RDPRU
    (&[0x0f, 0x01, 0xfe], "invlpgb"),
    (&[0x0f, 0x01, 0xff], "tlbsync"),
    (&[0xf3, 0x0f, 0x01, 0xff], "-"), // PSMASH
    (&[0x0f, 0x01, 0x10], "lgdt"),
    (&[0x0f, 0x01, 0x18], "lidt"),
    (&[0x0f, 0x01, 0x00], "-"), // SGDT
    (&[0x0f, 0x01, 0x08], "-"), // SIDT
    (&[0x0f, 0x01, 0xd0], "-"), // XGETBV
    (&[0x0f, 0x01, 0xd1], "xsetbv"),
    (&[0x0f, 0x01, 0x20], "-"), // SMSW
    (&[0x0f, 0x01, 0x30], "lmsw"),
    (&[0x0f, 0x01, 0xf0], "lmsw"),
    (&[0x0f, 0x01, 0xee], "-"), // RDPKRU
    (&[0x0f, 0x01, 0xef], "wrpkru"),
    (&[0xf3, 0x0f, 0x01, 0xef], "-"), // STUI
    (&[0xf3, 0x0f, 0x01, 0xec], "uiret"),
    (&[0x0f, 0x00, 0xd0], "lldt"),
    (&[0x0f, 0x00, 0x18], "ltr"),
    (&[0x0f, 0x00, 0xc0], "-"), // SLDT
    (&[0x0f, 0x08], "invd"),
    (&[0x0f, 0x09], "wbinvd"),
    (&[0x66, 0x0f, 0x09], "wbinvd"),
    (&[0xf3, 0x0f, 0x09], "wbnoinvd"),
    (&[0x0f, 0xae, 0xe8], "lfence"),
    (&[0x0f, 0xae, 0xef], "lfence"),
    (&[0x0f, 0xae, 0xf0], "mfence"),
    (&[0x0f, 0xae, 0xff], "sfence"),
    (&[0x0f, 0xae, 0x28], "-"),       // XRSTOR
    (&[0x0f, 0xae, 0x38], "-"),       // CLFLUSH
    (&[0x66, 0x0f, 0xae, 0x38], "-"), // CLFLUSHOPT
    (&[0xf3, 0x0f, 0xae, 0xe8], "-"), // INCSSPD
    (&[0xf3, 0x0f, 0xae, 0xc0], "-"), // RDFSBASE
    (&[0xf3, 0x0f, 0xae, 0xd0], "wrfsbase"),
    (&[0xf3, 0x48, 0x0f, 0xae, 0xd8], "wrgsbase"),
    (&[0xf3, 0x0f, 0xae, 0xf0], "-"), // UMONITOR
    (&[0xf2, 0x0f, 0xae, 0xf0], "-"), // UMWAIT
    (&[0x44, 0x0f, 0x22, 0xc0], "mov-cr8"),
    (&[0xf0, 0x0f, 0x22, 0xc0], "mov-cr8"),
    (&[0xf0, 0x0f, 0x20, 0xc0], "mov-from-cr"),
    (&[0xf0, 0x44, 0x0f, 0x22, 0xc0], "-"), // both ways of naming CR8 at once
    (&[0xf0, 0x0f, 0x22, 0xd8], "-"),
    (&[0xf0, 0x0f, 0xa2], "-"),
    (&[0x0f, 0x32], "-"), // RDMSR
    (&[0x66, 0x0f, 0x38, 0x82, 0x08], "invpcid"),
    (&[0x0f, 0x38, 0x82, 0x08], "-"),
    (&[0xf0, 0x0f, 0xb1, 0x0a], "lock-prefixed"),
    (&[0x0f, 0xb1, 0x0a], "-"),
    (&[0x87, 0x0a], "lock-prefixed"),
    (&[0x87, 0xca], "-"),
    (&[0xf0, 0x83, 0x04, 0x24, 0x00], "lock-prefixed"),
    (&[0xf0, 0x83, 0x3c, 0x24, 0x00], "-"), // LOCK CMP
    (&[0xf3, 0x90], "pause"),
    (&[0x90], "-"),
    (&[0xf3, 0xc3], "near-branch"),
    (&[0xcc], "int"),
    (&[0xcd, 0x80], "int"),
    (&[0xf4], "hlt"),
    (&[0x48], "-"), // DEC EAX in 32-bit code
    (&[0x66, 0x48], "-"),
    (&[], "-"),
    (&[0x0f], "-"),
    (&[0x0f, 0x01], "-"),
    (&[0x0f, 0x22], "-"),
    (&[0xf3], "-"),
];

#[test]
fn neighbours_by_hand() {
    for (bytes, name) in BY_HAND {
        let expected = (*name != "-").then(|| Class::Fixed(event(name)));
        assert_eq!(classify(bytes), expected, "{bytes:02x?}: {name}");
    }
}

#[test]
fn iret_takes_its_operand_size_from_prefixes() {
    for (bytes, operand_bytes) in [
        (&[0xcf][..], 4),
        (&[0x66, 0xcf], 2),
        (&[0x48, 0xcf], 8),
        (&[0x66, 0x48, 0xcf], 8),
        (&[0x48, 0x66, 0xcf], 2), // a REX that is not last does not count
        (&[0x47, 0xcf], 4),
        (&[0x48, 0x40, 0xcf], 4),
        (&[0xf3, 0x48, 0xcf], 8),
    ] {
        assert_eq!(classify(bytes), Some(Class::Iret { operand_bytes }), "{bytes:02x?}");
    }
    assert_eq!(classify(&[0xf0, 0xcf]), None);
}

#[test]
fn wrmsr_is_left_to_run_time() {
    assert_eq!(classify(&[0x0f, 0x30]), Some(Class::Wrmsr));
    assert_eq!(classify(&[0x2e, 0x0f, 0x30]), Some(Class::Wrmsr));
    assert_eq!(classify(&[0xf0, 0x0f, 0x30]), None);
}

/// Bytes that look like instructions: prefixes, then opcodes that are often of interest, then anything.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let prefix =
        prop::sample::select(vec![0x26, 0x2e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x40, 0x41, 0x44, 0x48, 0x4f]);
    let opcode = prop_oneof![
        Just(vec![0x0f, 0x01]),
        Just(vec![0x0f, 0x22]),
        Just(vec![0x0f, 0xae]),
        Just(vec![0x0f]),
        Just(vec![0x0f, 0x38]),
        Just(vec![0xff]),
        Just(vec![0xcf]),
        Just(vec![0xc4]),
        Just(vec![]),
    ];
    (prop::collection::vec(prefix, 0..5), opcode, prop::collection::vec(any::<u8>(), 10)).prop_map(
        |(prefixes, opcode, rest)| {
            let mut bytes = [prefixes, opcode, rest].concat();
            bytes.truncate(15);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn plausible_bytes_agree_with_iced(bytes in plausible()) {
        for bits in [16, 32, 64] {
            if let Some(Err(failure)) = compare(&bytes, bits) {
                prop_assert!(false, "{}", failure);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        for end in 0..=bytes.len() {
            let _ = classify(&bytes[..end]);
        }
    }
}
