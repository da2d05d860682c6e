//! The codec: values to bytes and back. The only file that knows bincode; another codec changes this file and
//! raises [`crate::VERSION`].
//!
//! A list is the number of its elements and then the elements, which is what the codec itself makes of a `Vec`. So the
//! writer can encode records as they come, and the reader can decode them one by one.

use crate::block::MAX_BLOCK;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The limit is for what lengths inside the data may claim.
const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_BLOCK>> =
    bincode::config::standard().with_limit::<MAX_BLOCK>();

/// Appends a value. If it fails, `out` is as it was.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let before = out.len();
    bincode::serde::encode_into_std_write(value, out, CONFIG).map(drop).map_err(|error| {
        out.truncate(before);
        error.to_string()
    })
}

/// Takes a value from the front of the bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, String> {
    let (value, taken) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| error.to_string())?;
    *bytes = bytes.get(taken..).unwrap_or_default();
    Ok(value)
}

/// Puts the number of elements before elements that were encoded one by one.
pub(crate) fn list(count: u64, elements: &[u8]) -> Result<Vec<u8>, String> {
    let mut payload = Vec::with_capacity(elements.len() + 9);
    encode(&count, &mut payload)?;
    payload.extend_from_slice(elements);
    Ok(payload)
}

/// Takes the number of elements from the front of a list.
pub(crate) fn list_len(bytes: &mut &[u8]) -> Result<u64, String> {
    decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_the_codec_makes_of_a_vec() {
        for count in [0usize, 3, 250, 251, 70_000] {
            let values: Vec<(u64, String)> = (0..count).map(|i| (i as u64 * 0x1_0001, format!("{i}"))).collect();
            let (mut whole, mut elements) = (Vec::new(), Vec::new());
            encode(&values, &mut whole).unwrap();
            values.iter().for_each(|value| encode(value, &mut elements).unwrap());
            assert_eq!(list(count as u64, &elements).unwrap(), whole);
            let mut rest = &whole[..];
            assert_eq!(list_len(&mut rest), Ok(count as u64));
            let back: Vec<(u64, String)> = (0..count).map(|_| decode(&mut rest).unwrap()).collect();
            assert_eq!((back, rest.len()), (values, 0));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_and_cost_nothing() {
        // A list of 2^64 - 1 bytes; one that the limit allows, but that is not there.
        for claim in [&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xfc, 0xff, 0xff, 0x0f, 0x00]] {
            assert!(decode::<Vec<u8>>(&mut &*claim).is_err());
            assert!(decode::<Vec<Vec<u64>>>(&mut &*claim).is_err());
            assert!(decode::<String>(&mut &*claim).is_err());
        }
    }
}
