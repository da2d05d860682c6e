//! What the plugin notes of a store on AArch64 is what memory holds after it: plain stores, exclusive ones that succeed
//! and that fail, compare-and-exchange, and the atomic operations, of which QEMU tells the operand.

use crate::lab::{Lab, Qemu};
use crate::machine::{Machine, SOON};
use icsan_model::event::{Event, Store};
use icsan_recording::{Reader, Record};
use std::fs::File;
use std::io::BufReader;

/// Where the guest is loaded and begins.
const ORIGIN: u64 = 0x4010_0000;
/// Where a RET makes the page that is stored to one with code.
const SITE: usize = 0x1000;
/// Where it stores to.
const DATA: u64 = ORIGIN + 0x1800;

/// Each group of stores has 32 bytes of its own, at X1, which are set first. In the end the guest shows all of them.
#[rustfmt::skip]
const CODE: &[u32] = &[
    0xd283_0001, // mov x1, #0x1800
    0xf2a8_0201, // movk x1, #0x4010, lsl #16
    0xb200_e3e9, // mov x9, #0x1111111111111111
    0xd286_406a, // mov x10, #0x3203
    0xf2a6_464a, // movk x10, #0x3232, lsl #16
    0xf2c6_464a, // movk x10, #0x3232, lsl #32
    0xf2e6_464a, // movk x10, #0x3232, lsl #48
    0xd280_020b, // mov x11, #0x10
    0xd280_1fcc, // mov x12, #0xfe
    0xd2a0_0600, // mov x0, #0x300000
    0xd518_1040, // msr cpacr_el1, x0
    0xd503_3fdf, // isb
    0x9e67_0140, // fmov d0, x10
    0x9400_03f3, // bl .+4044
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb900_002a, // str w10, [x1]
    0x3900_242a, // strb w10, [x1, #9]
    0x7900_0c2a, // strh w10, [x1, #6]
    0x2900_a82a, // stp w10, w10, [x1, #4]
    0xa900_242a, // stp x10, x9, [x1]
    0x2800_2829, // stnp w9, w10, [x1]
    0xf82b_682a, // str x10, [x1, x11]
    0xf800_842a, // str x10, [x1], #8
    0xb81f_8c2a, // str w10, [x1, #-8]!
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb800_c02a, // stur w10, [x1, #12]
    0xb800_082a, // sttr w10, [x1]
    0xc89f_fc2a, // stlr x10, [x1]
    0x089f_fc2a, // stlrb w10, [x1]
    0x9900_402a, // stlur w10, [x1, #4]
    0xfd00_0020, // str d0, [x1]
    0x3d80_0020, // str q0, [x1]
    0xad00_0020, // stp q0, q0, [x1]
    0x0c00_7020, // st1 {v0.8b}, [x1]
    0x0d20_2020, // st4 {v0.b-v3.b}[0], [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0x885f_7c23, // ldxr w3, [x1]
    0x8802_7c2a, // stxr w2, w10, [x1]
    0x8802_7c29, // stxr w2, w9, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xc85f_7c23, // ldxr x3, [x1]
    0xb900_002a, // str w10, [x1]
    0xc802_fc29, // stlxr w2, x9, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xc87f_9023, // ldaxp x3, x4, [x1]
    0xc822_282a, // stxp w2, x10, x10, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0x887f_1023, // ldxp w3, w4, [x1]
    0x8822_a42a, // stlxp w2, w10, w9, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0x085f_7c23, // ldxrb w3, [x1]
    0x0802_7c2a, // stxrb w2, w10, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xd280_0003, // mov x3, #0x0
    0xc8a3_7c2a, // cas x3, x10, [x1]
    0xaa09_03e3, // mov x3, x9
    0xc8e3_fc2a, // casal x3, x10, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0x08a9_7c2a, // casb w9, w10, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xd280_0004, // mov x4, #0x0
    0xd280_0005, // mov x5, #0x0
    0xaa0a_03e6, // mov x6, x10
    0xaa0a_03e7, // mov x7, x10
    0x4824_7c26, // casp x4, x5, x6, x7, [x1]
    0x4824_7c26, // casp x4, x5, x6, x7, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0x0824_7c26, // casp w4, w5, w6, w7, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xf82a_8023, // swp x10, x3, [x1]
    0x3829_8023, // swpb w9, w3, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb82a_0023, // ldadd w10, w3, [x1]
    0xf82a_003f, // stadd x10, [x1]
    0x38e9_0023, // ldaddalb w9, w3, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb82b_1023, // ldclr w11, w3, [x1]
    0x782b_103f, // stclrh w11, [x1]
    0xf8ea_1023, // ldclral x10, x3, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xf82a_2023, // ldeor x10, x3, [x1]
    0x3829_203f, // steorb w9, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb82a_3023, // ldset w10, w3, [x1]
    0x782a_303f, // stseth w10, [x1]
    0x9100_8021, // add x1, x1, #0x20
    0xa900_2429, // stp x9, x9, [x1]
    0xa901_2429, // stp x9, x9, [x1, #16]
    0xb82a_4023, // ldsmax w10, w3, [x1]
    0xb829_5023, // ldsmin w9, w3, [x1]
    0x382a_5023, // ldsminb w10, w3, [x1]
    0x382c_6023, // ldumaxb w12, w3, [x1]
    0x382a_4023, // ldsmaxb w10, w3, [x1]
    0xf829_7023, // ldumin x9, x3, [x1]
    0xf86a_603f, // stumaxl x10, [x1]
    0xd283_0002, // mov x2, #0x1800
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0x9100_8021, // add x1, x1, #0x20
    0xd2a1_2003, // mov x3, #0x9000000
    0xf840_8444, // ldr x4, [x2], #8
    0xd280_0805, // mov x5, #0x40
    0xd100_10a5, // sub x5, x5, #0x4
    0x9ac5_2486, // lsr x6, x4, x5
    0x9240_0cc6, // and x6, x6, #0xf
    0xf100_28df, // cmp x6, #0xa
    0x9100_c0c7, // add x7, x6, #0x30
    0x9101_5cc6, // add x6, x6, #0x57
    0x9a86_30e6, // csel x6, x7, x6, cc
    0x3900_0066, // strb w6, [x3]
    0xb5ff_ff05, // cbnz x5, .-32
    0x5280_0146, // mov w6, #0xa
    0x3900_0066, // strb w6, [x3]
    0xeb01_005f, // cmp x2, x1
    0x54ff_fe41, // b.ne .-56
    0x5280_0100, // mov w0, #0x8
    0x72b0_8000, // movk w0, #0x8400, lsl #16
    0xd400_0002, // hvc #0x0
    0x1400_0000, // b .+0
];

