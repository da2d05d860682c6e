//! Memory that holds code: mapped once (writable and executable) or twice (one view to write, one to execute).

use crate::sys::check;
use icsan_guest_tests::code;
use std::io;
use std::ptr;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// What generated code looks like from Rust.
pub type Function = extern "C" fn(u64) -> u64;

/// Mapped code. Unmapped when dropped.
#[derive(Debug)]
pub struct CodePage {
    write: *mut u8,
    execute: *mut u8,
    len: usize,
    memfd: Option<libc::c_int>,
}

// SAFETY: the pointers are to shared mappings that outlive every thread of a scenario; racing on them is what scenarios
// are for, and they do it by single instructions of inline assembly, never by Rust's own loads and stores.
unsafe impl Send for CodePage {}
// SAFETY: as above.
unsafe impl Sync for CodePage {}

fn map(at: *mut u8, len: usize, protection: libc::c_int, flags: libc::c_int, fd: libc::c_int) -> io::Result<*mut u8> {
    // SAFETY: with a null address, or MAP_FIXED over a mapping that the caller owns, this takes no memory that Rust
    // knows of.
    let mapped = unsafe { libc::mmap(at.cast(), len, protection, flags, fd, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped.cast()) }
}

impl CodePage {
    /// Maps anonymous memory that is writable and executable at once, `pages` long.
    pub fn anonymous(pages: usize) -> io::Result<Self> {
        let len = pages * PAGE;
        let rwx = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let page = map(ptr::null_mut(), len, rwx, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        Ok(Self { write: page, execute: page, len, memfd: None })
    }

    /// Maps a memfd of one page twice: a view to write and a view to execute.
    pub fn aliased() -> io::Result<Self> {
        // SAFETY: the name is a C string; the result is a new descriptor.
        let fd = check(unsafe { libc::memfd_create(c"icsan".as_ptr(), 0) }.into())? as libc::c_int;
        // SAFETY: sets the size of a file that is ours.
        check(unsafe { libc::ftruncate(fd, PAGE as i64) }.into())?;
        let write = map(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd)?;
        let execute = map(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED, fd)?;
        Ok(Self { write, execute, len: PAGE, memfd: Some(fd) })
    }

    /// Maps one page of memory at two addresses, writable and executable at both.
    pub fn twice() -> io::Result<[Self; 2]> {
        // SAFETY: the name is a C string; the result is a new descriptor.
        let fd = check(unsafe { libc::memfd_create(c"icsan".as_ptr(), 0) }.into())? as libc::c_int;
        // SAFETY: sets the size of a file that is ours.
        check(unsafe { libc::ftruncate(fd, PAGE as i64) }.into())?;
        let view =
            || map(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_SHARED, fd);
        let (first, second) = (view()?, view()?);
        Ok([
            Self { write: first, execute: first, len: PAGE, memfd: Some(fd) },
            Self { write: second, execute: second, len: PAGE, memfd: None },
        ])
    }

    /// Makes a page of this program's own text, the one that holds `function`, writable. It stays so.
    pub fn of_text(function: Function) -> io::Result<Self> {
        let start = (function as usize & !(PAGE - 1)) as *mut u8;
        let rwx = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: adds a permission to a page of our text, and takes none away.
        check(unsafe { libc::mprotect(start.cast(), PAGE, rwx) }.into())?;
        // Length 0: text is not ours to unmap.
        Ok(Self { write: start, execute: start, len: 0, memfd: None })
    }

    /// Takes the mapping away and maps new anonymous memory at the same address.
    pub fn map_again(&self) -> io::Result<()> {
        let rwx = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: no thread runs or touches the page meanwhile; the scenario holds the executor elsewhere.
        check(unsafe { libc::munmap(self.execute.cast(), self.len) }.into())?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let page = map(self.execute, self.len, rwx, flags, -1)?;
        if page == self.execute { Ok(()) } else { Err(io::Error::other("the page came back elsewhere")) }
    }

    /// Maps `other`'s memory over this one's executable view, in one call.
    pub fn map_over(&self, other: &Self) -> io::Result<()> {
        let fd = other.memfd.ok_or_else(|| io::Error::other("not a memfd"))?;
        map(self.execute, self.len, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED | libc::MAP_FIXED, fd)?;
        Ok(())
    }

    /// Moves the memory of `other` here, in place of what is here.
    pub fn move_here(&self, mut other: Self) -> io::Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both mappings are ours and equally long; the scenario holds the executor elsewhere.
        let moved = unsafe { libc::mremap(other.execute.cast(), self.len, self.len, flags, self.execute) };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // It is not there any more.
        other.len = 0;
        Ok(())
    }

