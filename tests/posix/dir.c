/* SPDX-License-Identifier: MIT
 * mkdir(2), rmdir(2), link counts, readdir(3), seekdir(3), names. */
#include "suite.h"

#include <dirent.h>
#include <sys/syscall.h>

TEST(mkdir, mode_owner_times)
{
	static const mode_t modes[] = { 0, 0755, 0777, 0151, 01777, 0700 };
	struct stat dir;

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		context("mode %o", modes[i]);
		OK(mkdir("d", modes[i]));
		EQ(stat_of("d").st_mode, S_IFDIR | modes[i]);
		EQ(stat_of("d").st_nlink, 2);
		OK(rmdir("d"));
	}
	umask(027);
	OK(mkdir("d", 0777));
	EQ(stat_of("d").st_mode, S_IFDIR | 0750);
	OK(rmdir("d"));
	umask(0);
	context("times");
	dir = stat_of(".");
	tick();
	OK(mkdir("d", 0755));
	MOVED(".", &dir, C_MOVED | M_MOVED);
	EQ(newer(stat_of("d").st_mtim, dir.st_mtim), 1);
	EQ(newer(stat_of("d").st_ctim, dir.st_mtim), 1);
	context("owner");
	NEED(chmod(".", 0777));
	user_in(U1, G1, G2);
	OK(mkdir("mine", 0755));
	root();
	EQ(stat_of("mine").st_uid, U1);
	EQ(stat_of("mine").st_gid, G1);
}

TEST(mkdir, in_a_setgid_directory)
{
	NEED(mkdir("d", 0755));
	NEED(chown("d", U2, G2));
	NEED(chmod("d", 02777));
	EQ(stat_of("d").st_mode, S_IFDIR | 02777);
	user(U1, G1);
	OK(mkdir("d/sub", 0755));
	OK(close((int)OK(open("d/f", O_WRONLY | O_CREAT, 0644))));
	OK(mkfifo("d/fifo", 0644));
	OK(symlink("x", "d/l"));
	OK(mknod("d/node", S_IFREG | 0644, 0));
	root();
	EQ(stat_of("d/sub").st_mode, S_IFDIR | 02755);
	EQ(stat_of("d/f").st_mode, S_IFREG | 0644);
	EQ(stat_of("d/sub").st_gid, G2);
	EQ(stat_of("d/f").st_gid, G2);
	EQ(stat_of("d/fifo").st_gid, G2);
	EQ(stat_of("d/l").st_gid, G2);
	EQ(stat_of("d/node").st_gid, G2);
	EQ(stat_of("d/f").st_uid, U1);
	context("setgid on a new executable by one outside the group");
	user(U1, G1);
	OK(close((int)OK(open("d/x", O_WRONLY | O_CREAT, 02755))));
	root();
	EQ(stat_of("d/x").st_mode, S_IFREG | 0755);
	user_in(U1, G1, G2);
	OK(close((int)OK(open("d/y", O_WRONLY | O_CREAT, 02755))));
	root();
	EQ(stat_of("d/y").st_mode, S_IFREG | 02755);
}

TEST(rmdir, not_empty)
{
	NEED(mkdir("d", 0755));
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat st;

		context("%s", kind_name[k]);
		make(k, "d/n");
		st = stat_of("d");
		tick();
		TRUE(rmdir("d") < 0 && (errno == ENOTEMPTY || errno == EEXIST));
		UNMOVED("d", &st);
		destroy("d/n");
	}
	OK(rmdir("d"));
	ERR(ENOENT, rmdir("d"));
}

TEST(rmdir, removed_while_open)
{
	DIR *d;
	int fd;

	NEED(mkdir("d", 0755));
	d = opendir("d");
	TRUE(d != NULL);
	fd = dirfd(d);
	OK(rmdir("d"));
	EQ(stat_fd(fd).st_nlink, 0);
	OK(fchmod(fd, 0700));
	while (readdir(d))
		;
	closedir(d);
	OK(mkdir("d", 0755));
	EQ(stat_of("d").st_mode, S_IFDIR | 0755);
}

TEST(dir, link_counts)
{
	EQ(stat_of(".").st_nlink, 2);
	for (int i = 0; i < 10; i++) {
		char n[16];

		snprintf(n, sizeof(n), "d%d", i);
		OK(mkdir(n, 0755));
		EQ(stat_of(".").st_nlink, 3 + i);
	}
	touch("f");
	EQ(stat_of(".").st_nlink, 12);
	OK(rename("d0", "d1/x"));
	EQ(stat_of(".").st_nlink, 11);
	EQ(stat_of("d1").st_nlink, 3);
	OK(rename("d2", "d3")); /* replaces */
	EQ(stat_of(".").st_nlink, 10);
	OK(rmdir("d1/x"));
	EQ(stat_of("d1").st_nlink, 2);
	OK(rmdir("d1"));
	EQ(stat_of(".").st_nlink, 9);
}

