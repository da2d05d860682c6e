//! An initramfs that holds one program: a `newc` cpio archive, compressed.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Packs `init` with the directories that it mounts to and the console that it is started on.
pub fn build(init: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::with_capacity(init.len() + 4096);
    let mut inode = 0;
    let mut add = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        inode += 1;
        entry(&mut archive, inode, name, mode, device, data);
    };
    for directory in ["dev", "proc", "sys", "tmp"] {
        add(directory, DIRECTORY, (0, 0), &[]);
    }
    add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    add("init", PROGRAM, (0, 0), init);
    add("TRAILER!!!", 0, (0, 0), &[]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&archive)?;
    packed.finish()
}

fn entry(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
    archive.extend_from_slice(b"070701");
    // Inode, mode, uid, gid, links, mtime, size, device of the file, device that it is, length of the name, checksum.
    for field in [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_sized() {
        let mut archive = Vec::new();
        entry(&mut archive, 1, "init", PROGRAM, (0, 0), b"hello");
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(&archive[..14], b"07070100000001");
        assert_eq!(&archive[54..62], b"00000005");
        assert_eq!(&archive[110..115], b"init\0");
        assert_eq!(&archive[116..121], b"hello");
    }
}
