//! What a figure's reader must know of where it was measured: date, versions, shape of the machine, and whether it was
//! quiet.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// A load average above this at the start means that other programs are busy, or was a moment ago.
const QUIET: f64 = 0.5;

/// Where and when.
#[derive(Clone, Debug)]
pub struct Setting {
    /// UTC.
    pub date: String,
    /// CPUs and memory.
    pub shape: String,
    /// Name and version of everything that matters.
    pub versions: Vec<(String, String)>,
    /// Set if the machine was not quiet at the start.
    pub warning: Option<String>,
}

impl Setting {
    /// Of this machine, now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now() -> Result<Self> {
        let cpus = thread::available_parallelism().context("cannot count the CPUs")?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let kib: u64 =
            meminfo.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("/proc/meminfo is strange")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let load: f64 =
            load.split_whitespace().next().and_then(|word| word.parse().ok()).context("/proc/loadavg is strange")?;
        Ok(Self {
            date: command(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?,
            shape: format!(
                "{cpus} CPUs ({}), {:.0} GiB",
                std::env::consts::ARCH.replace('_', "-"),
                kib as f64 / f64::from(1 << 20)
            ),
            versions: Vec::new(),
            warning: (load > QUIET).then(|| format!("the load average was {load:.2} at the start")),
        })
    }

    /// As it stands in the JSON file.
    #[must_use]
    pub fn json(&self) -> Value {
        let versions: serde_json::Map<String, Value> =
            self.versions.iter().map(|(name, version)| (name.clone(), Value::from(version.as_str()))).collect();
        json!({"date": self.date, "machine": self.shape, "versions": versions, "warning": self.warning})
    }
}

fn command(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// What a QEMU says of itself.
///
/// # Errors
/// It cannot be started.
pub fn qemu_version(qemu: &Path) -> Result<String> {
    let line = command(Command::new(qemu).arg("--version"))?;
    Ok(line.strip_prefix("QEMU emulator version ").unwrap_or(&line).to_owned())
}

/// What a kernel's banner begins with, in an image that is not packed.
const BANNER: &[u8] = b"Linux version ";

/// The release that a kernel image tells.
#[must_use]
pub fn kernel_version(image: &[u8]) -> Option<String> {
    told_by_header(image).or_else(|| {
        let mut behind = image.windows(BANNER.len()).enumerate().filter(|(_, bytes)| *bytes == BANNER);
        behind.find_map(|(at, _)| release(&image[at + BANNER.len()..]))
    })
}

/// The release in the header of an image that is packed.
fn told_by_header(image: &[u8]) -> Option<String> {
    // The offset of a C string, counted from the second sector (Documentation/arch/x86/boot.rst, kernel_version).
    let offset = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    (image.get(0x202..0x206)? == b"HdrS").then(|| release(text))?
}

/// The word that a text begins with, if it begins like a release.
fn release(text: &[u8]) -> Option<String> {
    let word = text.split(|byte| *byte == 0 || byte.is_ascii_whitespace()).next()?;
    let word = std::str::from_utf8(word).ok()?;
    word.starts_with(|first: char| first.is_ascii_digit()).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.12.1-cloud (a)");
        assert_eq!(kernel_version(&image).as_deref(), Some("6.12.1-cloud"));
        assert_eq!(kernel_version(&image[..0x210]), None);
        // The source has the words before the banner's own.
        let flat = b"\0Linux version %s\0Linux version 6.12.2-cloud-arm64 (b)\n";
        assert_eq!(kernel_version(flat).as_deref(), Some("6.12.2-cloud-arm64"));
        assert_eq!(kernel_version(&flat[..20]), None);
    }
}
