/* Memory, words, numbers, times and messages. */

/* A point of time since 1970. 32 bits of seconds reach into the year 2106. */
struct stamp {
    u32 sec, usec;
};

static const char *tool = "walt-log";

static size length(const char *s)
{
    size n = 0;
    while (s[n])
        n++;
    return n;
}
static int same_bytes(const void *a, const void *b, size n)
{
    const u8 *x = a, *y = b;
    for (size i = 0; i < n; i++)
        if (x[i] != y[i])
            return 0;
    return 1;
}
static int same(const char *a, const char *b)
{
    size n = length(a);
    return n == length(b) && same_bytes(a, b, n);
}
static int begins(const char *s, const char *with)
{
    size n = length(with);
    return length(s) >= n && same_bytes(s, with, n);
}
/* Where the first such byte is, n if nowhere. */
static size find(const u8 *bytes, size n, u8 wanted)
{
    size i = 0;
    while (i < n && bytes[i] != wanted)
        i++;
    return i;
}

/* A text that is built in a buffer which is large enough by its maker's care; what does not fit is left out. */
struct text {
    char *at;
    size len, cap;
};
static void put_bytes(struct text *t, const void *bytes, size n)
{
    if (n > t->cap - t->len)
        n = t->cap - t->len;
    memcpy(t->at + t->len, bytes, n);
    t->len += n;
}
static void put(struct text *t, const char *words) { put_bytes(t, words, length(words)); }
static void put_padded(struct text *t, u32 value, u32 digits)
{
    char all[10];
    u32 n = 0;
    do {
        all[9 - n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value || n < digits);
    put_bytes(t, all + 10 - n, n);
}
static void put_number(struct text *t, u32 value) { put_padded(t, value, 1); }
static void put_hex(struct text *t, u64 value)
{
    for (int i = 0; i < 16; i++) {
        put_bytes(t, &"0123456789abcdef"[(u32)(value >> 60)], 1);
        value <<= 4;
    }
}
static void put_stamp(struct text *t, struct stamp s)
{
    put_number(t, s.sec);
    put(t, ".");
    put_padded(t, s.usec, 6);
}

/* What a number at the beginning is worth, and how many bytes it has: 0 if there is none or it is too large. */
static size parse_number(const u8 *s, size n, u64 *value)
{
    size i = 0;
    *value = 0;
    while (i < n && s[i] >= '0' && s[i] <= '9' && i < 19)
        *value = *value * 10 + (s[i++] - '0');
    return i < n && s[i] >= '0' && s[i] <= '9' ? 0 : i;
}
static int parse_hex(const u8 *s, u64 *value)
{
    *value = 0;
    for (int i = 0; i < 16; i++) {
        u8 c = s[i];
        if (c >= '0' && c <= '9')
            c = (u8)(c - '0');
        else if (c >= 'a' && c <= 'f')
            c = (u8)(c - 'a' + 10);
        else
            return 0;
        *value = *value << 4 | c;
    }
    return 1;
}
/* <seconds>[.<fraction>]; digits behind the microseconds are left out. How many bytes it has: 0 if it is none. */
static size parse_stamp(const u8 *s, size n, struct stamp *stamp)
{
    u64 sec;
    size i = parse_number(s, n, &sec);
    if (!i || sec > 0xffffffff)
        return 0;
    stamp->sec = (u32)sec;
    stamp->usec = 0;
    if (i < n && s[i] == '.') {
        u32 unit = 100000;
        for (i++; i < n && s[i] >= '0' && s[i] <= '9'; i++, unit /= 10)
            stamp->usec += (s[i] - '0') * unit;
    }
    return i;
}

static void clock(int which, u64 *sec, u32 *nsec)
{
#if defined(__arm__)
    static int old;
    if (!old) {
        u64 now[2];
        if (sys(SYS_clock_gettime64, which, now, 0) >= 0) {
            *sec = now[0];
            *nsec = (u32)now[1];
            return;
        }
        old = 1;
    }
#endif
    struct timespec now;
    sys(SYS_clock_gettime, which, &now, 0);
    *sec = (u64)now.sec;
    *nsec = (u32)now.nsec;
}
static struct stamp time_now(void)
{
    u64 sec;
    u32 nsec;
    clock(CLOCK_REALTIME, &sec, &nsec);
    return (struct stamp){(u32)sec, nsec / 1000};
}
/* Milliseconds that only grow. */
static u64 milliseconds(void)
{
    u64 sec;
    u32 nsec;
    clock(CLOCK_MONOTONIC, &sec, &nsec);
    return sec * 1000 + nsec / 1000000;
}

/* write_all: in spite of partial writes and of an output that does not block. 0 if it is closed. */
static int write_all(int fd, const void *bytes, size n)
{
    const u8 *at = bytes;
    while (n) {
        long done = sys_write(fd, at, n);
        if (done == -EAGAIN) {
            struct poll wait = {fd, POLLOUT, 0};
            sys_poll(&wait, 1, 1000);
            continue;
        }
        if (done < 0)
            return 0;
        at += done;
        n -= (size)done;
    }
    return 1;
}

/* A message of several parts, the last one being 0, as one line. */
static void say(const char *part, ...)
{
    char line[1024];
    struct text t = {line, 0, sizeof line - 1};
    __builtin_va_list more;
    put(&t, tool);
    put(&t, ": ");
    __builtin_va_start(more, part);
    for (; part; part = __builtin_va_arg(more, const char *))
        put(&t, part);
    __builtin_va_end(more);
    t.cap++;
    put(&t, "\n");
    write_all(2, line, t.len);
}
#define fail(...)                                                                                                      \
    do {                                                                                                               \
        say(__VA_ARGS__, (char *)0);                                                                                   \
        sys_exit(1);                                                                                                   \
    } while (0)
