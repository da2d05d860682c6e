//! A guest of less than 200 bytes that QEMU's firmware boots, and that changes its own code in four places.
//!
//! Each place is the same round, run twice: at first `mov $0x11111111,%eax` is executed at the *site*; then it is
//! changed to `mov $0x22222222,%eax` by a store of its four immediate bytes, and executed again, with neither a taken
//! branch nor (by itself) a serializing event in between. What differs is in [`SITES`]. It is 16-bit code, with
//! interrupts off.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

/// Where the firmware puts it.
pub const ORIGIN: u16 = 0x7c00;
/// A disk that is large enough for every machine.
const DISK: usize = 1 << 20;

/// The kind that a change by the executing vCPU itself has.
pub const KIND: &str = "smc";
/// What the light mode calls it, since it does not see who wrote.
pub const LIGHT_KIND: &str = "unserialized";
/// What is in memory at a site in the end, and what was executed there first.
pub const NEW: &str = "66b822222222";
/// See [`NEW`].
pub const OLD: &str = "66b811111111";

/// One place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The symbol of the instruction that is changed.
    pub name: &'static str,
    /// The symbol of its round's first instruction.
    pub round: &'static str,
    /// Its address modulo 16.
    offset: u16,
    /// What is executed between the store and the site.
    between: Between,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Between {
    Nothing,
    Cpuid,
    Iret,
}

/// The places, in the order of execution.
pub const SITES: [Site; 4] = [
    Site { name: "whole", round: "first", offset: 0, between: Between::Nothing },
    // Three bytes before a 16-byte boundary: two of opcode and one of the four immediate ones.
    Site { name: "straddle", round: "second", offset: 13, between: Between::Nothing },
    Site { name: "synced", round: "third", offset: 0, between: Between::Cpuid },
    Site { name: "returned", round: "fourth", offset: 0, between: Between::Iret },
];

/// What a guest that spins says before.
pub const DONE: char = '*';
/// A symbol behind everything that runs.
pub const NEVER: &str = "never";

/// What the guest does at last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It writes [`DONE`] to the serial port and spins.
    Spin,
    /// It switches itself off by ACPI.
    PowerOff,
    /// It resets the machine.
    Reset,
}

impl Ending {
    fn code(self) -> &'static [u8] {
        match self {
            // mov $0x3f8,%dx; mov $'*',%al; out %al,(%dx); jmp .
            Self::Spin => &[0xba, 0xf8, 0x03, 0xb0, b'*', 0xee, 0xeb, 0xfe],
            // mov $0x604,%dx; mov $0x2000,%ax; out %ax,(%dx); jmp .
            Self::PowerOff => &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe],
            // mov $0xcf9,%dx; mov $6,%al; out %al,(%dx); jmp .
            Self::Reset => &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe],
        }
    }
}

/// The assembled guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootSector {
    code: Vec<u8>,
    symbols: Vec<(&'static str, u16)>,
}

impl BootSector {
    /// Assembles it.
    pub fn new(ending: Ending) -> Self {
        // cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp
        let mut sector =
            Self { code: vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c], symbols: Vec::new() };
        for site in SITES {
            sector.round(site);
        }
        sector.emit(&[0xeb, 0x00]);
        sector.label("ending");
        sector.emit(ending.code());
        sector.label(NEVER);
        sector
    }

    /// Other code, with one symbol.
    pub fn of(mut code: Vec<u8>, ending: Ending) -> Self {
        code.extend(ending.code());
        Self { code, symbols: vec![("start", ORIGIN)] }
    }

    /// The address of a symbol, as reports write it.
    pub fn address(&self, symbol: &str) -> String {
        let found = self.symbols.iter().find(|(name, _)| *name == symbol);
        format!("{:#x}", found.unwrap_or_else(|| panic!("no symbol {symbol}")).1)
    }

    /// Writes the disk.
    pub fn write_disk(&self, path: &Path) {
        let mut disk = vec![0; DISK];
        disk[..self.code.len()].copy_from_slice(&self.code);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(path, disk).unwrap();
    }

    /// Writes its symbols in the form of a System.map.
    pub fn write_symbols(&self, path: &Path) {
        let mut text = String::new();
        for (name, address) in &self.symbols {
            writeln!(text, "{address:016x} T {name}").unwrap();
        }
        std::fs::write(path, text).unwrap();
    }

    fn round(&mut self, site: Site) {
        // A jump, so that a block starts here: `start=` and `stop=` then take effect between two rounds.
        self.emit(&[0xeb, 0x00]);
        self.label(site.round);
        self.emit(&[0xbe, 0x02, 0x00]); // mov $2,%si
        let top = self.here();
        self.emit(&[0x83, 0xfe, 0x01]); // cmp $1,%si
        self.emit(&[0x75, 0x09]); // jne over the store
        let store = self.emit(&[0x66, 0xc7, 0x06, 0, 0, 0x22, 0x22, 0x22, 0x22]); // movl $0x22222222,site+2
        match site.between {
            Between::Nothing => {}
            Between::Cpuid => drop(self.emit(&[0x66, 0x31, 0xc0, 0x0f, 0xa2])), // xor %eax,%eax; cpuid
            Between::Iret => {
                let [low, high] = (self.here() + 6).to_le_bytes();
                self.emit(&[0x9c, 0x0e, 0x68, low, high, 0xcf]); // pushf; push %cs; push $next; iret
            }
        }
        while self.here() % 16 != site.offset {
            self.emit(&[0x90]);
        }
        self.label(site.name);
        let changed = (self.here() + 2).to_le_bytes();
        self.code[store.start + 3..store.start + 5].copy_from_slice(&changed);
        self.emit(&[0x66, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x4e]); // mov $0x11111111,%eax; dec %si
        let back = i8::try_from(i32::from(top) - i32::from(self.here() + 2)).unwrap();
        self.emit(&[0x75, back.to_le_bytes()[0]]); // jne top
    }

    fn here(&self) -> u16 {
        ORIGIN + u16::try_from(self.code.len()).unwrap()
    }

    fn label(&mut self, name: &'static str) {
        self.symbols.push((name, self.here()));
    }

    fn emit(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.code.len();
        self.code.extend_from_slice(bytes);
        start..self.code.len()
    }
}

#[test]
fn it_fits_into_a_sector_and_its_sites_lie_where_they_should() {
    let sector = BootSector::new(Ending::PowerOff);
    assert!(sector.code.len() <= 510);
    for (name, address) in
        [("first", "0x7c0c"), ("whole", "0x7c20"), ("straddle", "0x7c3d"), ("synced", "0x7c60"), ("returned", "0x7c90")]
    {
        assert_eq!(sector.address(name), address, "{name}");
    }
}
