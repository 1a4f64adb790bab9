/* SPDX-License-Identifier: MIT
 * Not on fnmatch(3): its `?` and classes follow the locale, it takes an unclosed
 * bracket as a character, and several `*` cost it exponential time, while these
 * patterns come from files that others write. */
#include "core/ignore.h"

#include <ctype.h>
#include <string.h>

#include "util/attrs.h"
#include "util/buf.h"

struct icm_ignore_pattern {
	char *glob; /* owned; without '!' and the slashes at both ends */
	bool negated;
	bool dirs_only;
	bool anchored; /* matches the whole path; else the last component */
};

/* ---- globs ---- */

/* 1 or 0; -1 = there is no class of this name. */
static int is_in_class(const char *name, size_t len, unsigned char c)
{
	static const struct {
		const char *name;
		int (*test)(int c);
	} classes[] = {
		{ "alnum", isalnum }, { "alpha", isalpha }, { "blank", isblank },
		{ "cntrl", iscntrl }, { "digit", isdigit }, { "graph", isgraph },
		{ "lower", islower }, { "print", isprint }, { "punct", ispunct },
		{ "space", isspace }, { "upper", isupper }, { "xdigit", isxdigit },
	};

	for (size_t i = 0; i < ICM_COUNT(classes); i++)
		if (strlen(classes[i].name) == len && memcmp(classes[i].name, name, len) == 0)
			return c < 128 && classes[i].test(c);
	return -1;
}

/* The character of a set at *p, an escape resolved; 0 at the end of the glob. */
static unsigned char set_char(const char **p)
{
	if (**p == '\\')
		++*p;
	return **p ? (unsigned char)*(*p)++ : 0;
}

/* The length of "[:name:]" at p; 0 when it is something else. */
static size_t class_length(const char *p)
{
	const char *end;

	if (p[0] != '[' || p[1] != ':')
		return 0;
	end = strchr(p + 2, ']');
	return end && end >= p + 3 && end[-1] == ':' ? (size_t)(end - p) + 1 : 0;
}

/* One character, range or class of a set at *p; false: malformed. */
static bool step_set(const char **p, unsigned char c, bool *matched)
{
	size_t len = class_length(*p);
	unsigned char from, to;

	if (len) {
		int in = is_in_class(*p + 2, len - 4, c);

		*p += len;
		*matched |= in > 0;
		return in >= 0;
	}
	from = to = set_char(p);
	if (from && (*p)[0] == '-' && (*p)[1] && (*p)[1] != ']') {
		++*p;
		to = set_char(p);
	}
	*matched |= c == from || (from <= c && c <= to);
	return from && to;
}

/* The set whose '[' *p stands behind: steps over its ']'. */
static bool match_set(const char **p, unsigned char c)
{
	bool negated = **p == '!' || **p == '^';
	bool matched = false;

	if (negated)
		++*p;
	do {
		if (!step_set(p, c, &matched))
			return false;
	} while (**p != ']');
	++*p;
	return matched != negated;
}

/* Steps over what stands for one character; false: not for this one. */
static bool match_char(const char **p, char c)
{
	char kind = *(*p)++;

	if (kind == '?')
		return c != '/';
	if (kind == '[')
		return match_set(p, (unsigned char)c) && c != '/';
	if (kind == '\\')
		kind = *(*p)++;
	return kind == c;
}

/* Whether the run of stars [from, to) of `glob` spans directories. */
static bool is_deep(const char *glob, const char *from, const char *to)
{
	return to - from >= 2 && (from == glob || from[-1] == '/') && (!*to || *to == '/');
}

/* Only the last `*` and the last `**` can be worth another try: what stands
 * before them was matched as early as possible. */
static bool match_glob(const char *glob, const char *text)
{
	const char *p = glob, *star = NULL, *star_text = NULL, *deep = NULL, *deep_text = NULL;

	for (;;) {
		if (*p == '*') {
			const char *from = p;

			while (*p == '*')
				p++;
			if (!is_deep(glob, from, p)) {
				star = p;
				star_text = text;
				continue;
			}
			if (!*p)
				return true;
			deep = ++p;
			deep_text = text;
			star = NULL;
			continue;
		}
		if (!*text)
			return !*p;
		if (*p && match_char(&p, *text)) {
			text++;
		} else if (star && *star_text != '/') {
			text = ++star_text;
			p = star;
		} else if (deep && (deep_text = strchr(deep_text, '/'))) {
			text = ++deep_text;
			p = deep;
			star = NULL;
		} else {
			return false;
		}
	}
}

