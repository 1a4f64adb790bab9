/* SPDX-License-Identifier: MIT
 * Patterns by example, and random ones against what git says about real files. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/ignore.h"
#include "util/attrs.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/digest.h"

static bool match_text(const char *text, const char *path, bool is_dir)
{
	struct icm_ignore list = { 0 };
	const struct icm_ignore *lists[] = { &list };
	bool r;

	icm_ignore_add(&list, text, strlen(text));
	r = icm_ignore_match(lists, 1, path, is_dir);
	icm_ignore_clear(&list);
	return r;
}

Test(ignore, examples)
{
	static const struct {
		const char *text, *path;
		bool is_dir, expected;
	} cases[] = {
		{ "*.log\n", "a.log", false, true },
		{ "*.log\n", "x/y/a.log", false, true },
		{ "*.log\n", "a.log.gz", false, false },
		{ "*.log\n", ".log", false, true },
		{ "#a\n\\#a\n", "#a", false, true },
		{ "#*#\n", "#a#", false, false },
		{ "\\#*#\n", "#a#", false, true },
		{ "\\!a\n", "!a", false, true },
		{ "d/\n", "d", false, false },
		{ "d/\n", "d", true, true },
		{ "d/\n", "d/e/f", false, true },
		{ "d/\n", "c/d/e", false, true },
		{ "/d\n", "d", false, true },
		{ "/d\n", "c/d", false, false },
		{ "c/d\n", "c/d", false, true },
		{ "c/d\n", "b/c/d", false, false },
		{ "c/*\n", "c/d", false, true },
		{ "c/*/e\n", "c/d/d/e", false, false },
		{ "**/d\n", "d", false, true },
		{ "**/d\n", "a/b/d", false, true },
		{ "a/**\n", "a", true, false },
		{ "a/**\n", "a/b/c", false, true },
		{ "a/**/b\n", "a/b", false, true },
		{ "a/**/b\n", "a/x/y/b", false, true },
		{ "a/**/b\n", "xa/b", false, false },
		{ "*.log\n!keep.log\n", "keep.log", false, false },
		{ "!keep.log\n*.log\n", "keep.log", false, true },
		{ "d/\n!d/keep\n", "d/keep", false, true },
		{ "d/*\n!d/keep\n", "d/keep", false, false },
		{ "[a-c]x\n", "bx", false, true },
		{ "[!a-c]x\n", "bx", false, false },
		{ "[]x]y\n", "]y", false, true },
		{ "[[:digit:]]\n", "7", false, true },
		{ "[[:digit:]]\n", "a", false, false },
		{ "a b \n", "a b", false, true },
		{ "a\\ \n", "a ", false, true },
		{ "a\r\nb\r\n", "b", false, true },
		{ "\xef\xbb\xbf*.a\n", "x.a", false, true },
		{ "a", "a", false, true },
		{ "?\n", "\xc3\xa4", false, false },
		{ "*\n", "\xff", false, true },
		{ "/\n", "a", true, false },
		{ "\n\n", "a", true, false },
	};

	for (size_t i = 0; i < ICM_COUNT(cases); i++)
		cr_expect_eq(match_text(cases[i].text, cases[i].path, cases[i].is_dir),
			     cases[i].expected, "%s with %s", cases[i].path, cases[i].text);
}

Test(ignore, later_lists_win)
{
	struct icm_ignore a = { 0 }, b = { 0 };
	const struct icm_ignore *lists[] = { &a, &b };

	icm_ignore_add(&a, "*.log", 5);
	icm_ignore_add(&b, "!run.log\n", 9);
	cr_assert(icm_ignore_match(lists, 2, "x.log", false));
	cr_assert_not(icm_ignore_match(lists, 2, "run.log", false));
	cr_assert_not(icm_ignore_match(lists, 0, "x.log", false));
	icm_ignore_clear(&a);
	icm_ignore_clear(&b);
}

Test(ignore, malformed_patterns_are_named_and_match_nothing)
{
	static const char *const bad[] = { "a\n[b\n", "a\nb\\\n", "a\n[[:what:]]\n", "a\n[a-\n",
					   "a\n[\\\n" };

	for (size_t i = 0; i < ICM_COUNT(bad); i++) {
		struct icm_ignore list = { 0 };

		cr_expect_eq(icm_ignore_add(&list, bad[i], strlen(bad[i])), 2, "%s", bad[i]);
		cr_expect_eq(list.n, 1);
		icm_ignore_clear(&list);
	}
}

Test(ignore, many_stars_cost_little)
{
	char path[4001];
	int64_t start = icm_now_ns();

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	for (size_t i = 100; i < sizeof(path) - 1; i += 100)
		path[i] = '/';
	cr_assert_not(match_text("**/*a*a*a*a*a*/**/*a*a*a*a*a*/**/*a*a*a*b\n", path, false));
	cr_assert_not(match_text("*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n", path, false));
	cr_assert_lt(icm_now_ns() - start, 2 * ICM_NS_PER_S);
}

/* ---- against git ---- */

#define ROUNDS 150

static char repo[] = "/tmp/icm-ignore-XXXXXX";
static char *paths[1024];
static bool is_dir[1024];
static size_t n_paths;

static int run(const char *command)
{
	/* Nobody's configuration. */
	ICM_AUTOFREE char *line = icm_asprintf("cd %s && HOME=%s XDG_CONFIG_HOME=%s "
					       "GIT_CONFIG_NOSYSTEM=1 %s",
					       repo, repo, repo, command);

	return system(line);
}

