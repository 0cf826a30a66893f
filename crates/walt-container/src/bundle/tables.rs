//! What a container may do and what it starts with: each table with a reason per line.

/// Capabilities, without the prefix `CAP_`. Not given:
///
/// * SYS_ADMIN: with the right to mount comes a `/proc` in which nothing is masked, and with that the server
///   (`core_pattern`). systemd notices that it may not mount, and starts services without a sandbox. In a user
///   namespace it would reach less, but much of the kernel that has had holes (SECURITY.md).
/// * DAC_READ_SEARCH: opens files by handle, which finds every file of the disk that the image lies on.
/// * SYS_MODULE, SYS_RAWIO, SYS_TIME, SYS_RESOURCE, SYSLOG, BPF, PERFMON, MAC_*, WAKE_ALARM, BLOCK_SUSPEND,
///   AUDIT_CONTROL, AUDIT_READ, SYS_PACCT, CHECKPOINT_RESTORE, NET_BROADCAST: they act on the server as a
///   whole, and no package needs them.
pub const CAPABILITIES: [(&str, &str); 23] = [
    ("CHOWN", "packages set owners"),
    ("DAC_OVERRIDE", "root reads and edits files of others"),
    ("FOWNER", "root changes modes of files of others"),
    ("FSETID", "set-id bits survive a change of owner"),
    ("KILL", "service managers end processes of other users"),
    ("SETGID", "services change their group"),
    ("SETUID", "services change their user"),
    ("SETPCAP", "service managers bound capabilities of services"),
    ("SETFCAP", "packages set file capabilities (ping)"),
    ("NET_BIND_SERVICE", "services listen below port 1024"),
    ("NET_ADMIN", "networking of the container's own namespace"),
    ("NET_RAW", "ping"),
    ("SYS_CHROOT", "sshd and package tools change root"),
    ("SYS_PTRACE", "debuggers; systemd looks at the processes of other users"),
    ("SYS_NICE", "services set priorities"),
    ("SYS_BOOT", "the OS ends itself with reboot(2), which ends the pid namespace"),
    ("SYS_TTY_CONFIG", "getty hangs up terminals"),
    ("MKNOD", "device nodes are part of images (refused by the kernel in a user namespace)"),
    ("AUDIT_WRITE", "login and sudo write audit records"),
    ("LINUX_IMMUTABLE", "chattr in package scripts (refused by the kernel in a user namespace)"),
    ("IPC_LOCK", "databases lock memory"),
    ("IPC_OWNER", "shared memory of other users"),
    ("LEASE", "file servers take leases"),
];

/// A rule that allows devices.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    /// `c` or `b`.
    pub kind: &'static str,
    /// Major number; `None`: any.
    pub major: Option<u32>,
    /// Minor number; `None`: any.
    pub minor: Option<u32>,
    /// Of `r`ead, `w`rite, `m`knod.
    pub access: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn device(
    kind: &'static str,
    major: Option<u32>,
    minor: Option<u32>,
    access: &'static str,
    reason: &'static str,
) -> Device {
    Device { kind, major, minor, access, reason }
}

/// Devices that may be used; everything else is denied. Disks, memory and the server's terminals can be
/// made as nodes, which are part of images, but not opened.
pub const DEVICES: [Device; 11] = [
    device("c", None, None, "m", "an image may contain any character device node"),
    device("b", None, None, "m", "an image may contain any block device node"),
    device("c", Some(1), Some(3), "rwm", "/dev/null"),
    device("c", Some(1), Some(5), "rwm", "/dev/zero"),
    device("c", Some(1), Some(7), "rwm", "/dev/full"),
    device("c", Some(1), Some(8), "rwm", "/dev/random"),
    device("c", Some(1), Some(9), "rwm", "/dev/urandom"),
    device("c", Some(5), Some(0), "rwm", "/dev/tty: the terminal of the process that opens it"),
    device("c", Some(5), Some(1), "rwm", "/dev/console: a terminal of the container"),
    device("c", Some(5), Some(2), "rwm", "/dev/ptmx: of the container's own devpts"),
    device("c", Some(136), None, "rwm", "/dev/pts/*: of the container's own devpts"),
];

/// System calls that fail with `EPERM`, whatever capabilities say: those that reach past the namespaces, and
/// parts of the kernel that no package needs and that have had most of its holes.
pub const REFUSED_CALLS: [(&str, &str); 13] = [
    ("open_by_handle_at", "files of the server's disk, past the root of the container"),
    ("kexec_load", "another kernel for the server; SYS_BOOT would allow it"),
    ("kexec_file_load", "another kernel for the server; SYS_BOOT would allow it"),
    ("bpf", "programs in the server's kernel"),
    ("perf_event_open", "observes the whole server"),
    ("userfaultfd", "holds the kernel still in the middle of a call"),
    ("add_key", "key rings go by user number: root's are those of the server's root"),
    ("request_key", "key rings go by user number: root's are those of the server's root"),
    ("keyctl", "key rings go by user number: root's are those of the server's root"),
    ("syslog", "the server's kernel messages"),
    ("io_uring_setup", "much of the kernel, without passing the filter of system calls"),
    ("io_uring_enter", "much of the kernel, without passing the filter of system calls"),
    ("io_uring_register", "much of the kernel, without passing the filter of system calls"),
];

