/* SPDX-License-Identifier: MIT
 * counter FILE flock|fcntl N: adds 1 to the number in FILE, N times, each time
 * under a lock that is waited for. Without exclusion increments get lost. Where
 * another mount was faster to make the file, ESTALE says that it is to be opened
 * anew (docs/posix.md). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "counter: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void set_lock(int fd, int records, int type)
{
	struct flock lk = { .l_type = (short)type, .l_whence = SEEK_SET };
	int op = type == F_UNLCK ? LOCK_UN : LOCK_EX;

	if ((records ? fcntl(fd, F_SETLKW, &lk) : flock(fd, op)) < 0)
		die(type == F_UNLCK ? "unlock" : "lock");
}

/* 0: the file is another one by now. */
static int increment(int fd)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0 && errno == ESTALE)
		return 0;
	if (n < 0)
		die("read");
	n = snprintf(text, sizeof(text), "%ld\n", strtol(text, NULL, 10) + 1);
	errno = 0;
	if (pwrite(fd, text, (size_t)n, 0) == n)
		return 1;
	if (errno != ESTALE)
		die("write");
	return 0;
}

/* The name is taken once; a program that is told so more often has a stale lock. */
#define ANEW_MAX 3

int main(int argc, char **argv)
{
	int anew = 0;
	int records = argc == 4 && strcmp(argv[2], "fcntl") == 0;

	if (argc != 4)
		return 2;
	for (long i = 0, n = strtol(argv[3], NULL, 10); i < n;) {
		int fd = open(argv[1], O_RDWR | O_CREAT, 0644);

		if (fd < 0)
			die("open");
		set_lock(fd, records, F_WRLCK);
		if (!increment(fd)) {
			close(fd);
			if (++anew > ANEW_MAX)
				die("again and again");
			continue;
		}
		if (i++ % 2) /* else the close is the unlock */
			set_lock(fd, records, F_UNLCK);
		if (close(fd) < 0)
			die("close");
	}
	return 0;
}
