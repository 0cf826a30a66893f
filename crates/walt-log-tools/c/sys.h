/* The kernel's interface on the three CPUs: system calls, and what differs between them. No C library. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size;

#if defined(__x86_64__)
enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_lseek = 8, SYS_rt_sigaction = 13, SYS_rt_sigprocmask = 14,
    SYS_ioctl = 16, SYS_getpid = 39, SYS_socket = 41, SYS_connect = 42, SYS_setsockopt = 54, SYS_getsockopt = 55,
    SYS_clone = 56, SYS_execve = 59, SYS_wait4 = 61, SYS_kill = 62, SYS_fcntl = 72, SYS_flock = 73, SYS_ftruncate = 77,
    SYS_chdir = 80, SYS_fchmod = 91, SYS_getuid = 102, SYS_setsid = 112, SYS_getdents64 = 217,
    SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257, SYS_mkdirat = 258, SYS_fstatat = 262,
    SYS_unlinkat = 263, SYS_ppoll = 271, SYS_signalfd4 = 289, SYS_dup3 = 292, SYS_pipe2 = 293, SYS_getrandom = 318,
};
enum { O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000, STAT_MODE = 24, STAT_LINKS = 16, STAT_OWNER = 28 };
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call entry\n hlt\n");

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum {
    SYS_dup3 = 24, SYS_fcntl = 25, SYS_ioctl = 29, SYS_flock = 32, SYS_mkdirat = 34, SYS_unlinkat = 35, SYS_ftruncate = 46,
    SYS_chdir = 49, SYS_fchmod = 52, SYS_openat = 56, SYS_close = 57, SYS_pipe2 = 59, SYS_getdents64 = 61, SYS_lseek = 62,
    SYS_read = 63, SYS_write = 64, SYS_ppoll = 73, SYS_signalfd4 = 74, SYS_fstatat = 79, SYS_exit_group = 94,
    SYS_clock_gettime = 113, SYS_kill = 129, SYS_rt_sigaction = 134, SYS_rt_sigprocmask = 135, SYS_setsid = 157,
    SYS_getpid = 172, SYS_getuid = 174, SYS_socket = 198, SYS_connect = 203, SYS_setsockopt = 208,
    SYS_getsockopt = 209, SYS_clone = 220, SYS_execve = 221, SYS_wait4 = 260, SYS_getrandom = 278,
};
enum { O_DIRECTORY = 0x4000, O_NOFOLLOW = 0x8000, STAT_MODE = 16, STAT_LINKS = 20, STAT_OWNER = 24 };
__asm__(".globl _start\n_start:\n mov x29, #0\n mov x30, #0\n mov x0, sp\n bl entry\n");

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#elif defined(__arm__)
enum {
    SYS_read = 3, SYS_write = 4, SYS_close = 6, SYS_execve = 11, SYS_chdir = 12, SYS_lseek = 19, SYS_getpid = 20,
    SYS_kill = 37, SYS_ioctl = 54, SYS_setsid = 66, SYS_ftruncate = 93, SYS_fchmod = 94, SYS_wait4 = 114,
    SYS_clone = 120, SYS_flock = 143, SYS_rt_sigaction = 174, SYS_rt_sigprocmask = 175, SYS_getuid = 199,
    SYS_getdents64 = 217, SYS_fcntl = 221, SYS_exit_group = 248, SYS_clock_gettime = 263, SYS_socket = 281, SYS_connect = 283,
    SYS_setsockopt = 294, SYS_getsockopt = 295, SYS_openat = 322, SYS_mkdirat = 323, SYS_fstatat = 327,
    SYS_unlinkat = 328, SYS_ppoll = 336, SYS_signalfd4 = 355, SYS_dup3 = 358, SYS_pipe2 = 359, SYS_getrandom = 384,
    SYS_clock_gettime64 = 403,
};
enum { O_DIRECTORY = 0x4000, O_NOFOLLOW = 0x8000, STAT_MODE = 16, STAT_LINKS = 20, STAT_OWNER = 24 };
__asm__(".globl _start\n_start:\n mov fp, #0\n mov r0, sp\n bic r1, r0, #7\n mov sp, r1\n bl entry\n");

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r7 __asm__("r7") = n;
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = f;
    __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
    return r0;
}

/* Early ARM processors do not divide: what the compiler calls instead. The remainder is returned in r1. */
__attribute__((used)) u32 __aeabi_uidiv(u32 a, u32 b)
{
    u32 quotient = 0, rest = 0;
    for (int bit = 31; bit >= 0; bit--) {
        rest = rest << 1 | (a >> bit & 1);
        if (rest >= b) {
            rest -= b;
            quotient |= 1u << bit;
        }
    }
    return quotient;
}

