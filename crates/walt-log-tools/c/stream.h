/* One stream of lines to the server, over lost connections and restarts of the server.
 *
 *   we:  REQ_LOG_STREAM 1 / stream <name> / source <16 hex digits> / (empty line)
 *   it:  OK <position>             so many lines of this source are there: we go on behind them
 *   we:  L <bytes> <time|-> + bytes, D <count> <time|->, END
 *   it:  ACK <position>, BYE <position>, or ERROR <words>
 *
 * ERROR behind OK is a server in trouble, and as good as none; instead of OK it is an answer, if it is given again.
 */

/* All in milliseconds. Connecting, and the server's answer to the request. */
#define CONNECT_MS 2000u
#define ANSWER_MS 5000u
/* Between two attempts. */
#define RETRY_MIN_MS 50u
#define RETRY_MAX_MS 4000u
/* So many times in a row the server must say that it does not take a stream. */
#define REFUSALS 3u
/* A server that has acknowledged nothing for so long, with lines under way, is given up: the longest that a tool does
 * not read its input. */
#define STALL_MS 5000u
/* At the end of the input, the rest may take so long without any progress. Then it is left to the spool. */
#define FINISH_MS 5000u

enum link { DOWN, CONNECTING, ASKED, UP, ENDED };

static struct {
    char name[STREAM_MAX + 1];
    u64 source;
    u64 acked; /* position of the last line that is durable on the server */
    u32 sent_ever; /* something may be there already */
    u32 dropped;
    struct stamp dropped_at;
    u32 patient; /* the drainer: it has no end at which it gives up */
    u32 finishing; /* no more input */
    u32 refusals;
    u32 refused; /* the server does not want this stream */
    u32 done;
    u32 told_away;
    enum link link;
    int fd;
    u64 since; /* the last progress in this state of the link */
    u64 progress; /* the last line acknowledged, or the end of the input */
    u64 retry_at, up_at;
    u32 retry;
    u32 tried; /* an attempt is over: whether the server is there is known */
    u32 unproven; /* a server that has stalled gets input read on until it acknowledges something */
    u8 address[8];
    char peer[32];
    char answer[300];
    u32 answer_len;
} stream = {.fd = -1};

/* Bytes for the socket. */
static struct {
    u8 bytes[LINE_MAX + READ_MAX + 4 * FRAME_EXTRA];
    u32 at, len;
} out;

/* The address of the server, from what the server puts on each node. */
static const char *env_file = "/bin/walt-env";
static void read_server(void)
{
    static u8 text[4096];
    u64 part, port = 12347;
    int fd = sys_open(AT_FDCWD, env_file, O_RDONLY, 0), known = 0;
    long n = fd < 0 ? -1 : sys_read(fd, text, sizeof text);
    if (n < 0)
        fail("this is not a node: ", env_file, " is missing");
    sys_close(fd);
    u8 *address = stream.address + 4;
    for (u32 at = 0; at < (u32)n;) {
        u32 end = at + (u32)find(text + at, (size)n - at, '\n');
        u8 *line = text + at;
        u32 len = end - at, i = 15, byte = 0;
        at = end + 1;
        if (len > 15 && same_bytes(line, "walt_server_ip=", 15)) {
            for (; byte < 4; byte++) {
                u32 digits = (u32)parse_number(line + i, len - i, &part);
                if (!digits || part > 255)
                    break;
                address[byte] = (u8)part;
                i += digits + 1;
            }
            known = byte == 4;
            struct text peer = {stream.peer, 0, sizeof stream.peer - 1};
            put_bytes(&peer, line + 15, len - 15);
        } else if (len > 22 && same_bytes(line, "walt_server_logs_port=", 22)) {
            parse_number(line + 22, len - 22, &port);
        }
    }
    if (!known || port > 65535)
        fail(env_file, " does not have the address of the server (walt_server_ip, walt_server_logs_port)");
    /* struct sockaddr_in */
    stream.address[0] = AF_INET;
    stream.address[1] = 0;
    stream.address[2] = (u8)(port >> 8);
    stream.address[3] = (u8)port;
}

static u64 random_number(void)
{
    u64 number = 0, sec;
    u32 nsec;
    if (sys(SYS_getrandom, &number, sizeof number, 0) == sizeof number)
        return number;
    int fd = sys_open(AT_FDCWD, "/dev/urandom", O_RDONLY, 0);
    if (fd >= 0) {
        sys_read(fd, &number, sizeof number);
        sys_close(fd);
    }
    clock(CLOCK_REALTIME, &sec, &nsec);
    return number ^ sec << 32 ^ nsec ^ (u64)sys(SYS_getpid, 0, 0, 0) << 20;
}

