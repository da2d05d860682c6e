//! A file that the user named for ICSAN to write (`report=`, `record=`): whether it can be written, and that nobody
//! else writes to it, is found out when the plugin is loaded, and before anything of what stands in it is lost.

use crate::qemu::process::{lock, say, set_blocking};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use thiserror::Error;

/// Why a file is refused; the rest of a line that begins with the key.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum OutputError {
    #[error("cannot be written: {0}; give a path in an existing, writable directory")]
    Unwritable(#[from] io::Error),
    #[error("{by} writes to it; give each QEMU, and each key, a file of its own")]
    InUse { by: String },
}

/// An open file. Of a regular one it holds the lock as long as it lives.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    regular: bool,
}

impl OutputFile {
    /// Opens a file, or makes it, and leaves what stands in it alone.
    ///
    /// # Errors
    /// It cannot be written, or another process writes it.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        // A FIFO that nobody reads would hold QEMU up for ever; opened like this, it is an error.
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).custom_flags(libc::O_NONBLOCK).open(path)?;
        set_blocking(&file)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            match lock(&file) {
                Ok(true) => {}
                Ok(false) => return Err(OutputError::InUse { by: holder(&metadata) }),
                Err(error) => say(&format!(
                    "{}: {error}: it cannot be locked; take care that no other QEMU writes to it",
                    path.display()
                )),
            }
            // Files of /proc and their like can be opened and not written. Behind the end, so that nothing is lost if
            // it fails.
            file.write_all_at(b"\n", metadata.len())?;
            file.set_len(metadata.len())?;
        }
        Ok(Self { file, regular: metadata.is_file() })
    }

    /// Can it be written more than once?
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.regular
    }

    /// Empties it, if it is a regular file, for what comes from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin(&mut self) -> io::Result<()> {
        if self.regular {
            io::Seek::rewind(&mut self.file)?;
            self.file.set_len(0)?;
        }
        Ok(())
    }
}

impl io::Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Who holds the lock of a file, as far as the kernel tells (proc(5), /proc/locks:
/// `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`).
fn holder(file: &Metadata) -> String {
    let place = format!("{:02x}:{:02x}:{}", libc::major(file.dev()), libc::minor(file.dev()), file.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|words| match words[..] {
        [_, "FLOCK", _, _, pid, at, ..] if at == place => Some(pid.to_owned()),
        _ => None,
    });
    match pid {
        Some(pid) if pid == std::process::id().to_string() => "another key of this QEMU".to_owned(),
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim_end())
        }
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{OutputError, OutputFile};
    use std::io::Write;
    use std::path::Path;

    #[test]
    fn what_stands_in_a_file_stays_until_it_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "the last one").unwrap();
        let mut file = OutputFile::open(&path).unwrap();
        assert!(file.is_regular());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "the last one");
        let Err(OutputError::InUse { by }) = OutputFile::open(&path) else { panic!("it is locked") };
        assert!(by == "another key of this QEMU" || by == "another process", "{by}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "the last one");
        file.begin().unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        drop(file);
        assert!(OutputFile::open(&path).is_ok(), "the lock goes with the file");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for path in ["/proc/version", "/proc/self", "/nonexistent/file"] {
            assert!(matches!(OutputFile::open(Path::new(path)), Err(OutputError::Unwritable(_))), "{path}");
        }
    }
}