__attribute__((used)) u64 __aeabi_uidivmod(u32 a, u32 b)
{
    u32 quotient = __aeabi_uidiv(a, b);
    return (u64)(a - quotient * b) << 32 | quotient;
}
#else
#error "this program is for x86-64, arm64 and 32-bit ARM"
#endif

#define sys(n, a, b, c) sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)

enum { EINTR = 4, EAGAIN = 11, EEXIST = 17, ENOENT = 2, EPIPE = 32, ENOSYS = 38, EINPROGRESS = 115 };
enum {
    AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000, O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_EXCL = 0200,
    O_NOCTTY = 0400, O_NONBLOCK = 04000, O_CLOEXEC = 02000000,
};
enum { F_WRLCK = 1, F_UNLCK = 2, F_OFD_GETLK = 36, F_OFD_SETLK = 37 };
enum { LOCK_EX = 2, LOCK_NB = 4, LOCK_UN = 8, SEEK_SET = 0 };
enum { STAT_SIZE = 48, S_IFMT = 0170000, S_IFIFO = 0010000, S_IFDIR = 0040000, S_ISVTX = 01000 };
enum { AF_INET = 2, SOCK_STREAM = 1, SOL_SOCKET = 1, SO_ERROR = 4, SO_KEEPALIVE = 9, IPPROTO_TCP = 6, TCP_NODELAY = 1 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
enum { SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGKILL = 9, SIGPIPE = 13, SIGTERM = 15, SIGCHLD = 17, SIGWINCH = 28 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, SIG_IGN = 1, CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1 };
enum {
    TCGETS = 0x5401, TCSETSW = 0x5403, TIOCSCTTY = 0x540E, TIOCGWINSZ = 0x5413, TIOCSWINSZ = 0x5414,
    TIOCSPTLCK = 0x40045431,
};
#define TIOCGPTN 0x80045430u

struct poll {
    int fd;
    short events, got;
};
/* A lock on a part of a file, here: on all of it. On 32-bit ARM, fcntl is fcntl64. */
struct lock {
    u16 type, whence;
    u64 start, len;
    u32 pid;
};
struct timespec {
    long sec, nsec;
};
/* As the kernel has it on all three CPUs. */
struct sigaction {
    size handler;
    unsigned long flags;
    size restorer;
    u64 mask;
};
struct winsize {
    u16 rows, columns, x, y;
};
struct termios {
    u32 input, output, control, local;
    u8 line, chars[19];
};

/* The compiler calls these by name. */
__attribute__((used)) void *memcpy(void *to, const void *from, size n)
{
    u8 *t = to;
    const u8 *f = from;
    while (n--)
        *t++ = *f++;
    return to;
}
__attribute__((used)) void *memmove(void *to, const void *from, size n)
{
    u8 *t = to;
    const u8 *f = from;
    if (t <= f)
        return memcpy(to, from, n);
    while (n--)
        t[n] = f[n];
    return to;
}
__attribute__((used)) void *memset(void *to, int value, size n)
{
    u8 *t = to;
    while (n--)
        *t++ = (u8)value;
    return to;
}

static long sys_read(int fd, void *to, size n)
{
    long got;
    do
        got = sys(SYS_read, fd, to, n);
    while (got == -EINTR);
    return got;
}
static long sys_write(int fd, const void *from, size n)
{
    long done;
    do
        done = sys(SYS_write, fd, from, n);
    while (done == -EINTR);
    return done;
}
static int sys_open(int dir, const char *path, int flags, int mode)
{
    return (int)sys6(SYS_openat, dir, (long)path, flags | O_CLOEXEC, mode, 0, 0);
}
static void sys_close(int fd) { sys(SYS_close, fd, 0, 0); }
static int sys_poll(struct poll *fds, u32 n, u32 milliseconds)
{
    struct timespec limit = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    return (int)sys6(SYS_ppoll, (long)fds, n, (long)&limit, 0, 8, 0);
}
static int sys_fork(void) { return (int)sys6(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0); }
__attribute__((noreturn)) static void sys_exit(int status)
{
    for (;;)
        sys(SYS_exit_group, status, 0, 0);
}

/* What the kernel says about a file. An empty name means the open file. */
struct facts {
    u32 mode, links, owner, size;
};
static int sys_stat(int dir, const char *name, struct facts *facts)
{
    u64 raw[32];
    long status = sys6(SYS_fstatat, dir, (long)name, (long)raw, *name ? 0 : AT_EMPTY_PATH, 0, 0);
    if (status < 0)
        return (int)status;
    facts->mode = *(u32 *)((u8 *)raw + STAT_MODE);
    facts->links = *(u32 *)((u8 *)raw + STAT_LINKS);
    facts->owner = *(u32 *)((u8 *)raw + STAT_OWNER);
    facts->size = *(u32 *)((u8 *)raw + STAT_SIZE);
    return 0;
}
