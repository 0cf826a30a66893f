/* What scripts/bench nfs lets a guest's kernel do on mounted directories: bench_guest WORK DIRECTORY COUNT
 * Prints the seconds that it took. Caches are emptied before, so that each work needs the server. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, SMALL = 4096 };
static char buffer[PIECE];

static void wrong(const char *what)
{
    fprintf(stderr, "bench_guest: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_or_end(const char *path, int flags)
{
    int fd = open(path, flags, 0644);
    if (fd < 0)
        wrong(path);
    return fd;
}

static void empty_caches(void)
{
    int fd = open_or_end("/proc/sys/vm/drop_caches", O_WRONLY);
    sync();
    if (write(fd, "3", 1) != 1)
        wrong("drop_caches");
    close(fd);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 4 || chdir(argv[2]))
        wrong("usage: bench_guest read|scattered|stat|create DIRECTORY COUNT");
    const char *work = argv[1];
    int count = atoi(argv[3]), fd;
    char name[64];
    struct stat st;
    srandom(1);
    empty_caches();
    double begin = now();
    if (!strcmp(work, "read")) {
        fd = open_or_end("big", O_RDONLY);
        for (int i = 0; i < count; i++)
            if (read(fd, buffer, PIECE) != PIECE)
                wrong("read");
    } else if (!strcmp(work, "scattered")) {
        fd = open_or_end("big", O_RDONLY);
        posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
        if (fstat(fd, &st))
            wrong("fstat");
        for (int i = 0; i < count; i++)
            if (pread(fd, buffer, SMALL, random() % (st.st_size / SMALL) * SMALL) != SMALL)
                wrong("pread");
    } else if (!strcmp(work, "stat")) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "dir-%03d/file-%04d", i % 50, i / 50);
            if (stat(name, &st))
                wrong(name);
        }
    } else {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "guest-%d", i);
            fd = open_or_end(name, O_WRONLY | O_CREAT | O_EXCL);
            if (write(fd, buffer, SMALL) != SMALL || fsync(fd) || close(fd))
                wrong(name);
        }
    }
    printf("%.6f\n", now() - begin);
    for (int i = 0; !strcmp(work, "create") && i < count; i++) {
        snprintf(name, sizeof name, "guest-%d", i);
        if (unlink(name))
            wrong(name);
    }
    return 0;
}
