/* A disk that fails: while the file named by FAILING_DISK holds the number of an error, every write to a file of the
 * store comes back with that error. Loaded into the gateway with LD_PRELOAD, because a file system cannot be made
 * read-only while a file on it is open for writing, and a real disk does not break when it is asked to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int error_of(int descriptor) {
    int kept = errno, error = 0;
    const char *order = getenv("FAILING_DISK");
    int file = order ? open(order, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char text[16] = "", link[64], path[4096] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        if (read(file, text, sizeof text - 1) > 0 && readlink(link, path, sizeof path - 1) > 0
            && strstr(path, "/outgate.db"))
            error = atoi(text);
        close(file);
    }
    errno = kept;
    return error;
}

#define UNLESS_FAILING(type, name, parameters, arguments)         \
    type name parameters {                                        \
        static type(*real) parameters;                            \
        int error = error_of(descriptor);                         \
        if (error) {                                              \
            errno = error;                                        \
            return -1;                                            \
        }                                                         \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return real arguments;                                    \
    }

UNLESS_FAILING(ssize_t, write, (int descriptor, const void *bytes, size_t count), (descriptor, bytes, count))
UNLESS_FAILING(ssize_t, pwrite, (int descriptor, const void *bytes, size_t count, off_t at), (descriptor, bytes, count, at))
UNLESS_FAILING(ssize_t, pwrite64, (int descriptor, const void *bytes, size_t count, off64_t at), (descriptor, bytes, count, at))
UNLESS_FAILING(int, ftruncate, (int descriptor, off_t length), (descriptor, length))
UNLESS_FAILING(int, ftruncate64, (int descriptor, off64_t length), (descriptor, length))
UNLESS_FAILING(int, fsync, (int descriptor), (descriptor))
UNLESS_FAILING(int, fdatasync, (int descriptor), (descriptor))
