//! The lines of measurements; `log-bench` of walt-testkit has the same ones.

/// A line by its number.
pub fn line(i: usize) -> String {
    let status = if i.is_multiple_of(997) { 503 } else { 200 };
    let end = if i.is_multiple_of(1994) { " retry" } else { "" };
    let (hash, client) = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40, i % 97);
    format!(
        "request {i} {hash:06x} of client {client} took {} us status={status} path=/api/v1/items/{}{end}",
        i * 31 % 4001,
        i % 1009
    )
}
