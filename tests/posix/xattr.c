/* SPDX-License-Identifier: MIT
 * Extended attributes: user.*, and the words for those that are not there. */
#include "suite.h"

#include <sys/xattr.h>

static int listed(const char *path, const char *name)
{
	char buf[65536];
	ssize_t n = llistxattr(path, buf, sizeof(buf));
	int count = 0;

	for (char *p = buf; n > 0 && p < buf + n; p += strlen(p) + 1)
		count += !strcmp(p, name);
	return count;
}

TEST(xattr, set_get_list_remove)
{
	char buf[64];
	struct stat st;

	if (!facts.xattr)
		skip("no user attributes here");
	touch("f");
	NEED(mkdir("d", 0755));
	for (int i = 0; i < 2; i++) {
		const char *p = i ? "d" : "f";

		context("%s", p);
		ERR(ENODATA, getxattr(p, "user.a", buf, sizeof(buf)));
		ERR(ENODATA, removexattr(p, "user.a"));
		ERR(ENODATA, setxattr(p, "user.a", "x", 1, XATTR_REPLACE));
		st = stat_of(p);
		tick();
		OK(setxattr(p, "user.a", "value", 5, XATTR_CREATE));
		MOVED(p, &st, C_MOVED);
		ERR(EEXIST, setxattr(p, "user.a", "other", 5, XATTR_CREATE));
		EQ(getxattr(p, "user.a", buf, sizeof(buf)), 5);
		EQ(memcmp(buf, "value", 5), 0);
		EQ(getxattr(p, "user.a", NULL, 0), 5);
		ERR(ERANGE, getxattr(p, "user.a", buf, 4));
		OK(setxattr(p, "user.a", "replaced!", 9, XATTR_REPLACE));
		EQ(getxattr(p, "user.a", buf, sizeof(buf)), 9);
		OK(setxattr(p, "user.b", "", 0, 0));
		EQ(getxattr(p, "user.b", buf, sizeof(buf)), 0);
		OK(setxattr(p, "user.c", "\0\1\xff\n", 4, 0));
		EQ(getxattr(p, "user.c", buf, sizeof(buf)), 4);
		EQ(memcmp(buf, "\0\1\xff\n", 4), 0);
		EQ(listed(p, "user.a"), 1);
		EQ(listed(p, "user.b"), 1);
		EQ(listed(p, "user.c"), 1);
		ERR(ERANGE, listxattr(p, buf, 3));
		EQ(listxattr(p, NULL, 0) >= 21, 1);
		st = stat_of(p);
		tick();
		OK(removexattr(p, "user.b"));
		MOVED(p, &st, C_MOVED);
		EQ(listed(p, "user.b"), 0);
		EQ(listed(p, "user.a"), 1);
	}
	context("live with the inode");
	NEED(link("f", "g"));
	NEED(rename("f", "h"));
	EQ(getxattr("g", "user.a", buf, sizeof(buf)), 9);
	EQ(getxattr("h", "user.a", buf, sizeof(buf)), 9);
	put("h", "new contents", -1);
	EQ(getxattr("g", "user.c", buf, sizeof(buf)), 4);
	NEED(rename("d", "e"));
	EQ(getxattr("e", "user.a", buf, sizeof(buf)), 9);
}

TEST(xattr, sizes)
{
	char big[4000], buf[4096], name[400] = "user.";
	int fd;

	if (!facts.xattr)
		skip("no user attributes here");
	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	pattern(big, sizeof(big), 0, 1);
	for (size_t n = 1; n <= 3000; n = n * 3 + 1) {
		context("%zu", n);
		OK(fsetxattr(fd, "user.big", big, n, 0));
		EQ(fgetxattr(fd, "user.big", buf, sizeof(buf)), n);
		EQ(memcmp(buf, big, n), 0);
	}
	OK(fremovexattr(fd, "user.big"));
	memset(name + 5, 'n', 250);
	OK(fsetxattr(fd, name, "v", 1, 0));
	EQ(listed("f", name), 1);
	EQ(fgetxattr(fd, name, buf, sizeof(buf)), 1);
	OK(fremovexattr(fd, name));
	name[255] = 'n';
	ERR(ERANGE, fsetxattr(fd, name, "v", 1, 0));
	ERR(ERANGE, fsetxattr(fd, "", "v", 1, 0));
	{
		static char huge[65537];

		ERR(E2BIG, fsetxattr(fd, "user.h", huge, sizeof(huge), 0));
	}
	context("many");
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user.n%d", i);
		OK(fsetxattr(fd, name, &i, sizeof(i), 0));
	}
	for (int i = 0; i < 40; i += 3) {
		int v = -1;

		snprintf(name, sizeof(name), "user.n%d", i);
		EQ(fgetxattr(fd, name, &v, sizeof(v)), (long)sizeof(v));
		EQ(v, i);
	}
	close(fd);
}

TEST(xattr, who_may)
{
	char buf[16];

	if (!facts.xattr)
		skip("no user attributes here");
	touch("f");
	NEED(chown("f", U1, G1));
	NEED(chmod("f", 0640));
	NEED(setxattr("f", "user.a", "1", 1, 0));
	user(U2, G1);
	EQ(getxattr("f", "user.a", buf, sizeof(buf)), 1);
	ERR(EACCES, setxattr("f", "user.a", "2", 1, 0));
	ERR(EACCES, removexattr("f", "user.a"));
	user(U2, G2);
	ERR(EACCES, getxattr("f", "user.a", buf, sizeof(buf)));
	EQ(listed("f", "user.a"), 1);
	root();
	EQ(getxattr("f", "user.a", buf, sizeof(buf)), 1);
	EQ(buf[0], '1');
}

TEST(xattr, kinds_and_namespaces)
{
	char buf[16];

	for (enum kind k = K_FIFO; k < K_COUNT; k++) {
		context("%s", kind_name[k]);
		make(k, "n");
		ERR(EPERM, lsetxattr("n", "user.a", "x", 1, 0));
		ERR(ENODATA, lgetxattr("n", "user.a", buf, sizeof(buf)));
		destroy("n");
	}
	touch("f");
	ERR(EOPNOTSUPP, setxattr("f", "nowhere.a", "x", 1, 0));
	ERR(EOPNOTSUPP, setxattr("f", "plain", "x", 1, 0));
	context("capabilities are not there, and asking is no error but the usual one");
	TRUE(getxattr("f", "security.capability", buf, sizeof(buf)) < 0 &&
	     (errno == ENODATA || errno == EOPNOTSUPP));
	EQ(listed("f", "security.capability"), 0);
	context("access lists may be refused, in the usual words");
	TRUE(getxattr("f", "system.posix_acl_access", buf, sizeof(buf)) < 0 &&
	     (errno == ENODATA || errno == EOPNOTSUPP));
}
