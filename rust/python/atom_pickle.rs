//! Pickles of tuples and lists that contain only atoms, as most small results do.
//!
//! A pickle written here costs a third of a call of `pickle.dumps`, and is identical byte for byte. Values that need a
//! back-reference (an object that occurs twice) or contain a long integer are left to `pickle.dumps`.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::records::{Atom, ITEM};
use super::result_reader::{FALSE, FLOAT, INT, TRUE};

/// Protocol 5, then the header of a frame, whose length follows.
const BEGIN: [u8; 3] = [0x80, 5, 0x95];
/// A shorter pickle has no header.
const SHORTEST_FRAME: usize = 4;
const LENGTH: usize = 8;
/// A list of more items is extended in several batches.
const MOST: usize = 1000;
/// More strings than this are not compared with each other.
const MOST_TEXTS: usize = 8;

const MARK: u8 = b'(';
const STOP: u8 = b'.';
const MEMOIZE: u8 = 0x94;
const EMPTY_TUPLE: u8 = b')';
const TUPLE: u8 = b't';
/// For one to three items, which have no mark before them.
const TUPLES: [u8; 3] = [0x85, 0x86, 0x87];
const EMPTY_LIST: u8 = b']';
const APPEND: u8 = b'a';
const APPENDS: u8 = b'e';
const NONE: u8 = b'N';
const NEWTRUE: u8 = 0x88;
const NEWFALSE: u8 = 0x89;
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const BININT: u8 = b'J';
const BINFLOAT: u8 = b'G';
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';

/// The pickle of a tuple or a list; `None` if it has items other than atoms, or takes more than `left` bytes, where
/// each item counts as in [`ITEM`].
pub(super) fn flat_pickle(value: &Bound<'_, PyAny>, left: usize) -> Option<Vec<u8>> {
    let mut writer = Writer {
        pickle: Vec::with_capacity(64),
        texts: Vec::new(),
        left: left.checked_sub(ITEM)?,
    };
    writer.pickle.extend(BEGIN);
    writer.pickle.extend([0; LENGTH]);
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        writer.tuple(tuple)?;
    } else {
        writer.list(value.cast_exact::<PyList>().ok()?)?;
    }
    Some(writer.finish())
}

struct Writer {
    pickle: Vec<u8>,
    /// The positions of its strings: one that occurs again would be a back-reference.
    texts: Vec<usize>,
    left: usize,
}

impl Writer {
    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>) -> Option<()> {
        let end = match tuple.len() {
            0 => {
                self.pickle.push(EMPTY_TUPLE);
                return Some(());
            }
            count @ 1..=3 => TUPLES[count - 1],
            _ => {
                self.pickle.push(MARK);
                TUPLE
            }
        };
        tuple.iter().try_for_each(|item| self.atom(&item))?;
        self.pickle.extend([end, MEMOIZE]);
        Some(())
    }

    fn list(&mut self, list: &Bound<'_, PyList>) -> Option<()> {
        self.pickle.extend([EMPTY_LIST, MEMOIZE]);
        let (count, mut written) = (list.len(), 0);
        let end = match count {
            0 => return Some(()),
            1 => APPEND,
            2..=MOST => {
                self.pickle.push(MARK);
                APPENDS
            }
            _ => return None,
        };
        for item in list.iter() {
            self.atom(&item)?;
            written += 1;
        }
        self.pickle.push(end);
        // Without a global lock another thread of the step may have changed it meanwhile.
        (written == count).then_some(())
    }

    fn atom(&mut self, value: &Bound<'_, PyAny>) -> Option<()> {
        let pickle = &mut self.pickle;
        self.left = self.left.checked_sub(ITEM)?;
        match Atom::of(value)? {
            Atom::Short(INT, bytes, _) => {
                let number = i32::try_from(i64::from_le_bytes(bytes)).ok()?;
                if let Ok(byte) = u8::try_from(number) {
                    pickle.extend([BININT1, byte]);
                } else if let Ok(short) = u16::try_from(number) {
                    pickle.push(BININT2);
                    pickle.extend(short.to_le_bytes());
                } else {
                    pickle.push(BININT);
                    pickle.extend(number.to_le_bytes());
                }
            }
            Atom::Short(FLOAT, mut bytes, _) => {
                bytes.reverse();
                pickle.push(BINFLOAT);
                pickle.extend(bytes);
            }
            Atom::Short(TRUE, ..) => pickle.push(NEWTRUE),
            Atom::Short(FALSE, ..) => pickle.push(NEWFALSE),
            Atom::Short(..) => pickle.push(NONE),
            Atom::Text(text) => {
                let place = value.as_ptr() as usize;
                if self.texts.len() == MOST_TEXTS || self.texts.contains(&place) {
                    return None;
                }
                self.left = self.left.checked_sub(text.len())?;
                self.texts.push(place);
                if let Ok(length) = u8::try_from(text.len()) {
                    pickle.extend([SHORT_BINUNICODE, length]);
                } else {
                    pickle.push(BINUNICODE);
                    pickle.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
                }
                pickle.extend(text.as_bytes());
                pickle.push(MEMOIZE);
            }
            Atom::Long => return None,
        }
        Some(())
    }

    /// Finish it, and write the length of its frame.
    fn finish(mut self) -> Vec<u8> {
        self.pickle.push(STOP);
        let header = BEGIN.len() + LENGTH;
        let length = self.pickle.len() - header;
        if length < SHORTEST_FRAME {
            self.pickle.drain(BEGIN.len() - 1..header);
        } else {
            self.pickle[BEGIN.len()..header].copy_from_slice(&(length as u64).to_le_bytes());
        }
        self.pickle
    }
}
