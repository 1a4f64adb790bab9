/* SPDX-License-Identifier: MIT */
#include "backends/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "util/buf.h"

#define URL_MAX_BYTES 4096

/* Says why in a fresh line; always -EINVAL, so that callers return it. */
#define refuse(ret_error, ...)                                                                     \
	({                                                                                         \
		if (ret_error)                                                                     \
			*(ret_error) = icm_asprintf(__VA_ARGS__);                                  \
		-EINVAL;                                                                           \
	})

static size_t scheme_length(const char *text)
{
	size_t n = 0;

	if (!isalpha((unsigned char)text[0]))
		return 0;
	while (isalnum((unsigned char)text[n]) || (text[n] && strchr("+.-", text[n])))
		n++;
	return text[n] == ':' ? n : 0;
}

static bool scheme_known(const char *scheme)
{
	for (size_t i = 0; icm_backends[i]; i++)
		for (size_t j = 0; icm_backends[i]->schemes[j]; j++)
			if (!strcmp(icm_backends[i]->schemes[j], scheme))
				return true;
	return false;
}

/* Schemes whose rest is a path of this host. */
static bool names_file(const char *scheme)
{
	return !strcmp(scheme, "sqlite") || !strcmp(scheme, "dir") || !strcmp(scheme, "archive");
}

static bool has_userinfo(const char *rest)
{
	size_t n;

	if (strncmp(rest, "//", 2))
		return false;
	n = strcspn(rest + 2, "/?#");
	return memchr(rest + 2, '@', n);
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

/* Makes a path absolute and drops "//", "/./" and trailing slashes. ".." stays:
 * what it means depends on symbolic links. */
static char *absolute_path(const char *path)
{
	struct icm_buf b = ICM_BUF_INIT(0);
	size_t n;

	if (*path != '/') {
		ICM_AUTOFREE char *cwd = getcwd(NULL, 0);

		icm_buf_addstr(&b, cwd && strcmp(cwd, "/") ? cwd : "");
	}
	for (; *path; path += n) {
		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (n == 0 || (n == 1 && *path == '.'))
			continue;
		icm_buf_addc(&b, '/');
		icm_buf_add(&b, path, n);
	}
	if (!b.len)
		icm_buf_addc(&b, '/');
	return icm_buf_steal(&b, NULL);
}

static int unknown_scheme(const char *scheme, char **ret_error)
{
	ICM_AUTOBUF struct icm_buf known = ICM_BUF_INIT(0);

	for (size_t i = 0; icm_backends[i]; i++)
		for (size_t j = 0; icm_backends[i]->schemes[j]; j++)
			icm_buf_addf(&known, "%s%s:", known.len ? ", " : "",
				     icm_backends[i]->schemes[j]);
	return refuse(ret_error, "unknown kind of store \"%s:\" (known: %s)", scheme, known.data);
}

int icm_url_parse(const char *text, struct icm_url *ret, char **ret_error)
{
	ICM_AUTOFREE char *scheme = NULL;
	size_t n = scheme_length(text), len = strlen(text);
	const char *rest = n ? text + n + 1 : text;

	if (len > URL_MAX_BYTES)
		return refuse(ret_error, "store URL is longer than %d bytes", URL_MAX_BYTES);
	if (has_control(text))
		return refuse(ret_error, "store URL has control characters");
	if (!n && !(len > strlen(".icmfs") && !strcmp(text + len - strlen(".icmfs"), ".icmfs")))
		return refuse(ret_error,
			      "\"%s\" is not a store: neither a URL nor a path that ends in .icmfs",
			      text);

	scheme = n ? icm_xstrndup(text, n) : icm_xstrdup("sqlite");
	for (char *p = scheme; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	/* Before any message that repeats the text. */
	if (!names_file(scheme) && has_userinfo(rest))
		return refuse(
			ret_error,
			"a store URL takes no user or password (give secrets in the environment)");
	if (!scheme_known(scheme))
		return unknown_scheme(scheme, ret_error);
	if (!*rest)
		return refuse(ret_error, "store URL \"%s\" names nothing behind the colon", text);

	ret->path = names_file(scheme) ? absolute_path(rest) : icm_xstrdup(rest);
	ret->text = icm_asprintf("%s:%s", scheme, ret->path);
	ret->scheme = ICM_STEAL(&scheme);
	return 0;
}

void icm_url_clear(struct icm_url *u)
{
	free(u->text);
	free(u->scheme);
	free(u->path);
	*u = (struct icm_url){ 0 };
}
