//! The tests of x86-64.
//!
//! `B8 imm32` is `mov eax, imm32`, `C3` is `ret`. A chunk has 16 bytes, a cache line 64.

use super::Action::{Execute, Serialize, Store};
use super::View::{Alias, Own};
use super::{Litmus, PAGE, Step};

/// What stands wherever a test puts nothing: INT3, so that a call that goes astray ends, and says where.
pub const FILL: u8 = 0xcc;

/// A step of CPU 0.
const fn zero(action: super::Action) -> Step {
    Step { cpu: 0, action }
}

/// A step of CPU 1.
const fn one(action: super::Action) -> Step {
    Step { cpu: 1, action }
}

const MOV_RET: &[u8] = &[0xb8, 1, 0, 0, 0, 0xc3];
const MOV_ONES_RET: &[u8] = &[0xb8, 1, 1, 1, 1, 0xc3];
const TWOS: &[u8] = &[2, 2, 2, 2];
const THREES: &[u8] = &[3, 3, 3, 3];
const TWOS_8: &[u8] = &[2; 8];

/// `xor eax, eax`, five bytes that change, `adc eax, 16`, `ret`. The five are STC, CMC, STC, NOP, NOP.
const FIVE_BY_ONE: &[u8] = &[0x31, 0xc0, 0xf9, 0xf5, 0xf9, 0x90, 0x90, 0x83, 0xd0, 0x10, 0xc3];
/// The five are one MOV, whose last four bytes are CMC, CLC, CMC, STC by themselves.
const ONE_BY_FIVE: &[u8] = &[0x31, 0xc0, 0xb8, 0xf5, 0xf8, 0xf5, 0xf9, 0x83, 0xd0, 0x10, 0xc3];

/// `mov [rip + d], esi` and what it changes behind it: the immediate of `mov eax, imm32`.
const STORE_AHEAD: &[u8] = &[0x89, 0x35, 1, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xc3];
/// The same with a jump over a NOP in between.
const STORE_JUMP: &[u8] = &[0x89, 0x35, 4, 0, 0, 0, 0xeb, 1, 0x90, 0xb8, 1, 0, 0, 0, 0xc3];
/// `mov [rdi + d], esi`: through the alias.
const STORE_AHEAD_ALIAS: &[u8] = &[0x89, 0xb7, 7, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xc3];
const STORE_JUMP_ALIAS: &[u8] = &[0x89, 0xb7, 10, 0, 0, 0, 0xeb, 1, 0x90, 0xb8, 1, 0, 0, 0, 0xc3];