/* Whether every bracket and escape has an end. */
static bool is_well_formed(const char *glob)
{
	bool matched = false;

	while (*glob) {
		char kind = *glob++;

		if (kind == '\\' && !*glob++)
			return false;
		if (kind != '[')
			continue;
		if (*glob == '!' || *glob == '^')
			glob++;
		do {
			if (!step_set(&glob, 0, &matched))
				return false;
		} while (*glob != ']');
		glob++;
	}
	return true;
}

/* ---- texts ---- */

/* Cuts trailing blanks, except an escaped one. */
static void trim_right(char *line)
{
	char *blank = NULL;

	for (char *p = line; *p; p++) {
		if (*p == ' ') {
			if (!blank)
				blank = p;
			continue;
		}
		blank = NULL;
		if (*p == '\\' && !*++p)
			return;
	}
	if (blank)
		*blank = '\0';
}

/* "\/" is a '/', of which only '**' and the anchoring have to know. */
static void unescape_slashes(char *glob)
{
	char *to = glob;

	for (const char *from = glob; *from; from++) {
		if (from[0] == '\\' && from[1] == '/')
			continue;
		if (from[0] == '\\' && from[1])
			*to++ = *from++;
		*to++ = *from;
	}
	*to = '\0';
}

static bool add_line(struct icm_ignore *list, char *line)
{
	struct icm_ignore_pattern p = { 0 };
	size_t len;

	trim_right(line);
	if (!line[0] || line[0] == '#')
		return true;
	p.negated = line[0] == '!';
	line += p.negated;
	unescape_slashes(line);
	len = strlen(line);
	p.dirs_only = len && line[len - 1] == '/';
	if (p.dirs_only)
		line[len - 1] = '\0';
	p.anchored = strchr(line, '/');
	line += line[0] == '/';
	if (!line[0] || !is_well_formed(line))
		return !line[0];
	p.glob = icm_xstrdup(line);
	list->patterns = icm_xrealloc(list->patterns, (list->n + 1) * sizeof(p));
	list->patterns[list->n++] = p;
	return true;
}

size_t icm_ignore_add(struct icm_ignore *list, const char *text, size_t len)
{
	size_t number = 0, bad = 0;
	const char *end;

	if (len > ICM_IGNORE_MAX_BYTES)
		len = ICM_IGNORE_MAX_BYTES;
	end = text + len;
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3; /* byte order mark */
	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;
		ICM_AUTOFREE char *line = NULL;

		number++;
		if (newline && stop > text && stop[-1] == '\r')
			stop--;
		line = icm_xstrndup(text, (size_t)(stop - text));
		if (!add_line(list, line) && !bad)
			bad = number;
		text = newline ? newline + 1 : end;
	}
	return bad;
}

void icm_ignore_clear(struct icm_ignore *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->patterns[i].glob);
	free(list->patterns);
	*list = (struct icm_ignore){ 0 };
}

/* ---- matching ---- */

static bool matches(const struct icm_ignore_pattern *p, const char *path, const char *name,
		    bool is_dir)
{
	if (p->dirs_only && !is_dir)
		return false;
	return match_glob(p->glob, p->anchored ? path : name);
}

/* Whether the last pattern that matches this one path takes it. */
static bool is_taken(const struct icm_ignore *const *lists, size_t n_lists, const char *path,
		     bool is_dir)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	for (size_t l = n_lists; l-- > 0;)
		for (size_t i = lists[l]->n; i-- > 0;)
			if (matches(&lists[l]->patterns[i], path, name, is_dir))
				return !lists[l]->patterns[i].negated;
	return false;
}

bool icm_ignore_match(const struct icm_ignore *const *lists, size_t n_lists, const char *path,
		      bool is_dir)
{
	ICM_AUTOFREE char *prefix = icm_xstrdup(path);

	for (char *slash = strchr(prefix, '/'); slash; slash = strchr(slash + 1, '/')) {
		bool taken;

		*slash = '\0';
		taken = is_taken(lists, n_lists, prefix, true);
		*slash = '/';
		if (taken)
			return true;
	}
	return path[0] && is_taken(lists, n_lists, path, is_dir);
}
