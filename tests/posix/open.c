/* SPDX-License-Identifier: MIT
 * open(2): creation, exclusion, truncation, flags, what a descriptor may do. */
#include "suite.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>

TEST(open, creates_with_mode_and_owner)
{
	static const mode_t modes[] = { 0, 0400, 0644, 0755, 0777, 0151, 04755, 01777, 06711 };
	int fd;

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		context("mode %o", modes[i]);
		fd = (int)OK(open("f", O_RDWR | O_CREAT | O_EXCL, modes[i]));
		EQ(stat_fd(fd).st_mode, S_IFREG | modes[i]);
		OK(close(fd));
		EQ(stat_of("f").st_mode, S_IFREG | modes[i]);
		EQ(stat_of("f").st_size, 0);
		EQ(stat_of("f").st_nlink, 1);
		OK(unlink("f"));
	}
	context("umask");
	umask(077);
	fd = (int)OK(open("f", O_RDWR | O_CREAT, 0755));
	close(fd);
	EQ(stat_of("f").st_mode, S_IFREG | 0700);
	umask(070);
	fd = (int)OK(open("g", O_RDWR | O_CREAT, 0345));
	close(fd);
	EQ(stat_of("g").st_mode, S_IFREG | 0305);
	umask(0);
	context("owner");
	NEED(chmod(".", 0777));
	user_in(U1, G1, G2);
	fd = (int)OK(open("mine", O_RDWR | O_CREAT, 0644));
	close(fd);
	root();
	EQ(stat_of("mine").st_uid, U1);
	EQ(stat_of("mine").st_gid, G1);
}

TEST(open, create_sets_times)
{
	struct stat dir, st;
	struct timespec t0, t1;
	int fd;

	put("old", "x", -1);
	st = stat_of("old");
	dir = stat_of(".");
	tick();
	clock_gettime(CLOCK_REALTIME_COARSE, &t0);
	fd = (int)OK(open("f", O_WRONLY | O_CREAT, 0644));
	close(fd);
	clock_gettime(CLOCK_REALTIME, &t1);
	EQ(newer(t0, stat_of("f").st_mtim), 0);
	EQ(newer(stat_of("f").st_mtim, t1), 0);
	EQ(newer(t0, stat_of("f").st_ctim), 0);
	EQ(newer(stat_of("f").st_ctim, t1), 0);
	EQ(newer(t0, stat_of("f").st_atim), 0);
	EQ(newer(stat_of("f").st_atim, t1), 0);
	MOVED(".", &dir, C_MOVED | M_MOVED);
	dir = stat_of(".");
	tick();
	context("open of an existing file");
	fd = (int)OK(open("old", O_RDWR | O_CREAT, 0600));
	close(fd);
	UNMOVED("old", &st);
	UNMOVED(".", &dir);
	EQ(stat_of("old").st_mode, S_IFREG | 0644);
	context("failed exclusive create");
	ERR(EEXIST, open("old", O_RDWR | O_CREAT | O_EXCL | O_TRUNC, 0600));
	UNMOVED("old", &st);
	UNMOVED(".", &dir);
	HOLDS("old", "x", 1);
}

TEST(open, exclusive_on_every_kind)
{
	for (enum kind k = 0; k < K_COUNT; k++) {
		context("%s", kind_name[k]);
		make(k, "there");
		ERR(EEXIST, open("there", O_WRONLY | O_CREAT | O_EXCL, 0644));
		ERR(EEXIST, open("there", O_RDONLY | O_CREAT | O_EXCL, 0644));
		destroy("there");
	}
	context("once each");
	for (int i = 0; i < 20; i++) {
		int fd = (int)OK(open("x", O_WRONLY | O_CREAT | O_EXCL, 0644));

		ERR(EEXIST, open("x", O_WRONLY | O_CREAT | O_EXCL, 0644));
		close(fd);
		OK(unlink("x"));
	}
}

