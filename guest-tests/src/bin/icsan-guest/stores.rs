//! `store/`: the same change of code, however it is stored; and stores of the kernel into the code, on behalf of a
//! system call. Here are those that any architecture has.

use crate::code_page::CodePage;
use crate::hand_over::{HandOver, hand_over_by};
use crate::outcome::Attempt;
use crate::shape::{Kind, Shape};
use crate::sys::check;
use std::io;
use std::sync::Arc;

/// Makes a version of the shape: by these stores.
pub type Store = fn(&Shape, u32) -> io::Result<()>;

/// Changes a shape of that kind in this way.
pub fn store(kind: Kind, store: Store, how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(kind)?);
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| store(&theirs, n))
}

/// A store for each byte.
pub fn bytes(shape: &Shape, n: u32) -> io::Result<()> {
    shape.page().store_bytes(shape.site(), &shape.bytes(n));
    shape.publish();
    Ok(())
}

/// read(2) from a pipe: the kernel stores through the user's address.
pub fn by_read(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(Kind::PLAIN)?);
    let theirs = Arc::clone(&shape);
    let pipe = Pipe::new()?;
    hand_over_by(how, &shape, shape.function(), move |n| {
        pipe.read(theirs.page(), theirs.site(), &theirs.bytes(n))?;
        theirs.publish();
        Ok(())
    })
}

/// A pipe that one thread writes and reads.
#[derive(Debug)]
struct Pipe([libc::c_int; 2]);

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: fills an array of two descriptors.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
        Ok(Self(ends))
    }

    /// Sends the bytes through the pipe into the code.
    fn read(&self, page: &CodePage, at: usize, bytes: &[u8]) -> io::Result<()> {
        let target = page.target(at, bytes.len());
        // SAFETY: reads the slice, and fills as many bytes of a writable mapping.
        let (sent, got) = unsafe {
            let sent = check(libc::write(self.0[1], bytes.as_ptr().cast(), bytes.len()) as i64)?;
            (sent, check(libc::read(self.0[0], target.cast(), bytes.len()) as i64)?)
        };
        whole(sent.min(got), bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // SAFETY: both descriptors are ours.
        self.0.iter().for_each(|end| _ = unsafe { libc::close(*end) });
    }
}

/// process_vm_writev(2): the kernel stores through its own address.
pub fn process_vm(shape: &Shape, n: u32) -> io::Result<()> {
    let (page, at, bytes) = (shape.page(), shape.site(), &shape.bytes(n));
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: page.target(at, bytes.len()).cast(), iov_len: bytes.len() };
    // SAFETY: reads the slice, and writes to a mapping of this very process.
    let written = check(unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) } as i64)?;
    shape.publish();
    whole(written, bytes)
}

fn whole(count: i64, bytes: &[u8]) -> io::Result<()> {
    if count == bytes.len() as i64 { Ok(()) } else { Err(io::Error::other("not all bytes were written")) }
}
