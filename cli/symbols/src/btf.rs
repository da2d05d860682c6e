//! Where the members of the kernel's structures are: from BTF, the type information that a kernel
//! carries with `CONFIG_DEBUG_INFO_BTF=y` (as distributions' kernels do), in its section `.BTF`.
//!
//! Only a few offsets are taken out of it, as a [`KernelLayout`]; the types themselves, some
//! megabytes, are not kept. The format is Linux's `Documentation/bpf/btf.rst`:
//!
//! | part | contents |
//! | --- | --- |
//! | header | magic `0xeb9f`, version 1, its own length, and where the other parts are; offsets count from its end |
//! | types | each 12 bytes (name, `info`: kind and count, size or type) and what its kind adds. Numbered from 1 in this order |
//! | strings | zero-terminated; the first is empty |
//! | layouts | newer kernels (7.3's `btf.h` has it, Debian's 7.3 leaves it out): the sizes of each kind, so that unknown kinds can be skipped |
//!
//! Until 6.12 a count has 16 bits and a kind 5; in 7.3 they have 24 and 7, and the bits between were always zero
//! before.
//!
//! # Which way it errs
//! A layout is given only if every required member is there, has the kind of type that it has in
//! every kernel (an array of bytes, an `int`, a pointer), is no bitfield and lies inside of its
//! structure. A member may stand in an anonymous structure or union, as those that
//! `CONFIG_RANDSTRUCT` moves do.

/// Byte offsets of members, and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelLayout {
    /// The size of `struct task_struct`.
    pub task_size: u32,
    /// `task_struct.comm`, the task's name: zero-terminated, or cut off.
    pub task_comm: u32,
    /// How many bytes `comm` has: 16 in every kernel so far.
    pub task_comm_len: u32,
    /// `task_struct.pid`, an `int`: what user space calls a thread id.
    pub task_pid: u32,
    /// `task_struct.tgid`, an `int`: what user space calls a process id.
    pub task_tgid: u32,
    /// `task_struct.mm`, a pointer: the address space; null for a kernel thread.
    pub task_mm: u32,
    /// `task_struct.stack`, a pointer: the lowest address of the kernel stack.
    pub task_stack: u32,
    /// `task_struct.active_mm`, a pointer: the address space that a kernel thread borrows.
    pub task_active_mm: Option<u32>,
    /// `mm_struct.pgd`, a pointer: its page tables, at their address in the kernel's direct map.
    pub mm_pgd: Option<u32>,
    /// `pcpu_hot.current_task`: where the per-CPU structure of 6.2 to 6.14 keeps the running task.
    /// Other kernels have a per-CPU variable `current_task`.
    pub pcpu_hot_current_task: Option<u32>,
}

/// The largest BTF that is looked at. Debian's have four to five megabytes.
pub const MAX_BTF: usize = 64 << 20;
/// The most types in one BTF. The kernel's own limit is 2^20.
const MAX_TYPES: usize = 1 << 21;
/// The most members of structures that are looked at for one layout.
const MAX_MEMBERS: u32 = 1 << 20;
/// How deep anonymous structures may be nested.
const MAX_DEPTH: u32 = 16;
/// How many `typedef`, `const` and the like may follow each other.
const MAX_MODIFIERS: usize = 32;
/// How many places that have the magic number are read as a whole.
const MAX_TRIES: usize = 16;
/// The largest header.
const MAX_HEADER: usize = 1024;

/// The magic number, little-endian, and version 1.
const MAGIC: [u8; 3] = [0x9f, 0xeb, 1];
/// The header of version 1 up to the strings.
const HEADER: usize = 24;
/// What every type has.
const TYPE: usize = 12;
const MEMBER: usize = 12;
const POINTER_SIZE: u32 = 8;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const TYPE_TAG: u32 = 18;
}

impl KernelLayout {
    /// Reads a BTF that starts with the first byte; more may follow behind it.
    #[must_use]
    pub fn parse(btf: &[u8]) -> Option<KernelLayout> {
        let mut types = Types::read(btf.get(..btf.len().min(MAX_BTF))?)?;
        types.layout()
    }

    /// Finds the BTF in an unpacked kernel by its magic number.
    #[must_use]
    pub fn search(image: &[u8]) -> Option<KernelLayout> {
        let mut rest = image;
        let candidates = std::iter::from_fn(|| {
            let at = rest.iter().position(|&byte| byte == MAGIC[0])?;
            let found = rest.get(at..)?;
            rest = found.get(1..)?;
            Some(found)
        });
        candidates
            .filter(|found| found.starts_with(&MAGIC) && Parts::of(found).is_some())
            .take(MAX_TRIES)
            .find_map(KernelLayout::parse)
    }
}

