//! Unpacks a kernel image's payload.
//!
//! The kernel's build appends the uncompressed length to the payload (gzip ends in it anyway), so
//! every result is checked against that. The decoders are other people's code and read a file that
//! may be damaged: a panic in one of them is caught and becomes an error, and the output is bounded.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::compression::Compression;
use crate::error::SymbolError;

/// The largest `vmlinux` that is unpacked.
pub const MAX_VMLINUX: usize = 512 << 20;
/// The largest dictionary or window of a decoder. `xz` and `zstd` kernels use up to 128 MiB.
const MAX_WINDOW: usize = 128 << 20;
/// How much is reserved on the payload's word alone.
const MAX_RESERVE: usize = 128 << 20;
/// Block size of the legacy lz4 format.
const LZ4_BLOCK: usize = 8 << 20;

/// Unpacks a kernel image's payload, which ends in its uncompressed length.
///
/// # Errors
/// [`SymbolError::Unsupported`] and [`SymbolError::Compression`].
pub fn decompress(payload: &[u8]) -> Result<(Compression, Vec<u8>), SymbolError> {
    let kind = detect(payload)?;
    let failed = |reason: String| SymbolError::Compression { kind, reason };
    let (body, length) = match (kind, payload.split_last_chunk::<4>()) {
        (Compression::None, _) => return Ok((kind, payload.to_vec())),
        (_, None) => return Err(failed("it is cut short".to_owned())),
        (_, Some((body, length))) => (body, u32::from_le_bytes(*length) as usize),
    };
    let body = if kind == Compression::Gzip { payload } else { body };
    let unpacked = unpack(kind, body, length).map_err(failed)?;
    if unpacked.len() != length {
        return Err(failed(format!("{} bytes instead of {length}", unpacked.len())));
    }
    Ok((kind, unpacked))
}

/// Unpacks a compressed file, or a payload without its length behind it.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_stream(bytes: &[u8]) -> Result<(Compression, Vec<u8>), SymbolError> {
    let kind = detect(bytes)?;
    if kind == Compression::None {
        return Ok((kind, bytes.to_vec()));
    }
    let unpacked = unpack(kind, bytes, 0).map_err(|reason| SymbolError::Compression { kind, reason })?;
    Ok((kind, unpacked))
}

fn detect(bytes: &[u8]) -> Result<Compression, SymbolError> {
    Compression::detect(bytes).ok_or(SymbolError::Unsupported {
        what: "a kernel image with an unknown compression",
        advice: "give vmlinux or System.map",
    })
}

/// Unpacks what is packed like that; `length` is what to expect, 0 if that is not known.
fn unpack(kind: Compression, body: &[u8], length: usize) -> Result<Vec<u8>, String> {
    let reserve = length.min(MAX_RESERVE);
    let unpack = || match kind {
        Compression::None => Ok(body.to_vec()),
        Compression::Gzip => read(flate2::read::GzDecoder::new(body), reserve),
        Compression::Bzip2 => read(bzip2::read::BzDecoder::new(body), reserve),
        Compression::Zstd => zstd(body, length),
        Compression::Xz => xz(body, reserve),
        Compression::Lz4 => lz4(body, reserve),
        Compression::Lzma | Compression::Lzo => Err("this compression is not supported".to_owned()),
    };
    catch_unwind(AssertUnwindSafe(unpack)).unwrap_or_else(|_| Err("the decoder gave up".to_owned()))
}

fn too_long() -> String {
    format!("more than {} MiB", MAX_VMLINUX >> 20)
}

fn read(source: impl Read, reserve: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(reserve);
    source.take(MAX_VMLINUX as u64 + 1).read_to_end(&mut out).map_err(|error: io::Error| error.to_string())?;
    if out.len() > MAX_VMLINUX {
        return Err(too_long());
    }
    Ok(out)
}

fn zstd(body: &[u8], length: usize) -> Result<Vec<u8>, String> {
    // In one go the decoder writes where the result belongs, and needs no window of its own to copy it from.
    let mut out = Vec::with_capacity(length.min(MAX_RESERVE));
    let whole = |out: &mut Vec<u8>| {
        zstd::bulk::Decompressor::new().and_then(|mut decoder| decoder.decompress_to_buffer(body, out))
    };
    if length <= MAX_RESERVE && whole(&mut out).is_ok() {
        return Ok(out);
    }
    // It may be longer than it says, or not be whole: that is for the caller to see.
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|error| error.to_string())?;
    decoder.window_log_max(MAX_WINDOW.ilog2()).map_err(|error| error.to_string())?;
    read(decoder.single_frame(), length.min(MAX_RESERVE))
}

fn xz(mut body: &[u8], reserve: usize) -> Result<Vec<u8>, String> {
    use xz4rust::{XzDecoder, XzNextBlockResult};
    const STEP: usize = 1 << 16;
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, MAX_WINDOW);
    let mut out = Vec::with_capacity(reserve);
    let mut buffer = vec![0; STEP];
    loop {
        let step = decoder.decode(body, &mut buffer).map_err(|error| error.to_string())?;
        let (read, written, done) = match step {
            XzNextBlockResult::NeedMoreData(read, written) => (read, written, false),
            XzNextBlockResult::EndOfStream(read, written) => (read, written, true),
        };
        out.extend_from_slice(buffer.get(..written).unwrap_or_default());
        body = body.get(read..).unwrap_or_default();
        if out.len() > MAX_VMLINUX {
            return Err(too_long());
        }
        if done {
            return Ok(out);
        }
        if read == 0 && written == 0 {
            return Err("it is cut short".to_owned());
        }
    }
}

/// The legacy lz4 format: a magic number, then blocks, each behind its compressed length.
fn lz4(body: &[u8], reserve: usize) -> Result<Vec<u8>, String> {
    const CUT: &str = "it is cut short";
    let mut rest = body.get(4..).ok_or(CUT)?;
    let mut out = Vec::with_capacity(reserve);
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (packed, behind) = behind.split_at_checked(length).ok_or(CUT)?;
        let written = lz4_flex::block::decompress_into(packed, &mut block).map_err(|error| error.to_string())?;
        out.extend_from_slice(block.get(..written).unwrap_or_default());
        if out.len() > MAX_VMLINUX {
            return Err(too_long());
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(out) } else { Err(CUT.to_owned()) }
}
