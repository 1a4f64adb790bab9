/* SPDX-License-Identifier: MIT
 * Tables of edits on a valid JSON text: each case replaces one part and says
 * what the decoder answers. */
#ifndef ICM_TESTS_JSON_CASES_H
#define ICM_TESTS_JSON_CASES_H

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "util/buf.h"

struct json_case {
	const char *from; /* occurs in the base text; NULL: `to` is the whole text */
	const char *to;
};

/* Decodes into a scratch structure and clears it on success. */
typedef int (*json_decode_fn)(const void *data, size_t len);

static inline char *json_edit(const char *base, const struct json_case *c)
{
	const char *at;

	if (!c->from)
		return icm_xstrdup(c->to);
	at = strstr(base, c->from);
	cr_assert_not_null(at, "\"%s\" isn't in %s", c->from, base);
	return icm_asprintf("%.*s%s%s", (int)(at - base), base, c->to, at + strlen(c->from));
}

/* Every case answers `want`. The bytes get a block of their own, so that a
 * sanitizer sees a read behind them. */
static inline void json_expect(const char *base, const struct json_case *cases, size_t n,
			       json_decode_fn decode, int want)
{
	cr_assert_eq(decode(base, strlen(base)), 0, "the base itself: %s", base);
	for (size_t i = 0; i < n; i++) {
		ICM_AUTOFREE char *text = json_edit(base, &cases[i]);
		ICM_AUTOFREE char *bytes = icm_xmemdup(text, strlen(text));

		cr_assert_eq(decode(bytes, strlen(text)), want, "%s", text);
	}
}

/* What no decoder takes, whatever the value is. `base` is an object. */
static inline void json_expect_no_garbage(const char *base, json_decode_fn decode)
{
	static const char *const texts[] = {
		"",
		" ",
		"null",
		"true",
		"0",
		"\"a\"",
		"[]",
		"{}",
		"[{}]",
		"{",
		"}",
		"[",
		"]",
		"{]",
		"[}",
		"nul",
		"{\"a\"}",
		"\xff",
		"\xef\xbb\xbf{}",
		"{}{}",
		"{\"a\":1,}",
		"{a:1}",
		"{'a':1}",
		"[1,]",
		"{\"a\":\"\\u0000\"}",
		"{\"\\u0000\":1}",
		"{\"a\":\"\\ud800\"}",
		"{\"a\":\"\xc3\"}",
		"{\"a\":99999999999999999999}",
	};
	size_t len = strlen(base);
	ICM_AUTOBUF struct icm_buf twice = ICM_BUF_INIT(0);
	ICM_AUTOFREE char *nul = icm_xcalloc(1, len + 1);

	memcpy(nul, base, len);
	cr_assert_eq(decode(nul, len + 1), -EPROTO, "a NUL byte behind the value");
	icm_buf_addstr(&twice, base);
	icm_buf_addstr(&twice, base);
	cr_assert_eq(decode(twice.data, twice.len), -EPROTO);
	cr_assert_eq(decode(twice.data, len + 1), -EPROTO);
	for (size_t i = 0; i < ICM_COUNT(texts); i++)
		cr_assert_eq(decode(texts[i], strlen(texts[i])), -EPROTO, "\"%s\"", texts[i]);
	for (size_t n = 0; n < len; n++) {
		ICM_AUTOFREE char *part = icm_xmemdup(base, n);

		cr_assert_eq(decode(part, n), -EPROTO, "cut after %zu bytes", n);
	}
}

/* Unknown members are ignored wherever an object stands first; `depth` of them
 * nested are, one more is refused. */
static inline void json_expect_unknown_members(const char *base, json_decode_fn decode)
{
	ICM_AUTOFREE char *more = icm_asprintf(
		"{\"zz\":[1,2.5e3,null,true,{\"y\":\"\\u00e9[[[[[[[[[[[[[[[[[[[[[[[[[\"}],%s",
		base + 1);
	ICM_AUTOFREE char *deep =
		icm_asprintf("{\"zz\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]],%s", base + 1);
	ICM_AUTOFREE char *deeper =
		icm_asprintf("{\"zz\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],%s", base + 1);
	ICM_AUTOFREE char *twice = icm_asprintf("{\"zz\":1,\"zz\":2,%s", base + 1);
	ICM_AUTOFREE char *spaced = icm_asprintf(" \n{\t%s \n", base + 1);

	cr_assert_eq(decode(more, strlen(more)), 0);
	cr_assert_eq(decode(deep, strlen(deep)), 0, "%s", deep);
	cr_assert_eq(decode(deeper, strlen(deeper)), -EPROTO);
	cr_assert_eq(decode(twice, strlen(twice)), -EPROTO);
	cr_assert_eq(decode(spaced, strlen(spaced)), 0);
}

#endif