    /// Changes the permissions: writable and not executable, or the other way round.
    pub fn protect(&self, writable: bool) -> io::Result<()> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ | libc::PROT_EXEC };
        // SAFETY: no thread runs the page while it is not executable; the scenario holds the executor elsewhere.
        check(unsafe { libc::mprotect(self.execute.cast(), self.len, protection) }.into())?;
        Ok(())
    }

    /// Writes to the memfd by a system call.
    pub fn pwrite(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let fd = self.memfd.ok_or_else(|| io::Error::other("not a memfd"))?;
        // SAFETY: reads the slice that is given.
        let written = check(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at as i64) } as i64)?;
        if written == bytes.len() as i64 { Ok(()) } else { Err(io::Error::other("short write")) }
    }

    /// The function that starts at offset `at`.
    pub fn function(&self, at: usize) -> Function {
        // SAFETY: the scenario has put, or will put before the first call, a whole function there.
        unsafe { std::mem::transmute::<*mut u8, Function>(self.address(at)) }
    }

    /// Where the byte at offset `at` is executed.
    pub fn address(&self, at: usize) -> *mut u8 {
        assert!(at < self.len.max(PAGE));
        // SAFETY: within the mapping.
        unsafe { self.execute.add(at) }
    }

    /// Where `bytes` bytes from offset `at` on are written.
    pub fn target(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(at + bytes <= self.len.max(PAGE));
        // SAFETY: within the mapping.
        unsafe { self.write.add(at) }
    }

    /// Copies `bytes` to offset `at`, one at a time and in order.
    pub fn store_bytes(&self, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.store8(at + index, *byte);
        }
    }

    /// One store of one byte.
    pub fn store8(&self, at: usize, value: u8) {
        // SAFETY: the target is within a writable mapping.
        unsafe { code::store8(self.target(at, 1), value) };
    }

    /// One store of two bytes, aligned or not.
    pub fn store16(&self, at: usize, value: u16) {
        // SAFETY: the target is within a writable mapping.
        unsafe { code::store16(self.target(at, 2), value) };
    }

    /// One store of four bytes, aligned or not.
    pub fn store32(&self, at: usize, value: u32) {
        // SAFETY: the target is within a writable mapping.
        unsafe { code::store32(self.target(at, 4), value) };
    }

    /// One store of eight bytes, aligned or not.
    pub fn store64(&self, at: usize, value: u64) {
        // SAFETY: the target is within a writable mapping.
        unsafe { code::store64(self.target(at, 8), value) };
    }

    /// Makes the fetches of all CPUs find what was stored to these bytes.
    pub fn publish(&self, at: usize, len: usize) {
        code::publish(self.target(at, len), self.address(at), len);
    }

    /// One store: the [`code::return_value()`] at offset `at` returns another number from now on.
    pub fn change_returned(&self, at: usize, value: u16) {
        // SAFETY: the target is within a writable mapping, and the scenario has put such a function there.
        unsafe { code::change_returned(self.target(at, size_of_val(&code::return_value(0))), value) };
    }
}

impl Drop for CodePage {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: scenarios drop their pages after they joined their threads.
        unsafe {
            libc::munmap(self.execute.cast(), self.len);
            if self.write != self.execute {
                libc::munmap(self.write.cast(), self.len);
            }
            if let Some(fd) = self.memfd {
                libc::close(fd);
            }
        }
    }
}
