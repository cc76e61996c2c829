//! Which mutant is on: `MUTANT` has its number. With `MUTANTS_REACHED` none is, and the numbers of those that are reached are
//! written to the file of that name. Compiled into the crate by `suite.py` alone.

#![allow(missing_docs, clippy::all)]

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const NONE: u32 = 0;
const NOTING: u32 = u32::MAX;
static ON: AtomicU32 = AtomicU32::new(NONE);
static REACHED: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];

/// Runs before `main`, so that `is` need not look whether it has run.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    let number = std::env::var("MUTANT").map(|number| number.parse().unwrap());
    let noting = std::env::var_os("MUTANTS_REACHED").is_some();
    ON.store(number.unwrap_or(if noting { NOTING } else { NONE }), Ordering::Relaxed);
}

/// Return true if a mutant is on.
#[inline]
pub fn is(number: u32) -> bool {
    let on = ON.load(Ordering::Relaxed);
    if on == NOTING {
        note(number);
        return false;
    }
    on == number
}

#[cold]
fn note(number: u32) {
    if !REACHED[number as usize].swap(true, Ordering::Relaxed) {
        let path = std::env::var("MUTANTS_REACHED").unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{number}").unwrap();
    }
}

/// One of two iterators: what a function that returns `impl Iterator` has instead of another one.
pub enum Either<A, B> {
    L(A),
    R(B),
}

impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Either<A, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Self::L(one) => one.next(),
            Self::R(other) => other.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::L(one) => one.size_hint(),
            Self::R(other) => other.size_hint(),
        }
    }
}

impl<T, A: DoubleEndedIterator<Item = T>, B: DoubleEndedIterator<Item = T>> DoubleEndedIterator for Either<A, B> {
    fn next_back(&mut self) -> Option<T> {
        match self {
            Self::L(one) => one.next_back(),
            Self::R(other) => other.next_back(),
        }
    }
}

impl<T, A: ExactSizeIterator<Item = T>, B: ExactSizeIterator<Item = T>> ExactSizeIterator for Either<A, B> {}
