/* Preloaded into a program, it writes down every change to the files below RECORDED, in the order in which they were made:
   one record is op, file number, offset, length, then the bytes. A replayer can make from that what a power cut leaves.

   One process, many threads: a lock is held over the call and its record, so that the order is the real one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int record_handle = -1;

/* What comes after RECORDED in a path, or NULL. */
static const char *below(const char *path) {
    const char *folder = getenv("RECORDED");
    size_t prefix = folder ? strlen(folder) : 0;
    return folder && !strncmp(path, folder, prefix) && path[prefix] == '/' ? path + prefix + 1 : NULL;
}

/* The name below RECORDED that a descriptor stands for, or NULL. */
static const char *name_of(int handle, char *path, size_t room) {
    char link[64];
    if (handle == record_handle) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, room - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    return below(path);
}

static void put(const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    const char *next = bytes;
    while (count) {
        ssize_t done = real(record_handle, next, count);
        if (done <= 0) abort();
        next += done;
        count -= done;
    }
}

static void record(char op, const char *name, uint64_t offset, const void *bytes, uint64_t count) {
    if (record_handle < 0)
        record_handle = open(getenv("RECORD"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uint8_t name_length = strlen(name);
    put(&op, 1);
    put(&name_length, 1);
    put(name, name_length);
    put(&offset, 8);
    put(&count, 8);
    if (bytes) put(bytes, count);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = dlsym(RTLD_NEXT, #name)
#define LOCKED(call, written) \
    char path[4096]; \
    const char *name = name_of(handle, path, sizeof path); \
    if (!name) return call; \
    pthread_mutex_lock(&turn); \
    __typeof__(call) done = call; \
    if (done >= 0) written; \
    pthread_mutex_unlock(&turn); \
    return done

ssize_t pwrite(int handle, const void *bytes, size_t count, off_t offset) {
    REAL(pwrite);
    LOCKED(real(handle, bytes, count, offset), record('w', name, offset, bytes, done));
}

ssize_t pwrite64(int handle, const void *bytes, size_t count, off64_t offset) {
    REAL(pwrite64);
    LOCKED(real(handle, bytes, count, offset), record('w', name, offset, bytes, done));
}

ssize_t write(int handle, const void *bytes, size_t count) {
    REAL(write);
    LOCKED(real(handle, bytes, count), record('w', name, lseek(handle, 0, SEEK_CUR) - done, bytes, done));
}

int ftruncate(int handle, off_t length) {
    REAL(ftruncate);
    LOCKED(real(handle, length), record('t', name, length, NULL, 0));
}

int ftruncate64(int handle, off64_t length) {
    REAL(ftruncate64);
    LOCKED(real(handle, length), record('t', name, length, NULL, 0));
}

int fsync(int handle) {
    REAL(fsync);
    LOCKED(real(handle), record('s', name, 0, NULL, 0));
}

int fdatasync(int handle) {
    REAL(fdatasync);
    LOCKED(real(handle), record('s', name, 0, NULL, 0));
}

int unlink(const char *path) {
    REAL(unlink);
    const char *name = below(path);
    if (!name) return real(path);
    pthread_mutex_lock(&turn);
    int done = real(path);
    if (done >= 0) record('d', name, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
