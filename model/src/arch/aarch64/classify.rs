//! What an instruction does, from its word: the event that it is, and the maintenance, barrier or unseen store.
//!
//! The encodings are data ([`ENCODINGS`]); the values were assembled. Which address an IC or a DC means is in a
//! register at run time, and whether it counts, too: at EL0 it may trap, and then it did nothing.
//!
//! What has no row does nothing here: DC IVAC (it throws data away), maintenance by set and way (architecture and Linux
//! do without it), prefetch hints, SSBB and PSSBB (which look like a DSB).

use super::events as e;
use crate::addr::Phys;
use crate::arch::maintenance::{Accesses, Domain, Maintenance};
use crate::arch::sync_event::SyncEventId;

/// A maintenance instruction, before its address is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// DC to the point of unification or further: [`crate::arch::maintenance::Maintenance::Clean`].
    Clean,
    /// IC IVAU.
    Invalidate,
    /// IC IALLUIS.
    InvalidateAll,
    /// IC IALLU. (HCR_EL2.FB can make it IALLUIS: a hypervisor's choice that is not looked at.)
    InvalidateOwn,
}

impl Operation {
    /// It, once its address was found: where that is in memory.
    #[must_use]
    pub const fn of(self, phys: Phys) -> Maintenance {
        match self {
            Self::Clean => Maintenance::Clean(phys),
            Self::Invalidate => Maintenance::Invalidate(phys),
            Self::InvalidateAll => Maintenance::InvalidateAll,
            Self::InvalidateOwn => Maintenance::InvalidateOwn,
        }
    }
}

/// A store that an emulator's memory callbacks may not tell of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnseenStore {
    /// DC ZVA, DC GZVA, STZGM: the block that the register's address lies in, as large as DCZID_EL0 (or GMID_EL1) says,
    /// becomes 0.
    ZeroBlock,
    /// STZG, STZ2G: 16 or 32 bytes become 0.
    ZeroGranule,
    /// CPY*, SET*: as many bytes as registers say, in one instruction or several.
    CopyOrSet,
}

/// What an instruction does to more than the data that it loads and stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Maintenance, of the address in register `rt` where it has one (31: none, or address 0).
    Maintain {
        /// Which.
        operation: Operation,
        /// The register's number.
        rt: u8,
    },
    /// A DSB.
    Barrier {
        /// How far it reaches.
        domain: Domain,
        /// What it waits for.
        accesses: Accesses,
    },
    /// It stores, and nobody is told.
    Unseen(UnseenStore),
}

/// What an instruction is. Nothing, for most.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Class {
    /// The row of the event table; whether it synchronizes is the profile's choice.
    pub event: Option<SyncEventId>,
    /// What it does besides.
    pub effect: Option<Effect>,
}

/// What an encoding stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    /// An event and no effect.
    Event(SyncEventId),
    /// Maintenance and no event.
    Operation(Operation),
    /// IC: both.
    Ic(Operation),
    /// A DSB; its CRm field says which.
    Dsb,
    /// A DSB nXS; bits 3 and 2 of its CRm field are the domain.
    DsbNxs,
    /// A store.
    Unseen(UnseenStore),
}

/// One encoding: a word is one if its bits under the mask are these.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// Which bits decide.
    pub mask: u32,
    /// What they are.
    pub value: u32,
    /// What it is then.
    pub gives: Gives,
}

const fn row(value: u32, mask: u32, gives: Gives) -> Encoding {
    Encoding { mask, value, gives }
}

const ALL: u32 = u32::MAX;
/// All but Rt.
const RT: u32 = 0xffff_ffe0;
/// All but CRm.
const CRM: u32 = 0xffff_f0ff;
/// All but a 16-bit immediate.
const IMM16: u32 = 0xffe0_001f;
/// All but Rn.
const RN: u32 = 0xffff_fc1f;
/// All but Rn and Rt.
const RN_RT: u32 = 0xffff_fc00;

