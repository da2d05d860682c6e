//! Finds the kernel modules that a scenario loads, and unpacks them for the initramfs.

use anyhow::{Context, Result, anyhow, bail};
use icsan_guest_tests::host::initramfs::GuestFile;
use icsan_guest_tests::table::{MODULES, MODULES_FOLDER};
use std::fs;
use std::path::{Path, PathBuf};

/// No module of ours is as long as this.
const LIMIT: usize = 16 << 20;
/// Kernels compress modules with a dictionary of no more than 2 MiB.
const DICTIONARY: usize = 64 << 20;

/// Reads [`MODULES`] from a kernel's modules folder.
///
/// # Errors
/// A module is missing, or cannot be unpacked.
pub fn read(folder: &Path) -> Result<Vec<GuestFile>> {
    MODULES
        .iter()
        .map(|name| {
            let path = find(folder, name)?.with_context(|| format!("no module {name} below {}", folder.display()))?;
            let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let data = unpack(&path, data).with_context(|| format!("cannot unpack {}", path.display()))?;
            Ok(GuestFile { path: format!("{MODULES_FOLDER}/{name}.ko"), data })
        })
        .collect()
}

/// The file of a module, wherever below the folder it is. Links are not followed: `build` leads out.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry
            .file_name()
            .to_string_lossy()
            .strip_prefix(name)
            .is_some_and(|rest| rest == ".ko" || rest.starts_with(".ko."))
        {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn unpack(path: &Path, data: Vec<u8>) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(data),
        Some("xz") => unpack_xz(&data),
        _ => bail!("only .ko and .ko.xz are known"),
    }
}

fn unpack_xz(mut data: &[u8]) -> Result<Vec<u8>> {
    use xz4rust::{XzDecoder, XzNextBlockResult};
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, DICTIONARY);
    let mut out = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (read, written, done) = match decoder.decode(data, &mut buffer).map_err(|error| anyhow!("{error}"))? {
            XzNextBlockResult::NeedMoreData(read, written) => (read, written, false),
            XzNextBlockResult::EndOfStream(read, written) => (read, written, true),
        };
        out.extend_from_slice(&buffer[..written]);
        data = &data[read..];
        if done {
            return Ok(out);
        }
        if out.len() > LIMIT {
            bail!("more than {} MiB", LIMIT >> 20);
        }
        if read == 0 && written == 0 {
            bail!("it is cut short");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "module\n" by `xz --check=crc32`.
    const PACKED: &[u8] = b"\xFD7zXZ\x00\x00\x01i\x22\xDE6\x02\x00!\x01\x16\x00\x00\x00t/\xE5\xA3\x01\x00\x06module\x0A\x00\x00O\x8An\x07\x00\x01\x1B\x07\x12\xEB\xD4\x17\x90B\x99\x0D\x01\x00\x00\x00\x00\x01YZ";

    #[test]
    fn modules_are_found_and_unpacked() {
        let folder = std::env::temp_dir().join(format!("icsan-runner-modules-{}", std::process::id()));
        let below = folder.join("kernel/drivers/net");
        fs::create_dir_all(&below).unwrap();
        assert!(read(&folder).unwrap_err().to_string().starts_with("no module pktgen"));
        fs::write(below.join("pktgen.ko"), "plain").unwrap();
        fs::write(below.join("dummy_irq.ko"), "another").unwrap();
        fs::write(below.join("dummy.ko.xz"), PACKED).unwrap();
        let files = read(&folder).unwrap();
        assert_eq!(files[0], GuestFile { path: "/modules/pktgen.ko".into(), data: b"plain".to_vec() });
        assert_eq!(files[1], GuestFile { path: "/modules/dummy.ko".into(), data: b"module\n".to_vec() });
        fs::write(below.join("dummy.ko.xz"), &PACKED[..PACKED.len() / 2]).unwrap();
        assert!(read(&folder).unwrap_err().to_string().starts_with("cannot unpack"));
        fs::remove_file(below.join("dummy.ko.xz")).unwrap();
        fs::write(below.join("dummy.ko.zst"), PACKED).unwrap();
        assert!(read(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