static void stream_name(const char *name)
{
    size n = length(name);
    if (!n || n > STREAM_MAX)
        fail("the name of a stream has 1 to 255 bytes");
    for (size i = 0; i < n; i++)
        if ((u8)name[i] < ' ' || name[i] == 127)
            fail("the name of a stream has no control characters");
    memcpy(stream.name, name, n + 1);
}
static void stream_begin(const char *name)
{
    stream_name(name);
    stream.source = random_number();
    stream.retry = RETRY_MIN_MS;
    stream.since = milliseconds();
}

/* Lines that the tool drops are one line that says how many. */
static void stream_drop(u32 lines, struct stamp at)
{
    if (!stream.dropped)
        stream.dropped_at = at;
    if (stream.dropped + lines > stream.dropped)
        stream.dropped += lines;
}
static int spool_drops(int forced)
{
    struct record r = {0, stream.dropped, stream.dropped_at, 1};
    if (stream.dropped && !spool_append(&r, 0, forced))
        return 0;
    stream.dropped = 0;
    return 1;
}
static void tell_away(void)
{
    if (!stream.told_away && !stream.patient)
        say("the server (", stream.peer, ") does not answer: lines are kept in RAM, and sent later", (char *)0);
    stream.told_away = 1;
}
/* From here on, all that is not acknowledged is in the spool. */
static int spool_begin(void)
{
    if (!spool_create(stream.source, stream.acked, stream.name))
        return 0;
    u32 at = queue.head;
    for (; at < queue.tail; at += record_size(record_at(at)->len)) {
        struct record *r = record_at(at);
        if (stream.dropped || !spool_append(r, (u8 *)(r + 1), 0))
            stream_drop(r->dropped ? r->dropped : 1, r->at);
    }
    queue_clear();
    out.len = out.at = 0;
    tell_away();
    return 1;
}

static void stream_down(void)
{
    enum link was = stream.link;
    if (stream.fd >= 0)
        sys_close(stream.fd);
    stream.fd = -1;
    stream.link = DOWN;
    stream.tried = 1;
    stream.answer_len = out.at = out.len = 0;
    u64 now = milliseconds();
    if (was >= UP && now - stream.up_at > RETRY_MAX_MS)
        stream.retry = RETRY_MIN_MS;
    stream.retry_at = now + stream.retry;
    stream.retry = stream.retry * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : stream.retry * 2;
    queue.next = queue.head;
    if (spool.fd >= 0)
        queue_clear();
}
static void stream_connect(void)
{
    long one = 1;
    stream.fd = (int)sys(SYS_socket, AF_INET, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0);
    if (stream.fd < 0) {
        stream_down();
        return;
    }
    u8 address[16] = {0};
    memcpy(address, stream.address, 8);
    sys6(SYS_setsockopt, stream.fd, IPPROTO_TCP, TCP_NODELAY, (long)&one, 4, 0);
    sys6(SYS_setsockopt, stream.fd, SOL_SOCKET, SO_KEEPALIVE, (long)&one, 4, 0);
    long status = sys(SYS_connect, stream.fd, address, sizeof address);
    if (status < 0 && status != -EINPROGRESS) {
        stream_down();
        return;
    }
    stream.link = CONNECTING;
    stream.since = milliseconds();
}
static void stream_ask(void)
{
    int error = 0, n = sizeof error;
    if (sys6(SYS_getsockopt, stream.fd, SOL_SOCKET, SO_ERROR, (long)&error, (long)&n, 0) < 0 || error) {
        stream_down();
        return;
    }
    struct text t = {(char *)out.bytes, 0, sizeof out.bytes};
    put(&t, "REQ_LOG_STREAM 1\nstream ");
    put(&t, stream.name);
    put(&t, "\nsource ");
    put_hex(&t, stream.source);
    put(&t, "\n\n");
    out.at = 0;
    out.len = (u32)t.len;
    stream.link = ASKED;
    stream.since = milliseconds();
}

