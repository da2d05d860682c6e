//! Reading a recording.

use crate::block::{self, BlockKind, Found, MAGIC};
use crate::codec;
use crate::error::RecordingError;
use crate::header::{Header, Totals, WithoutCaches};
use crate::record::Record;
use crate::version::{VERSION, WITHOUT_CACHES};
use std::io::Read;

/// Reads a recording: an iterator of its records, one block in memory at a time.
///
/// It ends with `None` after the end block, and then [`Reader::totals`] has what that says. An error is the last thing
/// that it gives, and everything before it is good: [`RecordingError::CutOff`] where the file just ends,
/// [`RecordingError::Corrupt`] where it is damaged. A block is checked before the first record of it is given.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    header: Header,
    /// The number of the next block.
    number: u32,
    /// The block that is being read, how much of it was, and how many records of it are left.
    payload: Vec<u8>,
    at: usize,
    left: u64,
    read: Totals,
    totals: Option<Totals>,
    over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The file is no recording, one of a newer version, cut off in its header, or damaged; or `input` fails.
    pub fn new(mut input: R) -> Result<Self, RecordingError> {
        let cut_off = || RecordingError::CutOff { records: 0 };
        let mut magic = [0; MAGIC.len()];
        let filled = block::fill(&mut input, &mut magic)?;
        if magic[..filled] != MAGIC[..filled] {
            return Err(RecordingError::BadMagic);
        }
        let mut version = [0; 4];
        if filled < MAGIC.len() || block::fill(&mut input, &mut version)? < version.len() {
            return Err(cut_off());
        }
        let version = u32::from_le_bytes(version);
        match version {
            1..=VERSION => {}
            0 => return Err(corrupt(0, "the format version is 0")),
            found => return Err(RecordingError::NewerVersion { found }),
        }
        let header = match block::read(&mut input, 0)? {
            Found::CutOff => return Err(cut_off()),
            Found::Block(BlockKind::Header, payload) if version <= WITHOUT_CACHES => {
                whole::<WithoutCaches>(0, &payload)?.into()
            }
            Found::Block(BlockKind::Header, payload) => whole(0, &payload)?,
            Found::Block(..) => return Err(corrupt(0, "it is not a header")),
        };
        let (payload, read) = (Vec::new(), Totals::default());
        Ok(Self { input, header, number: 1, payload, at: 0, left: 0, read, totals: None, over: false })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What the end block says; `None` before it was reached.
    #[must_use]
    pub const fn totals(&self) -> Option<Totals> {
        self.totals
    }

    /// What was read so far. `dropped` stands in the end block only.
    #[must_use]
    pub const fn read(&self) -> Totals {
        self.read
    }

    fn step(&mut self) -> Result<Option<Record>, RecordingError> {
        while self.left == 0 {
            let number = self.number;
            if self.at < self.payload.len() {
                return Err(corrupt(number - 1, "something follows its last record"));
            }
            match block::read(&mut self.input, number)? {
                Found::CutOff => return Err(RecordingError::CutOff { records: self.read.records }),
                Found::Block(BlockKind::Header, _) => return Err(corrupt(number, "it is a second header")),
                Found::Block(BlockKind::End, payload) => return self.end(number, &payload),
                Found::Block(BlockKind::Records, payload) => {
                    let mut rest = &payload[..];
                    self.left = codec::list_len(&mut rest).map_err(|what| corrupt(number, &what))?;
                    self.at = payload.len() - rest.len();
                    self.payload = payload;
                    self.number =
                        number.checked_add(1).ok_or_else(|| corrupt(number, "no block has a higher number"))?;
                }
            }
        }
        let mut rest = self.payload.get(self.at..).unwrap_or_default();
        let record = codec::decode(&mut rest).map_err(|what| corrupt(self.number - 1, &what))?;
        self.at = self.payload.len() - rest.len();
        self.left -= 1;
        self.read.records += 1;
        self.read.hazards += u64::from(matches!(record, Record::Verdict { .. }));
        Ok(Some(record))
    }

    fn end(&mut self, number: u32, payload: &[u8]) -> Result<Option<Record>, RecordingError> {
        let totals: Totals = whole(number, payload)?;
        if (totals.records, totals.hazards) != (self.read.records, self.read.hazards) {
            return Err(corrupt(number, "its totals are not those of the recording"));
        }
        if block::fill(&mut self.input, &mut [0])? != 0 {
            return Err(corrupt(number, "something follows the end"));
        }
        self.totals = Some(totals);
        Ok(None)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step().transpose();
        self.over = !matches!(step, Some(Ok(_)));
        step
    }
}

impl<R: Read> std::iter::FusedIterator for Reader<R> {}

/// A payload that is one value.
fn whole<T: serde::de::DeserializeOwned>(number: u32, payload: &[u8]) -> Result<T, RecordingError> {
    let mut rest = payload;
    let value = codec::decode(&mut rest).map_err(|what| corrupt(number, &what))?;
    if rest.is_empty() { Ok(value) } else { Err(corrupt(number, "something follows its contents")) }
}

fn corrupt(block: u32, what: &str) -> RecordingError {
    RecordingError::Corrupt { block, what: what.to_owned() }
}
