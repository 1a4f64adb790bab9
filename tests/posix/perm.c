/* SPDX-License-Identifier: MIT
 * chmod(2), chown(2), access by several users, set-id bits. */
#include "suite.h"

#include <sys/sysmacros.h>
#include <sys/wait.h>

TEST(chmod, every_kind)
{
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat st;

		if (k == K_SYMLINK)
			continue;
		context("%s", kind_name[k]);
		make(k, "n");
		st = stat_of("n");
		tick();
		OK(chmod("n", 0111));
		EQ(stat_of("n").st_mode, kind_type[k] | 0111);
		MOVED("n", &st, C_MOVED);
		EQ(stat_of("n").st_ino, st.st_ino);
		for (mode_t m = 0; m < 010000; m += 0333) {
			OK(chmod("n", m));
			EQ(stat_of("n").st_mode, kind_type[k] | m);
		}
		NEED(symlink("n", "l"));
		OK(chmod("l", 0640));
		EQ(stat_of("n").st_mode, kind_type[k] | 0640);
		EQ(stat_of("l").st_mode, S_IFLNK | 0777);
		OK(unlink("l"));
		destroy("n");
	}
	context("through descriptors");
	touch("f");
	{
		int fd = (int)NEED(open("f", O_RDONLY));

		OK(fchmod(fd, 0123));
		EQ(stat_fd(fd).st_mode, S_IFREG | 0123);
		EQ(stat_of("f").st_mode, S_IFREG | 0123);
		close(fd);
	}
}

TEST(chmod, only_the_owner)
{
	struct stat st;

	touch("f");
	NEED(chown("f", U1, G1));
	st = stat_of("f");
	tick();
	user(U2, G1);
	ERR(EPERM, chmod("f", 0777));
	user_in(U2, G2, G1);
	ERR(EPERM, chmod("f", 0777));
	root();
	UNMOVED("f", &st);
	EQ(stat_of("f").st_mode, st.st_mode);
	user(U1, G2);
	OK(chmod("f", 0600));
	root();
	EQ(stat_of("f").st_mode, S_IFREG | 0600);
}

TEST(chmod, setgid_only_for_members)
{
	touch("f");
	NEED(mkdir("d", 0755));
	NEED(chown("f", U1, G2));
	NEED(chown("d", U1, G2));
	user(U1, G1);
	OK(chmod("f", 02755));
	OK(chmod("d", 02755));
	root();
	EQ(stat_of("f").st_mode, S_IFREG | 0755);
	EQ(stat_of("d").st_mode, S_IFDIR | 0755);
	user_in(U1, G1, G2);
	OK(chmod("f", 02755));
	OK(chmod("d", 02755));
	root();
	EQ(stat_of("f").st_mode, S_IFREG | 02755);
	EQ(stat_of("d").st_mode, S_IFDIR | 02755);
	context("set-user-id and sticky by an ordinary owner");
	user(U1, G1);
	OK(chmod("f", 05711));
	root();
	EQ(stat_of("f").st_mode, S_IFREG | 05711);
}

TEST(chown, every_kind)
{
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat st;

		context("%s", kind_name[k]);
		make(k, "n");
		st = stat_of("n");
		tick();
		OK(lchown("n", U1, G1));
		EQ(stat_of("n").st_uid, U1);
		EQ(stat_of("n").st_gid, G1);
		MOVED("n", &st, C_MOVED);
		EQ(stat_of("n").st_mode, st.st_mode);
		OK(lchown("n", (uid_t)-1, G2));
		EQ(stat_of("n").st_uid, U1);
		EQ(stat_of("n").st_gid, G2);
		OK(lchown("n", U2, (gid_t)-1));
		EQ(stat_of("n").st_uid, U2);
		EQ(stat_of("n").st_gid, G2);
		OK(lchown("n", 4294967294u, 4294967294u));
		EQ(stat_of("n").st_uid, 4294967294u);
		OK(lchown("n", 0, 0));
		EQ(stat_of("n").st_uid, 0);
		destroy("n");
	}
	context("through links and descriptors");
	touch("f");
	NEED(symlink("f", "l"));
	OK(chown("l", U3, G3));
	EQ(stat_of("f").st_uid, U3);
	EQ(stat_of("l").st_uid, 0);
	{
		int fd = (int)NEED(open("f", O_RDONLY));

		OK(fchown(fd, U1, G2));
		EQ(stat_fd(fd).st_gid, G2);
		EQ(stat_of("f").st_uid, U1);
		close(fd);
	}
}

