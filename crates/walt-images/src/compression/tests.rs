use super::*;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// As the format's own program packs it.
fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    piped(program, &["-c"], bytes).unwrap()
}

/// Output of a program; none if it failed.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // A program that gives up does not read to the end.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    // Of gzip, 2 is a warning.
    let most = if program == "gzip" { 2 } else { 0 };
    output.status.code().is_some_and(|code| code == 0 || code == most).then_some(output.stdout)
}

/// Gives one byte at a time: nothing may depend on where reads end.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(1);
        self.0.read(&mut buffer[..n])
    }
}

fn skippable(low: u8, size: u8) -> Vec<u8> {
    [&[0x50 | low, 0x2a, 0x4d, 0x18, size, 0, 0, 0][..], &vec![0xb5; usize::from(size)]].concat()
}

#[test]
fn streams_of_several_parts_are_what_the_formats_own_programs_make_of_them() {
    let (one, two) = (vec![b'a'; 3000], b"the second part".to_vec());
    let all = [one.clone(), two.clone()].concat();
    for (program, compression) in [
        ("gzip", Compression::Gzip),
        ("bzip2", Compression::Bzip2),
        ("xz", Compression::Xz),
        ("zstd", Compression::Zstd),
    ] {
        let (a, b) = (packed(program, &one), packed(program, &two));
        let zeros = |count: usize| vec![0; count];
        let mut streams = vec![
            a.clone(),
            [a.clone(), b.clone()].concat(),
            packed(program, b""),
            [packed(program, b""), a.clone(), b.clone()].concat(),
            [a.clone(), zeros(8)].concat(),
            [a.clone(), zeros(600)].concat(),
            [a.clone(), zeros(6)].concat(),
            [a.clone(), zeros(4), b.clone(), zeros(4)].concat(),
            [a.clone(), zeros(3), b.clone()].concat(),
            [a.clone(), b"rubbish".to_vec()].concat(),
            [a.clone(), b"r".to_vec(), b.clone()].concat(),
            a[..a.len() - 3].to_vec(),
            [a.clone(), b[..b.len() - 3].to_vec()].concat(),
        ];
        if compression == Compression::Zstd {
            let zero = [skippable(3, 0), a.clone()].concat();
            streams.push([skippable(0, 4), zero, skippable(15, 9), b.clone(), skippable(0, 1)].concat());
            streams.push(skippable(0, 9));
            streams.push([a.clone(), skippable(0, 9)[..12].to_vec()].concat());
        }
        for (i, stream) in streams.iter().enumerate() {
            assert_eq!(Compression::of(stream), compression, "{program} {i}");
            let read = |input: Box<dyn Read>| {
                let (mut plain, mut back) = (decompress(input).unwrap(), Vec::new());
                plain.read_to_end(&mut back).map(|_| (back, plain.has_trailing_data()))
            };
            let ours = read(Box::new(io::Cursor::new(stream.clone())));
            let slowly = read(Box::new(Drops(Box::leak(stream.clone().into_boxed_slice()))));
            assert_eq!(ours.as_ref().ok(), slowly.as_ref().ok(), "{program} {i}");
            let theirs = piped(program, &["-dc"], stream);
            assert_eq!(ours.as_ref().ok().map(|(b, _)| b), theirs.as_ref(), "{program} {i}: {ours:?}");
        }
        assert_eq!(piped(program, &["-dc"], &streams[1]), Some(all.clone()), "{program}");
    }
}

#[test]
fn rest_behind_the_end_is_told() {
    let gz = packed("gzip", b"x");
    for (behind, has_trailing_data) in [(&b""[..], false), (&[0; 9], false), (b"\0x", true), (b"x", true)] {
        let mut plain = decompress(io::Cursor::new([&gz, behind].concat())).unwrap();
        assert_eq!(io::read_to_string(&mut plain).unwrap(), "x");
        assert_eq!(plain.has_trailing_data(), has_trailing_data, "{behind:?}");
    }
}

#[test]
fn a_tar_is_a_tar_whatever_its_first_file_is_called() {
    for name in ["BZh91AY&SY", "\x1f\u{8b}", "P*M\x18x", "\u{fd}7zXZ"] {
        let mut tar = Vec::new();
        let header = walt_tar::Header { path: name.into(), ..walt_tar::Header::file(0) };
        walt_tar::write_header(&mut tar, &header);
        assert_eq!(Compression::of(&tar), Compression::None, "{name}");
    }
    assert_eq!(Compression::of(b"BZhello, this is not bzip2"), Compression::None);
    assert_eq!(Compression::of(b""), Compression::None);
}