/// All tests.
pub const TABLE: &[Litmus] = &[
    Litmus {
        name: "alias-one",
        what: "one store through the alias into own code",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[zero(Execute(0, 0)), zero(Store(1, &[2], Alias)), zero(Execute(0, 0))],
    },
    Litmus {
        name: "alias-two",
        what: "two stores through the alias; a CPU may go back to the older one",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(1, &[2], Alias)),
            zero(Execute(0, 0)),
            zero(Store(1, &[3], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    Litmus {
        name: "alias-cpuid",
        what: "CPUID behind the store",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[zero(Execute(0, 0)), zero(Store(1, &[2], Alias)), zero(Serialize), zero(Execute(0, 0))],
    },
    Litmus {
        name: "torn-chunks",
        what: "an immediate that straddles two chunks, one store: each chunk by itself",
        pages: 1,
        code: &[(0, &[0x90; 13]), (13, MOV_ONES_RET)],
        steps: &[zero(Execute(0, 0)), zero(Store(14, TWOS, Alias)), zero(Execute(0, 0))],
    },
    Litmus {
        name: "torn-twice",
        what: "the same with two stores: nine mixes",
        pages: 1,
        code: &[(8, &[0x90; 5]), (13, MOV_ONES_RET)],
        steps: &[
            zero(Execute(8, 0)),
            zero(Store(14, TWOS, Alias)),
            zero(Store(14, THREES, Alias)),
            zero(Execute(8, 0)),
        ],
    },
    Litmus {
        name: "torn-pages",
        what: "an immediate that straddles two pages; one access, two stores",
        pages: 2,
        code: &[(PAGE - 3, MOV_ONES_RET)],
        steps: &[
            zero(Execute(PAGE as u16 - 3, 0)),
            zero(Store(PAGE as u16 - 2, TWOS, Alias)),
            zero(Execute(PAGE as u16 - 3, 0)),
        ],
    },
    Litmus {
        name: "imm64",
        what: "an immediate of 8 bytes that is a chunk's second half",
        pages: 1,
        code: &[(6, &[0x48, 0xb8, 1, 1, 1, 1, 1, 1, 1, 1, 0xc3])],
        steps: &[zero(Execute(6, 0)), zero(Store(8, TWOS_8, Alias)), zero(Execute(6, 0))],
    },
    Litmus {
        name: "imm64-line",
        what: "an immediate of 8 bytes that straddles two cache lines; one access, two stores",
        pages: 1,
        code: &[(59, &[0x48, 0xb8, 1, 1, 1, 1, 1, 1, 1, 1, 0xc3])],
        steps: &[zero(Execute(59, 0)), zero(Store(61, TWOS_8, Alias)), zero(Execute(59, 0))],
    },
    Litmus {
        name: "jump",
        what: "NOP5 becomes JMP5 by one aligned store",
        pages: 1,
        code: &[(0, &[0x0f, 0x1f, 0x44, 0, 0]), (5, MOV_RET), (0x105, &[0xb8, 2, 0, 0, 0, 0xc3])],
        steps: &[zero(Execute(0, 0)), zero(Store(0, &[0xe9, 0, 1, 0, 0, 0xb8, 1, 0], Alias)), zero(Execute(0, 0))],
    },
    Litmus {
        name: "jump-back",
        what: "JMP5 becomes NOP5, and comes back",
        pages: 1,
        code: &[(0, &[0xe9, 0, 1, 0, 0]), (5, MOV_RET), (0x105, &[0xb8, 2, 0, 0, 0, 0xc3])],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(0, &[0x0f, 0x1f, 0x44, 0, 0, 0xb8, 1, 0], Alias)),
            zero(Execute(0, 0)),
            zero(Store(0, &[0xe9, 0, 1, 0, 0, 0xb8, 1, 0], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    // The NOP falls into two ADDs of two bytes. With the JMP's tail it swallows the first, and the JMP with the NOP's
    // tail goes to 0x4433.
    Litmus {
        name: "jump-split",
        what: "NOP5 becomes JMP5 over the edge of two chunks: both mixes are instructions, one of them longer",
        pages: 5,
        code: &[
            (12, &[0x31, 0xc0, 0x0f, 0x1f, 0x44, 0, 0, 0x04, 0x40, 0x04, 0x01, 0xc3]),
            (0x533, &[0xb8, 2, 0, 0, 0, 0xc3]),
            (0x4433, &[0xb8, 3, 0, 0, 0, 0xc3]),
        ],
        steps: &[
            zero(Execute(12, 0)),
            zero(Store(14, &[0xe9, 0x20, 5, 0, 0, 0x04, 0x40, 0x04], Alias)),
            zero(Execute(12, 0)),
        ],
    },
    Litmus {
        name: "boundary",
        what: "five instructions become one: who runs an old one goes on in the middle of the new one",
        pages: 1,
        code: &[(0, FIVE_BY_ONE)],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(3, &[0xf5, 0xf8, 0xf5, 0xf9], Alias)),
            zero(Store(2, &[0xb8], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    Litmus {
        name: "boundary-split",
        what: "the same over the edge of two chunks: the new first byte with the old tail",
        pages: 1,
        code: &[(13, FIVE_BY_ONE)],
        steps: &[
            zero(Execute(13, 0)),
            zero(Store(16, &[0xf5, 0xf8, 0xf5, 0xf9], Alias)),
            zero(Store(15, &[0xb8], Alias)),
            zero(Execute(13, 0)),
        ],
    },
    Litmus {
        name: "boundary-back",
        what: "one instruction becomes five: an old one is longer than memory's",
        pages: 1,
        code: &[(13, ONE_BY_FIVE)],
        steps: &[
            zero(Execute(13, 0)),
            zero(Store(15, &[0xf9], Alias)),
            zero(Store(16, &[0xf5, 0xf9, 0x90, 0x90], Alias)),
            zero(Execute(13, 0)),
        ],
    },
    Litmus {
        name: "neighbour",
        what: "the code was never run, but its chunk was brought in by a neighbour",
        pages: 1,
        code: &[(0, &[0xb8, 7, 0, 0, 0, 0xc3]), (8, MOV_RET)],
        steps: &[zero(Execute(0, 0)), zero(Store(9, &[2], Alias)), zero(Execute(8, 0))],
    },
    Litmus {
        name: "stranger",
        what: "the code was never run, and stands in another chunk than what was",
        pages: 1,
        code: &[(0, &[0xb8, 7, 0, 0, 0, 0xc3]), (16, MOV_RET)],
        steps: &[zero(Execute(0, 0)), zero(Store(17, &[2], Alias)), zero(Execute(16, 0))],
    },
    Litmus {
        name: "int3",
        what: "INT3 over the first byte, the tail, the first byte; the trap serializes",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(0, &[0xcc], Alias)),
            zero(Execute(0, 0)),
            zero(Store(1, &[2], Alias)),
            zero(Execute(0, 0)),
            zero(Store(0, &[0xb8], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    Litmus {
        name: "ud",
        what: "a NOP becomes UD2, and comes back",
        pages: 1,
        code: &[(0, &[0x66, 0x90]), (2, MOV_RET)],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(0, &[0x0f, 0x0b], Alias)),
            zero(Execute(0, 0)),
            zero(Store(0, &[0x66, 0x90], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    Litmus {
        name: "call",
        what: "a CALL gets another target",
        pages: 1,
        code: &[
            (0, &[0xe8, 0x3b, 0, 0, 0, 0x83, 0xc0, 0x10, 0xc3]),
            (0x40, MOV_RET),
            (0x80, &[0xb8, 2, 0, 0, 0, 0xc3]),
        ],
        steps: &[zero(Execute(0, 0)), zero(Store(1, &[0x7b], Alias)), zero(Execute(0, 0))],
    },
    Litmus {
        name: "ret",
        what: "a RET becomes a NOP, and comes back",
        pages: 1,
        code: &[(0, MOV_RET), (6, &[0x83, 0xc0, 0x10, 0xc3])],
        steps: &[
            zero(Execute(0, 0)),
            zero(Store(5, &[0x90], Alias)),
            zero(Execute(0, 0)),
            zero(Store(5, &[0xc3], Alias)),
            zero(Execute(0, 0)),
        ],
    },
    // cmp esi, 5; je +5; mov eax, 4; adc eax, 16; ret
    Litmus {
        name: "compare",
        what: "a CMP and the Jcc behind it change: each is old or new by itself",
        pages: 1,
        code: &[(0, &[0x31, 0xc0, 0x83, 0xfe, 5, 0x74, 5, 0xb8, 4, 0, 0, 0, 0x83, 0xd0, 0x10, 0xc3])],
        steps: &[zero(Execute(0, 5)), zero(Store(4, &[6], Alias)), zero(Store(5, &[0x75], Alias)), zero(Execute(0, 5))],
    },
    // cmp esi, 5; je +5; mov eax, 4; adc eax, 16; ret. With 4 the JE is never taken, so it may be old or new.
    Litmus {
        name: "flags",
        what: "a Jcc that is not taken becomes a NOP: an old one must read the flags of the CMP in the same block",
        pages: 1,
        code: &[(0, &[0x31, 0xc0, 0x83, 0xfe, 5, 0x74, 5, 0xb8, 4, 0, 0, 0, 0x83, 0xd0, 0x10, 0xc3])],
        steps: &[zero(Execute(0, 4)), zero(Store(5, &[0x66, 0x90], Alias)), zero(Execute(0, 4))],
    },
    // The flags of XOR must outlive a MOV of either age.
    Litmus {
        name: "flags-kept",
        what: "an immediate changes between an XOR and the ADC that reads its carry",
        pages: 1,
        code: &[(13, &[0x31, 0xc0, 0xb8, 1, 0, 0, 0, 0x83, 0xd0, 0x10, 0xc3])],
        steps: &[zero(Execute(13, 0)), zero(Store(16, &[2], Alias)), zero(Execute(13, 0))],
    },
    Litmus {
        name: "own-branch",
        what: "a store through the executing address, and a branch: legal",
        pages: 1,
        code: &[(13, MOV_ONES_RET)],
        steps: &[zero(Execute(13, 0)), zero(Store(14, TWOS, Own)), zero(Execute(13, 0))],
    },
    Litmus {
        name: "own-straight",
        what: "code stores into the instruction ahead, without a branch",
        pages: 1,
        code: &[(0, STORE_AHEAD)],
        steps: &[zero(Execute(0, 2)), zero(Execute(0, 3))],
    },
    Litmus {
        name: "own-jump",
        what: "code stores into an instruction ahead, and jumps: legal",
        pages: 1,
        code: &[(0, STORE_JUMP)],
        steps: &[zero(Execute(0, 2)), zero(Execute(0, 3))],
    },
    Litmus {
        name: "own-alias-straight",
        what: "code stores into the instruction ahead through the alias",
        pages: 1,
        code: &[(0, STORE_AHEAD_ALIAS)],
        steps: &[zero(Execute(0, 2)), zero(Execute(0, 3))],
    },
    Litmus {
        name: "own-alias-jump",
        what: "the same with a jump, which does not help",
        pages: 1,
        code: &[(0, STORE_JUMP_ALIAS)],
        steps: &[zero(Execute(0, 2)), zero(Execute(0, 3))],
    },
    // At 0 `mov dword [rdi + 0x41], 5`: what it stores is the immediate at 0x41.
    Litmus {
        name: "store-by-old",
        what: "the instruction that changes is itself a store to code: an old one stores the old value",
        pages: 1,
        code: &[(0, &[0xc7, 0x87, 0x41, 0, 0, 0, 5, 0, 0, 0, 0x31, 0xc0, 0xc3]), (0x40, MOV_RET)],
        steps: &[
            zero(Execute(0x40, 0)),
            zero(Execute(0, 0)),
            zero(Store(6, &[6], Alias)),
            zero(Store(0x41, &[1], Alias)),
            zero(Execute(0, 0)),
            zero(Execute(0x40, 0)),
        ],
    },
    Litmus {
        name: "cross",
        what: "another CPU stores",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[one(Execute(0, 0)), zero(Store(1, &[2], Own)), one(Execute(0, 0))],
    },
    Litmus {
        name: "cross-cpuid",
        what: "another CPU stores, and the executor serializes",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[one(Execute(0, 0)), zero(Store(1, &[2], Own)), one(Serialize), one(Execute(0, 0))],
    },
    Litmus {
        name: "cross-wrong-cpuid",
        what: "another CPU stores and serializes, which does not help the executor",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[one(Execute(0, 0)), zero(Store(1, &[2], Alias)), zero(Serialize), one(Execute(0, 0))],
    },
    Litmus {
        name: "cross-torn",
        what: "another CPU stores over the edge of two chunks",
        pages: 1,
        code: &[(13, MOV_ONES_RET)],
        steps: &[one(Execute(13, 0)), zero(Store(14, TWOS, Alias)), one(Execute(13, 0))],
    },
    Litmus {
        name: "cross-own",
        what: "two CPUs run what one of them stores to: its own branch helps that one only",
        pages: 1,
        code: &[(0, MOV_RET)],
        steps: &[
            zero(Execute(0, 0)),
            one(Execute(0, 0)),
            zero(Store(1, &[2], Own)),
            zero(Execute(0, 0)),
            one(Execute(0, 0)),
        ],
    },
    Litmus {
        name: "cross-poke",
        what: "text_poke's order with its two syncs in between, over the edge of two chunks; the last one is left out",
        pages: 1,
        code: &[(15, MOV_ONES_RET)],
        steps: &[
            one(Execute(15, 0)),
            zero(Store(15, &[0xcc], Alias)),
            one(Serialize),
            zero(Store(16, TWOS, Alias)),
            one(Execute(15, 0)),
            one(Serialize),
            zero(Store(15, &[0xb8], Alias)),
            one(Execute(15, 0)),
        ],
    },
    Litmus {
        name: "cross-poke-bare",
        what: "the same without any sync: torn",
        pages: 1,
        code: &[(15, MOV_ONES_RET)],
        steps: &[
            one(Execute(15, 0)),
            zero(Store(15, &[0xcc], Alias)),
            zero(Store(16, TWOS, Alias)),
            zero(Store(15, &[0xb8], Alias)),
            one(Execute(15, 0)),
        ],
    },
];
