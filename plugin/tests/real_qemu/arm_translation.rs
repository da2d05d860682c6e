//! Arm's translation of addresses, turned on: what a guest's own tables need, and the code that uses them.

/// In a table: a block or a page of memory, of devices, and a further table (DDI0487 D8.3).
pub const MEMORY_BLOCK: u64 = 0x701;
/// See [`MEMORY_BLOCK`].
pub const DEVICE_BLOCK: u64 = 0x405;
/// See [`MEMORY_BLOCK`].
pub const PAGE: u64 = 0x703;
/// See [`MEMORY_BLOCK`].
pub const TABLE: u64 = 3;

/// The first blocks of every table of the first level: the devices, and RAM, where they are.
pub const IDENTITY: [u64; 2] = [DEVICE_BLOCK, 0x4000_0000 | MEMORY_BLOCK];

/// A processor turns its translation on, and its caches: 39 bits of addresses, by the table at that address, which has
/// 32 bits. It changes X0 and X1.
pub fn turn_on(table: u64) -> Vec<u32> {
    let [low, high] = [table & 0xffff, table >> 16].map(|half| (half as u32) << 5);
    vec![
        0xd280_1fe0, // mov x0, #0xff
        0xd518_a200, // msr mair_el1, x0
        0xd286_a320, // mov x0, #0x3519
        0xf2a0_1000, // movk x0, #0x80, lsl #16
        0xf2c0_0040, // movk x0, #0x2, lsl #32
        0xd518_2040, // msr tcr_el1, x0
        // mov x0, #low; movk x0, #high, lsl #16
        0xd280_0000 | low,
        0xf2a0_0000 | high,
        0xd518_2000, // msr ttbr0_el1, x0
        0xd503_3fdf, // isb
        0xd538_1000, // mrs x0, sctlr_el1
        0xd282_00a1, // mov x1, #0x1005
        0xaa01_0000, // orr x0, x0, x1
        0xd518_1000, // msr sctlr_el1, x0
        0xd503_3fdf, // isb
    ]
}

/// A table's entries as words.
pub fn words(entries: &[u64]) -> impl Iterator<Item = u32> {
    entries.iter().flat_map(|entry| [*entry as u32, (*entry >> 32) as u32])
}
