/* SPDX-License-Identifier: MIT
 * What every call that takes a path says about a path it can't use. The calls
 * are made directly: wrappers of a sanitizer would read the bad pointers. */
#include "suite.h"

#include <limits.h>
#include <linux/fs.h>
#include <sys/syscall.h>

#define P (const char *path)

static long call_open P
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long call_open_write P
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_NONBLOCK | O_TRUNC, 0);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long call_create P
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long call_opendir P
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long call_mkdir P
{
	return syscall(SYS_mkdirat, AT_FDCWD, path, 0755);
}

static long call_fifo P
{
	return syscall(SYS_mknodat, AT_FDCWD, path, S_IFIFO | 0644, 0);
}

static long call_node P
{
	return syscall(SYS_mknodat, AT_FDCWD, path, S_IFREG | 0644, 0);
}

static long call_symlink P
{
	return syscall(SYS_symlinkat, "target", AT_FDCWD, path);
}

static long call_link_to P
{
	return syscall(SYS_linkat, AT_FDCWD, "source", AT_FDCWD, path, 0);
}

static long call_link_from P
{
	return syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, "dest", 0);
}

static long call_rename_to P
{
	return syscall(SYS_renameat2, AT_FDCWD, "source", AT_FDCWD, path, 0);
}

static long call_rename_to_new P
{
	return syscall(SYS_renameat2, AT_FDCWD, "source", AT_FDCWD, path, RENAME_NOREPLACE);
}

static long call_rename_from P
{
	return syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, "dest", 0);
}

static long call_exchange P
{
	return syscall(SYS_renameat2, AT_FDCWD, "source", AT_FDCWD, path, RENAME_EXCHANGE);
}

static long call_unlink P
{
	return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static long call_rmdir P
{
	return syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

static long call_chmod P
{
	return syscall(SYS_fchmodat, AT_FDCWD, path, 0600);
}

static long call_chown P
{
	return syscall(SYS_fchownat, AT_FDCWD, path, -1, -1, 0);
}

static long call_lchown P
{
	return syscall(SYS_fchownat, AT_FDCWD, path, -1, -1, AT_SYMLINK_NOFOLLOW);
}

static long call_truncate P
{
	return syscall(SYS_truncate, path, 0);
}

static long call_stat P
{
	struct stat st;

	return syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0);
}

static long call_lstat P
{
	struct stat st;

	return syscall(SYS_newfstatat, AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW);
}

static long call_access P
{
	return syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
}

static long call_readlink P
{
	char buf[256];

	return syscall(SYS_readlinkat, AT_FDCWD, path, buf, sizeof(buf));
}

static long call_utimens P
{
	return syscall(SYS_utimensat, AT_FDCWD, path, NULL, 0);
}

static long call_lutimens P
{
	return syscall(SYS_utimensat, AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
}

static long call_chdir P
{
	return syscall(SYS_chdir, path);
}

static long call_statfs P
{
	char buf[512];

	return syscall(SYS_statfs, path, buf);
}

static long call_getxattr P
{
	char buf[16];

	return syscall(SYS_getxattr, path, "user.none", buf, sizeof(buf));
}

static long call_setxattr P
{
	return syscall(SYS_setxattr, path, "user.some", "x", 1, 0);
}

static long call_listxattr P
{
	char buf[4096];

	return syscall(SYS_listxattr, path, buf, sizeof(buf));
}

#undef P

#define MAKES	      1 /* the name must be new */
#define REMOVES	      2 /* needs write access to the directory */
#define FOLLOWS	      4 /* a symbolic link at the end is followed */
#define REPLACES      8 /* the name may be new or old */
#define MISSING_IS_OK 16

static const struct call {
	const char *name;
	long (*fn)(const char *path);
	int what;
} calls[] = {
	{ "open", call_open, FOLLOWS },
	{ "open O_WRONLY|O_TRUNC", call_open_write, FOLLOWS },
	{ "open O_CREAT|O_EXCL", call_create, MAKES },
	{ "open O_DIRECTORY", call_opendir, FOLLOWS },
	{ "mkdir", call_mkdir, MAKES },
	{ "mknod fifo", call_fifo, MAKES },
	{ "mknod file", call_node, MAKES },
	{ "symlink", call_symlink, MAKES },
	{ "link to", call_link_to, MAKES },
	{ "link from", call_link_from, 0 },
	{ "rename to", call_rename_to, REPLACES },
	{ "rename to new", call_rename_to_new, MAKES },
	{ "rename from", call_rename_from, REMOVES },
	{ "exchange", call_exchange, REMOVES },
	{ "unlink", call_unlink, REMOVES },
	{ "rmdir", call_rmdir, REMOVES },
	{ "chmod", call_chmod, FOLLOWS },
	{ "chown", call_chown, FOLLOWS },
	{ "lchown", call_lchown, 0 },
	{ "truncate", call_truncate, FOLLOWS },
	{ "stat", call_stat, FOLLOWS },
	{ "lstat", call_lstat, 0 },
	{ "access", call_access, FOLLOWS },
	{ "readlink", call_readlink, 0 },
	{ "utimensat", call_utimens, FOLLOWS },
	{ "utimensat nofollow", call_lutimens, 0 },
	{ "chdir", call_chdir, FOLLOWS },
	{ "statfs", call_statfs, FOLLOWS },
	{ "getxattr", call_getxattr, FOLLOWS },
	{ "setxattr", call_setxattr, FOLLOWS },
	{ "listxattr", call_listxattr, FOLLOWS },
};

#define EACH_CALL(c)                                                                               \
	for (const struct call *c = calls; c < calls + sizeof(calls) / sizeof(*calls); c++)

TEST(errors, component_is_a_file)
{
	touch("source");
	touch("file");
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(ENOTDIR, c->fn("file/x"));
		ERR(ENOTDIR, c->fn("file/x/y"));
	}
}

TEST(errors, component_is_missing)
{
	touch("source");
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(ENOENT, c->fn("missing/x"));
		ERR(ENOENT, c->fn("missing/x/y"));
		ERR(ENOENT, c->fn(""));
	}
}

