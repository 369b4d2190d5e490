//! Chains that are there before a container needs one.
//!
//! An element that leads to a chain makes the kernel follow all jumps of the table anew, however small the change is. So
//! chains belong to addresses, not to containers, and those of neighbouring addresses are made together.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bits of an address that differ in a block: 64 networks of four addresses.
const BLOCK_BITS: u8 = 8;
/// Addresses of one container's network.
const NETWORK: usize = 4;
/// The container's own among them.
const INSIDE: usize = 2;

/// Neighbouring addresses whose chains are made together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block(IpNet);

impl Block {
    fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(address) => Ipv4Net::new_assert(address, 32 - BLOCK_BITS).trunc().into(),
            IpAddr::V6(address) => Ipv6Net::new_assert(address, 128 - BLOCK_BITS).trunc().into(),
        })
    }

    /// The addresses that containers may have.
    pub(super) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (INSIDE..1 << BLOCK_BITS).step_by(NETWORK).map(move |offset| match self.0.network() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + offset as u32).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + offset as u128).into(),
        })
    }
}

/// The blocks whose chains are made; those of all addresses of the pools at most.
#[derive(Debug, Default)]
pub(super) struct Chains(BTreeSet<Block>);

impl Chains {
    /// Counts the chains of these addresses as made; tells which blocks that adds.
    pub(super) fn add(&mut self, addresses: impl Iterator<Item = IpAddr>) -> Vec<Block> {
        addresses.map(Block::of).filter(|&block| self.0.insert(block)).collect()
    }

    /// Counts blocks as not made.
    pub(super) fn remove(&mut self, blocks: &[Block]) {
        self.0.retain(|block| !blocks.contains(block));
    }

    /// All blocks that are made.
    pub(super) fn all(&self) -> Vec<Block> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_made_for_64_containers_at_a_time() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut chains = Chains::default();
        let added = chains.add([address("10.254.3.130"), address("fd00::1:0082")].into_iter());
        assert_eq!(added.len(), 2);
        for (block, first, own, last) in [
            (added[0], "10.254.3.2", "10.254.3.130", "10.254.3.254"),
            (added[1], "fd00::1:2", "fd00::1:82", "fd00::1:fe"),
        ] {
            let addresses: Vec<_> = block.addresses().collect();
            assert_eq!(addresses.len(), 64);
            assert_eq!((addresses[0], addresses[63]), (address(first), address(last)));
            assert!(addresses.contains(&address(own)));
        }
        assert_eq!(chains.add(added[0].addresses()), []);
        let next = chains.add([address("10.254.4.2")].into_iter());
        assert_eq!((next.len(), chains.all().len()), (1, 3));
        chains.remove(&next);
        assert_eq!(chains.add([address("10.254.4.254")].into_iter()), next);
    }
}
