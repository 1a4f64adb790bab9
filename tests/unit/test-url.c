/* SPDX-License-Identifier: MIT */
#undef NDEBUG
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/url.h"
#include "util/buf.h"

static void parsed(const char *text, const char *scheme, const char *path, const char *canonical)
{
	struct icm_url url = { 0 };
	ICM_AUTOFREE char *error = NULL;

	cr_assert_eq(icm_url_parse(text, &url, &error), 0, "%s: %s", text, error);
	cr_assert_str_eq(url.scheme, scheme, "%s", text);
	cr_assert_str_eq(url.path, path, "%s", text);
	cr_assert_str_eq(url.text, canonical, "%s", text);
	icm_url_clear(&url);
	cr_assert_null(url.text);
}

static void refused(const char *text, const char *words)
{
	struct icm_url url = { 0 };
	ICM_AUTOFREE char *error = NULL;

	cr_assert_eq(icm_url_parse(text, &url, &error), -EINVAL, "%s", text);
	cr_assert_not_null(error);
	cr_assert_not_null(strstr(error, words), "\"%s\" has \"%s\"", error, words);
	cr_assert_null(url.text);
	cr_assert_eq(icm_url_parse(text, &url, NULL), -EINVAL, "the line may be left out");
}

Test(url, a_file_has_an_absolute_path)
{
	cr_assert_eq(chdir("/usr/lib"), 0);
	parsed("sqlite:/a/b.db", "sqlite", "/a/b.db", "sqlite:/a/b.db");
	parsed("sqlite:b.db", "sqlite", "/usr/lib/b.db", "sqlite:/usr/lib/b.db");
	parsed("sqlite:./x/./b.db", "sqlite", "/usr/lib/x/b.db", "sqlite:/usr/lib/x/b.db");
	parsed("sqlite:///a//b.db", "sqlite", "/a/b.db", "sqlite:/a/b.db");
	parsed("sqlite:../b", "sqlite", "/usr/lib/../b", "sqlite:/usr/lib/../b");
	parsed("sqlite:/a/", "sqlite", "/a", "sqlite:/a");
	parsed("sqlite:/", "sqlite", "/", "sqlite:/");
	cr_assert_eq(chdir("/"), 0);
	parsed("sqlite:b", "sqlite", "/b", "sqlite:/b");
}

Test(url, a_bare_path_that_ends_in_icmfs_is_sqlite)
{
	cr_assert_eq(chdir("/usr"), 0);
	parsed("/srv/prod.icmfs", "sqlite", "/srv/prod.icmfs", "sqlite:/srv/prod.icmfs");
	parsed("prod.icmfs", "sqlite", "/usr/prod.icmfs", "sqlite:/usr/prod.icmfs");
	parsed("./a:b.icmfs", "sqlite", "/usr/a:b.icmfs", "sqlite:/usr/a:b.icmfs");
	parsed("/a b/\xc3\xa4@x.icmfs", "sqlite", "/a b/\xc3\xa4@x.icmfs",
	       "sqlite:/a b/\xc3\xa4@x.icmfs");
	refused("/srv/prod.db", "neither a URL nor a path");
	refused("prod", "neither a URL nor a path");
	refused(".icmfs", "neither a URL nor a path");
	refused("", "neither a URL nor a path");
	refused(":x", "neither a URL nor a path");
	refused("7z:x", "neither a URL nor a path");
}

Test(url, schemes_are_lower_case_and_known)
{
	parsed("SQLite:/A/B", "sqlite", "/A/B", "sqlite:/A/B");
	parsed("memory:x", "memory", "x", "memory:x");
	refused("nosuch:x", "unknown kind of store \"nosuch:\"");
	refused("nosuch:x", "sqlite:");
	refused("sqlite", "neither");
}

Test(url, something_must_be_named)
{
	refused("sqlite:", "names nothing");
	refused("memory:", "names nothing");
}

Test(url, secrets_are_refused_and_not_repeated)
{
	static const char *const texts[] = {
		"consul://user:hunter2@host:8500/p",
		"consul://hunter2@host/p",
		"nosuch://a,hunter2@b/p",
		"MEMORY://hunter2@",
		"consul+https://host:1,u:hunter2@host:2?x",
	};

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_url url = { 0 };
		ICM_AUTOFREE char *error = NULL;

		cr_assert_eq(icm_url_parse(texts[i], &url, &error), -EINVAL);
		cr_assert_not_null(strstr(error, "no user or password"), "%s", error);
		cr_assert_null(strstr(error, "hunter2"));
	}
	/* an @ elsewhere is none */
	parsed("memory://host/a@b", "memory", "//host/a@b", "memory://host/a@b");
	parsed("sqlite://a@b/c", "sqlite", "/a@b/c", "sqlite:/a@b/c");
}

Test(url, length_and_bytes_are_bounded)
{
	char text[4200];

	memset(text, 'a', sizeof(text));
	memcpy(text, "memory:", 7);
	text[4097] = '\0';
	refused(text, "longer than 4096");
	text[4096] = '\0';
	parsed(text, "memory", text + 7, text);
	refused("memory:a\nb", "control characters");
	refused("memory:a\x7f", "control characters");
	refused("mem\x01ory:a", "control characters");
}
