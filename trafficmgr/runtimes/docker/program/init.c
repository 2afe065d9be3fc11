/* The one program that trafficmgr brings into containers on Docker.
 *
 *   init pause                             hold a group's network: reap orphans, end on SIGTERM
 *   init run ENVFILE -- ARGV...            become ARGV, with the variables of ENVFILE
 *   init put PATH MODE UID GID [SIZE]      make standard input the file PATH, whole or not at all
 *
 * It runs where there is nothing: in an image that holds this file only, and in other people's
 * images, which may have no shell and no C library. So it has neither: system calls by number, and
 * no variable outside of a function, so that it is one segment of a few KiB. No memory is freed;
 * `run` and `put` end or become another program at once.
 *
 * ENVFILE holds NAME=value entries, each ended by a NUL byte (the last one may lack it), because a
 * value may hold anything else. An entry wins over a variable of that name that is there already,
 * and a later entry over an earlier one. The file holds secrets: it lies in memory, and this is how
 * they reach a process without the engine knowing their values.
 *
 * `put` with a SIZE reads so many bytes and no more, so that it needs no end of input, and takes an
 * earlier end for what it is: somebody went away in the middle. Until its very end the new file is
 * PATH.part, mode 0600, and PATH is as it was.
 *
 * Exit codes: 0; 1, `put` failed; 2, called wrongly; 126, ENVFILE can't be read or the program
 * can't be executed; 127, there is no such program (the last two as shells have it).
 *
 * Build it with ./build, which says how.
 */

typedef unsigned long word;

/* -- the kernel --------------------------------------------------------------------------------- */

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, LSEEK = 8, MMAP = 9, RT_SIGPROCMASK = 14, EXECVE = 59,
       WAIT4 = 61, FCHMOD = 91, FCHOWN = 93, RT_SIGTIMEDWAIT = 128, EXIT_GROUP = 231,
       OPENAT = 257, UNLINKAT = 263, RENAMEAT = 264 };
enum { O_NOFOLLOW = 0400000 };
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");

static long call(long number, word a, word b, word c, word d, word e, word f)
{
    long answer;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return answer;
}
#elif defined(__aarch64__)
enum { UNLINKAT = 35, RENAMEAT = 38, FCHMOD = 52, FCHOWN = 55, OPENAT = 56, CLOSE = 57,
       LSEEK = 62, READ = 63, WRITE = 64, EXIT_GROUP = 94, RT_SIGPROCMASK = 135,
       RT_SIGTIMEDWAIT = 137, EXECVE = 221, MMAP = 222, WAIT4 = 260 };
enum { O_NOFOLLOW = 0100000 };
__asm__(".globl _start\n_start: mov x29, xzr\n mov x0, sp\n bl begin\n");

static long call(long number, word a, word b, word c, word d, word e, word f)
{
    register long x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = e;
    register word x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return (long)x0;
}
#else
#error "x86-64 and aarch64 only"
#endif

#define CALL4(number, a, b, c, d) call(number, (word)(a), (word)(b), (word)(c), (word)(d), 0, 0)
#define CALL3(number, a, b, c) CALL4(number, a, b, c, 0)

enum { AT_FDCWD = -100, O_RDONLY = 0, O_WRONLY = 01, O_CREAT = 0100, O_EXCL = 0200,
       O_CLOEXEC = 02000000 };
enum { PROT_READ_WRITE = 3, MAP_PRIVATE_ANONYMOUS = 0x22, SEEK_SET = 0, SEEK_END = 2 };
enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1 };
enum { ENOENT = 2, EINTR = 4, E2BIG = 7, ENOEXEC = 8, EACCES = 13, EEXIST = 17, ENOTDIR = 20,
       EISDIR = 21, ENOSPC = 28, EROFS = 30, ELOOP = 40 };

_Noreturn static void leave(int code)
{
    for (;;)
        CALL3(EXIT_GROUP, code, 0, 0);
}

/* -- text --------------------------------------------------------------------------------------- */

static word length(const char *text)
{
    word size = 0;
    while (text[size])
        size++;
    return size;
}

static int equal(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

/* Whether both begin with the same NAME=. */
static int same_name(const char *one, const char *other)
{
    while (*one && *one != '=' && *one == *other)
        one++, other++;
    return *one == '=' && *other == '=';
}

/* A number of this base; -1 if it is none, or does not fit into 62 bits. */
static long number(const char *text, word base)
{
    word value = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        word digit = (word)*text - '0';
        if (digit >= base || value >= 1UL << 58)
            return -1;
        value = value * base + digit;
    }
    return (long)value;
}