TEST(dir, dot_names)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("a/b", 0755));
	EQ(stat_of("a/b/..").st_ino, stat_of("a").st_ino);
	EQ(stat_of("a/b/.").st_ino, stat_of("a/b").st_ino);
	EQ(stat_of("a/b/../..").st_ino, stat_of(".").st_ino);
}

struct listing {
	char name[300];
	int seen;
};

TEST(dir, list_is_complete)
{
	enum { N = 1500 };
	struct listing *l = calloc(N, sizeof(*l));
	struct dirent *e;
	int dots = 0, other = 0;
	DIR *d;

	for (int i = 0; i < N; i++) {
		snprintf(
			l[i].name, sizeof(l[i].name), "name-%d-%.*s", i, i % 200,
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
		NEED(mknod(l[i].name, S_IFREG | 0644, 0));
	}
	for (int round = 0; round < 2; round++) {
		d = opendir(".");
		dots = other = 0;
		for (int i = 0; i < N; i++)
			l[i].seen = 0;
		while ((e = readdir(d))) {
			int i;

			if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) {
				dots++;
				continue;
			}
			if (sscanf(e->d_name, "name-%d-", &i) != 1 || i < 0 || i >= N ||
			    strcmp(e->d_name, l[i].name)) {
				other++;
				continue;
			}
			l[i].seen++;
			if (round == 0 && i % 50 == 0) {
				EQ(stat_of(e->d_name).st_ino, e->d_ino);
				TRUE(e->d_type == DT_REG || e->d_type == DT_UNKNOWN);
			}
		}
		closedir(d);
		EQ(dots, 2);
		EQ(other, 0);
		for (int i = 0; i < N; i++) {
			if (l[i].seen != 1)
				EQ(l[i].seen, 1);
		}
	}
	free(l);
}

TEST(dir, types_in_the_list)
{
	static const unsigned char types[] = { DT_REG, DT_DIR,	DT_FIFO, DT_BLK,
					       DT_CHR, DT_SOCK, DT_LNK };
	struct dirent *e;
	int n = 0;
	DIR *d;

	for (enum kind k = 0; k < K_COUNT; k++)
		make(k, kind_name[k]);
	d = opendir(".");
	while ((e = readdir(d))) {
		for (enum kind k = 0; k < K_COUNT; k++) {
			if (strcmp(e->d_name, kind_name[k]))
				continue;
			n++;
			context("%s", kind_name[k]);
			EQ(e->d_type, types[k]);
			EQ(e->d_ino, stat_of(kind_name[k]).st_ino);
		}
	}
	closedir(d);
	EQ(n, K_COUNT);
}

/* What was there throughout is seen exactly once, whatever else changes. */
TEST(dir, list_under_change)
{
	int seen[400] = { 0 };
	struct dirent *e;
	char n[32];
	int step = 0, i;
	DIR *d;

	for (i = 0; i < 400; i++) {
		snprintf(n, sizeof(n), "keep%d", i);
		NEED(mknod(n, S_IFREG | 0644, 0));
		snprintf(n, sizeof(n), "drop%d", i);
		NEED(mknod(n, S_IFREG | 0644, 0));
	}
	d = opendir(".");
	while ((e = readdir(d))) {
		if (sscanf(e->d_name, "keep%d", &i) == 1 && i >= 0 && i < 400)
			seen[i]++;
		if (step < 400) {
			snprintf(n, sizeof(n), "drop%d", step);
			OK(unlink(n));
			snprintf(n, sizeof(n), "new%d", step);
			NEED(mknod(n, S_IFREG | 0644, 0));
		}
		step++;
		TRUE(step < 5000);
	}
	closedir(d);
	for (i = 0; i < 400; i++) {
		if (seen[i] != 1) {
			context("keep%d", i);
			EQ(seen[i], 1);
		}
	}
}

/* rm -r: removal of each name as it is read. */
TEST(dir, removal_while_listing)
{
	struct dirent *e;
	char n[64];
	int removed = 0;
	DIR *d;

	NEED(mkdir("d", 0755));
	for (int i = 0; i < 700; i++) {
		snprintf(n, sizeof(n), "d/some-name-%d", i);
		NEED(mknod(n, S_IFREG | 0644, 0));
	}
	d = opendir("d");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		OK(unlinkat(dirfd(d), e->d_name, 0));
		removed++;
	}
	closedir(d);
	EQ(removed, 700);
	OK(rmdir("d"));
}

