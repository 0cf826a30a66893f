/* walt-log-monitor: a command under a pseudo-terminal. */

static struct termios saved;
static int terminal = -1; /* whose settings are to be restored */

static void terminal_raw(int fd)
{
    if (sys(SYS_ioctl, fd, TCGETS, &saved) < 0)
        return;
    struct termios raw = saved;
    raw.input &= ~(u32)(02 | 040 | 0100 | 0200 | 0400 | 02000 | 010); /* BRKINT ISTRIP INLCR IGNCR ICRNL IXON PARMRK */
    raw.output &= ~1u;                                                /* OPOST */
    raw.local &= ~(u32)(1 | 2 | 8 | 0100 | 0100000);                  /* ISIG ICANON ECHO ECHONL IEXTEN */
    raw.chars[6] = 1;                                                 /* VMIN */
    raw.chars[5] = 0;                                                 /* VTIME */
    if (sys(SYS_ioctl, fd, TCSETSW, &raw) == 0)
        terminal = fd;
}
static void terminal_restore(void)
{
    if (terminal >= 0)
        sys(SYS_ioctl, terminal, TCSETSW, &saved);
    terminal = -1;
}
/* The size of our terminal, which is the one that a person looks at. */
static void copy_size(int master)
{
    struct winsize w;
    if (sys(SYS_ioctl, 1, TIOCGWINSZ, &w) == 0 || sys(SYS_ioctl, 0, TIOCGWINSZ, &w) == 0)
        sys(SYS_ioctl, master, TIOCSWINSZ, &w);
}

static int open_master(char *slave)
{
    int zero = 0;
    u32 number;
    struct text t = {slave, 0, 31};
    int fd = sys_open(AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0 || sys(SYS_ioctl, fd, TIOCSPTLCK, &zero) < 0 || sys(SYS_ioctl, fd, TIOCGPTN, &number) < 0)
        return -1;
    put(&t, "/dev/pts/");
    put_number(&t, number);
    slave[t.len] = 0;
    return fd;
}

/* As execvp. */
static void execute(char **words, char **environment)
{
    const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *name = words[0];
    char full[4096];
    if (find((const u8 *)name, length(name), '/') < length(name)) {
        sys(SYS_execve, name, words, environment);
        return;
    }
    for (char **e = environment; *e; e++)
        if (begins(*e, "PATH="))
            path = *e + 5;
    for (;;) {
        u32 n = (u32)find((const u8 *)path, length(path), ':');
        struct text t = {full, 0, sizeof full - 1};
        put_bytes(&t, path, n);
        put(&t, n ? "/" : "./");
        put(&t, name);
        full[t.len] = 0;
        sys(SYS_execve, full, words, environment);
        if (!path[n])
            return;
        path += n + 1;
    }
}

/* The session of the command. Its leader does nothing but wait: when it ends, the kernel throws away what the terminal
 * has not been read of, so that it ends last. Both are in one group of processes, whose parent is outside of the session:
 * ctrl-Z has no effect, since nobody could wake the command. */
__attribute__((noreturn)) static void be_session(const char *slave, char **words, char **environment, int keep_input,
                                                 int report)
{
    int status = 126 << 8;
    u64 all = ~0ull;
    sys(SYS_setsid, 0, 0, 0);
    int fd = sys_open(AT_FDCWD, slave, O_RDWR, 0);
    if (fd < 0 || sys(SYS_ioctl, fd, TIOCSCTTY, 0) < 0) {
        say("cannot open the terminal ", slave, (char *)0);
    } else {
        sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, 8, 0, 0);
        int child = sys_fork();
        if (child == 0) {
            for (int to = keep_input ? 1 : 0; to < 3; to++)
                sys(SYS_dup3, fd, to, 0);
            restore_signals();
            execute(words, environment);
            say("cannot run ", words[0], ": it is not there, or is not a program", (char *)0);
            sys_exit(127);
        }
        sys6(SYS_wait4, child, (long)&status, 0, 0, 0, 0);
    }
    sys_write(report, &status, sizeof status);
    struct poll gone = {report, 0, 0};
    while (!(gone.got & POLLERR))
        sys_poll(&gone, 1, 60000);
    sys_exit(0);
}

/* A line without the carriage return that terminals put before its end. */
static void monitor_line(const u8 *line, u32 len)
{
    if (len && line[len - 1] == '\r')
        len--;
    stream_add(line, len, time_now(), 0);
}

static int exit_status(int raw) { return raw & 0x7f ? 128 + (raw & 0x7f) : raw >> 8 & 0xff; }