TEST(errors, name_is_missing)
{
	touch("source");
	EACH_CALL(c)
	{
		if (c->what & (MAKES | REPLACES))
			continue;
		context("%s", c->name);
		ERR(ENOENT, c->fn("missing"));
	}
	NEED(symlink("missing", "dangling"));
	EACH_CALL(c)
	{
		if (!(c->what & FOLLOWS))
			continue;
		context("%s, dangling link", c->name);
		ERR(ENOENT, c->fn("dangling"));
	}
	EACH_CALL(c)
	{
		if (!(c->what & MAKES))
			continue;
		context("%s, dangling link", c->name);
		ERR(EEXIST, c->fn("dangling"));
	}
}

TEST(errors, name_is_too_long)
{
	char name[258], below[300], deep[300];

	touch("source");
	memset(name, 'n', 256);
	name[256] = 0;
	snprintf(below, sizeof(below), "%s/x", name);
	NEED(mkdir("dir", 0755));
	snprintf(deep, sizeof(deep), "dir/%s", name);
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(ENAMETOOLONG, c->fn(name));
		ERR(ENAMETOOLONG, c->fn(below));
		ERR(ENAMETOOLONG, c->fn(deep));
	}
}

TEST(errors, path_is_too_long)
{
	char path[PATH_MAX + 2];

	touch("source");
	for (size_t i = 0; i < sizeof(path); i += 2)
		memcpy(path + i, "./", 2);
	path[PATH_MAX - 1] = 'x';
	path[PATH_MAX] = 0; /* 4096 bytes and the NUL: one too many */
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(ENAMETOOLONG, c->fn(path));
	}
	path[PATH_MAX - 1] = 0; /* ends in "./." or "./": 4095 bytes do fit */
	path[PATH_MAX - 2] = 'x';
	path[PATH_MAX - 3] = '/';
	context("longest path");
	touch("x");
	OK(call_stat(path));
	OK(call_chmod(path));
	OK(call_utimens(path));
	OK(call_truncate(path));
	OK(call_unlink(path));
	OK(call_mkdir(path));
	OK(call_rmdir(path));
	OK(call_create(path));
}

TEST(errors, links_go_round)
{
	touch("source");
	NEED(symlink("loop2", "loop1"));
	NEED(symlink("loop1", "loop2"));
	NEED(symlink("self", "self"));
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(ELOOP, c->fn("loop1/x"));
		ERR(ELOOP, c->fn("self/x"));
		if (c->what & FOLLOWS) {
			ERR(ELOOP, c->fn("loop1"));
			ERR(ELOOP, c->fn("self"));
		}
		if (c->what & MAKES)
			ERR(EEXIST, c->fn("loop1"));
	}
}