TEST(chown, who_may)
{
	struct stat st;

	touch("f");
	NEED(chown("f", U1, G1));
	st = stat_of("f");
	tick();
	user_in(U1, G1, G2);
	ERR(EPERM, chown("f", U2, (gid_t)-1));
	ERR(EPERM, chown("f", (uid_t)-1, G3));
	ERR(EPERM, chown("f", U2, G2));
	ERR(EPERM, chown("f", U1, G3));
	user_in(U2, G1, G2);
	ERR(EPERM, chown("f", U2, G1));
	ERR(EPERM, chown("f", (uid_t)-1, G2));
	ERR(EPERM, chown("f", U1, G2));
	root();
	UNMOVED("f", &st);
	EQ(stat_of("f").st_uid, U1);
	EQ(stat_of("f").st_gid, G1);
	user_in(U1, G1, G2);
	OK(chown("f", (uid_t)-1, G2));
	OK(chown("f", U1, G1));
	OK(chown("f", U1, (gid_t)-1));
	OK(chown("f", (uid_t)-1, (gid_t)-1));
	root();
	EQ(stat_of("f").st_gid, G1);
}

TEST(chown, clears_set_id_bits)
{
	for (int who = 0; who < 2; who++) {
		context(who ? "by its owner" : "by root");
		touch("f");
		NEED(chown("f", U1, G1));
		NEED(chmod("f", 06777));
		if (who)
			user_in(U1, G1, G2);
		OK(chown("f", (uid_t)-1, G2));
		root();
		EQ(stat_of("f").st_mode, S_IFREG | 0777);
		EQ(stat_of("f").st_gid, G2);
		OK(unlink("f"));
	}
	context("not of a directory");
	NEED(mkdir("d", 0755));
	NEED(chmod("d", 06755));
	OK(chown("d", U1, G1));
	EQ(stat_of("d").st_mode, S_IFDIR | 06755);
	context("without group execution, setgid is no setgid");
	touch("g");
	NEED(chmod("g", 06744));
	OK(chown("g", U1, G1));
	EQ(stat_of("g").st_mode, S_IFREG | 02744);
}

TEST(setid, cleared_by_foreign_changes)
{
	int fd;

	for (int way = 0; way < 5; way++) {
		context("way %d", way);
		put("f", "some bytes", -1);
		NEED(chown("f", U1, G1));
		NEED(chmod("f", 06777));
		user(U2, G2);
		switch (way) {
		case 0:
			fd = (int)OK(open("f", O_WRONLY));
			EQ(write(fd, "x", 1), 1);
			EQ(stat_fd(fd).st_mode, S_IFREG | 0777);
			close(fd);
			break;
		case 1:
			OK(truncate("f", 3));
			break;
		case 2:
			fd = (int)OK(open("f", O_RDWR));
			OK(ftruncate(fd, 20));
			close(fd);
			break;
		case 3:
			fd = (int)OK(open("f", O_WRONLY | O_APPEND));
			EQ(write(fd, "x", 1), 1);
			close(fd);
			break;
		case 4:
			fd = (int)OK(open("f", O_WRONLY | O_TRUNC));
			close(fd);
			break;
		}
		root();
		EQ(stat_of("f").st_mode, S_IFREG | 0777);
		OK(unlink("f"));
	}
	context("not by root, not by reading");
	put("f", "some bytes", -1);
	NEED(chown("f", U1, G1));
	NEED(chmod("f", 06777));
	fd = (int)OK(open("f", O_WRONLY));
	EQ(write(fd, "x", 1), 1);
	close(fd);
	EQ(stat_of("f").st_mode, S_IFREG | 06777);
	OK(truncate("f", 2));
	EQ(stat_of("f").st_mode, S_IFREG | 06777);
	user(U2, G2);
	HOLDS("f", "xo", 2);
	root();
	EQ(stat_of("f").st_mode, S_IFREG | 06777);
}

