/* Changes files in every way that a layer can keep, always the same: what a save makes of it must not depend on
 * whether the shell had a user namespace. Linked statically: the image has no libc.
 *
 * usage: deeds base      makes DIR and a tree in it
 *        deeds change    changes that tree, which now lies in the image below */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define DIR_ "/deeds"

/* Every call must succeed. */
#define must(call) \
    do { \
        if ((call) < 0) { \
            fprintf(stderr, "%s: %s\n", #call, strerrorname_np(errno)); \
            exit(1); \
        } \
    } while (0)

static void file(const char *name, const char *text)
{
    int fd;
    must(fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644));
    must(write(fd, text, strlen(text)));
    must(close(fd));
}

/* A file capability as setcap(8) writes it: version 2 without a root user, CAP_NET_RAW permitted and effective. */
static void capability(const char *name)
{
    uint32_t value[5] = {0x02000001, 1u << 13, 0, 0, 0};
    must(setxattr(name, "security.capability", value, sizeof value, 0));
}

/* An access list with an entry for user 1000: version 2; tag, permissions, number of each entry. */
static void access_list(const char *name)
{
    uint8_t value[4 + 5 * 8] = {2};
    const uint16_t entries[5][2] = {{1, 6}, {2, 7}, {4, 4}, {16, 7}, {32, 4}};
    for (int i = 0; i < 5; i++) {
        uint32_t id = entries[i][0] == 2 ? 1000 : UINT32_MAX;
        memcpy(value + 4 + i * 8, entries[i], 4);
        memcpy(value + 8 + i * 8, &id, 4);
    }
    must(setxattr(name, "system.posix_acl_access", value, sizeof value, 0));
}

static void base(void)
{
    must(mkdir("opaque", 0755));
    must(mkdir("opaque/below", 0755));
    must(mkdir("copied-up", 0755));
    must(mkdir("copied-up/below", 02775));
    must(chown("copied-up/below", 1000, 1001));
    file("opaque/below/file", "hidden later");
    file("copied-up/below/file", "seen");
    file("gone", "removed later");
    file("owner", "given away later");
    file("mode", "changed later");
    file("linked", "linked later");
    file("capable", "written to later");
    file("touched", "only its time changes");
    must(chown("touched", 1000, 65534));
    must(chmod("touched", 06751));
    capability("touched");
    access_list("copied-up/below");
    must(chown("mode", 3, 4));
}

static void change(void)
{
    struct timespec times[2] = {{86400, 0}, {86400, 5}};
    must(unlink("gone"));
    must(unlink("opaque/below/file"));
    must(rmdir("opaque/below"));
    must(rmdir("opaque"));
    must(mkdir("opaque", 0750));
    file("opaque/new", "instead");
    must(chown("owner", 65534, 65535));
    must(chmod("mode", 04755));
    must(link("linked", "link"));
    file("copied-up/below/another", "beside");
    must(utimensat(AT_FDCWD, "touched", times, 0));
    file("new", "new");
    must(link("new", "copied-up/new"));
    file("new-capable", "");
    capability("new-capable");
    file("with-attributes", "");
    must(setxattr("with-attributes", "user.comment", "said", 4, 0));
    access_list("with-attributes");
    must(symlink("/nowhere", "symlink"));
    must(lchown("symlink", 1000, 1001));
    must(mkfifo("fifo", 0620));
    must(chown("fifo", 5, 6));
    must(mkdir("sticky", 0755));
    must(chmod("sticky", 01777));
    int fd;
    must(fd = open("sparse", O_WRONLY | O_CREAT, 0600));
    must(pwrite(fd, "end", 3, 3 << 20));
    must(close(fd));
    /* As another user, in a directory that gives its group on. */
    must(chmod("copied-up/below", 02777));
    must(setfsgid(1001));
    must(setfsuid(1000));
    file("copied-up/below/of-another", "mine");
    must(setfsuid(0));
    must(setfsgid(0));
}

/* A time that does not depend on when this runs. */
static int at_one_time(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    struct timespec times[2] = {{1000000, 1}, {1000000, 2}};
    if (strcmp(path, DIR_ "/touched"))
        must(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    umask(022);
    int first = !strcmp(argv[1], "base");
    if (first)
        must(mkdir(DIR_, 0755));
    must(chdir(DIR_));
    (first ? base : change)();
    must(nftw(DIR_, at_one_time, 16, FTW_PHYS | FTW_DEPTH));
    if (first) {
        struct timespec times[2] = {{1000000, 1}, {1000000, 2}};
        must(utimensat(AT_FDCWD, "touched", times, 0));
    }
    return 0;
}
