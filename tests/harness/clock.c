/* A wall clock that is off: while the file named by ODD_CLOCK holds a number, so many seconds are added to the time of
 * day. Loaded into the gateway with LD_PRELOAD, because the machine's clock is everybody's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time), kept = errno;
    const char *order = getenv("ODD_CLOCK");
    int file = result == 0 && clock == CLOCK_REALTIME && order ? open(order, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char text[24] = "";
        if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
        close(file);
    }
    errno = kept;
    return result;
}