TEST(errors, directory_may_not_be_searched)
{
	touch("source");
	NEED(chown("source", U1, G1));
	NEED(chown(".", U1, G1));
	NEED(mkdir("dir", 0755));
	touch("dir/file");
	NEED(chown("dir/file", U1, G1));
	NEED(chown("dir", U1, G1));
	for (int who = 0; who < 3; who++) {
		/* owner, group, others: each by its own bits alone */
		static const mode_t modes[] = { 0677, 0767, 0776 };

		NEED(chmod("dir", modes[who]));
		if (who == 0)
			user(U1, G1);
		else if (who == 1)
			user(U2, G1);
		else
			user(U2, G2);
		EACH_CALL(c)
		{
			/* the source's own permissions come first for these */
			if (c->fn == call_link_to && who)
				continue;
			context("%s, %s", c->name,
				who == 0   ? "owner"
				: who == 1 ? "group"
					   : "others");
			ERR(EACCES, c->fn("dir/file"));
			ERR(EACCES, c->fn("dir/new"));
		}
		root();
	}
}

TEST(errors, directory_may_not_be_written)
{
	touch("source");
	NEED(chown("source", U1, G1));
	NEED(chown(".", U1, G1));
	NEED(mkdir("dir", 0755));
	touch("dir/file");
	NEED(mkdir("dir/sub", 0755));
	NEED(chown("dir/file", U1, G1));
	NEED(chown("dir/sub", U1, G1));
	NEED(chown("dir", U1, G1));
	NEED(chmod("dir", 0555));
	user(U1, G1);
	EACH_CALL(c)
	{
		context("%s", c->name);
		if (c->what & (MAKES | REPLACES))
			ERR(EACCES, c->fn("dir/new"));
		if (c->what & REPLACES)
			ERR(EACCES, c->fn("dir/file"));
		if (c->fn == call_rmdir)
			ERR(EACCES, c->fn("dir/sub"));
		else if (c->what & REMOVES)
			ERR(EACCES, c->fn("dir/file"));
		if (c->what & MAKES) /* an existing name is the first thing that is seen */
			ERR(EEXIST, c->fn("dir/file"));
	}
	root();
	TRUE(access("dir/file", F_OK) == 0);
	TRUE(access("dir/new", F_OK) < 0);
}

TEST(errors, name_exists_already)
{
	touch("source");
	for (enum kind k = 0; k < K_COUNT; k++) {
		make(k, "there");
		EACH_CALL(c)
		{
			if (!(c->what & MAKES))
				continue;
			context("%s over %s", c->name, kind_name[k]);
			ERR(EEXIST, c->fn("there"));
		}
		EQ(stat_of("there").st_mode & S_IFMT, kind_type[k]);
		destroy("there");
	}
	context("last is . or ..");
	NEED(mkdir("dir", 0755));
	ERR(EEXIST, call_mkdir("."));
	ERR(EEXIST, call_mkdir("dir/.."));
	ERR(EEXIST, call_symlink("dir/."));
	ERR(EINVAL, call_rmdir("dir/."));
	ERR(ENOTEMPTY, call_rmdir("dir/.."));
	ERR(EISDIR, call_unlink("dir/."));
	ERR(EBUSY, call_rename_from("dir/."));
	ERR(EBUSY, call_rename_to("dir/.."));
}

TEST(errors, pointer_is_bad)
{
	touch("source");
	EACH_CALL(c)
	{
		context("%s", c->name);
		ERR(EFAULT, c->fn((const char *)-1));
	}
}

TEST(errors, slash_at_the_end)
{
	touch("source");
	touch("file");
	NEED(mkdir("dir", 0755));
	NEED(symlink("file", "to-file"));
	NEED(symlink("dir", "to-dir"));
	ERR(ENOTDIR, call_open("file/"));
	ERR(ENOTDIR, call_stat("file/"));
	ERR(ENOTDIR, call_lstat("to-file/"));
	ERR(ENOTDIR, call_unlink("file/"));
	ERR(ENOTDIR, call_unlink("to-dir/"));
	ERR(EISDIR, call_unlink("dir/"));
	ERR(ENOTDIR, call_rename_from("file/"));
	ERR(ENOTDIR, call_rename_to("new/"));
	ERR(EISDIR, call_create("new/"));
	ERR(ENOENT, call_symlink("new/"));
	ERR(ENOTDIR, call_rmdir("to-dir/"));
	OK(call_stat("to-dir/"));
	OK(call_mkdir("made/"));
	OK(call_rmdir("made///"));
}