TEST(access, supplementary_groups)
{
	NEED(mkdir("d", 0070));
	NEED(chown("d", U3, G2));
	put("d/f", "x", -1);
	NEED(chown("d/f", U3, G2));
	NEED(chmod("d/f", 0060));
	user(U1, G1);
	ERR(EACCES, access("d/f", F_OK));
	ERR(EACCES, open("d", O_RDONLY));
	user_in(U1, G1, G2);
	OK(access("d/f", R_OK | W_OK));
	ERR(EACCES, access("d/f", X_OK));
	OK(mkdir("d/sub", 0755));
	OK(rmdir("d/sub"));
	context("the owner's bits decide for the owner, even when others may more");
	user_in(U3, G1, G2);
	ERR(EACCES, access("d/f", F_OK));
	context("the group's bits decide for the group");
	root();
	NEED(chmod("d", 0707));
	user_in(U1, G1, G2);
	ERR(EACCES, access("d/f", F_OK));
}

TEST(access, directory_without_read_or_search)
{
	NEED(mkdir("d", 0755));
	put("d/f", "x", -1);
	NEED(chmod("d", 0711));
	user(U1, G1);
	ERR(EACCES, open("d", O_RDONLY | O_DIRECTORY));
	OK(access("d/f", R_OK));
	root();
	NEED(chmod("d", 0744));
	user(U1, G1);
	OK(close((int)OK(open("d", O_RDONLY | O_DIRECTORY))));
	ERR(EACCES, access("d/f", F_OK));
	ERR(EACCES, chdir("d"));
	root();
}

static int tries_to_run(void *arg)
{
	const char *path = arg;

	user(U1, G1);
	execl(path, path, (char *)NULL);
	return errno == EACCES ? 13 : errno == ETXTBSY ? 26 : 99;
}

static int tries_to_write(void *arg)
{
	return open(arg, O_WRONLY) < 0 && errno == ETXTBSY ? 26 : 0;
}

TEST(access, execution)
{
	char script[] = "./script", prog[] = "./prog";
	char buf[65536];
	int in, out, status, pipefd[2];
	ssize_t n;
	pid_t pid;

	put(script, "#!/bin/sh\nexit 42\n", -1);
	NEED(chmod(script, 0644));
	NEED(chmod(".", 0755));
	EQ(in_child(tries_to_run, script), 13);
	NEED(chmod(script, 0755));
	EQ(in_child(tries_to_run, script), 42);
	NEED(chmod(script, 0750));
	EQ(in_child(tries_to_run, script), 13);
	context("a binary, busy while it runs");
	in = (int)NEED(open("/bin/cat", O_RDONLY));
	out = (int)NEED(open(prog, O_WRONLY | O_CREAT, 0755));
	while ((n = read(in, buf, sizeof(buf))) > 0)
		EQ(write(out, buf, (size_t)n), n);
	close(in);
	NEED(close(out));
	NEED(pipe(pipefd));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(pipefd[0], 0);
		close(pipefd[0]);
		close(pipefd[1]);
		execl(prog, prog, "-", "/dev/stdin", (char *)NULL);
		_exit(99);
	}
	close(pipefd[0]);
	/* The exec is through once /proc says so. */
	for (int i = 0; i < 5000; i++) {
		char link[64], where[400];

		snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
		n = readlink(link, where, sizeof(where) - 1);
		where[n > 0 ? n : 0] = 0;
		if (strstr(where, "/prog"))
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	EQ(in_child(tries_to_write, prog), 26);
	close(pipefd[1]);
	EQ(waitpid(pid, &status, 0), pid);
	TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