static char *append(char *end, const char *text)
{
    while (*text)
        *end++ = *text++;
    *end = 0;
    return end;
}

static void say(const char *text)
{
    CALL3(WRITE, 2, text, length(text));
}

/* Says: init: WHAT "NAME": why. THEN */
_Noreturn static void fail(int code, const char *what, const char *name, long error,
                           const char *then)
{
    char digits[8], *digit = digits + 7;
    say("trafficmgr's init: ");
    say(what);
    say(" \"");
    say(name);
    say("\": ");
    switch (error) {
    case ENOENT: say("there is no such file"); break;
    case EACCES: say("permission denied"); break;
    case ENOTDIR: say("a part of its path is no folder"); break;
    case EISDIR: case EEXIST: say("there is a folder of that name"); break;
    case ENOEXEC: say("it is no program for this machine"); break;
    case E2BIG: say("arguments and environment are too long"); break;
    case ENOSPC: say("the volume is full"); break;
    case EROFS: say("the volume is read-only"); break;
    case ELOOP: say("it is a symbolic link"); break;
    case 0: say("the input ended too early"); break;
    default:
        *digit = 0;
        for (; error && digit > digits; error /= 10)
            *--digit = (char)('0' + error % 10);
        say("error ");
        say(digit);
    }
    say(". ");
    say(then);
    say("\n");
    leave(code);
}

static char *memory(word size)
{
    long at = call(MMAP, 0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, (word)-1, 0);
    if (at < 0 && at > -4096) {
        say("trafficmgr's init: there is no memory left. Raise the container's limit.\n");
        leave(126);
    }
    return (char *)at;
}

/* -- pause -------------------------------------------------------------------------------------- */

/* Signals are blocked and waited for, as process 1 is not ended by one that has no handler. */
_Noreturn static void hold(void)
{
    word wanted = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1) | 1UL << (SIGCHLD - 1);
    CALL4(RT_SIGPROCMASK, SIG_BLOCK, &wanted, 0, sizeof wanted);
    for (;;) {
        while (CALL4(WAIT4, -1, 0, WNOHANG, 0) > 0)
            ;
        long got = CALL4(RT_SIGTIMEDWAIT, &wanted, 0, 0, sizeof wanted);
        if (got == SIGTERM || got == SIGINT)
            leave(0);
    }
}

/* -- run ---------------------------------------------------------------------------------------- */

static const char NO_SECRETS[] = "The container does not start without its secrets; replace it.";