/* The position up to which the server has all lines. */
static void stream_acked(u64 position)
{
    for (; stream.acked < position && queue.head < queue.next; stream.acked++)
        queue_pop();
}
static void stream_resume(u64 position)
{
    stream.link = UP;
    stream.since = stream.up_at = milliseconds();
    stream.refusals = 0;
    if (position > stream.acked)
        stream.retry = RETRY_MIN_MS;
    if (spool.fd >= 0) {
        if (position < spool.base)
            spool.base = position;
        spool.read = spool.first;
        spool.skip = position - spool.base;
        queue_clear();
        stream.acked = position;
        return;
    }
    while (stream.acked < position && queue.head < queue.tail) {
        queue_pop();
        stream.acked++;
    }
    queue.next = queue.head;
    stream.acked = position;
}
static void stream_answer(const char *line, u32 n)
{
    u64 position;
    const u8 *words = (const u8 *)line;
    u32 word = (u32)find(words, n, ' ');
    if (word == 5 && same_bytes(line, "ERROR", 5)) {
        stream.unproven = stream.link >= UP;
        stream.refused = stream.link == ASKED && ++stream.refusals == REFUSALS;
        stream_down();
        if (stream.refused && !stream.patient)
            say("the server does not take stream ", stream.name, ": ", line + (n > 6 ? 6 : n), (char *)0);
        return;
    }
    if (word >= n || !parse_number(words + word + 1, n - word - 1, &position)) {
        stream_down();
    } else if (stream.link == ASKED && word == 2 && same_bytes(line, "OK", 2)) {
        stream_resume(position);
    } else if (stream.link >= UP && word == 3 && (same_bytes(line, "ACK", 3) || same_bytes(line, "BYE", 3))) {
        stream.since = milliseconds();
        if (position > stream.acked) {
            stream.unproven = 0;
            stream.retry = RETRY_MIN_MS;
            stream.progress = stream.since;
        }
        stream_acked(position);
        if (line[0] == 'B' && stream.link == ENDED && !queue_used())
            stream.done = 1;
        else if (line[0] == 'B')
            stream_down();
    } else {
        stream_down();
    }
}
static void stream_read(void)
{
    long got = sys_read(stream.fd, stream.answer + stream.answer_len, sizeof stream.answer - 1 - stream.answer_len);
    if (got == -EAGAIN)
        return;
    if (got <= 0) {
        stream_down();
        return;
    }
    stream.answer_len += (u32)got;
    u32 at = 0, end;
    while ((end = at + (u32)find((u8 *)stream.answer + at, stream.answer_len - at, '\n')) < stream.answer_len) {
        stream.answer[end] = 0;
        stream_answer(stream.answer + at, end - at);
        at = end + 1;
        if (stream.link == DOWN || stream.done)
            return;
    }
    memmove(stream.answer, stream.answer + at, stream.answer_len - at);
    stream.answer_len -= at;
    if (stream.answer_len == sizeof stream.answer - 1)
        stream_down();
}

static int is_late(const struct record *r, struct stamp now)
{
    u32 seconds = now.sec - r->at.sec;
    return seconds > LATE_MS / 1000 || seconds * 1000 + now.usec / 1000 > LATE_MS + r->at.usec / 1000;
}
/* Frames for the socket: as many as fit. */
static void stream_fill(void)
{
    if (stream.link != UP)
        return;
    if (spool.fd >= 0) {
        spool_load();
        if (spool.read >= spool.size && stream.dropped) {
            spool_drops(1);
            spool_load();
        }
        if (spool.read >= spool.size && !queue_used())
            spool_remove();
    } else if (stream.dropped && queue_used() < QUEUE_SOFT) {
        struct record r = {0, stream.dropped, stream.dropped_at, 1};
        queue_push(&r, 0);
        stream.dropped = 0;
    }
    if (out.at == out.len)
        out.at = out.len = 0;
    struct text t = {(char *)out.bytes, out.len, sizeof out.bytes};
    struct stamp now = time_now();
    int idle = queue.next == queue.head;
    /* One long line, or many short ones. */
    while (queue.next < queue.tail && (t.len < READ_MAX || !t.len)) {
        struct record *r = record_at(queue.next);
        if (t.cap - t.len < r->len + 2 * FRAME_EXTRA)
            break;
        put_frame(&t, r, (u8 *)(r + 1), r->given || is_late(r, now));
        queue.next += record_size(r->len);
        stream.sent_ever = 1;
        if (idle)
            stream.since = milliseconds();
        idle = 0;
    }
    if (stream.finishing && queue.next == queue.tail && (spool.fd < 0 || spool.read >= spool.size)) {
        put(&t, "END\n");
        stream.link = ENDED;
        stream.since = milliseconds();
    }
    out.len = (u32)t.len;
}
static void stream_write(void)
{
    while (out.at < out.len) {
        long done = sys_write(stream.fd, out.bytes + out.at, out.len - out.at);
        if (done == -EAGAIN)
            return;
        if (done < 0) {
            /* its last words may be there still */
            out.at = out.len = 0;
            stream_read();
            if (stream.link != DOWN)
                stream_down();
            return;
        }
        out.at += (u32)done;
        stream_fill();
    }
}

