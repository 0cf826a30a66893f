//! Disks of machines: a sparse file each, kept while the wanted disks name it.
//!
//! The name of a file says all that its disk was made from, such as `sda-8000000000-ext4`. What a wanted disk has no
//! file for is made under another name and then renamed, so that a file with a disk's name is complete, whenever the
//! server dies. Partition table and file system are written into the new file; nothing is mounted, and what a
//! guest has written is never looked at.

use crate::{Account, Error, MKFS_TIMEOUT, Result, failed};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use walt_types::{Disk, Disks, Template};

/// Bytes of a sector, as partition tables count.
const SECTOR: u64 = 512;
/// First sector of the partition of a template.
const PARTITION_START: u64 = 2048;
/// Block size of ext4, in bytes.
const EXT4_BLOCK: u64 = 4096;
/// What ext4 has: all that Linux 4.9 knows, whatever the server's mke2fs.conf says, so that old images mount it.
const EXT4_FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// How much of a new file is looked at at once, in bytes. Zeroes of this length become holes.
const DIG: usize = 64 * 1024;
/// End of the names of what is not complete.
const PART: &str = ".part";
/// Interval between two checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much of a failed program's words goes into an error, in bytes.
const WORDS_MAX: u64 = 1000;

/// An open disk.
#[derive(Debug)]
pub struct DiskFile {
    /// Its name on the guest, `sda` for the first one.
    pub name: String,
    /// The disk itself, open for reading and writing.
    pub file: File,
}

/// A program that makes file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The Debian package that it comes with.
    pub package: &'static str,
}

/// The program that a template needs.
pub fn program(template: Template) -> Option<Program> {
    match template {
        Template::None => None,
        Template::Ext4 | Template::HybridVolatile | Template::HybridPersistent => {
            Some(Program { name: "mkfs.ext4", package: "e2fsprogs" })
        }
        Template::Fat32 => Some(Program { name: "mkfs.vfat", package: "dosfstools" }),
    }
}

/// The disks in this directory that [`provide`] would remove, by their names on the guest.
///
/// # Errors
/// When the directory cannot be read.
pub fn lost(directory: &Path, wanted: &Disks) -> Result<Vec<String>> {
    let mut lost: Vec<String> = unwanted(directory, wanted)?
        .into_iter()
        .filter(|file| !file.ends_with(PART))
        .map(|file| file.split('-').next().unwrap_or_default().to_owned())
        .collect();
    lost.sort_unstable();
    lost.dedup();
    Ok(lost)
}

/// Makes the directory hold these disks and no others: disks that are there stay as they are. Their files belong to
/// `account`.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::Mkfs`], or the directory cannot be written. What is there already is kept.
pub fn provide(directory: &Path, wanted: &Disks, account: Account) -> Result<Vec<DiskFile>> {
    for file in unwanted(directory, wanted)? {
        let path = directory.join(&file);
        let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(failed(format!("remove {}", path.display())))?;
    }
    if wanted.iter().next().is_none() {
        return Ok(Vec::new());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed(format!("make {}", directory.display())))?;
    wanted
        .iter()
        .map(|(name, disk)| {
            let path = directory.join(file_name(&name, disk));
            if !path.exists() {
                make(directory, &name, disk, account)?;
            }
            let file = open(&path)?;
            let length = file.metadata().map_err(failed(format!("read {}", path.display())))?.len();
            if length != disk.bytes() {
                let source = std::io::Error::other(format!("it has {length} bytes, not {}", disk.bytes()));
                return Err(failed(format!("use {}", path.display()))(source));
            }
            Ok(DiskFile { name, file })
        })
        .collect()
}

fn file_name(name: &str, disk: &Disk) -> String {
    format!("{name}-{}-{}", disk.bytes(), disk.template().name())
}

/// Files of disks that are not wanted, complete or not. What has another name is not ours.
fn unwanted(directory: &Path, wanted: &Disks) -> Result<Vec<String>> {
    let reading = || failed(format!("read {}", directory.display()));
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(reading())?,
    };
    let wanted: Vec<String> = wanted.iter().map(|(name, disk)| file_name(&name, disk)).collect();
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(reading())?.file_name();
        found.extend(
            name.to_str().filter(|n| is_ours(n) && !wanted.iter().any(|w| w == n)).map(str::to_owned),
        );
    }
    Ok(found)
}