TEST(dir, tell_and_seek)
{
	enum { N = 300 };
	static char names[N + 2][64];
	static long at[N + 2];
	struct dirent *e;
	char n[32];
	int count = 0;
	DIR *d;

	for (int i = 0; i < N; i++) {
		snprintf(n, sizeof(n), "n%d", i);
		NEED(mknod(n, S_IFREG | 0644, 0));
	}
	d = opendir(".");
	for (;;) {
		long pos = telldir(d);

		e = readdir(d);
		if (!e || count == N + 2)
			break;
		at[count] = pos;
		snprintf(names[count++], sizeof(names[0]), "%.63s", e->d_name);
	}
	TRUE(e == NULL);
	EQ(count, N + 2);
	for (int i = count - 1; i >= 0; i -= 7) {
		seekdir(d, at[i]);
		e = readdir(d);
		TRUE(e && !strcmp(e->d_name, names[i]));
		e = readdir(d);
		TRUE(i == count - 1 ? !e : e && !strcmp(e->d_name, names[i + 1]));
	}
	context("after removal of names already read, and a new one");
	seekdir(d, at[count / 2]);
	for (int i = 0; i < count / 2; i++) {
		if (names[i][0] == 'n')
			OK(unlink(names[i]));
	}
	for (int i = count / 2; i < count; i++) {
		e = readdir(d);
		if (!TRUE(e && !strcmp(e->d_name, names[i])))
			break;
	}
	context("rewinddir sees the new state");
	NEED(mknod("fresh", S_IFREG | 0644, 0));
	rewinddir(d);
	{
		bool fresh = false, gone = false;
		char *old = names[0][0] == 'n' ? names[0] : names[2];

		while ((e = readdir(d))) {
			fresh |= !strcmp(e->d_name, "fresh");
			gone |= !strcmp(e->d_name, old);
		}
		TRUE(fresh);
		TRUE(!gone);
	}
	closedir(d);
}

TEST(dir, small_buffers)
{
	char n[64], buf[300];
	int fd, got = 0;

	for (int i = 0; i < 50; i++) {
		snprintf(n, sizeof(n), "a-name-of-some-length-%d", i);
		NEED(mknod(n, S_IFREG | 0644, 0));
	}
	fd = (int)NEED(open(".", O_RDONLY | O_DIRECTORY));
	for (;;) {
		long len = OK(syscall(SYS_getdents64, fd, buf, sizeof(buf)));

		if (len <= 0)
			break;
		for (long p = 0; p < len;) {
			struct dirent64 *e = (struct dirent64 *)(buf + p);

			got++;
			p += e->d_reclen;
		}
	}
	EQ(got, 52);
	ERR(EINVAL, (lseek(fd, 0, SEEK_SET), syscall(SYS_getdents64, fd, buf, 8)));
	close(fd);
}

TEST(dir, names_of_any_bytes)
{
	static const char *const names[] = {
		"with blank", " leading",
		"trailing ",  "tab\there",
		"new\nline",  "cr\r",
		"quote\"'`",  "back\\slash",
		"per%cent",   "%2F",
		"%00",	      "%",
		"%25",	      "\xff\xfe",
		"\xc3",	      "\xc3\xa4",
		"a\xcc\x88",  "\xf0\x9f\x98\x80",
		"...",	      "....",
		"..a",	      "-rf",
		"*",	      "?",
		"[x]",	      "{a,b}",
		"#hash",      "a;b",
		"a&b",	      "a|b",
		"$HOME",      "\x01\x02\x03",
		"\x7f",	      "~",
		"=",	      "+",
		",",	      "@",
		":",	      "a:b",
		"<>",	      "tree",
		"attr",	      "blob",
		"meta",	      ".icmfs2",
		"UPPER",      "upper",
		"null",	      "%v00000000000000000001",
	};
	enum { N = sizeof(names) / sizeof(*names) };
	struct dirent *e;
	int seen = 0, all = 0;
	char path[64], buf[80];
	DIR *d;

	for (int i = 0; i < N; i++) {
		context("name %d", i);
		put(names[i], names[i], -1);
		HOLDS(names[i], names[i], -1);
	}
	d = opendir(".");
	while ((e = readdir(d))) {
		all++;
		for (int i = 0; i < N; i++)
			seen += !strcmp(e->d_name, names[i]);
	}
	closedir(d);
	EQ(seen, N);
	EQ(all, N + 2);
	NEED(mkdir("sub", 0755));
	for (int i = 0; i < N; i++) {
		context("name %d", i);
		snprintf(path, sizeof(path), "sub/%s", names[N - 1 - i]);
		OK(rename(names[i], path));
		HOLDS(path, names[i], -1);
		OK(unlink(path));
		OK(mkdir(path, 0755));
		snprintf(buf, sizeof(buf), "%s/f", path);
		touch(buf);
		OK(unlink(buf));
		OK(rmdir(path));
		OK(symlink(names[i], path));
		EQ(readlink(path, buf, sizeof(buf)), (long)strlen(names[i]));
		OK(unlink(path));
	}
}