/// The encodings. No word is two of them.
pub const ENCODINGS: &[Encoding] = &[
    row(0xd503_30df, CRM, Gives::Event(e::ISB)),
    row(0xd503_309f, CRM, Gives::Dsb),
    row(0xd503_323f, 0xffff_f3ff, Gives::DsbNxs),
    row(0xd503_30bf, CRM, Gives::Event(e::DMB)),
    row(0xd503_30ff, ALL, Gives::Event(e::SB)),
    row(0xd503_205f, ALL, Gives::Event(e::WFE)),
    row(0xd503_207f, ALL, Gives::Event(e::WFI)),
    // ERET, ERETAA, ERETAB.
    row(0xd69f_03e0, ALL, Gives::Event(e::EXCEPTION_RETURN)),
    row(0xd69f_0bff, ALL, Gives::Event(e::EXCEPTION_RETURN)),
    row(0xd69f_0fff, ALL, Gives::Event(e::EXCEPTION_RETURN)),
    row(0xd400_0002, IMM16, Gives::Event(e::HVC)),
    row(0xd400_0003, IMM16, Gives::Event(e::SMC)),
    // IC IALLUIS, IALLU, IVAU.
    row(0xd508_7100, RT, Gives::Ic(Operation::InvalidateAll)),
    row(0xd508_7500, RT, Gives::Ic(Operation::InvalidateOwn)),
    row(0xd50b_7520, RT, Gives::Ic(Operation::Invalidate)),
    // DC CVAU, CVAC, CIVAC, CVAP, CVADP.
    row(0xd50b_7b20, RT, Gives::Operation(Operation::Clean)),
    row(0xd50b_7a20, RT, Gives::Operation(Operation::Clean)),
    row(0xd50b_7e20, RT, Gives::Operation(Operation::Clean)),
    row(0xd50b_7c20, RT, Gives::Operation(Operation::Clean)),
    row(0xd50b_7d20, RT, Gives::Operation(Operation::Clean)),
    // DC ZVA, GZVA.
    row(0xd50b_7420, RT, Gives::Unseen(UnseenStore::ZeroBlock)),
    row(0xd50b_7480, RT, Gives::Unseen(UnseenStore::ZeroBlock)),
    // STZGM.
    row(0xd920_0000, RN_RT, Gives::Unseen(UnseenStore::ZeroBlock)),
    // STZG and STZ2G: after, at and before an offset.
    row(0xd960_0400, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    row(0xd960_0800, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    row(0xd960_0c00, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    row(0xd9e0_0400, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    row(0xd9e0_0800, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    row(0xd9e0_0c00, 0xffe0_0c00, Gives::Unseen(UnseenStore::ZeroGranule)),
    // CPY*, SET*.
    row(0x1900_0400, 0xfb20_0c00, Gives::Unseen(UnseenStore::CopyOrSet)),
    row(0xd518_2000, RT, Gives::Event(e::MSR_TTBR)),
    row(0xd518_2020, RT, Gives::Event(e::MSR_TTBR)),
    row(0xd51c_2000, RT, Gives::Event(e::MSR_TTBR)),
    row(0xd518_1000, RT, Gives::Event(e::MSR_SCTLR)),
    row(0xd51c_1000, RT, Gives::Event(e::MSR_SCTLR)),
    row(0xd518_c000, RT, Gives::Event(e::MSR_VBAR)),
    row(0xd51c_c000, RT, Gives::Event(e::MSR_VBAR)),
    row(0xd518_2040, RT, Gives::Event(e::MSR_TCR)),
    row(0xd518_d020, RT, Gives::Event(e::MSR_CONTEXTIDR)),
    row(0xd508_8000, 0xfff8_f000, Gives::Event(e::TLBI)),
    row(0xd508_9000, 0xfff8_f000, Gives::Event(e::TLBI)),
    row(0xd61f_0000, RN, Gives::Event(e::BR)),
    row(0xd63f_0000, RN, Gives::Event(e::BR)),
    row(0xd65f_0000, RN, Gives::Event(e::BR)),
];

/// The domain of bits 3 and 2 of CRm.
fn domain(crm: u32) -> Domain {
    [Domain::Outer, Domain::Own, Domain::Inner, Domain::System][(crm >> 2 & 3) as usize]
}

/// What is this instruction?
#[must_use]
pub fn classify(word: u32) -> Class {
    let Some(encoding) = ENCODINGS.iter().find(|row| word & row.mask == row.value) else { return Class::default() };
    let (rt, crm) = ((word & 0x1f) as u8, word >> 8 & 0xf);
    let maintain = |operation| Some(Effect::Maintain { operation, rt });
    match encoding.gives {
        Gives::Event(event) => Class { event: Some(event), effect: None },
        Gives::Operation(operation) => Class { event: None, effect: maintain(operation) },
        Gives::Ic(operation) => Class { event: Some(e::IC), effect: maintain(operation) },
        Gives::Dsb => {
            let accesses = match crm & 3 {
                // SSBB and PSSBB, and what is reserved beside them, which is DSB SY.
                0 if matches!(crm, 0 | 4) => return Class::default(),
                0 => return dsb(Domain::System, Accesses::All),
                1 => Accesses::Loads,
                2 => Accesses::Stores,
                _ => Accesses::All,
            };
            dsb(domain(crm), accesses)
        }
        Gives::DsbNxs => dsb(domain(crm), Accesses::All),
        Gives::Unseen(store) => Class { event: None, effect: Some(Effect::Unseen(store)) },
    }
}

fn dsb(domain: Domain, accesses: Accesses) -> Class {
    Class { event: Some(e::DSB), effect: Some(Effect::Barrier { domain, accesses }) }
}
