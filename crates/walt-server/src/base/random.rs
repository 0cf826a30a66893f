//! Random numbers.

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Invariant: getrandom(2) fails on kernels older than 3.17 only.
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// A random UUID (RFC 9562 version 4).
pub fn random_uuid() -> String {
    let mut b = random::<16>();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
