//! `FROM --platform=…`.
//!
//! Source: OCI image specification, "Platform"; the other names are those that containerd takes.

/// CPU architectures in Go's names, and how else they are called.
const NAMES: [(&str, &str); 8] = [
    ("x86_64", "amd64"),
    ("x86-64", "amd64"),
    ("aarch64", "arm64"),
    ("armhf", "arm"),
    ("armel", "arm"),
    ("i386", "386"),
    ("i686", "386"),
    ("armv7l", "arm"),
];

/// Whether an image for `architecture`, in Go's names, and for Linux is what `wanted` asks for: `linux/arm64`,
/// `linux/arm64/v8`, `arm64`, `linux`. Variants do not count: whether an image has one depends on who made it.
pub(super) fn is(wanted: &str, architecture: &str) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    let common =
        |name: &str| NAMES.iter().find(|(n, _)| *n == name).map_or(name.to_owned(), |(_, go)| (*go).into());
    let mut parts = wanted.split('/');
    match (parts.next().unwrap_or_default(), parts.next()) {
        ("linux", None) => true,
        ("linux", Some(cpu)) => common(cpu) == common(architecture),
        (cpu, None) => common(cpu) == common(architecture),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_forms() {
        for (wanted, architecture, expected) in [
            ("linux/amd64", "amd64", true),
            ("Linux/AMD64", "amd64", true),
            ("linux/x86_64", "amd64", true),
            ("linux/arm64/v8", "arm64", true),
            ("aarch64", "arm64", true),
            ("linux/arm/v7", "arm", true),
            ("linux", "riscv64", true),
            ("linux/arm64", "amd64", false),
            ("windows/amd64", "amd64", false),
            ("", "amd64", false),
        ] {
            assert_eq!(super::is(wanted, architecture), expected, "{wanted} {architecture}");
        }
    }
}