/// Calls that are refused when they ask for a user namespace, in which every process has all capabilities:
/// name, index of the argument that has the flags.
pub const NO_USER_NAMESPACE: [(&str, u32); 2] = [("clone", 0), ("unshare", 0)];

/// `CLONE_NEWUSER` (clone(2)).
pub const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Calls that this kernel seems not to have, so that programs use the older one: the flags of `clone3` are in
/// memory, where a filter cannot look.
pub const ABSENT_CALLS: [&str; 1] = ["clone3"];

/// Paths that are hidden.
pub const MASKED: [(&str, &str); 12] = [
    ("/proc/acpi", "the server's hardware"),
    ("/proc/kcore", "the server's memory"),
    ("/proc/keys", "keys of other users of the kernel"),
    ("/proc/kpagecgroup", "use of the server's memory, page by page"),
    ("/proc/kpagecount", "use of the server's memory, page by page"),
    ("/proc/kpageflags", "use of the server's memory, page by page"),
    ("/proc/latency_stats", "timing of other processes"),
    ("/proc/timer_list", "timing of other processes"),
    ("/proc/sched_debug", "all processes of the server"),
    ("/proc/scsi", "the server's disks can be detached here"),
    ("/sys/firmware", "the server's firmware variables"),
    ("/sys/fs/bpf", "the server's programs"),
];

/// Paths that cannot be written.
pub const READ_ONLY: [(&str, &str); 5] = [
    ("/proc/bus", "the server's hardware"),
    ("/proc/fs", "the server's filesystems"),
    ("/proc/irq", "the server's interrupts"),
    ("/proc/sys", "settings of the server's kernel; systemd then leaves them alone"),
    ("/proc/sysrq-trigger", "resets the server"),
];

/// Settings of services that a container cannot provide, and without which systemd does not start the service (it
/// ignores other sandboxes that are missing). In the order of the lines: a user namespace; a user that exists while
/// the service runs (its directories are made of mounts; the service runs as root, or as the `User=` that it names);
/// what is bound to other places (one list for read-only and writable; the service sees the image's own); memory in
/// the place of a directory; a journal of its own; scheduling ahead of the server's own programs.
const SERVICES: &str = "[Service]\nPrivateUsers=no\nDynamicUser=no\nBindReadOnlyPaths=\nTemporaryFileSystem=\n\
                        LogNamespace=\nCPUSchedulingPolicy=other\nCPUSchedulingPriority=0\nIOSchedulingClass=best-effort\n";

/// Files put into `/run` before the OS starts: path below `/run`, content, reason.
pub const RUN_FILES: [(&str, &str, &str); 3] = [
    (
        "systemd/journald.conf.d/50-walt.conf",
        "[Journal]\nStorage=volatile\n",
        "the journal of a session is not part of the image",
    ),
    (
        "systemd/system.control/service.d/zz-walt-container.conf",
        SERVICES,
        "daemons of Debian start: redis, haproxy, …",
    ),
    ("systemd/user/service.d/zz-walt-container.conf", SERVICES, "those of users, too"),
];

/// More of them where programs are emulated.
pub const RUN_FILES_EMULATED: [(&str, &str, &str); 1] = [(
    "systemd/system.control/service.d/zz-walt.conf",
    "[Service]\nLoadCredential=\nLoadCredentialEncrypted=\nSetCredential=\nImportCredential=\n",
    "for a service with credentials, systemd makes a process in a mount namespace of its own; that it may not is known \
     to it, but qemu's answer is EINVAL, and the service fails",
)];

/// Units that are masked in `/run` for the session: name, reason.
pub const MASKED_UNITS: [(&str, &str); 12] = [
    ("apt-daily.service", "would hold the package lock and change the image on its own"),
    ("apt-daily.timer", "would hold the package lock and change the image on its own"),
    ("apt-daily-upgrade.service", "would hold the package lock and change the image on its own"),
    ("apt-daily-upgrade.timer", "would hold the package lock and change the image on its own"),
    ("e2scrub_all.timer", "checks disks of the server"),
    ("e2scrub_reap.service", "checks disks of the server"),
    ("logrotate.timer", "would rotate logs into the image"),
    ("dpkg-db-backup.timer", "would write a backup into the image"),
    ("man-db.timer", "would write an index into the image"),
    ("fstrim.timer", "there is no disk"),
    ("run-rpc_pipefs.mount", "cannot be mounted here: the system would count as degraded"),
    ("console-getty.service", "there is no console to log in at"),
];
