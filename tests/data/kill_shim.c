/* Kills the process at one chosen call that changes what is under one folder.
 *
 * Loaded with LD_PRELOAD, it stands before libc's own functions. After watch(folder) every call that
 * makes, fills, names or removes something at or under the folder is numbered from 1 and written to
 * the journal, one line each: kind, path and, for a rename, the new path, parted by tabs. After
 * arm(n, half) the process kills itself with SIGKILL at call n: before the call is made or, if `half`
 * and the call writes bytes, after the first half of them is written.
 *
 * fsync and fdatasync are numbered but not made: a killed process loses nothing that the kernel
 * already has, and a sweep over all calls takes a fraction of the time.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#undef fwrite_unlocked /* a macro where the compiler optimises */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

typedef char path_t[2 * PATH_MAX];

static path_t folder;
static long n_calls;
static long fatal_call;
static int half_way;
static char lines[1 << 20];
static size_t n_lines;

void watch(const char *path)
{
    snprintf(folder, sizeof folder, "%s", path);
    n_calls = 0;
    n_lines = 0;
    lines[0] = 0;
}

void arm(long n, int half)
{
    fatal_call = n;
    half_way = half;
}

long calls(void)
{
    return n_calls;
}

const char *journal(void)
{
    return lines;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int watched(const char *path)
{
    size_t n = strlen(folder);
    return n && !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

/* The path of an open file, empty where it has none. */
static void path_of(int fd, path_t path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path_t) - 1);
    path[n < 0 ? 0 : n] = 0;
}

/* `name` as an absolute path, where the call takes it relative to the folder open as `at`. */
static void resolve(int at, const char *name, path_t path)
{
    path_t base = "";
    if (name[0] != '/') {
        if (at != AT_FDCWD)
            path_of(at, base);
        else if (!getcwd(base, sizeof base))
            base[0] = 0;
        strncat(base, "/", sizeof base - strlen(base) - 1);
    }
    snprintf(path, sizeof(path_t), "%.*s%.*s", PATH_MAX, base, PATH_MAX - 1, name);
}

/* Number a call; where it is the fatal one, die, or answer 1 to be let write half of the bytes. */
static int reach(const char *kind, const char *path, const char *to, int writes)
{
    if (!watched(path) && !watched(to))
        return 0;
    n_calls++;
    int n = snprintf(lines + n_lines, sizeof lines - n_lines, "%s\t%s\t%s\n", kind, path, to);
    if (n < 0 || n_lines + n >= sizeof lines)
        abort();
    n_lines += n;
    if (n_calls != fatal_call)
        return 0;
    if (!half_way || !writes)
        die();
    return 1;
}

static int reach_fd(const char *kind, int fd, int writes)
{
    path_t path;
    path_of(fd, path);
    return reach(kind, path, "", writes);
}

static void reach_at(const char *kind, int at, const char *name)
{
    path_t path;
    resolve(at, name, path);
    reach(kind, path, "", 0);
}

static void reach_rename(const char *kind, int at, const char *name, int to_at, const char *to_name)
{
    path_t path, to;
    resolve(at, name, path);
    resolve(to_at, to_name, to);
    reach(kind, path, to, 0);
}

/* Bytes. */

ssize_t write(int fd, const void *bytes, size_t n)
{
    if (reach_fd("write", fd, 1)) {
        REAL(write)(fd, bytes, n / 2);
        die();
    }
    return REAL(write)(fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t start)
{
    if (reach_fd("pwrite", fd, 1)) {
        REAL(pwrite)(fd, bytes, n / 2, start);
        die();
    }
    return REAL(pwrite)(fd, bytes, n, start);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t start)
{
    if (reach_fd("pwrite", fd, 1)) {
        REAL(pwrite64)(fd, bytes, n / 2, start);
        die();
    }
    return REAL(pwrite64)(fd, bytes, n, start);
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
    if (reach_fd("writev", fd, 1)) {
        if (n > 1)
            REAL(writev)(fd, parts, n / 2);
        else if (n == 1)
            REAL(write)(fd, parts[0].iov_base, parts[0].iov_len / 2);
        die();
    }
    return REAL(writev)(fd, parts, n);
}

/* C stdio keeps bytes back: those of a full buffer go out in fwrite, the last ones in fclose. */

static void fwrite_half(const void *bytes, size_t size, size_t n, FILE *file)
{
    REAL(fwrite)(bytes, 1, size * n / 2, file);
    fflush(file);
    die();
}

size_t fwrite(const void *bytes, size_t size, size_t n, FILE *file)
{
    if (reach_fd("fwrite", fileno(file), 1))
        fwrite_half(bytes, size, n, file);
    return REAL(fwrite)(bytes, size, n, file);
}

size_t fwrite_unlocked(const void *bytes, size_t size, size_t n, FILE *file)
{
    if (reach_fd("fwrite", fileno(file), 1))
        fwrite_half(bytes, size, n, file);
    return REAL(fwrite_unlocked)(bytes, size, n, file);
}

int fclose(FILE *file)
{
    if ((fcntl(fileno(file), F_GETFL) & O_ACCMODE) != O_RDONLY)
        reach_fd("fclose", fileno(file), 0);
    return REAL(fclose)(file);
}

ssize_t sendfile(int to, int from, off_t *start, size_t n)
{
    reach_fd("sendfile", to, 0);
    return REAL(sendfile)(to, from, start, n);
}

ssize_t sendfile64(int to, int from, off64_t *start, size_t n)
{
    reach_fd("sendfile", to, 0);
    return REAL(sendfile64)(to, from, start, n);
}

ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *to_start, size_t n, unsigned flags)
{
    reach_fd("copy_file_range", to, 0);
    return REAL(copy_file_range)(from, start, to, to_start, n, flags);
}

