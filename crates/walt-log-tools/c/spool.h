/* The spool: what cannot be sent now, in files in RAM, for all tools of the node together.
 *
 * A file has the first line "walt-log 1 <source> <position> <stream>\n" (hexadecimal numbers of 16 digits), then frames
 * as they are sent. Its owner holds a lock on it (flock). What is left behind is sent by 'walt-log-program drain'.
 * Its size is what counts for the limit: who needs more than is there makes the file longer first, with the lock of the
 * directory; the bytes behind the last frame are zero.
 */

/* Bytes of lines that wait in RAM, for the whole node. Later lines are dropped, and counted. */
#define SPOOL_MAX (8u << 20)
/* A running tool takes so much of it at once. */
#define SPOOL_GRANT (64u << 10)
/* After it was full, it is asked again after so many milliseconds. */
#define SPOOL_FULL_MS 100u
#define STREAM_MAX 255u
#define HEADER_MAX (64u + STREAM_MAX)
/* Files for the lines of walt-log-echo of one stream: the first one that is not being sent is used. */
#define SHARED_FILES 4u

/* Where it can be: in RAM, and writable for all users. WALT_LOG_SPOOL replaces it (tests). */
static const char *spool_dirs[] = {"/dev/shm/walt-log", "/run/walt-log", "/tmp/walt-log"};
#define SPOOL_DIRS (sizeof spool_dirs / sizeof *spool_dirs)
static const char *spool_wanted;
static int spool_dir = -1;

/* The file that this process uses; it holds all that is not acknowledged. */
static struct {
    int fd; /* -1: none */
    char name[48];
    u64 base;  /* position before its first frame */
    u32 first; /* offset of the first frame */
    u32 read;  /* of the first one that is not in the queue */
    u32 size, granted;
    u64 skip; /* frames which the server has already, before `read` counts */
    u64 full_until;
} spool = {.fd = -1};

/* Room for the longest frame. */
static u8 scratch[LINE_MAX + READ_MAX];

static int spool_enter(const char *path, int make)
{
    int made = make && sys(SYS_mkdirat, AT_FDCWD, path, 0700) == 0;
    spool_dir = sys_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (made && spool_dir >= 0)
        sys(SYS_fchmod, spool_dir, 01777, 0);
    return spool_dir >= 0;
}
static int spool_open_dir(void)
{
    if (spool_wanted)
        return spool_enter(spool_wanted, 1);
    for (u32 i = 0; i < SPOOL_DIRS; i++)
        if (spool_enter(spool_dirs[i], 1))
            return 1;
    return 0;
}

struct dirent {
    u64 inode, offset;
    u16 len;
    u8 type;
    char name[];
};
/* Calls back for each file of the spool. */
static void spool_each(void (*with)(const char *name, void *what), void *what)
{
    _Alignas(8) static u8 entries[8192];
    sys(SYS_lseek, spool_dir, 0, SEEK_SET);
    for (;;) {
        long n = sys(SYS_getdents64, spool_dir, entries, sizeof entries);
        if (n <= 0)
            return;
        for (long at = 0; at < n;) {
            struct dirent *e = (struct dirent *)(entries + at);
            at += e->len;
            if (begins(e->name, "lines-"))
                with(e->name, what);
        }
    }
}
static void add_size(const char *name, void *sum)
{
    struct facts facts;
    if (sys_stat(spool_dir, name, &facts) == 0)
        *(u64 *)sum += facts.size;
}
/* Makes a file longer, if the limit of the node allows it. */
static int spool_grant(int fd, u32 from, u32 to)
{
    u64 sum = 0;
    sys(SYS_flock, spool_dir, LOCK_EX, 0);
    spool_each(add_size, &sum);
    int granted = sum + (to - from) <= SPOOL_MAX && sys(SYS_ftruncate, fd, to, 0) == 0;
    sys(SYS_flock, spool_dir, LOCK_UN, 0);
    return granted;
}
static int spool_write(int fd, u32 at, const void *bytes, u32 n)
{
    sys(SYS_lseek, fd, at, SEEK_SET);
    return sys_write(fd, bytes, n) == (long)n;
}
/* Room for n more bytes. */
static int spool_room(u32 n)
{
    u32 end = spool.size + n;
    if (end <= spool.granted)
        return 1;
    if (milliseconds() < spool.full_until)
        return 0;
    u32 wanted = spool.size + (n > SPOOL_GRANT ? n : SPOOL_GRANT);
    if (!spool_grant(spool.fd, spool.granted, wanted)) {
        wanted = end;
        if (!spool_grant(spool.fd, spool.granted, wanted)) {
            spool.full_until = milliseconds() + SPOOL_FULL_MS;
            return 0;
        }
    }
    spool.granted = wanted;
    return 1;
}
/* What is true at the end: the record is in the file as a whole, or nothing of it counts. */
static int spool_append(const struct record *r, const u8 *line, int forced)
{
    struct text frame = {(char *)scratch, 0, sizeof scratch};
    put_frame(&frame, r, line, 1);
    if (!forced && !spool_room((u32)frame.len))
        return 0;
    if (!spool_write(spool.fd, spool.size, frame.at, (u32)frame.len)) {
        sys(SYS_ftruncate, spool.fd, spool.size, 0);
        sys(SYS_ftruncate, spool.fd, spool.granted, 0);
        return 0;
    }
    spool.size += (u32)frame.len;
    if (spool.size > spool.granted)
        spool.granted = spool.size;
    return 1;
}