static void add_path(const char *dir, const char *name, bool dir_wanted)
{
	char *path = dir[0] ? icm_asprintf("%s/%s", dir, name) : icm_xstrdup(name);
	ICM_AUTOFREE char *full = icm_asprintf("%s/%s", repo, path);

	if (dir_wanted)
		cr_assert_eq(mkdir(full, 0777), 0);
	else
		cr_assert_eq(mknod(full, S_IFREG | 0666, 0), 0);
	is_dir[n_paths] = dir_wanted;
	paths[n_paths++] = path;
}

static void make_tree(const char *dir, int depth)
{
	static const char *const files[] = { "b",  "ab", "a.b", "a b", "*", "[a]",
					     "\\", "!b", "#b",	"ba",  "-", "]" };
	static const char *const dirs[] = { "a", "aa", "b.a" };

	for (size_t i = 0; i < ICM_COUNT(files); i++)
		add_path(dir, files[i], false);
	for (size_t i = 0; i < ICM_COUNT(dirs); i++) {
		add_path(dir, dirs[i], true);
		if (depth > 0)
			make_tree(paths[n_paths - 1], depth - 1);
	}
}

static void add_random_pattern(struct icm_buf *b)
{
	static const char *const bits[] = { "a",
					    "b",
					    "a",
					    "b",
					    "*",
					    "?",
					    ".",
					    "/",
					    "/",
					    "[ab]",
					    "[!a]",
					    "[a-z]",
					    "[^]b]",
					    "\\*",
					    "\\!",
					    "\\[",
					    " ",
					    "-",
					    "[[:alpha:].]",
					    "**",
					    "\\#" };
	static const char *const starts[] = {
		"", "", "", "", "/", "**/", "!", "!", "!/", "a/", "#"
	};
	static const char *const ends[] = { "", "", "", "/", "/**", "/*", " ", "\r" };
	int n = 1 + rand() % 4;

	icm_buf_addstr(b, starts[(size_t)rand() % ICM_COUNT(starts)]);
	while (n-- > 0)
		icm_buf_addstr(b, bits[(size_t)rand() % ICM_COUNT(bits)]);
	icm_buf_addstr(b, ends[(size_t)rand() % ICM_COUNT(ends)]);
	icm_buf_addc(b, '\n');
}

static void write_file(const char *name, const void *data, size_t len)
{
	ICM_AUTOFREE char *full = icm_asprintf("%s/%s", repo, name);
	FILE *f = fopen(full, "w");

	cr_assert(f);
	fwrite(data, 1, len, f);
	fclose(f);
}

/* What git ignores, as the set of NUL-terminated names in a buffer. */
static void ask_git(struct icm_buf *b)
{
	ICM_AUTOFREE char *full = icm_asprintf("%s/.git/out", repo);
	ICM_AUTOFCLOSE FILE *f = NULL;
	char part[4096];
	size_t n;

	run("git check-ignore --no-index -z --stdin < .git/in > .git/out");
	f = fopen(full, "r");
	cr_assert(f);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		icm_buf_add(b, part, n);
}

static bool is_listed(const struct icm_buf *b, const char *path)
{
	for (size_t at = 0; at < b->len; at += strlen(b->data + at) + 1)
		if (strcmp(b->data + at, path) == 0)
			return true;
	return false;
}

/* git takes "x**" after plain characters as if a '/' stood before the stars,
 * against its manual ("considered regular asterisks"). */
static bool is_oddity(const char *text)
{
	for (const char *p = strstr(text, "**"); p; p = strstr(p + 1, "**"))
		if (p > text && !strchr("/!\n", p[-1]))
			return true;
	return false;
}

static void compare_with_git(const char *text)
{
	ICM_AUTOBUF struct icm_buf ignored = ICM_BUF_INIT(0);

	write_file(".git/info/exclude", text, strlen(text));
	ask_git(&ignored);
	for (size_t i = 0; i < n_paths; i++)
		cr_assert_eq(match_text(text, paths[i], is_dir[i]), is_listed(&ignored, paths[i]),
			     "%s%s is%s ignored by git, with:\n%s", paths[i], is_dir[i] ? "/" : "",
			     is_listed(&ignored, paths[i]) ? "" : " not", text);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

Test(ignore, random_patterns_agree_with_git, .timeout = 100)
{
	const char *given = getenv("ICM_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)icm_random_u64();
	ICM_AUTOBUF struct icm_buf in = ICM_BUF_INIT(0);

	if (system("git --version >/dev/null 2>&1") != 0)
		cr_skip_test("git is not installed");
	fprintf(stderr, "ICM_TEST_SEED=%u\n", seed);
	srand(seed);
	cr_assert(mkdtemp(repo));
	cr_assert_eq(run("git init -q ."), 0);
	make_tree("", 2);
	for (size_t i = 0; i < n_paths; i++)
		icm_buf_add(&in, paths[i], strlen(paths[i]) + 1);
	write_file(".git/in", in.data, in.len);
	for (int i = 0; i < ROUNDS; i++) {
		ICM_AUTOBUF struct icm_buf text = ICM_BUF_INIT(0);

		for (int n = 1 + rand() % 4; n > 0; n--)
			add_random_pattern(&text);
		if (!is_oddity(text.data))
			compare_with_git(text.data);
	}
	nftw(repo, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	for (size_t i = 0; i < n_paths; i++)
		free(paths[i]);
}