/// Whether a file has the name of a disk, or of an incomplete one.
fn is_ours(file: &str) -> bool {
    let mut parts = file.strip_suffix(PART).unwrap_or(file).splitn(3, '-');
    let (name, bytes, template) = (parts.next(), parts.next(), parts.next());
    let letter = name.and_then(|n| n.strip_prefix("sd")).map(str::as_bytes);
    matches!(letter, Some([b'a'..=b'z']))
        && bytes.is_some_and(|b| b.parse::<u64>().is_ok())
        && template.is_some_and(|t| t.parse::<Template>().is_ok())
}

fn open(path: &Path) -> Result<File> {
    // Nobody but root writes in this directory; a link is not a disk all the same.
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).custom_flags(no_follow).open(path);
    opened.map_err(failed(format!("open {}", path.display())))
}

/// Makes a new disk: complete and durable before it gets its name.
fn make(directory: &Path, name: &str, disk: &Disk, account: Account) -> Result<()> {
    let path = directory.join(file_name(name, disk));
    let mut part = path.clone().into_os_string();
    part.push(PART);
    let part = Path::new(&part);
    let shown = format!("the disk {}", path.display());
    let making = || failed(format!("make {shown}"));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(part).map_err(making())?;
    file.set_len(disk.bytes()).map_err(making())?;
    if let Some(program) = program(disk.template()) {
        let kind = if disk.template() == Template::Fat32 { 0x0c } else { 0x83 };
        let mut signature = [0; 4];
        getrandom::fill(&mut signature).map_err(|e| making()(std::io::Error::other(e.to_string())))?;
        file.write_all_at(&mbr(disk.bytes(), kind, signature), 0).map_err(making())?;
        format(directory, part, disk, program, &shown)?;
        dig(&file).map_err(making())?;
    }
    rustix::fs::fchown(&file, Some(uid(account)), Some(gid(account))).map_err(|e| making()(e.into()))?;
    file.sync_all().map_err(making())?;
    std::fs::rename(part, &path).map_err(making())?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(making())
}

fn uid(account: Account) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(account.uid)
}

fn gid(account: Account) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(account.gid)
}

/// Sectors of the partition of a template: all behind its start.
fn partition_sectors(bytes: u64) -> u64 {
    bytes / SECTOR - PARTITION_START
}

/// A partition table with one partition. Sectors are counted by LBA; the older numbers say that they do not apply.
fn mbr(bytes: u64, kind: u8, signature: [u8; 4]) -> [u8; SECTOR as usize] {
    const NO_CHS: [u8; 3] = [0xfe, 0xff, 0xff];
    let mut table = [0; SECTOR as usize];
    table[440..444].copy_from_slice(&signature);
    let entry = &mut table[446..462];
    entry[1..4].copy_from_slice(&NO_CHS);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&NO_CHS);
    entry[8..12].copy_from_slice(&(PARTITION_START as u32).to_le_bytes());
    // Invariant: a disk with a template has at most GIGABYTES_MAX_TEMPLATE.
    let sectors = u32::try_from(partition_sectors(bytes)).unwrap_or(u32::MAX);
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    table
}

/// Makes the file system of a template in its partition.
fn format(directory: &Path, file: &Path, disk: &Disk, program: Program, shown: &str) -> Result<()> {
    let partition = partition_sectors(disk.bytes()) * SECTOR;
    let mut command = Command::new(program.name);
    if disk.template() == Template::Fat32 {
        command.args([
            "-F",
            "32",
            "-h",
            &PARTITION_START.to_string(),
            "--offset",
            &PARTITION_START.to_string(),
        ]);
        // It counts in KiB.
        command.arg(file).arg((partition / 1024).to_string());
        return run(command, program, shown);
    }
    let stage = stage(directory, disk)?;
    // Inode tables and journal count as zeroed, so that the guest does not write zeroes for hours.
    let offset = PARTITION_START * SECTOR;
    command.args(["-q", "-F", "-b", &EXT4_BLOCK.to_string(), "-I", "256", "-O", EXT4_FEATURES]);
    command.args(["-E", &format!("offset={offset},lazy_itable_init=0,lazy_journal_init=0"), "-d"]);
    command.arg(&stage).arg(file).arg((partition / EXT4_BLOCK).to_string());
    let made = run(command, program, shown);
    std::fs::remove_dir_all(&stage).map_err(failed(format!("remove {}", stage.display())))?;
    made
}