/// The parts that a header names.
struct Parts<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    layouts: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(btf: &'a [u8]) -> Option<Parts<'a>> {
        let field = |at: usize| Some(u32_at(btf, at)? as usize);
        let header = field(4)?;
        if !btf.starts_with(&MAGIC) || !(HEADER..=MAX_HEADER).contains(&header) {
            return None;
        }
        let body = btf.get(header..)?;
        let part = |at: usize| {
            let start = field(at)?;
            body.get(start..start.checked_add(field(at + 4)?)?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        // The layouts came later, and a header without them is shorter.
        let layouts = if header >= HEADER + 8 { part(HEADER)? } else { &[] };
        let whole = strings.first() == Some(&0)
            && strings.last() == Some(&0)
            && !types.is_empty()
            && types.len().is_multiple_of(4);
        whole.then_some(Parts { types, strings, layouts })
    }

    /// How many bytes a type has behind the first twelve.
    fn extra(&self, info: Info) -> Option<usize> {
        let (once, each) = match info.kind {
            kind::INT | 14 | 17 => (4, 0),                      // INT, VAR, DECL_TAG
            kind::ARRAY => (12, 0),                             // ARRAY
            kind::STRUCT | kind::UNION | 15 | 19 => (0, 12),    // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => (0, 8),                                   // ENUM, FUNC_PROTO
            kind::PTR | 7..=12 | 16 | kind::TYPE_TAG => (0, 0), // PTR, FWD, TYPEDEF to FUNC, FLOAT, TYPE_TAG
            other => {
                let sizes: &[u8; 2] =
                    self.layouts.get(usize::try_from(other).ok()?.checked_mul(4)?..)?.first_chunk()?;
                (usize::from(sizes[0]), usize::from(sizes[1]))
            }
        };
        once.checked_add(info.count.checked_mul(each)?)
    }
}

#[derive(Clone, Copy)]
struct Info {
    kind: u32,
    count: usize,
    flag: bool,
}

impl Info {
    fn of(info: u32) -> Info {
        Info { kind: info >> 24 & 0x7f, count: (info & 0xff_ffff) as usize, flag: info >> 31 != 0 }
    }
}

/// One type's first twelve bytes.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: Info,
    /// A size or a type's number, as the kind wants it.
    size_or_type: u32,
    /// Where what its kind adds starts.
    extra: usize,
}

/// Where a member is, in bits, and its type behind all modifiers.
struct Member {
    bits: u32,
    of: Type,
}

/// All types of a BTF.
struct Types<'a> {
    parts: Parts<'a>,
    /// Where the types start, the one numbered 1 first.
    places: Vec<u32>,
    /// How many more members may be looked at.
    budget: u32,
}

