/* Tries from inside an image shell what busybox has no applet for. Each attempt prints "name: refused", or
 * "name: DONE" when it succeeded, or another error; the test knows what each must say. Linked statically: the image has no libc.
 *
 * usage: escape MAJOR MINOR      of the server's disk */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result)
{
    int refused = errno == EPERM || errno == ENOSYS;
    printf("%s: %s\n", what, result >= 0 ? "DONE" : refused ? "refused" : strerrorname_np(errno));
    fflush(stdout);
}

/* In a child, so that a namespace that was made does not change what comes after. */
static void apart(const char *what, long (*attempt)(void))
{
    pid_t child = fork();
    if (child == 0) {
        say(what, attempt());
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static long user_namespace(void) { return unshare(CLONE_NEWUSER); }
static long mount_namespace(void) { return unshare(CLONE_NEWNS); }
static long cgroup_namespace(void) { return unshare(CLONE_NEWCGROUP); }
static long clone_user_namespace(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}

/* struct clone_args of clone3(2), as far as it is used. */
static long clone3_user_namespace(void)
{
    uint64_t args[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0};
    long pid = syscall(SYS_clone3, args, sizeof args);
    if (pid == 0)
        _exit(0);
    return pid;
}

/* The handle of an ext4 file is its inode number and its generation; root of the disk is inode 2, generation 0. */
static long by_handle(uint32_t inode)
{
    struct {
        struct file_handle head;
        uint32_t body[2];
    } handle = {{8, 1}, {inode, 0}};
    int base = open("/", O_RDONLY | O_DIRECTORY);
    long fd = open_by_handle_at(base, &handle.head, O_RDONLY);
    if (fd >= 0)
        close(fd);
    return fd;
}

/* Where no node can be made (in a user namespace), the image has one. */
static long device(mode_t kind, unsigned major, unsigned minor, int flags)
{
    char planted[64];
    snprintf(planted, sizeof planted, "/planted/%c-%u-%u", kind == S_IFBLK ? 'b' : 'c', major, minor);
    unlink("/root/device");
    if (mknod("/root/device", kind | 0600, makedev(major, minor)) == 0)
        return open("/root/device", flags);
    return open(planted, flags);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    unsigned major = atoi(argv[1]), minor = atoi(argv[2]);

    say("make a block device", mknod("/root/node", S_IFBLK | 0600, makedev(major, minor)));
    say("read the disk", device(S_IFBLK, major, minor, O_RDONLY));
    say("write the disk", device(S_IFBLK, major, minor, O_WRONLY));
    say("mount the disk", mount("/root/node", "/mnt", "ext4", MS_RDONLY, NULL));
    say("read memory", device(S_IFCHR, 1, 1, O_RDONLY));
    say("read kernel messages", device(S_IFCHR, 1, 11, O_RDONLY));
    say("open a loop device", device(S_IFCHR, 10, 237, O_RDWR));
    say("open fuse", device(S_IFCHR, 10, 229, O_RDWR));
    say("open kvm", device(S_IFCHR, 10, 232, O_RDWR));

    say("root of the disk by handle", by_handle(2));
    say("mount proc", mount("proc", "/mnt", "proc", 0, NULL));
    say("mount sysfs", mount("sysfs", "/mnt", "sysfs", 0, NULL));
    say("mount cgroup", mount("cgroup", "/mnt", "cgroup", 0, "devices"));
    say("mount cgroup2", mount("cgroup2", "/mnt", "cgroup2", 0, NULL));
    say("mount tmpfs", mount("tmpfs", "/mnt", "tmpfs", 0, NULL));
    say("bind", mount("/proc", "/mnt", NULL, MS_BIND, NULL));
    say("make /proc/sys writable", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    say("make /sys writable", mount(NULL, "/sys", NULL, MS_REMOUNT, NULL));
    say("take a mount away", umount2("/dev/shm", MNT_DETACH));
    say("new mount calls", syscall(SYS_fsopen, "proc", 0));
    say("clone a mount", syscall(SYS_open_tree, AT_FDCWD, "/proc", 1 /* OPEN_TREE_CLONE */));
    apart("user namespace", user_namespace);
    apart("user namespace by clone", clone_user_namespace);
    apart("user namespace by clone3", clone3_user_namespace);
    apart("mount namespace", mount_namespace);
    apart("cgroup namespace", cgroup_namespace);

    say("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("kexec on crash", syscall(SYS_kexec_load, 0, 0, NULL, KEXEC_ON_CRASH));
    say("kexec by file", syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0));
    say("load a module", syscall(SYS_init_module, "", 0, ""));
    say("load a module by file", syscall(SYS_finit_module, 0, "", 0));
    say("bpf", syscall(SYS_bpf, 0, NULL, 0));
    say("perf", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    say("keys", syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -4 /* of the user */, 0));
    say("add a key", syscall(SYS_add_key, "user", "walt", "x", 1, -4));
    say("kernel log", syscall(SYS_syslog, 3, malloc(64), 64));
    say("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
    say("ports", syscall(SYS_iopl, 3));
    say("clock", syscall(SYS_clock_settime, 0, (int64_t[]){0, 0}));
    say("swap", syscall(SYS_swapon, "/root/node", 0));
    say("raise a limit", syscall(SYS_prlimit64, 0, 7, (uint64_t[]){1u << 20, 1u << 20}, NULL));
    return 0;
}
