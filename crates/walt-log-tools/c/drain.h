/* Sending what tools have left in the spool. At most one drainer of each user runs; that of root sends what others
 * have left, too. It ends when nothing is left. */


struct files {
    char names[256][48];
    u32 n;
};
static void collect(const char *name, void *what)
{
    struct files *files = what;
    if (files->n < 256 && length(name) < 48)
        memcpy(files->names[files->n++], name, length(name) + 1);
}

/* The lock is of a kind that can be looked at without taking it: who looks must not be taken for a drainer. */
static int drain_lock(int operation)
{
    char path[32];
    struct text t = {path, 0, sizeof path - 1};
    struct lock lock = {.type = F_WRLCK};
    put(&t, "drain-");
    put_number(&t, (u32)sys(SYS_getuid, 0, 0, 0));
    path[t.len] = 0;
    int fd = sys_open(spool_dir, path, O_RDWR | O_NOFOLLOW, 0);
    if (fd < 0 && operation == F_OFD_SETLK)
        fd = sys_open(spool_dir, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -1;
    long status = sys(SYS_fcntl, fd, operation, &lock);
    if (status < 0 || (operation == F_OFD_GETLK && lock.type == F_UNLCK)) {
        sys_close(fd);
        return -1;
    }
    return fd;
}
/* Whether a drainer of this user runs: then the server was not there a moment ago. */
static int drainer_runs(void)
{
    if (spool_dir < 0 && !spool_open_dir())
        return 0;
    int fd = drain_lock(F_OFD_GETLK);
    if (fd >= 0)
        sys_close(fd);
    return fd >= 0;
}

/* Nobody is there to be told that lines are lost. */
static void to_kernel_log(void)
{
    char line[STREAM_MAX + 100];
    struct text t = {line, 0, sizeof line};
    int fd = sys_open(AT_FDCWD, "/dev/kmsg", O_WRONLY, 0);
    put(&t, "<4>walt: the server does not take the log stream ");
    put(&t, stream.name);
    put(&t, ": lines that waited for it are lost\n");
    if (fd < 0)
        return;
    sys_write(fd, line, t.len);
    sys_close(fd);
}

/* Sends one file, however long it takes. 0 if another tool has it. */
static int drain_file(const char *name)
{
    struct facts facts;
    int fd = sys_open(spool_dir, name, O_RDWR | O_NOFOLLOW, 0);
    if (fd < 0)
        return 0;
    if (sys(SYS_flock, fd, LOCK_EX | LOCK_NB, 0) < 0 || sys_stat(fd, "", &facts) < 0 || !facts.links) {
        sys_close(fd);
        return 0;
    }
    memcpy(spool.name, name, length(name) + 1);
    spool.fd = fd;
    if (!spool_header(fd, &stream.source, &spool.base, stream.name, &spool.first)) {
        spool_remove();
        return 1;
    }
    spool.size = spool.granted = facts.size;
    spool.read = spool.first;
    spool.skip = 0;
    queue_clear();
    out.at = out.len = 0;
    stream.acked = spool.base;
    stream.fd = -1;
    stream.link = DOWN;
    stream.retry = RETRY_MIN_MS;
    stream.retry_at = stream.refused = stream.refusals = stream.done = stream.dropped = stream.unproven = 0;
    stream.patient = stream.finishing = 1;
    while (!stream_over()) {
        struct poll p;
        stream_push();
        u32 wait = stream_timers();
        stream_poll(&p);
        sys_poll(&p, 1, wait);
        stream_event(&p);
    }
    if (stream.fd >= 0)
        sys_close(stream.fd);
    stream.fd = -1;
    if (stream.refused)
        to_kernel_log();
    if (spool.fd >= 0)
        spool_remove();
    return 1;
}

static void drain_here(void)
{
    int sent = 1;
    while (sent) {
        int lock = drain_lock(F_OFD_SETLK);
        if (lock < 0)
            return;
        struct files files = {.n = 0};
        spool_each(collect, &files);
        sent = 0;
        for (u32 i = 0; i < files.n; i++)
            sent |= drain_file(files.names[i]);
        /* a tool that leaves a file now tries to take the lock afterwards: one of us two sees it */
        sys_close(lock);
    }
}
/* All places: while the node boots, the best one may not be there yet. */
static void drain(void)
{
    if (spool_wanted) {
        if (spool_enter(spool_wanted, 0))
            drain_here();
        return;
    }
    for (u32 i = 0; i < SPOOL_DIRS; i++)
        if (spool_enter(spool_dirs[i], 0))
            drain_here();
}

/* In a process of its own, which holds nothing of the tool: who reads its output must see the end of it. */
static void drain_in_background(void)
{
    if (sys_fork() != 0)
        return;
    sys(SYS_setsid, 0, 0, 0);
    if (sys_fork() != 0)
        sys_exit(0);
    sys(SYS_chdir, "/", 0, 0);
    int null = sys_open(AT_FDCWD, "/dev/null", O_RDWR, 0);
    for (int fd = 0; fd < 256; fd++)
        if (fd < 3 && null >= 0)
            sys(SYS_dup3, null, fd, 0);
        else
            sys_close(fd);
    u64 none = 0;
    sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0, 0);
    drain();
    sys_exit(0);
}
