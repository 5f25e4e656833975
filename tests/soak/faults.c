/* Makes writes of a program fail. Preloaded (LD_PRELOAD), it counts the calls that change files under a folder, and lets
   some of them fail as a disk would. FAULTS names a file that holds `struct control`, shared by all processes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    int64_t count;      /* calls so far */
    int64_t at;         /* number of the call that fails, from 1 on; 0 for none */
    int32_t errors[5];  /* errno by the kind of call; 0 where such a call does not fail */
    int32_t lasting;    /* later ones fail too */
    char root[1024];    /* the folder, with a slash at its end */
    char victim[1024];  /* unless empty: moved away at that call, which then runs its course */
    char hit[1024];     /* what the first call was that failed */
};

enum kind { MAKE, WRITE, REMOVE, SYNC, CLOSE };

static struct control *shared;

__attribute__((constructor)) static void attach(void) {
    const char *name = getenv("FAULTS");
    int file = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR) : -1;
    if (file < 0) return;
    void *place = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (place != MAP_FAILED) shared = place;
    syscall(SYS_close, file);
}

static int is_under(const char *path) {
    return strncmp(path, shared->root, strlen(shared->root)) == 0;
}

static int of_descriptor(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int of_name(int folder, const char *name, char *path) {
    char base[PATH_MAX] = "";
    if (!name) return 0;
    if (name[0] != '/' && !(folder == AT_FDCWD ? getcwd(base, sizeof base) != NULL : of_descriptor(folder, base))) return 0;
    return snprintf(path, PATH_MAX, "%s%s%s", base, *base ? "/" : "", name) < PATH_MAX;
}

/* Whether a call fails; errno is then set. */
static int fails_at(enum kind kind, const char *call, const char *path) {
    if (!shared || !shared->root[0] || !is_under(path)) return 0;
    int64_t number = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
    if (!shared->at || number < shared->at) return 0;
    if (number == shared->at) snprintf(shared->hit, sizeof shared->hit, "%s %s", call, path + strlen(shared->root));
    if (shared->victim[0]) {
        if (number == shared->at) {
            char away[PATH_MAX];
            snprintf(away, sizeof away, "%s.away", shared->victim);
            syscall(SYS_renameat2, AT_FDCWD, shared->victim, AT_FDCWD, away, 0);
        }
        return 0;
    }
    if ((number > shared->at && !shared->lasting) || !shared->errors[kind]) return 0;
    errno = shared->errors[kind];
    return 1;
}

static int fails_by_name(enum kind kind, const char *call, int folder, const char *name) {
    char path[PATH_MAX];
    int before = errno;
    if (!shared || !of_name(folder, name, path)) { errno = before; return 0; }
    errno = before;
    return fails_at(kind, call, path);
}

static int fails_by_descriptor(enum kind kind, const char *call, int file) {
    char path[PATH_MAX];
    int before = errno;
    if (!shared || file <= 2 || !of_descriptor(file, path)) { errno = before; return 0; }
    errno = before;
    return fails_at(kind, call, path);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MAKES(flags) (((flags) & (O_CREAT | O_TRUNC)) || ((flags) & O_TMPFILE) == O_TMPFILE || ((flags) & O_ACCMODE) != O_RDONLY)
#define MODE(flags) \
    mode_t mode = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); MODE(flags) \
        if (MAKES(flags) && fails_by_name(MAKE, "open", AT_FDCWD, path)) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); MODE(flags) \
        if (MAKES(flags) && fails_by_name(MAKE, "open", folder, path)) return -1; \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        if (strpbrk(mode, "wa+") && fails_by_name(MAKE, "fopen", AT_FDCWD, path)) return NULL; \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define BY_DESCRIPTOR(type, name, kind, parameters, ...) \
    type name parameters { REAL(name); return fails_by_descriptor(kind, #name, file) ? -1 : real(__VA_ARGS__); }
BY_DESCRIPTOR(ssize_t, write, WRITE, (int file, const void *data, size_t n), file, data, n)
BY_DESCRIPTOR(ssize_t, pwrite, WRITE, (int file, const void *data, size_t n, off_t at), file, data, n, at)
BY_DESCRIPTOR(ssize_t, pwrite64, WRITE, (int file, const void *data, size_t n, off64_t at), file, data, n, at)
BY_DESCRIPTOR(ssize_t, writev, WRITE, (int file, const struct iovec *data, int n), file, data, n)
BY_DESCRIPTOR(int, ftruncate, WRITE, (int file, off_t n), file, n)
BY_DESCRIPTOR(int, ftruncate64, WRITE, (int file, off64_t n), file, n)
BY_DESCRIPTOR(int, fallocate, WRITE, (int file, int mode, off_t at, off_t n), file, mode, at, n)
BY_DESCRIPTOR(int, fallocate64, WRITE, (int file, int mode, off64_t at, off64_t n), file, mode, at, n)
BY_DESCRIPTOR(int, fsync, SYNC, (int file), file)
BY_DESCRIPTOR(int, fdatasync, SYNC, (int file), file)

#define POSIX_FALLOCATE(name, offset) \
    int name(int file, offset at, offset n) { \
        REAL(name); return fails_by_descriptor(WRITE, "posix_fallocate", file) ? errno : real(file, at, n); \
    }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

int close(int file) {
    REAL(close);
    int flags = shared ? fcntl(file, F_GETFL) : -1;
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || !fails_by_descriptor(CLOSE, "close", file)) return real(file);
    int error = errno;
    real(file);
    errno = error;
    return -1;
}

#define BY_NAME(name, kind, folder, path, parameters, ...) \
    int name parameters { REAL(name); return fails_by_name(kind, #name, folder, path) ? -1 : real(__VA_ARGS__); }
BY_NAME(mkdir, MAKE, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
BY_NAME(mkdirat, MAKE, folder, path, (int folder, const char *path, mode_t mode), folder, path, mode)
BY_NAME(rename, MAKE, AT_FDCWD, to, (const char *from, const char *to), from, to)
BY_NAME(renameat, MAKE, target, to, (int folder, const char *from, int target, const char *to), folder, from, target, to)
BY_NAME(unlink, REMOVE, AT_FDCWD, path, (const char *path), path)
BY_NAME(unlinkat, REMOVE, folder, path, (int folder, const char *path, int flags), folder, path, flags)
BY_NAME(rmdir, REMOVE, AT_FDCWD, path, (const char *path), path)
