/* Stands in for one library of CUDA at link time, so that the program needs none to start: build.rs makes an entry
 * for every function of the library, and each looks its function up in the real library at its first call. Where that
 * cannot be loaded, functions return STATUS, the library's own word for "not there".
 *
 * Compiled once for each library, with
 *   PREFIX(name)  that makes symbols of this file its own
 *   FILE_NAME     the library's file, as the loader knows it: "libcublas.so.13"
 *   STATUS        what a call returns without it
 *   QUIET         1 where the library is missing on most machines (the driver): the caller says it
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* By number of the function, made by build.rs: where its entry jumps to, and its name. */
extern void *PREFIX(slots)[] HIDDEN;
extern const char *const PREFIX(names)[] HIDDEN;

static char reason[512] = FILE_NAME " could not be loaded";

static void *library(void) {
    static void *handle;
    static int tried; /* two threads at once open it twice, which is harmless */
    if (!__atomic_load_n(&tried, __ATOMIC_ACQUIRE)) {
        void *opened = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL);
        if (!opened) {
            const char *said = dlerror();
            if (said) snprintf(reason, sizeof reason, "%s", said);
            /* Where the toolkit's installer puts it without telling the loader. */
            opened = dlopen("/usr/local/cuda/lib64/" FILE_NAME, RTLD_NOW | RTLD_LOCAL);
            if (!opened && !QUIET) fprintf(stderr, "warning: CUDA: %s\n", reason);
        }
        __atomic_store_n(&handle, opened, __ATOMIC_RELAXED);
        __atomic_store_n(&tried, 1, __ATOMIC_RELEASE);
    }
    return __atomic_load_n(&handle, __ATOMIC_RELAXED);
}

static long missing(void) { return STATUS; }

/* const char *cublasGetStatusString(status) and its like. */
static const char *text(void) { return reason; }

/* CUresult cuGetErrorString(CUresult, const char **) and cuGetErrorName. */
static int text_out(int status, const char **out) {
    (void)status;
    *out = reason;
    return 0;
}

/* The address of function `number`, which its entry jumps to from now on. */
HIDDEN void *PREFIX(find)(unsigned number) {
    const char *name = PREFIX(names)[number];
    void *handle = library();
    void *found = handle ? dlsym(handle, name) : 0;
    if (!found) {
        if (handle) fprintf(stderr, "warning: CUDA: %s has no function %s; it is of another version\n", FILE_NAME, name);
        if (!strcmp(name, "cuGetErrorString") || !strcmp(name, "cuGetErrorName")) found = (void *)text_out;
        else if (strstr(name, "GetErrorString") || strstr(name, "GetStatusString") || strstr(name, "GetStatusName"))
            found = (void *)text;
        else found = (void *)missing;
    }
    __atomic_store_n(&PREFIX(slots)[number], found, __ATOMIC_RELEASE);
    return found;
}