int ftruncate(int fd, off_t n)
{
    reach_fd("ftruncate", fd, 0);
    return REAL(ftruncate)(fd, n);
}

int ftruncate64(int fd, off64_t n)
{
    reach_fd("ftruncate", fd, 0);
    return REAL(ftruncate64)(fd, n);
}

int fsync(int fd)
{
    long before = n_calls;
    reach_fd("fsync", fd, 0);
    return n_calls > before ? 0 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    long before = n_calls;
    reach_fd("fdatasync", fd, 0);
    return n_calls > before ? 0 : REAL(fdatasync)(fd);
}

/* Names. Of the ways to open a file, those that may make or empty one. */

static mode_t opens(int at, const char *name, int flags, va_list more)
{
    int makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    if (makes || flags & O_TRUNC)
        reach_at("open", at, name);
    return makes ? va_arg(more, mode_t) : 0;
}

int open(const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = opens(AT_FDCWD, name, flags, more);
    va_end(more);
    return REAL(open)(name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = opens(AT_FDCWD, name, flags, more);
    va_end(more);
    return REAL(open64)(name, flags, mode);
}

int openat(int at, const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = opens(at, name, flags, more);
    va_end(more);
    return REAL(openat)(at, name, flags, mode);
}

int openat64(int at, const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = opens(at, name, flags, more);
    va_end(more);
    return REAL(openat64)(at, name, flags, mode);
}

FILE *fopen(const char *name, const char *mode)
{
    if (strpbrk(mode, "wa"))
        reach_at("open", AT_FDCWD, name);
    return REAL(fopen)(name, mode);
}

FILE *fopen64(const char *name, const char *mode)
{
    if (strpbrk(mode, "wa"))
        reach_at("open", AT_FDCWD, name);
    return REAL(fopen64)(name, mode);
}

int rename(const char *name, const char *to)
{
    reach_rename("rename", AT_FDCWD, name, AT_FDCWD, to);
    return REAL(rename)(name, to);
}

int renameat(int at, const char *name, int to_at, const char *to)
{
    reach_rename("rename", at, name, to_at, to);
    return REAL(renameat)(at, name, to_at, to);
}

int renameat2(int at, const char *name, int to_at, const char *to, unsigned flags)
{
    reach_rename("rename", at, name, to_at, to);
    return REAL(renameat2)(at, name, to_at, to, flags);
}

int link(const char *name, const char *to)
{
    reach_at("link", AT_FDCWD, to);
    return REAL(link)(name, to);
}

int linkat(int at, const char *name, int to_at, const char *to, int flags)
{
    reach_at("link", to_at, to);
    return REAL(linkat)(at, name, to_at, to, flags);
}

int symlink(const char *target, const char *name)
{
    reach_at("symlink", AT_FDCWD, name);
    return REAL(symlink)(target, name);
}

int symlinkat(const char *target, int at, const char *name)
{
    reach_at("symlink", at, name);
    return REAL(symlinkat)(target, at, name);
}

int unlink(const char *name)
{
    reach_at("unlink", AT_FDCWD, name);
    return REAL(unlink)(name);
}

int unlinkat(int at, const char *name, int flags)
{
    reach_at(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, name);
    return REAL(unlinkat)(at, name, flags);
}

int mkdir(const char *name, mode_t mode)
{
    reach_at("mkdir", AT_FDCWD, name);
    return REAL(mkdir)(name, mode);
}

int mkdirat(int at, const char *name, mode_t mode)
{
    reach_at("mkdir", at, name);
    return REAL(mkdirat)(at, name, mode);
}

int rmdir(const char *name)
{
    reach_at("rmdir", AT_FDCWD, name);
    return REAL(rmdir)(name);
}