impl<'a> Types<'a> {
    fn read(btf: &'a [u8]) -> Option<Types<'a>> {
        let parts = Parts::of(btf)?;
        let mut places = Vec::new();
        let mut at = 0;
        while at < parts.types.len() {
            let info = Info::of(u32_at(parts.types, at + 4)?);
            let next = at.checked_add(TYPE)?.checked_add(parts.extra(info)?)?;
            if next > parts.types.len() || places.len() >= MAX_TYPES {
                return None;
            }
            places.push(u32::try_from(at).ok()?);
            at = next;
        }
        Some(Types { parts, places, budget: MAX_MEMBERS })
    }

    fn layout(&mut self) -> Option<KernelLayout> {
        let task = self.find_struct(b"task_struct\0", |types, task| {
            let (task_comm, comm) = types.member(task, b"comm\0", kind::ARRAY)?;
            let (task_pid, pid) = types.member(task, b"pid\0", kind::INT)?;
            let (task_tgid, tgid) = types.member(task, b"tgid\0", kind::INT)?;
            let whole = types.element_size(comm)? == 1 && pid.size_or_type == 4 && tgid.size_or_type == 4;
            whole.then_some(KernelLayout {
                task_size: task.size_or_type,
                task_comm,
                task_comm_len: types.size(comm)?,
                task_pid,
                task_tgid,
                task_mm: types.member(task, b"mm\0", kind::PTR)?.0,
                task_stack: types.member(task, b"stack\0", kind::PTR)?.0,
                task_active_mm: types.member(task, b"active_mm\0", kind::PTR).map(|(offset, _)| offset),
                mm_pgd: None,
                pcpu_hot_current_task: None,
            })
        })?;
        let pointer =
            |name: &'static [u8]| move |types: &mut Self, of: Type| Some(types.member(of, name, kind::PTR)?.0);
        Some(KernelLayout {
            mm_pgd: self.find_struct(b"mm_struct\0", pointer(b"pgd\0")),
            pcpu_hot_current_task: self.find_struct(b"pcpu_hot\0", pointer(b"current_task\0")),
            ..task
        })
    }

    /// The first structure of this name that gives an answer. The name ends in a zero.
    fn find_struct<T>(&mut self, name: &[u8], mut ask: impl FnMut(&mut Self, Type) -> Option<T>) -> Option<T> {
        (1..=self.places.len()).find_map(|number| {
            let found = self.number(u32::try_from(number).ok()?)?;
            let named = found.info.kind == kind::STRUCT && self.is_named(found.name, name);
            if named { ask(self, found) } else { None }
        })
    }

    /// The byte offset of a member that has this kind of type and lies inside of the structure.
    fn member(&mut self, of: Type, name: &[u8], kind: u32) -> Option<(u32, Type)> {
        let Member { bits, of: member } = self.search(of, name, 0)?;
        let plain = bits.is_multiple_of(8) && member.info.kind == kind && !self.is_bitfield(member);
        let end = (bits / 8).checked_add(self.size(member)?)?;
        (plain && end <= of.size_or_type).then_some((bits / 8, member))
    }

    /// Looks for a member in a structure or union and in the anonymous ones inside of it.
    fn search(&mut self, of: Type, name: &[u8], depth: u32) -> Option<Member> {
        if depth > MAX_DEPTH {
            return None;
        }
        for index in 0..of.info.count {
            self.budget = self.budget.checked_sub(1)?;
            let at = of.extra.checked_add(index.checked_mul(MEMBER)?)?;
            let field = |offset: usize| u32_at(self.parts.types, at.checked_add(offset)?);
            let (member_name, number, place) = (field(0)?, field(4)?, field(8)?);
            // With the flag the upper byte is the width of a bitfield, 0 for others.
            let (bits, width) = if of.info.flag { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            if width != 0 {
                continue;
            }
            if self.is_named(member_name, name) {
                return Some(Member { bits, of: self.behind_modifiers(number)? });
            }
            if !self.is_named(member_name, b"\0") {
                continue;
            }
            let Some(inner) = self.behind_modifiers(number) else { continue };
            if matches!(inner.info.kind, kind::STRUCT | kind::UNION)
                && let Some(found) = self.search(inner, name, depth + 1)
            {
                return Some(Member { bits: bits.checked_add(found.bits)?, of: found.of });
            }
        }
        None
    }

    fn number(&self, number: u32) -> Option<Type> {
        let place = *self.places.get((number as usize).checked_sub(1)?)? as usize;
        let field = |offset: usize| u32_at(self.parts.types, place + offset);
        Some(Type { name: field(0)?, info: Info::of(field(4)?), size_or_type: field(8)?, extra: place + TYPE })
    }

    fn behind_modifiers(&self, number: u32) -> Option<Type> {
        let mut found = self.number(number)?;
        for _ in 0..MAX_MODIFIERS {
            match found.info.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.number(found.size_or_type)?
                }
                _ => return Some(found),
            }
        }
        None
    }

    /// The size of a member's type, for the kinds that are asked for.
    fn size(&self, of: Type) -> Option<u32> {
        match of.info.kind {
            kind::INT => Some(of.size_or_type),
            kind::PTR => Some(POINTER_SIZE),
            kind::ARRAY => u32_at(self.parts.types, of.extra + 8)?.checked_mul(self.element_size(of)?),
            _ => None,
        }
    }

    /// The size of an array's elements, if they are integers.
    fn element_size(&self, array: Type) -> Option<u32> {
        let element = self.behind_modifiers(u32_at(self.parts.types, array.extra)?)?;
        (element.info.kind == kind::INT).then_some(element.size_or_type)
    }

    /// Is this an integer that only takes a part of its bytes? Old compilers described bitfields so.
    fn is_bitfield(&self, of: Type) -> bool {
        let Some(int) = u32_at(self.parts.types, of.extra).filter(|_| of.info.kind == kind::INT) else { return false };
        let (offset, bits) = (int >> 16 & 0xff, int & 0xff);
        offset != 0 || Some(bits) != of.size_or_type.checked_mul(8)
    }

    /// Is this string here? It ends in a zero, as those of the BTF do.
    fn is_named(&self, name: u32, wanted: &[u8]) -> bool {
        self.parts.strings.get(name as usize..).is_some_and(|rest| rest.starts_with(wanted))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}