/* What happens until the command is over and its lines are delivered. */
static int monitor_loop(int master, int session, int report, int typed)
{
    u8 keys[1024];
    u32 keys_at = 0, keys_len = 0;
    int status = -1, open = 1;
    take_line = monitor_line;
    for (;;) {
        stream_push();
        u32 wait = stream_timers();
        if (!open && stream_over())
            return status;
        if (!open && wait > FINISH_MS / 50)
            wait = FINISH_MS / 50;
        int reads = open && stream_wants_input();
        struct poll p[5];
        stream_poll(&p[0]);
        p[1] = (struct poll){signals, POLLIN, 0};
        p[2] = (struct poll){reads ? master : -1, POLLIN, 0};
        if (reads && keys_at < keys_len)
            p[2].events |= POLLOUT;
        p[3] = (struct poll){status < 0 && typed && keys_at == keys_len ? 0 : -1, POLLIN, 0};
        p[4] = (struct poll){status < 0 ? report : -1, POLLIN, 0};
        /* all that the command has printed is there when it has ended */
        int rest = status >= 0 && reads;
        sys_poll(p, 5, rest ? 0 : wait);
        stream_event(&p[0]);
        if (p[1].got) {
            u32 which = signal_taken();
            if (which == SIGWINCH)
                copy_size(master);
            else if (status < 0)
                sys(SYS_kill, -session, which, 0);
            else if (!open)
                return status;
        }
        if (p[2].got & POLLOUT) {
            long n = sys_write(master, keys + keys_at, keys_len - keys_at);
            keys_at = n > 0 ? keys_at + (u32)n : n == -EAGAIN ? keys_at : keys_len;
        }
        if (p[3].got) {
            long n = sys_read(0, keys, sizeof keys);
            keys_at = 0;
            keys_len = n > 0 ? (u32)n : 0;
            typed = n > 0;
        }
        if (p[4].got) {
            int raw;
            status = sys_read(report, &raw, sizeof raw) == sizeof raw ? exit_status(raw) : 128 + SIGKILL;
            continue;
        }
        if (p[2].got & ~POLLOUT) {
            long n = input_read(master);
            if (n > 0) {
                write_all(1, input.bytes + input.len - n, (size)n);
                input_split();
            } else if (n != -EAGAIN) {
                open = 0;
            }
        } else if (rest) {
            open = 0;
        }
        if (!open && !stream.finishing) {
            if (status < 0) {
                int raw;
                status = sys_read(report, &raw, sizeof raw) == sizeof raw ? exit_status(raw) : 128 + SIGKILL;
            }
            sys_close(report);
            input_rest();
            terminal_restore();
            monitor_line((const u8 *)"END", 3);
            stream_finish();
        }
    }
}

static int run_monitor(char **words, char **environment)
{
    char name[STREAM_MAX + 1], slave[32];
    struct text t = {name, 0, sizeof name - 32};
    const char *command = words[0];
    for (const char *c = command; *c; c++)
        if (*c == '/' && c[1])
            command = c + 1;
    put(&t, command);
    t.cap += 31;
    put(&t, ".");
    put_number(&t, (u32)sys(SYS_getpid, 0, 0, 0));
    put(&t, ".monitor");
    name[t.len] = 0;
    stream_begin(name);

    struct termios probe;
    int typed = sys(SYS_ioctl, 0, TCGETS, &probe) == 0, report[2];
    int master = open_master(slave);
    if (master < 0 || sys(SYS_pipe2, report, O_CLOEXEC, 0) < 0)
        fail("there is no pseudo-terminal: /dev/ptmx and /dev/pts are needed");
    if (typed)
        sys(SYS_ioctl, master, TCSETSW, &probe);
    copy_size(master);
    ignore_closed_pipes();
    take_signals(BIT(SIGWINCH) | BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGHUP) | BIT(SIGQUIT));
    monitor_line((const u8 *)"START", 5);
    /* held until the command is over: without anybody on it, the terminal would look closed before the command is there */
    int held = sys_open(AT_FDCWD, slave, O_RDWR | O_NOCTTY, 0);
    int session = sys_fork();
    if (session == 0) {
        sys_close(report[0]);
        be_session(slave, words, environment, !typed, report[1]);
    }
    if (session < 0)
        fail("cannot start a process");
    sys_close(report[1]);
    if (typed)
        terminal_raw(0);
    int status = monitor_loop(master, session, report[0], typed);
    sys_close(held);
    stream_leave();
    return status;
}