/// What the guest reads, and what was noted, byte for byte: the value, and whether a change of it was noted that nobody
/// was seen to make.
fn boot(lab: &Lab, qemu: &Qemu, vcpus: &str) -> (Vec<u8>, Vec<(u8, bool)>) {
    let mut words = CODE.to_vec();
    words.resize(SITE / 4, 0);
    words.push(0xd65f_03c0);
    let machine = Machine::virt(lab, qemu, "max,pauth-impdef=on").arguments(&["-smp", vcpus]).report();
    let mut guest = machine.keys("check=stores,record=recording").words(&words, ORIGIN, ORIGIN).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    let report = guest.report();
    let summary = report.summary();
    assert_eq!((&summary["checked"]["untrue"], &summary["complete"]), (&0.into(), &true.into()), "{}", guest.outputs());
    let numbers = guest.serial();
    let memory: Vec<u8> =
        numbers.lines().flat_map(|line| u64::from_str_radix(line, 16).unwrap().to_le_bytes()).collect();
    let mut noted = vec![(0, false); memory.len()];
    for record in Reader::new(BufReader::new(File::open(guest.file("recording")).unwrap())).unwrap() {
        let (phys, bytes, seen) = match record.unwrap() {
            Record::Event(Event::Store(Store { phys, bytes, pc, .. })) => (phys, bytes, pc.is_some()),
            Record::Event(Event::Contents { phys, bytes }) => (phys, bytes, true),
            _ => continue,
        };
        for (at, byte) in (phys.0..).zip(bytes) {
            if let Some((value, unseen)) = at.checked_sub(DATA).and_then(|at| noted.get_mut(at as usize)) {
                *unseen |= !seen && *value != byte;
                *value = byte;
            }
        }
    }
    (memory, noted)
}

#[test]
fn what_is_noted_is_what_memory_holds() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        // With one vCPU QEMU carries out an atomic operation as a load and a store, of which it tells the truth.
        for vcpus in ["1", "2"] {
            let (memory, noted) = boot(&lab, qemu, vcpus);
            assert!(memory.len() > 500 && memory.iter().any(|byte| *byte != 0), "{memory:02x?}");
            let wrong: Vec<_> = (0..memory.len()).filter(|at| noted[*at] != (memory[*at], false)).collect();
            assert!(wrong.is_empty(), "QEMU {}, {vcpus} vCPUs: {wrong:?}\n{memory:02x?}\n{noted:02x?}", qemu.version);
        }
    }
}