TEST(open, truncates)
{
	struct stat st;
	int fd, fd2;

	put("f", "twelve bytes", -1);
	st = stat_of("f");
	tick();
	fd = (int)OK(open("f", O_WRONLY | O_TRUNC));
	EQ(stat_fd(fd).st_size, 0);
	EQ(stat_of("f").st_size, 0);
	close(fd);
	MOVED("f", &st, C_MOVED | M_MOVED);
	EQ(stat_of("f").st_size, 0);
	HOLDS("f", "", 0);
	context("empty already");
	st = stat_of("f");
	tick();
	fd = (int)OK(open("f", O_WRONLY | O_TRUNC));
	close(fd);
	MOVED("f", &st, C_MOVED | M_MOVED);
	context("with another descriptor open");
	put("g", "0123456789", -1);
	fd = (int)OK(open("g", O_RDWR));
	fd2 = (int)OK(open("g", O_WRONLY | O_TRUNC));
	EQ(stat_fd(fd).st_size, 0);
	EQ(write(fd2, "ab", 2), 2);
	{
		char b[8];

		EQ(pread(fd, b, sizeof(b), 0), 2);
		EQ(memcmp(b, "ab", 2), 0);
	}
	close(fd);
	close(fd2);
	HOLDS("g", "ab", 2);
}