/* At its start, and while the server says that it does not want the stream, a tool does not take it for absent. */
static int is_away(void) { return stream.link != UP && stream.tried && !stream.refusals; }

/* A line of the input. */
static void stream_add(const u8 *line, u32 len, struct stamp at, int given)
{
    struct record r = {len, 0, at, (u32)given};
    if (stream.refused)
        return;
    if (spool.fd < 0 && is_away() && queue_used() + record_size(len) > QUEUE_SOFT)
        spool_begin();
    if (spool.fd >= 0) {
        if (!spool_drops(0) || !spool_append(&r, line, 0))
            stream_drop(1, at);
    } else if (queue_has_room(len) && !stream.dropped) {
        queue_push(&r, line);
    } else {
        stream_drop(1, at);
    }
}
/* Whether more input can be taken. A server that is there and busy slows its clients down; one that is away does not. */
static int stream_wants_input(void)
{
    if (stream.refused || is_away() || (stream.unproven && spool.fd >= 0))
        return 1;
    return spool.fd < 0 && queue_used() < QUEUE_SOFT;
}
static void stream_finish(void)
{
    if (!stream.finishing)
        stream.progress = milliseconds();
    stream.finishing = 1;
}

/* Milliseconds until something has to be done without any event; what is due is done. */
static u32 stream_timers(void)
{
    u64 now = milliseconds(), due = 0;
    if (stream.link == DOWN && !stream.refused) {
        if (now < stream.retry_at)
            return (u32)(stream.retry_at - now);
        stream_connect();
        now = milliseconds();
    }
    switch (stream.link) {
    case CONNECTING:
        due = stream.since + CONNECT_MS;
        break;
    case ASKED:
        due = stream.since + ANSWER_MS;
        break;
    case UP:
        due = queue.next > queue.head ? stream.since + STALL_MS : now + 60000;
        break;
    case ENDED:
        due = stream.since + FINISH_MS;
        break;
    case DOWN:
        return stream.refused ? 60000 : (u32)(stream.retry_at - now);
    }
    if (now < due)
        return (u32)(due - now);
    stream.unproven = 1;
    stream_down();
    return stream.retry;
}
static void stream_poll(struct poll *p)
{
    p->fd = stream.fd;
    p->events = stream.link == CONNECTING ? POLLOUT : POLLIN;
    if (out.at < out.len)
        p->events |= POLLOUT;
    p->got = 0;
}
static void stream_event(const struct poll *p)
{
    if (stream.fd < 0 || p->fd != stream.fd)
        return;
    if (stream.link == CONNECTING && p->got)
        stream_ask();
    else if (p->got & (POLLIN | POLLHUP | POLLERR))
        stream_read();
}
/* Sends what can be sent. */
static void stream_push(void)
{
    stream_fill();
    if (stream.fd >= 0 && stream.link != CONNECTING)
        stream_write();
}
/* Whether the tool may end: all is delivered, or has to be left to the spool. */
static int stream_over(void)
{
    if (!stream.finishing)
        return 0;
    if (stream.done || stream.refused)
        return 1;
    if (stream.patient)
        return 0;
    /* A refused connection needs no waiting, one that has been lost gets another attempt or two. */
    if (stream.link == DOWN && !stream.sent_ever && !stream.refusals)
        return stream.retry > RETRY_MIN_MS;
    return milliseconds() - stream.progress >= FINISH_MS;
}

static void drain_in_background(void);

/* Leaves what is not delivered to the spool. 0 if lines are lost. */
static int stream_leave(void)
{
    if (stream.refused) {
        if (spool.fd >= 0)
            spool_remove();
        return 0;
    }
    if (spool.fd < 0 && !queue_used() && !stream.dropped)
        return 1;
    if (spool.fd < 0 && !stream.sent_ever && !stream.dropped && spool_share(stream.name, stream.source)) {
        queue_clear();
        tell_away();
    } else if (spool.fd < 0 && !spool_begin()) {
        say("lines are lost: the server does not answer, and there is no room in RAM for them", (char *)0);
        return 0;
    }
    if (spool.fd >= 0) {
        spool_drops(1);
        sys_close(spool.fd);
    }
    drain_in_background();
    return 1;
}
