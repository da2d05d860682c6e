//! BTF, as the tests need it: numbered types, and the strings that they name.

/// Kinds of types.
pub const INT: u32 = 1;
pub const PTR: u32 = 2;
pub const ARRAY: u32 = 3;
pub const STRUCT: u32 = 4;
pub const UNION: u32 = 5;
pub const TYPEDEF: u32 = 8;
pub const CONST: u32 = 10;

/// A member: name, type, offset in bits, width of a bitfield or 0.
pub type Member<'a> = (&'a str, u32, u32, u32);

/// Writes types; each method gives the number of the type that it wrote.
pub struct Btf {
    pub types: Vec<u8>,
    pub strings: Vec<u8>,
    pub layouts: Vec<u8>,
    count: u32,
}

impl Default for Btf {
    fn default() -> Btf {
        Btf { types: Vec::new(), strings: vec![0], layouts: Vec::new(), count: 0 }
    }
}

impl Btf {
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let place = self.strings.len() as u32;
        self.strings.extend(text.bytes());
        self.strings.push(0);
        place
    }

    /// Any type: name, kind, flag, count, size or type, and what follows.
    pub fn raw(&mut self, name: &str, kind: u32, flag: bool, count: u32, size_or_type: u32, extra: &[u32]) -> u32 {
        let words = [self.string(name), u32::from(flag) << 31 | kind << 24 | count, size_or_type];
        self.types.extend(words.iter().chain(extra).flat_map(|word| word.to_le_bytes()));
        self.count += 1;
        self.count
    }

    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(name, INT, false, 0, size, &[size * 8])
    }

    pub fn to(&mut self, kind: u32, name: &str, number: u32) -> u32 {
        self.raw(name, kind, false, 0, number, &[])
    }

    pub fn array(&mut self, of: u32, length: u32) -> u32 {
        self.raw("", ARRAY, false, 0, 0, &[of, of, length])
    }

    pub fn structure(&mut self, kind: u32, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        let mut words = Vec::new();
        for &(member, number, bits, width) in members {
            words.extend([self.string(member), number, width << 24 | bits]);
        }
        self.raw(name, kind, true, members.len() as u32, size, &words)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = if self.layouts.is_empty() { 24 } else { 32 };
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut out = vec![0x9f, 0xeb, 1, 0];
        out.extend([header, 0, types, types, strings].into_iter().flat_map(u32::to_le_bytes));
        let mut body = [self.types.as_slice(), &self.strings].concat();
        if header == 32 {
            body.resize(body.len().next_multiple_of(4), 0);
            out.extend([body.len() as u32, self.layouts.len() as u32].into_iter().flat_map(u32::to_le_bytes));
            body.extend(&self.layouts);
        }
        out.extend(body);
        out
    }
}

/// The types that every test of tasks needs: `int`, `char[16]`, a pointer.
pub struct Basics {
    pub int: u32,
    pub comm: u32,
    pub pointer: u32,
}

pub fn basics(btf: &mut Btf) -> Basics {
    let (int, char) = (btf.int("int", 4), btf.int("char", 1));
    let comm = btf.array(char, 16);
    Basics { int, comm, pointer: btf.to(PTR, "", 0) }
}

/// A whole BTF with a plain `task_struct`: stack 8, mm 16, pid 24, tgid 28, comm 32.
pub fn plain() -> Btf {
    let mut btf = Btf::default();
    let Basics { int, comm, pointer } = basics(&mut btf);
    btf.structure(
        STRUCT,
        "task_struct",
        64,
        &[
            ("flags", int, 0, 0),
            ("stack", pointer, 64, 0),
            ("mm", pointer, 128, 0),
            ("pid", int, 192, 0),
            ("tgid", int, 224, 0),
            ("comm", comm, 256, 0),
        ],
    );
    btf
}
