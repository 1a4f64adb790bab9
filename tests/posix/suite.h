/* SPDX-License-Identifier: MIT
 * A small framework for system-call tests of a mounted directory. Each test
 * runs in a process of its own, in a fresh empty directory as its working
 * directory, as root, with umask 0 and a time limit; it is one TAP line.
 * Checks go on after a failure and print what was found. */
#ifndef ICM_TESTS_POSIX_SUITE_H
#define ICM_TESTS_POSIX_SUITE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* Ids without passwd entries. */
#define U1 60001
#define U2 60002
#define U3 60003
#define G1 61001
#define G2 61002
#define G3 61003

struct test {
	const char *subject;
	const char *name;
	void (*run)(void);
	struct test *next;
};

void suite_add(struct test *t);

#define TEST(subject_, name_)                                                                      \
	static void subject_##_##name_(void);                                                      \
	__attribute__((constructor)) static void register_##subject_##_##name_(void)               \
	{                                                                                          \
		static struct test t = { #subject_, #name_, subject_##_##name_, NULL };            \
		suite_add(&t);                                                                     \
	}                                                                                          \
	static void subject_##_##name_(void)

/* Facts about the file system under test, found out before the first test. */
struct fs_facts {
	bool nodev, nosuid; /* mounted so: tests that open devices skip */
	bool xattr;	    /* user.* is there */
	bool is_fuse;
	bool is_tmpfs; /* the one difference: a truncation to the same size is nothing */
};
extern struct fs_facts facts;

/* Where a check stands, for tables: printed with each failure. */
void context(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

bool check_(const char *file, int line, bool good, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
long check_ok_(const char *file, int line, const char *what, long result);
bool check_err_(const char *file, int line, const char *what, int err, long result);
bool check_eq_(const char *file, int line, const char *what, long long got, long long want);

/* The call succeeds (>= 0); its value. */
#define OK(call) check_ok_(__FILE__, __LINE__, #call, (long)(call))
/* The call fails with exactly this errno. */
#define ERR(err, call) check_err_(__FILE__, __LINE__, #call, (err), (long)(errno = 0, (call)))
#define EQ(got, want)                                                                              \
	check_eq_(__FILE__, __LINE__, #got " == " #want, (long long)(got), (long long)(want))
#define TRUE(cond) check_(__FILE__, __LINE__, (cond), "%s", #cond)
/* As OK, but the test ends here when it fails. */
long need_(const char *file, int line, const char *what, long result);
#define NEED(call) need_(__FILE__, __LINE__, #call, (long)(call))
/* Ends the test: not a failure. */
void skip(const char *why) __attribute__((noreturn));

/* Users. Only the effective and real ids change; `root()` gets them back. */
void user(uid_t uid, gid_t gid);
void user_in(uid_t uid, gid_t gid, gid_t extra);
void root(void);

/* Waits until a time stamp taken now differs from any that was taken before. */
void tick(void);

struct stat stat_of(const char *path); /* lstat; a failure is a failed check */
struct stat stat_at(const char *path); /* stat */
struct stat stat_fd(int fd);
bool newer(struct timespec a, struct timespec b); /* a > b */
bool same(struct timespec a, struct timespec b);
/* Checks against a snapshot made before a tick(): which times moved. */
#define C_MOVED 1
#define M_MOVED 2
void times_moved_(const char *file, int line, const char *path, const struct stat *before,
		  int what);
#define MOVED(path, before, what) times_moved_(__FILE__, __LINE__, path, before, what)
#define UNMOVED(path, before)	  times_moved_(__FILE__, __LINE__, path, before, 0)

/* Makes a file with these bytes (len < 0: a string). */
void put(const char *path, const void *bytes, ssize_t len);
void touch(const char *path);
/* The file's contents are exactly these, through a fresh descriptor. */
void holds_(const char *file, int line, const char *path, const void *bytes, ssize_t len);
#define HOLDS(path, bytes, len) holds_(__FILE__, __LINE__, path, bytes, len)
/* Bytes that differ by position and by seed. */
void pattern(void *buf, size_t len, uint64_t at, unsigned seed);
uint64_t rnd(uint64_t *state);

/* The kinds of file that a name can stand for. */
enum kind { K_FILE, K_DIR, K_FIFO, K_BLOCK, K_CHAR, K_SOCKET, K_SYMLINK, K_COUNT };
extern const char *const kind_name[K_COUNT];
extern const mode_t kind_type[K_COUNT];
void make(enum kind k, const char *path);
/* Removes by rmdir or unlink. */
void destroy(const char *path);

/* Runs fn in a child and gives its exit status. */
int in_child(int (*fn)(void *), void *arg);

int sys_renameat2(const char *from, const char *to, unsigned flags);

#endif