/* The whole file, with a NUL byte behind it. */
static char *content(const char *path, word *size)
{
    long file = CALL4(OPENAT, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    long left = file < 0 ? file : CALL3(LSEEK, file, 0, SEEK_END);
    if (left < 0)
        fail(126, "cannot read", path, -left, NO_SECRETS);
    CALL3(LSEEK, file, 0, SEEK_SET);
    *size = (word)left;
    char *start = memory(*size + 1), *end = start;
    while (left > 0) {
        long got = CALL3(READ, file, end, left);
        if (got == -EINTR)
            continue;
        if (got <= 0)
            fail(126, "cannot read", path, -got, NO_SECRETS);
        end += got;
        left -= got;
    }
    CALL3(CLOSE, file, 0, 0);
    return start;
}

/* Puts it in the place of the variable of that name, or behind the last one; zeros follow. */
static void set(char **environment, char *entry)
{
    while (*environment && !same_name(*environment, entry))
        environment++;
    *environment = entry;
}

static char **merged(char **environment, char *entries, word size)
{
    word count = 1;
    for (word i = 0; environment[i]; i++)
        count++;
    for (word i = 0; i <= size; i++)
        count += !entries[i];
    char **both = (char **)memory((count + 1) * sizeof *both);
    for (word i = 0; environment[i]; i++)
        both[i] = environment[i];
    for (char *entry = entries; entry < entries + size; entry += length(entry) + 1)
        if (*entry)
            set(both, entry);
    return both;
}

/* Tries each folder of PATH, as execvp does; returns why the best of them could not be executed. */
static long execute(char **arguments, char **environment)
{
    const char *path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    const char *name = arguments[0];
    for (const char *letter = name; *letter; letter++)
        if (*letter == '/')
            return -CALL3(EXECVE, name, arguments, environment);
    if (!*name)
        return ENOENT;
    for (char **entry = environment; *entry; entry++)
        if (same_name(*entry, path))
            path = *entry;
    char *tried = memory(length(path) + length(name) + 4);
    long worst = ENOENT;
    for (path += 5;; path++) {
        char *end = tried;
        if (!*path || *path == ':')
            *end++ = '.';
        while (*path && *path != ':')
            *end++ = *path++;
        append(append(end, "/"), name);
        long error = -CALL3(EXECVE, tried, arguments, environment);
        if (error == EACCES)
            worst = error;
        else if (error != ENOENT && error != ENOTDIR)
            return error;
        if (!*path)
            return worst;
    }
}

_Noreturn static void run(char **arguments, char **environment, const char *file)
{
    word size;
    char *entries = content(file, &size);
    long error = execute(arguments, merged(environment, entries, size));
    int is_missing = error == ENOENT || error == ENOTDIR;
    fail(is_missing ? 127 : 126, "cannot start", arguments[0], error,
         "The container ends here. Look at its command, and for a script at its first line.");
}

/* -- put ---------------------------------------------------------------------------------------- */

static const char NOT_WRITTEN[] = "It was not written, what was there before is unchanged.";

/* Copies `left` bytes, with -1 all there are; 0 if it can't, with *error. */
static int copied(long file, long left, long *error)
{
    char buffer[4096];
    while (left) {
        word most = left < 0 || left > (long)sizeof buffer ? sizeof buffer : (word)left;
        long got = CALL3(READ, 0, buffer, most);
        if (got == -EINTR)
            continue;
        if (got == 0 && left < 0)
            return 1;
        if (got <= 0)
            return *error = -got, 0;
        for (long done = 0; done < got;) {
            long wrote = CALL3(WRITE, file, buffer + done, got - done);
            if (wrote < 0 && wrote != -EINTR)
                return *error = -wrote, 0;
            done += wrote < 0 ? 0 : wrote;
        }
        left -= left < 0 ? 0 : got;
    }
    return 1;
}

_Noreturn static void put(const char *path, long mode, long user, long group, long size)
{
    char *part = memory(length(path) + 6);
    append(append(part, path), ".part");
    CALL3(UNLINKAT, AT_FDCWD, part, 0); /* of a put that was killed */
    long file = CALL4(OPENAT, AT_FDCWD, part,
                      O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    long error = -file;
    if (file < 0)
        fail(1, "cannot write", path, error, NOT_WRITTEN);
    if (copied(file, size, &error)                              /* chown takes away setuid bits: */
        && !(error = -CALL3(FCHOWN, file, user, group))         /* the mode comes after it */
        && !(error = -CALL3(FCHMOD, file, mode, 0))
        && !(error = -CALL4(RENAMEAT, AT_FDCWD, part, AT_FDCWD, path)))
        leave(0);
    CALL3(UNLINKAT, AT_FDCWD, part, 0);
    fail(1, "cannot write", path, error, NOT_WRITTEN);
}

/* -- which one ---------------------------------------------------------------------------------- */

_Noreturn static void misused(void)
{
    say("usage: init pause | init run ENVFILE -- ARGV... | init put PATH MODE UID GID [SIZE]\n");
    leave(2);
}

/* The stack at the start: argc, argv.., 0, envp.., 0. */
_Noreturn __attribute__((used)) void begin(word *stack)
{
    word count = stack[0];
    char **arguments = (char **)(stack + 1);
    char **environment = arguments + count + 1;
    if (count == 2 && equal(arguments[1], "pause"))
        hold();
    if (count >= 5 && equal(arguments[1], "run") && equal(arguments[3], "--"))
        run(arguments + 4, environment, arguments[2]);
    if ((count == 6 || count == 7) && equal(arguments[1], "put")) {
        long mode = number(arguments[3], 8);
        long user = number(arguments[4], 10);
        long group = number(arguments[5], 10);
        long size = count == 7 ? number(arguments[6], 10) : 0;
        if (mode >= 0 && mode <= 07777 && user >= 0 && group >= 0 && size >= 0)
            put(arguments[2], mode, user, group, count == 7 ? size : -1);
    }
    misused();
}