TEST(open, directories)
{
	NEED(mkdir("d", 0755));
	ERR(EISDIR, open("d", O_WRONLY));
	ERR(EISDIR, open("d", O_RDWR));
	ERR(EISDIR, open("d", O_RDONLY | O_TRUNC));
	ERR(EISDIR, open("d", O_RDONLY | O_CREAT, 0644));
	ERR(EEXIST, open("d", O_RDONLY | O_CREAT | O_EXCL, 0644));
	touch("f");
	ERR(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	{
		char c;
		int fd = (int)OK(open("d", O_RDONLY));

		ERR(EISDIR, read(fd, &c, 1));
		ERR(EBADF, write(fd, &c, 1));
		OK(fsync(fd));
		close(fd);
	}
}

TEST(open, symbolic_links)
{
	int fd;

	put("f", "data", -1);
	NEED(symlink("f", "l"));
	ERR(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
	ERR(ELOOP, open("l", O_WRONLY | O_CREAT | O_NOFOLLOW, 0644));
	fd = (int)OK(open("l", O_PATH | O_NOFOLLOW));
	EQ(stat_fd(fd).st_mode & S_IFMT, S_IFLNK);
	close(fd);
	HOLDS("l", "data", 4);
	context("creation through a dangling link");
	NEED(symlink("made", "dangling"));
	fd = (int)OK(open("dangling", O_WRONLY | O_CREAT, 0640));
	close(fd);
	EQ(stat_of("made").st_mode, S_IFREG | 0640);
	NEED(symlink("made2", "dangling2"));
	ERR(EEXIST, open("dangling2", O_WRONLY | O_CREAT | O_EXCL, 0640));
	ERR(ENOENT, open("made2", O_RDONLY));
}

TEST(open, access_modes)
{
	char c = 'x';
	int fd;

	put("f", "data", -1);
	fd = (int)OK(open("f", O_RDONLY));
	ERR(EBADF, write(fd, &c, 1));
	ERR(EINVAL, ftruncate(fd, 0));
	close(fd);
	fd = (int)OK(open("f", O_WRONLY));
	ERR(EBADF, read(fd, &c, 1));
	close(fd);
	HOLDS("f", "data", 4);
}

/* The whole matrix: three classes, eight modes, three ways to open. */
TEST(open, permissions)
{
	touch("f");
	NEED(chown("f", U1, G1));
	for (int who = 0; who < 4; who++) {
		for (mode_t bits = 0; bits < 8; bits++) {
			int shift = who == 0 ? 6 : who == 3 ? 0 : 3;
			mode_t mode = (0777 & ~(07u << shift)) | (bits << shift);
			bool r = bits & 4, w = bits & 2;

			NEED(chmod("f", mode));
			switch (who) {
			case 0:
				user(U1, G3);
				break;
			case 1:
				user(U2, G1);
				break;
			case 2:
				user_in(U2, G3, G1);
				break;
			default:
				user_in(U2, G2, G3);
			}
			context("mode %03o, %s", mode,
				who == 0   ? "owner"
				: who == 3 ? "others"
					   : "group");
			for (int way = 0; way < 4; way++) {
				static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR,
							     O_RDONLY | O_TRUNC };
				bool good = way == 0 ? r : way == 1 ? w : r && w;
				int fd;

				if (!good) {
					ERR(EACCES, open("f", flags[way]));
					continue;
				}
				fd = (int)OK(open("f", flags[way]));
				close(fd);
			}
			EQ(access("f", R_OK) == 0, r);
			EQ(access("f", W_OK) == 0, w);
			EQ(access("f", X_OK) == 0, !!(bits & 1));
			root();
		}
	}
	context("root may all but execute what nobody may");
	NEED(chmod("f", 0));
	OK(access("f", R_OK | W_OK));
	ERR(EACCES, access("f", X_OK));
	NEED(chmod("f", 01));
	OK(access("f", X_OK));
}

TEST(open, mode_of_creation_does_not_bind_the_creator)
{
	int fd;

	NEED(chmod(".", 0777));
	user(U1, G1);
	fd = (int)OK(open("f", O_RDWR | O_CREAT, 0));
	EQ(write(fd, "abc", 3), 3);
	close(fd);
	ERR(EACCES, open("f", O_RDONLY));
	ERR(EACCES, open("f", O_WRONLY | O_TRUNC));
	context("permission of an open descriptor stays");
	fd = (int)OK(open("g", O_RDWR | O_CREAT, 0644));
	OK(fchmod(fd, 0));
	EQ(write(fd, "defg", 4), 4);
	close(fd);
	root();
	HOLDS("f", "abc", 3);
	HOLDS("g", "defg", 4);
}

TEST(open, create_needs_a_writable_directory)
{
	NEED(mkdir("d", 0755));
	NEED(chown("d", U1, G1));
	put("d/there", "x", -1);
	user(U2, G2);
	ERR(EACCES, open("d/new", O_WRONLY | O_CREAT, 0644));
	ERR(EACCES, open("d/there", O_WRONLY | O_CREAT, 0644));
	ERR(EEXIST, open("d/there", O_WRONLY | O_CREAT | O_EXCL, 0644));
	OK(close((int)OK(open("d/there", O_RDONLY | O_CREAT, 0644))));
	user(U1, G1);
	OK(close((int)OK(open("d/new", O_WRONLY | O_CREAT, 0644))));
}

TEST(open, removed_directory)
{
	int dir;

	NEED(mkdir("d", 0755));
	dir = (int)NEED(open("d", O_RDONLY | O_DIRECTORY));
	NEED(chdir("d"));
	NEED(rmdir("../d"));
	ERR(ENOENT, open("x", O_WRONLY | O_CREAT, 0644));
	ERR(ENOENT, openat(dir, "x", O_WRONLY | O_CREAT | O_EXCL, 0644));
	ERR(ENOENT, mkdirat(dir, "x", 0755));
	ERR(ENOENT, symlinkat("t", dir, "x"));
	ERR(ENOENT, mknodat(dir, "x", S_IFIFO | 0644, 0));
	ERR(ENOENT, openat(dir, "x", O_RDONLY));
}

TEST(open, special_files)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s, c;

	NEED(mkfifo("fifo", 0644));
	ERR(ENXIO, open("fifo", O_WRONLY | O_NONBLOCK));
	s = (int)OK(open("fifo", O_RDONLY | O_NONBLOCK));
	c = (int)OK(open("fifo", O_WRONLY | O_NONBLOCK));
	EQ(write(c, "through", 7), 7);
	{
		char b[8];

		EQ(read(s, b, sizeof(b)), 7);
	}
	EQ(stat_of("fifo").st_size, 0);
	close(s);
	close(c);
	make(K_SOCKET, "sock");
	ERR(ENXIO, open("sock", O_RDONLY));
	context("a socket that is listened on");
	snprintf(a.sun_path, sizeof(a.sun_path), "live");
	s = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(s, (struct sockaddr *)&a, sizeof(a)));
	OK(listen(s, 1));
	c = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	close(c);
	close(s);
	ERR(EADDRINUSE,
	    bind((int)NEED(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, sizeof(a)));
}

