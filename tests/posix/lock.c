/* SPDX-License-Identifier: MIT
 * flock(2), record locks of processes and of open files, within one mount. */
#include "suite.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int record(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &fl);
}

/* In another process: 0 the lock is free, 11 it is not, else what went wrong. */
struct want {
	const char *path;
	short type;
	off_t start, len;
	int cmd; /* 0: flock, type being its operation */
};

static int tries(void *arg)
{
	const struct want *w = arg;
	int fd = open(w->path, O_RDWR);
	int rc;

	if (fd < 0)
		return 99;
	rc = w->cmd ? record(fd, w->cmd, w->type, w->start, w->len) : flock(fd, w->type | LOCK_NB);
	if (rc == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? 11 : errno;
}

static int other_record(int cmd, short type, off_t start, off_t len)
{
	return in_child(tries, &(struct want){ "f", type, start, len, cmd });
}

static int other_flock(int op)
{
	return in_child(tries, &(struct want){ "f", (short)op, 0, 0, 0 });
}

TEST(lock, flock_kinds)
{
	int a, b;

	touch("f");
	a = (int)NEED(open("f", O_RDONLY));
	b = (int)NEED(open("f", O_RDONLY));
	OK(flock(a, LOCK_EX | LOCK_NB));
	ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	ERR(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
	EQ(other_flock(LOCK_SH), 11);
	OK(flock(a, LOCK_SH | LOCK_NB));
	OK(flock(b, LOCK_SH | LOCK_NB));
	ERR(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
	OK(flock(b, LOCK_UN));
	OK(flock(a, LOCK_SH | LOCK_NB)); /* a failed conversion may have lost it */
	OK(flock(a, LOCK_EX | LOCK_NB));
	EQ(other_flock(LOCK_EX), 11);
	OK(flock(a, LOCK_UN));
	EQ(other_flock(LOCK_EX), 0);
	ERR(EINVAL, flock(a, 0x40));
	close(a);
	close(b);
}

TEST(lock, flock_belongs_to_the_open_file)
{
	int a, c;

	touch("f");
	a = (int)NEED(open("f", O_RDWR));
	c = (int)NEED(dup(a));
	OK(flock(a, LOCK_EX));
	OK(close(a));
	EQ(other_flock(LOCK_SH), 11);
	OK(flock(c, LOCK_EX | LOCK_NB));
	OK(close(c));
	EQ(other_flock(LOCK_EX), 0);
	context("closed, opened anew, at once");
	for (int i = 0; i < 200; i++) {
		a = (int)NEED(open("f", O_RDWR));
		if (flock(a, LOCK_EX | LOCK_NB) < 0) {
			EQ(errno, 0);
			break;
		}
		close(a);
	}
	context("on a directory");
	NEED(mkdir("d", 0755));
	a = (int)NEED(open("d", O_RDONLY));
	OK(flock(a, LOCK_EX | LOCK_NB));
	c = (int)NEED(open("d", O_RDONLY));
	ERR(EWOULDBLOCK, flock(c, LOCK_SH | LOCK_NB));
	close(a);
	close(c);
}

TEST(lock, records_and_ranges)
{
	int fd;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	OK(record(fd, F_SETLK, F_WRLCK, 10, 10));
	OK(record(fd, F_SETLK, F_RDLCK, 101, 7));
	EQ(other_record(F_SETLK, F_RDLCK, 10, 1), 11);
	EQ(other_record(F_SETLK, F_RDLCK, 19, 1), 11);
	EQ(other_record(F_SETLK, F_RDLCK, 20, 1), 0);
	EQ(other_record(F_SETLK, F_RDLCK, 0, 10), 0);
	EQ(other_record(F_SETLK, F_RDLCK, 101, 7), 0);
	EQ(other_record(F_SETLK, F_WRLCK, 107, 1), 11);
	EQ(other_record(F_SETLK, F_WRLCK, 0, 0), 11);
	EQ(other_record(F_SETLK, F_WRLCK, 200, 0), 0);
	context("a hole in the middle");
	OK(record(fd, F_SETLK, F_UNLCK, 13, 3));
	EQ(other_record(F_SETLK, F_WRLCK, 13, 3), 0);
	EQ(other_record(F_SETLK, F_WRLCK, 12, 1), 11);
	EQ(other_record(F_SETLK, F_WRLCK, 16, 1), 11);
	context("to the end of all offsets");
	OK(record(fd, F_SETLK, F_WRLCK, 1000, 0));
	EQ(other_record(F_SETLK, F_RDLCK, INT64_MAX - 10, 1), 11);
	OK(record(fd, F_SETLK, F_UNLCK, 0, 0));
	EQ(other_record(F_SETLK, F_WRLCK, 0, 0), 0);
	context("as SQLite does, far beyond the end");
	OK(record(fd, F_SETLK, F_RDLCK, 1073741826, 510));
	EQ(other_record(F_SETLK, F_WRLCK, 1073741825, 1), 0);
	EQ(other_record(F_SETLK, F_WRLCK, 1073741826, 510), 11);
	EQ(stat_of("f").st_size, 0);
	context("errors");
	ERR(EINVAL, record(fd, F_SETLK, F_WRLCK, -5, 1));
	ERR(EINVAL, record(fd, F_SETLK, 77, 0, 1));
	{
		int ro = (int)NEED(open("f", O_RDONLY));

		ERR(EBADF, record(ro, F_SETLK, F_WRLCK, 0, 1));
	}
}

TEST(lock, getlk)
{
	struct flock fl;
	int fd, go[2], ready[2], status;
	char c;
	pid_t pid;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	NEED(pipe(go));
	NEED(pipe(ready));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int mine = open("f", O_RDWR);

		close(go[1]);
		if (record(mine, F_SETLK, F_WRLCK, 51, 8) < 0)
			_exit(1);
		if (write(ready[1], "x", 1) != 1 || read(go[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(go[0]);
	EQ(read(ready[0], &c, 1), 1);
	fl = (struct flock){ .l_type = F_RDLCK, .l_start = 40, .l_len = 100 };
	OK(fcntl(fd, F_GETLK, &fl));
	EQ(fl.l_type, F_WRLCK);
	EQ(fl.l_start, 51);
	EQ(fl.l_len, 8);
	EQ(fl.l_pid, pid);
	EQ(fl.l_whence, SEEK_SET);
	fl = (struct flock){ .l_type = F_WRLCK, .l_start = 0, .l_len = 51 };
	OK(fcntl(fd, F_GETLK, &fl));
	EQ(fl.l_type, F_UNLCK);
	close(go[1]);
	OK(waitpid(pid, &status, 0));
	EQ(status, 0);
	fl = (struct flock){ .l_type = F_RDLCK, .l_start = 40, .l_len = 100 };
	OK(fcntl(fd, F_GETLK, &fl));
	EQ(fl.l_type, F_UNLCK);
}

TEST(lock, record_belongs_to_the_process)
{
	int a, b;

	touch("f");
	a = (int)NEED(open("f", O_RDWR));
	b = (int)NEED(open("f", O_RDWR));
	OK(record(a, F_SETLK, F_WRLCK, 0, 10));
	OK(record(b, F_SETLK, F_WRLCK, 5, 10)); /* same owner */
	EQ(other_record(F_SETLK, F_WRLCK, 14, 1), 11);
	context("any close of the file lets go of all of them");
	OK(close(b));
	EQ(other_record(F_SETLK, F_WRLCK, 0, 0), 0);
	context("the child of a fork owns nothing, and its end takes nothing");
	OK(record(a, F_SETLK, F_WRLCK, 0, 0));
	EQ(other_record(F_SETLK, F_RDLCK, 3, 1), 11);
	EQ(other_record(F_SETLK, F_RDLCK, 3, 1), 11);
	OK(close(a));
	EQ(other_record(F_SETLK, F_WRLCK, 0, 0), 0);
}

TEST(lock, record_of_an_open_file)
{
	int a, b, c;

	touch("f");
	a = (int)NEED(open("f", O_RDWR));
	b = (int)NEED(open("f", O_RDWR));
	OK(record(a, F_OFD_SETLK, F_WRLCK, 3, 10));
	ERR(EAGAIN, record(b, F_OFD_SETLK, F_WRLCK, 12, 1));
	OK(record(b, F_OFD_SETLK, F_WRLCK, 13, 1));
	ERR(EAGAIN, record(b, F_SETLK, F_WRLCK, 4, 1)); /* against records of processes, too */
	c = (int)NEED(dup(a));
	OK(close(a));
	ERR(EAGAIN, record(b, F_OFD_SETLK, F_RDLCK, 3, 1));
	OK(close(c));
	/* The release may follow the close by a moment. */
	for (int i = 0; i < 5000; i++) {
		if (record(b, F_OFD_SETLK, F_RDLCK, 3, 1) == 0)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	OK(record(b, F_OFD_SETLK, F_RDLCK, 3, 1));
	OK(close(b));
	context("flock and records don't meet");
	a = (int)NEED(open("f", O_RDWR));
	b = (int)NEED(open("f", O_RDWR));
	OK(flock(a, LOCK_EX | LOCK_NB));
	OK(record(b, F_SETLK, F_WRLCK, 0, 0));
	EQ(other_record(F_SETLK, F_RDLCK, 0, 0), 11);
	EQ(other_flock(LOCK_SH), 11);
	close(a);
	close(b);
}

static int waits(void *arg)
{
	const struct want *w = arg;
	int fd = open(w->path, O_RDWR);

	if (fd < 0)
		return 99;
	if (w->cmd ? record(fd, w->cmd, w->type, w->start, w->len) : flock(fd, w->type))
		return errno;
	return 0;
}

/* It sleeps inside a lock call. */
static bool is_waiting(pid_t pid)
{
	char path[64], buf[400];
	long nr = -1;
	int fd, n;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? -1 : (int)read(fd, buf, sizeof(buf) - 1);
	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	return sscanf(buf, "%ld", &nr) == 1 && (nr == SYS_flock || nr == SYS_fcntl);
}

TEST(lock, waiters_are_served)
{
	static const int cmds[] = { 0, F_SETLKW, F_OFD_SETLKW };

	touch("f");
	for (int k = 0; k < 3; k++) {
		pid_t pids[5];
		int fd = (int)NEED(open("f", O_RDWR)), status;

		context("kind %d", k);
		if (cmds[k])
			OK(record(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
		else
			OK(flock(fd, LOCK_EX));
		fflush(stdout);
		for (int i = 0; i < 5; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				close(fd);
				_exit(waits(&(struct want){ "f", cmds[k] ? F_WRLCK : LOCK_EX, 7, 3,
							    cmds[k] }));
			}
		}
		for (int i = 0; i < 5; i++) {
			for (int ms = 0; ms < 2000 && !is_waiting(pids[i]); ms++)
				nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			EQ(waitpid(pids[i], &status, WNOHANG), 0);
		}
		if (cmds[k])
			OK(record(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
		else
			OK(flock(fd, LOCK_UN));
		for (int i = 0; i < 5; i++) {
			OK(waitpid(pids[i], &status, 0));
			EQ(status, 0);
		}
		close(fd);
	}
}

static void nothing(int sig)
{
	(void)sig;
}

TEST(lock, waiter_is_interrupted)
{
	struct sigaction sa = { .sa_handler = nothing };
	int fd, status;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	NEED(sigaction(SIGUSR1, &sa, NULL)); /* no SA_RESTART */
	for (int k = 0; k < 3; k++) {
		static const int cmds[] = { 0, F_SETLKW, F_OFD_SETLKW };
		pid_t pid;

		context("kind %d", k);
		if (cmds[k])
			OK(record(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
		else
			OK(flock(fd, LOCK_EX));
		for (int by_kill = 0; by_kill < 2; by_kill++) {
			fflush(stdout);
			pid = fork();
			if (pid == 0) {
				close(fd);
				_exit(waits(&(struct want){ "f", cmds[k] ? F_WRLCK : LOCK_EX, 0, 0,
							    cmds[k] }));
			}
			for (int ms = 0; ms < 2000 && !is_waiting(pid); ms++)
				nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			/* Sent again until it has been heard. */
			for (int i = 0; i < 500; i++) {
				kill(pid, by_kill ? SIGKILL : SIGUSR1);
				nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
				if (waitpid(pid, &status, WNOHANG) == pid)
					break;
			}
			if (by_kill)
				TRUE(WIFSIGNALED(status));
			else
				TRUE(WIFEXITED(status) && WEXITSTATUS(status) == EINTR);
		}
		if (cmds[k])
			OK(record(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
		else
			OK(flock(fd, LOCK_UN));
		EQ(other_record(F_SETLK, F_WRLCK, 0, 0), 0);
		EQ(other_flock(LOCK_EX), 0);
	}
}

static int holds_and_dies(void *arg)
{
	int fd = open(arg, O_RDWR);

	if (fd < 0 || flock(fd, LOCK_EX) || record(fd, F_SETLK, F_WRLCK, 0, 0))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

TEST(lock, of_a_killed_process_is_free)
{
	touch("f");
	for (int i = 0; i < 10; i++) {
		int fd = (int)NEED(open("f", O_RDWR));

		EQ(in_child(holds_and_dies, (char[]){ "f" }), 128 + SIGKILL);
		OK(flock(fd, LOCK_EX | LOCK_NB));
		OK(record(fd, F_SETLK, F_WRLCK, 0, 0));
		close(fd);
	}
}

TEST(lock, deadlock_is_found)
{
	int fd, ready[2], status;
	pid_t pid;
	char c;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	NEED(pipe(ready));
	OK(record(fd, F_SETLK, F_WRLCK, 0, 1));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int mine = open("f", O_RDWR), rc;

		if (record(mine, F_SETLK, F_WRLCK, 1, 1) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		rc = record(mine, F_SETLKW, F_WRLCK, 0, 1);
		_exit(rc == 0 ? 0 : errno == EDEADLK ? 35 : 2);
	}
	EQ(read(ready[0], &c, 1), 1);
	for (int ms = 0; ms < 2000 && !is_waiting(pid); ms++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	ERR(EDEADLK, record(fd, F_SETLKW, F_WRLCK, 1, 1));
	OK(record(fd, F_SETLK, F_UNLCK, 0, 1));
	OK(waitpid(pid, &status, 0));
	EQ(status, 0);
}
