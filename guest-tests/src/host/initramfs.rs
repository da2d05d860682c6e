//! An initramfs that holds one program, and what it needs: a `newc` cpio archive, compressed.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// A file of the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestFile {
    /// Its absolute path. Its folder is made, if it is one level deep.
    pub path: String,
    /// What it holds.
    pub data: Vec<u8>,
}

/// Packs `init` with the directories that it mounts to, the console that it is started on, and `files`.
///
/// # Errors
/// The compressor fails.
pub fn build(init: &[u8], files: &[GuestFile]) -> io::Result<Vec<u8>> {
    let mut archive =
        Vec::with_capacity(init.len() + files.iter().map(|file| file.data.len() + 256).sum::<usize>() + 4096);
    let mut inode = 0;
    let mut add = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        inode += 1;
        entry(&mut archive, inode, name, mode, device, data);
    };
    let mut directories = BTreeSet::from(["dev", "proc", "sys", "tmp"]);
    let names = || files.iter().map(|file| file.path.trim_start_matches('/'));
    directories.extend(names().filter_map(|name| name.rsplit_once('/')).map(|(directory, _)| directory));
    for directory in directories {
        add(directory, DIRECTORY, (0, 0), &[]);
    }
    add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    add("init", PROGRAM, (0, 0), init);
    for (name, file) in names().zip(files) {
        add(name, FILE, (0, 0), &file.data);
    }
    add("TRAILER!!!", 0, (0, 0), &[]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&archive)?;
    packed.finish()
}

/// A further archive, as it is, to follow another one in an initramfs: what is below `folder`, at `at` (a path without
/// a leading slash, empty for the root).
///
/// # Errors
/// Something below the folder cannot be read.
pub fn tree(folder: &Path, at: &str) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    // Inodes of another archive do not count here, since none has two links.
    let mut inode = 0;
    let mut left = vec![(folder.to_owned(), at.to_owned())];
    while let Some((path, name)) = left.pop() {
        inode += 1;
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            if !name.is_empty() {
                entry(&mut archive, inode, &name, DIRECTORY, (0, 0), &[]);
            }
            let mut inside = fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()?;
            inside.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            left.extend(inside.into_iter().map(|entry| {
                let below = entry.file_name().to_string_lossy().into_owned();
                (entry.path(), if name.is_empty() { below } else { format!("{name}/{below}") })
            }));
        } else if kind.is_symlink() {
            let target = fs::read_link(&path)?;
            entry(&mut archive, inode, &name, LINK, (0, 0), target.as_os_str().as_bytes());
        } else if kind.is_file() {
            let mode = if kind.permissions().mode() & 0o111 == 0 { FILE } else { PROGRAM };
            entry(&mut archive, inode, &name, mode, (0, 0), &fs::read(&path)?);
        }
    }
    entry(&mut archive, 0, "TRAILER!!!", 0, (0, 0), &[]);
    Ok(archive)
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
    use flate2::read::GzDecoder;
    use std::io::Read;

    #[test]
    fn files_come_with_their_folder() {
        let file = GuestFile { path: "/modules/dummy.ko".into(), data: b"text".to_vec() };
        let mut archive = String::new();
        GzDecoder::new(build(b"", &[file]).unwrap().as_slice()).read_to_string(&mut archive).unwrap();
        let (folder, file) = (archive.find("modules\0").unwrap(), archive.find("modules/dummy.ko\0").unwrap());
        assert!(folder < file && archive[file..].contains("text"));
    }

    #[test]
    fn a_tree_keeps_folders_modes_and_links() {
        let folder = std::env::temp_dir().join(format!("icsan-initramfs-{}", std::process::id()));
        fs::create_dir_all(folder.join("usr/bin")).unwrap();
        fs::write(folder.join("usr/bin/tool"), "program").unwrap();
        fs::set_permissions(folder.join("usr/bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("usr/bin", folder.join("bin")).unwrap();
        let archive = tree(&folder, "work").unwrap();
        fs::remove_dir_all(folder).unwrap();
        let text = String::from_utf8_lossy(&archive);
        let places = ["work\0", "work/bin\0", "work/usr\0", "work/usr/bin\0", "work/usr/bin/tool\0", "TRAILER!!!\0"]
            .map(|name| text.find(name));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        assert!(
            text.contains(&format!("{LINK:08x}"))
                && text.contains(&format!("{PROGRAM:08x}"))
                && text.contains("program")
        );
    }

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
