//! Room for bytes that must pass through this process, made when it is first needed: the kernel moves most by itself.

/// A buffer of a fixed size.
#[derive(Debug)]
pub(crate) struct Scratch {
    size: usize,
    bytes: Vec<u8>,
}

impl Scratch {
    /// One of so many bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, bytes: Vec::new() }
    }

    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Its first bytes, at most all.
    pub(super) fn first(&mut self, most: usize) -> &mut [u8] {
        self.bytes.resize(self.size, 0);
        &mut self.bytes[..most.min(self.size)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_memory_once_it_is_used() {
        let mut scratch = Scratch::new(1000);
        assert_eq!((scratch.size(), scratch.bytes.capacity()), (1000, 0));
        scratch.first(10).fill(7);
        assert_eq!(scratch.first(11), [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
        assert_eq!(scratch.first(2000).len(), 1000);
    }
}
