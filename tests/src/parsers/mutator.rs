//! Inputs that nobody wrote, from inputs that somebody did: the same from the same seed.

use fastrand::Rng;

use super::{MAX_INPUT_BYTES, Target};

/// Makes inputs for one target.
#[derive(Debug)]
pub struct Mutator {
    random: Rng,
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static str],
}

impl Mutator {
    /// `seed` decides everything that comes out.
    pub fn new(target: &Target, corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self { random: Rng::with_seed(seed), corpus, words: target.words }
    }

    /// The next input, at most [`MAX_INPUT_BYTES`] long.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut bytes = self.kept().clone();
        for _ in 0..self.random.usize(1..=4) {
            self.change(&mut bytes);
            bytes.truncate(MAX_INPUT_BYTES);
        }
        bytes
    }

    fn kept(&mut self) -> &Vec<u8> {
        &self.corpus[self.random.usize(..self.corpus.len())]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.usize(..=bytes.len());
        let end = (at + 1 + self.random.usize(..16)).min(bytes.len());
        match self.random.u8(..10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.u8(..8),
            1 if at < bytes.len() => bytes[at] = self.random.u8(..),
            2 => bytes.insert(at, self.random.u8(..)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                self.insert(bytes, at, &again);
            }
            // The beginning of one and the end of another.
            5 => {
                let other = self.kept().clone();
                let from = self.random.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => {
                let piece = bytes[at..end].to_vec();
                let times = self.random.usize(1..400);
                let deep = piece.repeat(times);
                self.insert(bytes, at, &deep);
            }
            _ => {
                let Some(word) = self.random.choice(self.words) else { return };
                self.insert(bytes, at, word.as_bytes());
            }
        }
    }

    fn insert(&mut self, bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
        bytes.splice(at..at, what.iter().copied());
    }
}
