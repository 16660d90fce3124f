//! Immutable search tree over disjoint ranges: which range holds a key. Cache-line nodes, all keys in the leaves.

/// Layers of the deepest tree: nine-way, enough for 38 million ranges.
const LAYERS: usize = 8;

/// Ranges that cover all keys, each from its start to the next one's, with a value each.
///
/// A static B+ tree: a node has `N` keys and `N + 1` children, key i being the least key below child i + 1. Layer 0 are the
/// leaves, which hold the starts in order; a missing key repeats the last start, so that no node needs a length.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<K, const N: usize> {
    nodes: Vec<Node<K, N>>,
    /// First node and number of nodes of each layer, leaves first.
    layers: [(u32, u32); LAYERS],
    height: usize,
    values: Vec<u32>,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Node<K, const N: usize>([K; N]);

/// A key and how to find its place among the keys of a node.
pub(crate) trait Key: Ord + Copy {
    /// How many of the rising keys are at most `key`.
    fn rank<const N: usize>(keys: &[Self; N], key: Self) -> usize;
}

macro_rules! narrow_keys {
    ($($width:ty)*) => {
        // Counted in the key's own width, so that the compiler compares and adds whole vectors.
        $(impl Key for $width {
            #[inline]
            fn rank<const N: usize>(keys: &[Self; N], key: Self) -> usize {
                keys.iter().map(|&each| <$width>::from(each <= key)).sum::<$width>() as usize
            }
        })*
    };
}

narrow_keys! { u16 u32 }

impl Key for u128 {
    /// No vector compares these: by halves.
    #[inline]
    fn rank<const N: usize>(keys: &[Self; N], key: Self) -> usize {
        keys.partition_point(|&each| each <= key)
    }
}

/// `::ffff:0:0`, where IPv4 lies in the 128-bit form of addresses.
pub(crate) const MAPPED: u128 = 0xffff_0000_0000;

/// [`Ranges`] over addresses of both families, with keys of 32 bits for IPv4.
#[derive(Clone, Debug)]
pub(crate) struct AddressRanges {
    ipv4: Ranges<u32, 16>,
    ipv6: Ranges<u128, 8>,
}

impl AddressRanges {
    /// Both as for [`Ranges::new`]; `ipv4` lies within the mapped addresses, whatever `ipv6` says of those.
    pub(crate) fn new(ipv4: &[(u128, u32)], ipv6: &[(u128, u32)]) -> Self {
        let ipv4: Vec<_> = ipv4.iter().map(|&(start, value)| (low32(start), value)).collect();
        Self {
            ipv4: Ranges::new(&ipv4),
            ipv6: Ranges::new(ipv6),
        }
    }

    #[inline]
    pub(crate) fn find(&self, address: u128) -> Option<u32> {
        if address >> 32 == MAPPED >> 32 {
            self.ipv4.find(low32(address))
        } else {
            self.ipv6.find(address)
        }
    }
}

impl<K: Key, const N: usize> Ranges<K, N> {
    /// `ranges` are starts in rising order with their values, the first start being the least key there is.
    pub(crate) fn new(ranges: &[(K, u32)]) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            layers: [(0, 0); LAYERS],
            height: 0,
            values: Vec::with_capacity(ranges.len()),
        };
        tree.values.extend(ranges.iter().map(|&(_, value)| value));
        let mut keys: Vec<K> = ranges.iter().map(|&(start, _)| start).collect();
        // The least key below each node of the layer just made.
        while let Some(&last) = keys.last() {
            let firsts = tree.push_layer(&keys, last);
            // A layer of one node is the root.
            if firsts.len() == 1 || tree.height == LAYERS {
                break;
            }
            // One key for each child but the first of a parent; parents take N + 1 children.
            keys = firsts;
        }
        tree
    }

    /// The value of the range that holds the key. None: there are no ranges.
    #[inline]
    pub(crate) fn find(&self, key: K) -> Option<u32> {
        let mut at = 0;
        for layer in (1..self.height).rev() {
            let (first, _) = self.layers[layer];
            let (_, below) = self.layers[layer - 1];
            let child = at * (N + 1) + self.rank(first as usize + at, key);
            at = child.min(below as usize - 1);
        }
        let place = at * N + self.rank(at, key);
        self.values
            .get(place.min(self.values.len()).wrapping_sub(1))
            .copied()
    }

    #[inline]
    fn rank(&self, node: usize, key: K) -> usize {
        self.nodes.get(node).map_or(0, |node| K::rank(&node.0, key))
    }

    /// Leaves take the keys themselves; the layers above take the least key of each child but the first.
    fn push_layer(&mut self, keys: &[K], last: K) -> Vec<K> {
        let start = self.nodes.len();
        let width = if self.height == 0 { N } else { N + 1 };
        let mut firsts = Vec::with_capacity(keys.len().div_ceil(width));
        for group in keys.chunks(width) {
            firsts.push(group[0]);
            let held = if self.height == 0 { group } else { &group[1..] };
            self.nodes.push(Node(std::array::from_fn(|at| {
                held.get(at).copied().unwrap_or(last)
            })));
        }
        let place = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.layers[self.height] = (place(start), place(firsts.len()));
        self.height += 1;
        firsts
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are asked for")]
#[inline]
const fn low32(address: u128) -> u32 {
    address as u32
}
