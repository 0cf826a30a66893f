/* Lines on their way: records from the first one that is not acknowledged to the last one that was read.
 *
 *   head             next                tail
 *    | sent, no ACK    | not sent yet      |
 */

/* A longer line is cut into several ones. */
#define LINE_MAX (1u << 20)
/* Bytes that are read at once. */
#define READ_MAX (64u << 10)
/* So much is held in memory for a server that takes its time; then the tool stops reading, or uses the spool. */
#define QUEUE_SOFT (256u << 10)
/* All lines of one reading, if they are empty, with the longest line and what was there before. */
#define QUEUE_CAP (QUEUE_SOFT + LINE_MAX + (sizeof(struct record) + 8) * READ_MAX)
/* Bytes of a frame around the line: letter, length, time, ends of lines. */
#define FRAME_EXTRA 64u
/* A line in server mode gets the server's time if it is sent as soon as that, in milliseconds; else its own. */
#define LATE_MS 1000u

struct record {
    u32 len;
    /* Of lines that were dropped; 0: this is a line. */
    u32 dropped;
    struct stamp at;
    /* The time is sent in any case. */
    u32 given;
};

static struct {
    _Alignas(8) u8 bytes[QUEUE_CAP];
    u32 head, next, tail;
} queue;

static u32 record_size(u32 len) { return (u32)(sizeof(struct record) + ((len + 3) & ~3u)); }
static struct record *record_at(u32 at) { return (struct record *)(queue.bytes + at); }
static u32 queue_used(void) { return queue.tail - queue.head; }
static void queue_clear(void) { queue.head = queue.next = queue.tail = 0; }
static int queue_has_room(u32 len)
{
    return record_size(len) <= QUEUE_CAP - queue_used();
}
/* The caller has asked whether there is room. */
static void queue_push(const struct record *r, const u8 *line)
{
    u32 n = record_size(r->len);
    if (n > QUEUE_CAP - queue.tail) {
        memmove(queue.bytes, queue.bytes + queue.head, queue_used());
        queue.next -= queue.head;
        queue.tail -= queue.head;
        queue.head = 0;
    }
    *record_at(queue.tail) = *r;
    memcpy(queue.bytes + queue.tail + sizeof *r, line, r->len);
    queue.tail += n;
}
/* Forgets the first record. */
static void queue_pop(void)
{
    u32 n = record_size(record_at(queue.head)->len);
    if (queue.next == queue.head)
        queue.next += n;
    queue.head += n;
    if (queue.head == queue.tail)
        queue_clear();
}

/* A record as it is sent, and as it is in the spool. */
static void put_frame(struct text *out, const struct record *r, const u8 *line, int with_time)
{
    put(out, r->dropped ? "D " : "L ");
    put_number(out, r->dropped ? r->dropped : r->len);
    put(out, " ");
    if (with_time)
        put_stamp(out, r->at);
    else
        put(out, "-");
    put(out, "\n");
    if (!r->dropped) {
        put_bytes(out, line, r->len);
        put(out, "\n");
    }
}
/* Takes a frame with a time apart. How many bytes it has: 0 if it is not whole or is none. */
static u32 parse_frame(const u8 *bytes, u32 n, struct record *r, const u8 **line)
{
    u64 number;
    u32 at = 2;
    if (n < 4 || (bytes[0] != 'L' && bytes[0] != 'D') || bytes[1] != ' ')
        return 0;
    size digits = parse_number(bytes + at, n - at, &number);
    at += (u32)digits;
    if (!digits || number > 0xffffffff || at >= n || bytes[at++] != ' ')
        return 0;
    digits = parse_stamp(bytes + at, n - at, &r->at);
    at += (u32)digits;
    if (!digits || at >= n || bytes[at++] != '\n')
        return 0;
    r->given = 1;
    r->len = 0;
    r->dropped = (u32)number;
    *line = bytes + at;
    if (bytes[0] == 'D')
        return number ? at : 0;
    r->dropped = 0;
    r->len = (u32)number;
    if (r->len > LINE_MAX || n - at <= r->len || bytes[at + r->len] != '\n')
        return 0;
    return at + r->len + 1;
}