/// The files of a new ext4, in a directory to copy them from.
fn stage(directory: &Path, disk: &Disk) -> Result<std::path::PathBuf> {
    // A name that is removed as an incomplete disk when the server dies here.
    let stage = directory.join(format!("sdz-{}-{}{PART}", disk.bytes(), disk.template().name()));
    let staging = || failed(format!("write {}", stage.display()));
    let make = |path: &Path| {
        std::fs::create_dir(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
    };
    make(&stage).map_err(staging())?;
    let hybrid = stage.join("walt_hybrid");
    match disk.template() {
        Template::HybridVolatile => make(&hybrid).map_err(staging())?,
        Template::HybridPersistent => {
            make(&hybrid).map_err(staging())?;
            File::create(hybrid.join(".persistent")).map_err(staging())?;
        }
        Template::None | Template::Ext4 | Template::Fat32 => {}
    }
    Ok(stage)
}

/// Runs a program to its end, within [`MKFS_TIMEOUT`].
fn run(mut command: Command, program: Program, shown: &str) -> Result<()> {
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let Program { name, package } = program;
    let disk = || shown.to_owned();
    let mut child = match command.spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::NoProgram { disk: disk(), program: name, package });
        }
        child => child.map_err(failed(format!("run {name}")))?,
    };
    let deadline = Instant::now() + MKFS_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed(format!("wait for {name}")))? {
            break status;
        }
        if Instant::now() > deadline {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            let words = format!("it did not end within {} s", MKFS_TIMEOUT.as_secs());
            return Err(Error::Mkfs { disk: disk(), program: name, words });
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(WORDS_MAX).read_to_end(&mut words).map_err(failed(format!("read from {name}")))?;
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    Err(Error::Mkfs {
        disk: disk(),
        program: name,
        words: if words.is_empty() { status.to_string() } else { words },
    })
}

