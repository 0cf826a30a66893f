//! Random numbers.

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Invariant: getrandom(2) fails on kernels older than 3.17 only.
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// A random number of a range.
pub fn among(range: std::ops::RangeInclusive<u32>) -> u32 {
    let (first, count) = (*range.start(), range.count() as u64);
    // The bias is less than one in a billion for ranges of a few numbers.
    first + u64::from_ne_bytes(random()).checked_rem(count).unwrap_or(0) as u32
}

/// A random UUID (RFC 9562 version 4).
pub fn random_uuid() -> String {
    let mut b = random::<16>();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_met_from_end_to_end() {
        let mut seen: Vec<u32> = (0..1000).map(|_| among(3..=6)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((seen, among(7..=7)), (vec![3, 4, 5, 6], 7));
    }
}