TEST(open, devices)
{
	int fd;
	char c = 1;

	if (facts.nodev)
		skip("mounted nodev");
	NEED(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
	fd = (int)OK(open("zero", O_RDWR));
	EQ(read(fd, &c, 1), 1);
	EQ(c, 0);
	EQ(write(fd, &c, 1), 1);
	close(fd);
	NEED(mknod("nobody", S_IFCHR | 0666, makedev(250, 77)));
	ERR(ENXIO, open("nobody", O_RDONLY));
	context("block");
	NEED(mknod("none", S_IFBLK | 0666, makedev(250, 77)));
	ERR(ENXIO, open("none", O_RDONLY));
}

TEST(open, tmpfile)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0) {
		EQ(errno, EOPNOTSUPP); /* programs fall back on this one */
		return;
	}
	EQ(stat_fd(fd).st_nlink, 0);
	EQ(write(fd, "abc", 3), 3);
	close(fd);
}

TEST(open, terminal_question)
{
	char buf[64];
	int fd;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	ERR(ENOTTY, ioctl(fd, TCGETS, buf));
	EQ(isatty(fd), 0);
}

TEST(open, many_descriptors_of_one_file)
{
	int fds[200];

	put("f", "shared", -1);
	for (int i = 0; i < 200; i++)
		fds[i] = (int)OK(open("f", i % 2 ? O_RDONLY : O_RDWR));
	EQ(pwrite(fds[0], "S", 1, 0), 1);
	for (int i = 0; i < 200; i++) {
		char b[8];

		EQ(pread(fds[i], b, sizeof(b), 0), 6);
		EQ(b[0], 'S');
		OK(close(fds[i]));
	}
	HOLDS("f", "Shared", 6);
}

/* What shells do with `{ a; b; } > f`, descriptors being handed down. */
static int writes_and_exits(void *arg)
{
	return write(*(int *)arg, "child\n", 6) == 6 ? 0 : 1;
}

TEST(open, inherited_descriptor)
{
	int fd, dup_fd;

	put("f", "something that was here before\n", -1);
	fd = (int)NEED(open("f", O_WRONLY | O_CREAT | O_TRUNC, 0644));
	dup_fd = (int)OK(dup(fd));
	OK(close(dup_fd)); /* a flush before the first write */
	EQ(write(fd, "first\n", 6), 6);
	EQ(in_child(writes_and_exits, &fd), 0);
	EQ(write(fd, "last\n", 5), 5);
	EQ(in_child(writes_and_exits, &fd), 0);
	OK(close(fd));
	HOLDS("f", "first\nchild\nlast\nchild\n", -1);
	context("closed by the opener first");
	fd = (int)NEED(open("g", O_WRONLY | O_CREAT, 0644));
	dup_fd = (int)OK(dup(fd));
	EQ(write(fd, "a", 1), 1);
	OK(close(fd));
	EQ(write(dup_fd, "b", 1), 1);
	OK(close(dup_fd));
	HOLDS("g", "ab", 2);
	context("truncated and nothing written");
	OK(close((int)OK(open("g", O_WRONLY | O_TRUNC))));
	HOLDS("g", "", 0);
	EQ(stat_of("g").st_size, 0);
}
