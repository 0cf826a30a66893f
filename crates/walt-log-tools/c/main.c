/* walt-log-program: what walt-log-cat, -tee, -echo and -monitor are on nodes with an x86-64, arm64 or 32-bit ARM CPU.
 *
 *   walt-log-program cat|tee [--ts-server|--ts-local|--ts-provided] <stream>
 *   walt-log-program echo [--timestamp <seconds.fraction>] <stream> <words...>
 *   walt-log-program monitor <command...>
 *   walt-log-program drain        sends what is left in the spool; run by the node link when the server is back
 *
 * One process, one stream, no memory but what is declared here. Static, without a C library: images have all kinds.
 */
#include "sys.h"
#include "text.h"
#include "queue.h"
#include "spool.h"
#include "stream.h"

/* A signal that asks the tool to end: the rest of the input may come in so many milliseconds. */
#define GRACE_MS 2000u
/* The fifo of the log daemon that some images have. */
#define FIFO "/var/lib/walt/logs.fifo"

static u64 old_mask;
static struct sigaction old_pipe;
static int signals = -1;

static void ignore_closed_pipes(void)
{
    struct sigaction ignore = {SIG_IGN, 0, 0, 0};
    sys6(SYS_rt_sigaction, SIGPIPE, (long)&ignore, (long)&old_pipe, 8, 0, 0);
}
#define BIT(signal) (1u << ((signal)-1))
/* Signals are read as events. Those that are ignored (nohup, background jobs) stay ignored. */
static void take_signals(u32 bits)
{
    struct sigaction now;
    u64 wanted = bits;
    for (u32 i = 1; i < 32; i++) {
        if (bits & BIT(i) && sys6(SYS_rt_sigaction, i, 0, (long)&now, 8, 0, 0) == 0 && now.handler == SIG_IGN)
            wanted &= ~(u64)BIT(i);
    }
    sys6(SYS_rt_sigprocmask, SIG_BLOCK, (long)&wanted, (long)&old_mask, 8, 0, 0);
    signals = (int)sys6(SYS_signalfd4, -1, (long)&wanted, 8, O_CLOEXEC, 0, 0);
}
static void restore_signals(void)
{
    sys6(SYS_rt_sigaction, SIGPIPE, (long)&old_pipe, 0, 8, 0, 0);
    sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&old_mask, 0, 8, 0, 0);
}
static u32 signal_taken(void)
{
    _Alignas(8) u32 info[32];
    return sys_read(signals, info, sizeof info) == sizeof info ? info[0] : 0;
}

/* What was read and is not a whole line yet. */
static struct {
    u8 bytes[LINE_MAX + READ_MAX];
    u32 len, scanned;
} input;
static void (*take_line)(const u8 *line, u32 len);

static long input_read(int fd)
{
    long n = sys_read(fd, input.bytes + input.len, READ_MAX);
    if (n > 0)
        input.len += (u32)n;
    return n;
}
static void input_split(void)
{
    u32 start = 0;
    for (;;) {
        u32 end = input.scanned + (u32)find(input.bytes + input.scanned, input.len - input.scanned, '\n');
        input.scanned = end;
        while (end - start > LINE_MAX) {
            take_line(input.bytes + start, LINE_MAX);
            start += LINE_MAX;
        }
        if (end >= input.len)
            break;
        take_line(input.bytes + start, end - start);
        start = input.scanned = end + 1;
    }
    /* a long line is not moved with each part of it */
    if (start) {
        memmove(input.bytes, input.bytes + start, input.len - start);
        input.len -= start;
        input.scanned -= start;
    }
}
/* The last line may have no end. */
static void input_rest(void)
{
    if (input.len)
        take_line(input.bytes, input.len);
    input.len = input.scanned = 0;
}

#include "drain.h"
#include "monitor.h"

enum stamps { SERVER, LOCAL, PROVIDED };
static enum stamps stamps;
static struct stamp read_at;

static void cat_line(const u8 *line, u32 len)
{
    struct stamp at = read_at;
    if (stamps == PROVIDED) {
        u32 n = (u32)parse_stamp(line, len, &at);
        if (n && (n == len || line[n] == ' ')) {
            n += n < len;
            stream_add(line + n, len - n, at, 1);
            return;
        }
        /* a line without a time is a line */
        at = read_at;
    }
    stream_add(line, len, at, stamps == LOCAL);
}

static int run_cat(int tee)
{
    u64 ends_at = 0;
    int status = 0;
    ignore_closed_pipes();
    take_signals(BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGHUP));
    take_line = cat_line;
    for (;;) {
        stream_push();
        u32 wait = stream_timers();
        if (stream_over())
            break;
        struct poll p[3];
        stream_poll(&p[0]);
        p[1] = (struct poll){signals, POLLIN, 0};
        p[2] = (struct poll){!stream.finishing && stream_wants_input() ? 0 : -1, POLLIN, 0};
        if (ends_at && !stream.finishing) {
            u64 now = milliseconds();
            wait = now >= ends_at ? 0 : (u32)(ends_at - now);
        }
        if (stream.finishing && wait > FINISH_MS / 50)
            wait = FINISH_MS / 50;
        sys_poll(p, 3, wait);
        stream_event(&p[0]);
        int ends = ends_at && milliseconds() >= ends_at;
        if (p[1].got) {
            status = 128 + (int)signal_taken();
            if (stream.finishing)
                break;
            ends |= ends_at != 0;
            ends_at = milliseconds() + GRACE_MS;
        }
        if (p[2].got) {
            long n = input_read(0);
            read_at = time_now();
            if (n > 0) {
                /* ended by its reader, as any other command in a pipe; what was read before is logged */
                if (tee && !write_all(1, input.bytes + input.len - n, (size)n)) {
                    ends = 1;
                    status = 128 + SIGPIPE;
                }
                input_split();
            } else if (n != -EAGAIN) {
                ends = 1;
            }
        }
        if (ends && !stream.finishing) {
            input_rest();
            stream_finish();
        }
    }
    if (!stream_leave() && !status)
        status = 1;
    return status;
}