static void put_header(struct text *t, u64 source, u64 base, const char *stream)
{
    put(t, "walt-log 1 ");
    put_hex(t, source);
    put(t, " ");
    put_hex(t, base);
    put(t, " ");
    put(t, stream);
    put(t, "\n");
}
static void spool_name(struct text *t, u64 number)
{
    put(t, "lines-");
    put_number(t, (u32)sys(SYS_getuid, 0, 0, 0));
    put(t, "-");
    put_hex(t, number);
    t->at[t->len] = 0;
}
/* An own file, empty but for its header; it is locked from its beginning. */
static int spool_create(u64 source, u64 base, const char *stream)
{
    char header[HEADER_MAX];
    struct text name = {spool.name, 0, sizeof spool.name - 1}, t = {header, 0, sizeof header};
    if (spool_dir < 0 && !spool_open_dir())
        return 0;
    spool_name(&name, source);
    put_header(&t, source, base, stream);
    int fd = sys_open(spool_dir, spool.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return 0;
    sys(SYS_flock, fd, LOCK_EX | LOCK_NB, 0);
    if (!spool_write(fd, 0, header, (u32)t.len)) {
        sys(SYS_unlinkat, spool_dir, spool.name, 0);
        sys_close(fd);
        return 0;
    }
    spool.fd = fd;
    spool.base = base;
    spool.first = spool.read = spool.size = spool.granted = (u32)t.len;
    spool.skip = spool.full_until = 0;
    return 1;
}
static void spool_remove(void)
{
    sys(SYS_unlinkat, spool_dir, spool.name, 0);
    sys_close(spool.fd);
    spool.fd = -1;
}
/* The next bytes of the file from `at` on. */
static u32 spool_read(int fd, u32 at, void *to, u32 n)
{
    u32 all = 0;
    sys(SYS_lseek, fd, at, SEEK_SET);
    while (all < n) {
        long got = sys_read(fd, (u8 *)to + all, n - all);
        if (got <= 0)
            break;
        all += (u32)got;
    }
    return all;
}
/* Fills the queue with the next frames of the file. */
static void spool_load(void)
{
    while (spool.read < spool.size && queue_used() < QUEUE_SOFT) {
        struct record r;
        const u8 *line;
        u32 n = spool_read(spool.fd, spool.read, scratch, READ_MAX), at = 0, used;
        if (!parse_frame(scratch, n, &r, &line))
            n = spool_read(spool.fd, spool.read, scratch, sizeof scratch);
        while ((used = parse_frame(scratch + at, n - at, &r, &line)) != 0) {
            at += used;
            if (spool.skip)
                spool.skip--;
            else
                queue_push(&r, line);
        }
        spool.read += at;
        if (!at)
            spool.size = spool.read; /* the end of what was written, or of what a killed tool wrote */
    }
}

/* What the header of a file says. */
static int spool_header(int fd, u64 *source, u64 *base, char *stream, u32 *first)
{
    u8 header[HEADER_MAX];
    u32 n = spool_read(fd, 0, header, sizeof header);
    u32 end = (u32)find(header, n, '\n');
    if (end == n || end <= 45 || end - 45 > STREAM_MAX || !same_bytes(header, "walt-log 1 ", 11) ||
        !parse_hex(header + 11, source) || !parse_hex(header + 28, base))
        return 0;
    memcpy(stream, header + 45, end - 45);
    stream[end - 45] = 0;
    *first = end + 1;
    return 1;
}

/* A number for a stream (FNV-1a). */
static u64 stream_number(const char *stream)
{
    u64 hash = 0xcbf29ce484222325ull;
    for (; *stream; stream++)
        hash = (hash ^ (u8)*stream) * 0x100000001b3ull;
    return hash;
}
/* Appends lines, none of which was ever sent, to a file that several tools use one after the other. */
static int spool_share(const char *stream, u64 source)
{
    if (spool_dir < 0 && !spool_open_dir())
        return 0;
    for (u32 i = 0; i < SHARED_FILES; i++) {
        char found[STREAM_MAX + 1];
        struct text name = {spool.name, 0, sizeof spool.name - 1};
        struct facts facts;
        u64 other, base;
        u32 first;
        spool_name(&name, stream_number(stream) + i);
        int fd = sys_open(spool_dir, spool.name, O_RDWR | O_NOFOLLOW, 0);
        if (fd < 0)
            fd = sys_open(spool_dir, spool.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (fd < 0)
            continue;
        if (sys(SYS_flock, fd, LOCK_EX | LOCK_NB, 0) < 0 || sys_stat(fd, "", &facts) < 0 || !facts.links ||
            facts.owner != (u32)sys(SYS_getuid, 0, 0, 0)) {
            sys_close(fd);
            continue;
        }
        if (!facts.size) {
            char header[HEADER_MAX];
            struct text t = {header, 0, sizeof header};
            put_header(&t, source, 0, stream);
            if (spool_write(fd, 0, header, (u32)t.len))
                facts.size = (u32)t.len;
        }
        if (!spool_header(fd, &other, &base, found, &first) || !same(found, stream)) {
            sys_close(fd);
            continue;
        }
        spool.fd = fd;
        spool.size = spool.granted = facts.size;
        int all = 1;
        for (u32 at = queue.head; at < queue.tail && all; at += record_size(record_at(at)->len)) {
            struct record *r = record_at(at);
            struct text frame = {(char *)scratch, 0, sizeof scratch};
            put_frame(&frame, r, (u8 *)(r + 1), 1);
            /* exactly what is needed, so that its size is where the next one goes on */
            all = spool_grant(fd, spool.granted, spool.granted + (u32)frame.len);
            if (all) {
                spool.granted += (u32)frame.len;
                all = spool_append(r, (u8 *)(r + 1), 0);
            }
        }
        if (!all)
            sys(SYS_ftruncate, fd, facts.size, 0);
        sys_close(fd);
        spool.fd = -1;
        return all;
    }
    return 0;
}