/// Gives back the room of zeroes and of what was reserved for them: mkfs writes and reserves up to a gigabyte of those.
fn dig(file: &File) -> std::io::Result<()> {
    let punch = |from: u64, to: u64| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if from < to { rustix::fs::fallocate(file, flags, from, to - from) } else { Ok(()) }
    };
    let length = file.metadata()?.len();
    let mut buffer = vec![0; DIG];
    let mut position = 0;
    while position < length {
        let data = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Err(rustix::io::Errno::NXIO) => length,
            data => data?,
        };
        punch(position, data)?;
        if data == length {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        position = data;
        while position < end {
            let part = &mut buffer[..(end - position).min(DIG as u64) as usize];
            file.read_exact_at(part, position)?;
            let next = position + part.len() as u64;
            if part.iter().all(|b| *b == 0) {
                punch(position, next)?;
            }
            position = next;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn account() -> Account {
        Account { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    fn disks(text: &str) -> Disks {
        text.parse().unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn disks_stay_while_they_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("disks");
        let provide = |text: &str| provide(&directory, &disks(text), account()).unwrap();
        assert!(provide("none").is_empty() && !directory.exists());
        assert!(lost(&directory, &disks("1G")).unwrap().is_empty());
        let made = provide("1G,2T");
        assert_eq!(made.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["sda", "sdb"]);
        assert_eq!(names(&directory), ["sda-1000000000-none", "sdb-2000000000000-none"]);
        made[1].file.write_all_at(b"data", 1_999_999_999_996).unwrap();
        let metadata = made[1].file.metadata().unwrap();
        assert!(metadata.blocks() < 1000 && metadata.mode() & 0o777 == 0o600, "{metadata:?}");

        // What a killed server has left does not count, and what is not ours stays.
        std::fs::write(directory.join("sda-1000000000-ext4.part"), "half").unwrap();
        std::fs::create_dir(directory.join("sdz-1000000000-ext4.part")).unwrap();
        std::fs::write(directory.join("sdb-copy-of-mine"), "copy").unwrap();
        assert!(lost(&directory, &disks("1G,2T")).unwrap().is_empty());
        let mut kept = String::new();
        for text in ["1G,2000G[template=none]", "1G[template=ext4],2T,1G"] {
            let again = provide(text);
            let mut bytes = [0; 4];
            again[1].file.read_exact_at(&mut bytes, 1_999_999_999_996).unwrap();
            assert_eq!(&bytes, b"data");
            kept = names(&directory).join(" ");
        }
        assert_eq!(kept, "sda-1000000000-ext4 sdb-2000000000000-none sdb-copy-of-mine sdc-1000000000-none");
        // Another size, another template, fewer of them.
        assert_eq!(lost(&directory, &disks("2G[template=ext4],2T,1G")).unwrap(), ["sda"]);
        assert_eq!(lost(&directory, &disks("1G[template=fat32],1T")).unwrap(), ["sda", "sdb", "sdc"]);
        provide("none");
        assert_eq!(names(&directory), ["sdb-copy-of-mine"]);
    }

    #[test]
    fn a_damaged_disk_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sda-1000000000-none");
        std::fs::write(&path, "short").unwrap();
        let refused = provide(dir.path(), &disks("1G"), account()).unwrap_err().to_string();
        assert_eq!(refused, format!("cannot use {}: it has 5 bytes, not 1000000000", path.display()));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(provide(dir.path(), &disks("1G"), account()).is_err());
    }

    /// What `debugfs` prints about the ext4 of a disk.
    fn debugfs(path: &Path, request: &str) -> String {
        let device = format!("{}?offset=1048576", path.display());
        let ran = Command::new("debugfs").args(["-R", request, &device]).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    #[test]
    fn templates() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let all =
            "1G[template=ext4],200G[template=fat32],100G[template=hybrid-boot-v],8G[template=hybrid-boot-p]";
        let made = provide(dir.path(), &disks(all), account()).unwrap();
        for (disk, kind) in made.iter().zip([0x83, 0x0c, 0x83, 0x83]) {
            let metadata = disk.file.metadata().unwrap();
            let mut sector = [0; 512];
            disk.file.read_exact_at(&mut sector, 0).unwrap();
            let signature = sector[440..444].try_into().unwrap();
            assert_eq!(sector, mbr(metadata.len(), kind, signature));
            let room = metadata.blocks() * SECTOR;
            assert!(room < 100_000_000, "{}: {room} bytes", disk.name);
        }
        let path = |number: usize| dir.path().join(&names(dir.path())[number]);
        for (number, listed) in [(0, ""), (2, "walt_hybrid"), (3, "walt_hybrid")] {
            let root = debugfs(&path(number), "ls -p /");
            let names: Vec<&str> = root
                .lines()
                .filter_map(|l| l.split('/').nth(5))
                .filter(|n| !n.starts_with(['.', 'l']))
                .collect();
            assert_eq!(names.join(" "), listed, "{root}");
        }
        assert!(debugfs(&path(3), "stat /walt_hybrid/.persistent").contains("Type: regular"));
        assert!(!debugfs(&path(2), "ls /walt_hybrid").contains(".persistent"));
        // The guest does not spend its first hours with zeroing.
        let device = format!("{}?offset=1048576", path(2).display());
        let dumped = Command::new("dumpe2fs").arg(&device).output().unwrap();
        let dumped = String::from_utf8_lossy(&dumped.stdout).into_owned();
        let groups: Vec<&str> =
            dumped.lines().filter(|l| l.starts_with("Group ") && l.contains("csum")).collect();
        assert!(groups.len() > 700 && groups.iter().all(|g| g.contains("ITABLE_ZEROED")), "{dumped}");
        assert!(dumped.contains("has_journal") && !dumped.contains("orphan_file"), "{dumped}");
        let checked = Command::new("e2fsck").args(["-fn", &device]).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        let mut fat = [0; 512];
        made[1].file.read_exact_at(&mut fat, PARTITION_START * SECTOR).unwrap();
        assert_eq!(&fat[82..90], b"FAT32   ");
        // Its own counts: the sectors before it, and those in it, as far as they make whole tracks.
        assert_eq!(fat[28..32], 2048_u32.to_le_bytes());
        let sectors = u64::from(u32::from_le_bytes(fat[32..36].try_into().unwrap()));
        let most = partition_sectors(200_000_000_000);
        assert!((most - 63..=most).contains(&sectors), "{sectors} of {most}");
    }

    #[test]
    fn a_partition_table() {
        let table = mbr(1_000_000_000, 0x83, [1, 2, 3, 4]);
        let used =
            [1, 2, 3, 4, 0, 0, 0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0x65, 0xc5, 0x1d, 0];
        assert_eq!(table[440..462], used);
        assert!(table[..440].iter().chain(&table[462..510]).all(|b| *b == 0));
        assert_eq!(table[510..], [0x55, 0xaa]);
    }

    #[test]
    fn programs_that_fail_or_are_missing() {
        let program = Program { name: "mkfs.ext4", package: "e2fsprogs" };
        let missing = run(Command::new("walt-no-such-program"), program, "the disk d").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "cannot make the disk d: mkfs.ext4 is missing on the server; install its Debian package e2fsprogs"
        );
        let mut command = Command::new("sh");
        command.args(["-c", "echo no room >&2; exit 3"]);
        let failed = run(command, program, "the disk d").unwrap_err();
        assert_eq!(failed.to_string(), "cannot make the disk d: mkfs.ext4 failed: no room");
    }
}