static void usage(const char *words) { fail("usage: ", tool, words); }

static int cat_main(char **words, int tee)
{
    const char *name = 0;
    for (; *words; words++) {
        if (same(*words, "--ts-server"))
            stamps = SERVER;
        else if (same(*words, "--ts-local"))
            stamps = LOCAL;
        else if (same(*words, "--ts-provided") || same(*words, "--timestamp") || same(*words, "--ts"))
            stamps = PROVIDED;
        else if (begins(*words, "-") || name)
            usage(" [--ts-server|--ts-local|--ts-provided] <stream>");
        else
            name = *words;
    }
    if (!name)
        usage(" [--ts-server|--ts-local|--ts-provided] <stream>");
    stream_begin(name);
    return run_cat(tee);
}

/* The log daemon of the image, if it is there and somebody reads. */
static int echo_by_fifo(const char *stamp, const char *name, u8 *text, u32 len)
{
    static u8 lines[LINE_MAX + READ_MAX];
    struct facts facts;
    if (sys_stat(AT_FDCWD, FIFO, &facts) < 0 || (facts.mode & S_IFMT) != S_IFIFO)
        return 0;
    int fd = sys_open(AT_FDCWD, FIFO, O_WRONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return 0;
    struct text t = {(char *)lines, 0, sizeof lines};
    for (u32 at = 0; at < len;) {
        u32 n = (u32)find(text + at, len - at, '\n');
        put(&t, stamp ? "TSLOG " : "LOG ");
        if (stamp) {
            put(&t, stamp);
            put(&t, " ");
        }
        put(&t, name);
        put(&t, " ");
        put_bytes(&t, text + at, n);
        put(&t, "\n");
        at += n + 1;
    }
    return write_all(fd, lines, t.len);
}

static int echo_main(char **words)
{
    const char *stamp = 0;
    if (*words && (same(*words, "--timestamp") || same(*words, "--ts"))) {
        if (!words[1] || parse_stamp((u8 *)words[1], length(words[1]), &read_at) != length(words[1]))
            usage(" [--timestamp <seconds.fraction>] <stream> <words...>");
        stamp = words[1];
        words += 2;
    }
    if (!*words || begins(*words, "-"))
        usage(" [--timestamp <seconds.fraction>] <stream> <words...>");
    const char *name = *words++;
    struct text t = {(char *)input.bytes, 0, sizeof input.bytes - 1};
    for (char **w = words; *w; w++) {
        if (w != words)
            put(&t, " ");
        put(&t, *w);
    }
    t.cap++;
    put(&t, "\n");
    stream_begin(name);
    ignore_closed_pipes();
    if (echo_by_fifo(stamp, name, input.bytes, (u32)t.len))
        return 0;
    if (!stamp)
        read_at = time_now();
    stamps = stamp ? LOCAL : SERVER;
    take_line = cat_line;
    input.len = (u32)t.len;
    input_split();
    stream_finish();
    /* the server is away, and lines wait for it already: no waiting for it again with each line */
    if (drainer_runs() && spool_share(stream.name, stream.source))
        return drain_in_background(), 0;
    return run_cat(0);
}

__attribute__((used)) void entry(size *stack)
{
    int count = (int)stack[0];
    char **words = (char **)(stack + 1), **environment = words + count + 1;
    for (char **e = environment; *e; e++) {
        if (begins(*e, "WALT_ENV_FILE="))
            env_file = *e + 14;
        if (begins(*e, "WALT_LOG_SPOOL="))
            spool_wanted = *e + 15;
    }
    const char *what = count > 1 ? words[1] : "";
    words += count > 1 ? 2 : count;
    tool = same(what, "cat")       ? "walt-log-cat"
           : same(what, "tee")     ? "walt-log-tee"
           : same(what, "echo")    ? "walt-log-echo"
           : same(what, "monitor") ? "walt-log-monitor"
                                   : "walt-log-program";
    read_server();
    if (same(what, "cat") || same(what, "tee"))
        sys_exit(cat_main(words, same(what, "tee")));
    if (same(what, "echo"))
        sys_exit(echo_main(words));
    if (same(what, "monitor")) {
        if (*words && same(*words, "--"))
            words++;
        if (!*words || begins(*words, "-"))
            usage(" <command...>");
        sys_exit(run_monitor(words, environment));
    }
    if (same(what, "drain")) {
        ignore_closed_pipes();
        drain();
        sys_exit(0);
    }
    usage(" cat|tee|echo|monitor|drain ...");
    sys_exit(1);
}
