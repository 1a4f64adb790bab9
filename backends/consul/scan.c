/* SPDX-License-Identifier: MIT */
#include "backends/consul/scan.h"

#include <string.h>

#define MAX_DEPTH 64

static bool fail(struct scan *j)
{
	j->failed = true;
	j->p = j->end;
	return false;
}

/* The next byte behind blanks, which stays; -1 at the end. */
static int peek(struct scan *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r'))
		j->p++;
	return j->p < j->end ? (unsigned char)*j->p : -1;
}

bool scan_try(struct scan *j, char c)
{
	if (peek(j) != (unsigned char)c)
		return false;
	j->p++;
	return true;
}

static bool word(struct scan *j, const char *w)
{
	size_t n = strlen(w);

	peek(j);
	if ((size_t)(j->end - j->p) < n || memcmp(j->p, w, n))
		return false;
	j->p += n;
	return true;
}

bool scan_try_null(struct scan *j)
{
	return word(j, "null");
}

bool scan_open(struct scan *j, char bracket)
{
	if (scan_try_null(j))
		return false;
	return scan_try(j, bracket) || fail(j);
}

bool scan_more(struct scan *j, char bracket, bool *first)
{
	if (scan_try(j, bracket == '{' ? '}' : ']'))
		return false;
	if (!*first && !scan_try(j, ','))
		return fail(j);
	*first = false;
	return peek(j) >= 0 || fail(j);
}

/* ---- strings ---- */

static bool hex4(struct scan *j, unsigned *ret)
{
	unsigned v = 0;

	if (j->end - j->p < 4)
		return fail(j);
	for (int i = 0; i < 4; i++) {
		const char *digits = "0123456789abcdef0123456789ABCDEF";
		const char *at = *j->p ? strchr(digits, *j->p) : NULL;

		if (!at)
			return fail(j);
		v = v << 4 | (unsigned)((at - digits) & 15);
		j->p++;
	}
	*ret = v;
	return true;
}

static void add_utf8(struct icm_buf *b, unsigned c)
{
	if (c < 0x80) {
		icm_buf_addc(b, (char)c);
		return;
	}
	if (c < 0x800) {
		icm_buf_addc(b, (char)(0xc0 | c >> 6));
	} else if (c < 0x10000) {
		icm_buf_addc(b, (char)(0xe0 | c >> 12));
		icm_buf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
	} else {
		icm_buf_addc(b, (char)(0xf0 | c >> 18));
		icm_buf_addc(b, (char)(0x80 | (c >> 12 & 0x3f)));
		icm_buf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
	}
	icm_buf_addc(b, (char)(0x80 | (c & 0x3f)));
}

/* What follows "\u". NUL is refused: no string of Consul's that we read has one. */
static bool unicode(struct scan *j, struct icm_buf *b)
{
	unsigned high, low;

	if (!hex4(j, &high))
		return false;
	if (high >= 0xd800 && high < 0xdc00) {
		if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
			return fail(j);
		j->p += 2;
		if (!hex4(j, &low))
			return false;
		if (low < 0xdc00 || low > 0xdfff)
			return fail(j);
		high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
	} else if (high == 0 || (high >= 0xdc00 && high < 0xe000)) {
		return fail(j);
	}
	add_utf8(b, high);
	return true;
}

static bool escape(struct scan *j, struct icm_buf *b)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	char c;

	if (j->p == j->end)
		return fail(j);
	c = *j->p++;
	if (c == 'u')
		return unicode(j, b);
	at = c ? strchr(from, c) : NULL;
	if (!at)
		return fail(j);
	icm_buf_addc(b, to[at - from]);
	return true;
}

/* Where a run of bytes that stand for themselves ends. */
static const char *plain_end(const struct scan *j)
{
	const char *p = j->p;

	while (p < j->end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
		p++;
	return p;
}

bool scan_string(struct scan *j, struct icm_buf *ret)
{
	icm_buf_reset(ret);
	/* a terminated string in any case */
	icm_buf_add(ret, "", 0);
	if (scan_try_null(j))
		return true;
	if (!scan_try(j, '"'))
		return fail(j);
	for (;;) {
		const char *end = plain_end(j);

		if (icm_buf_add(ret, j->p, (size_t)(end - j->p)) < 0)
			return fail(j);
		j->p = end;
		if (j->p == j->end)
			return fail(j);
		if (*j->p == '"') {
			j->p++;
			return true;
		}
		if (*j->p++ != '\\')
			return fail(j);
		if (!escape(j, ret))
			return false;
	}
}

bool scan_name(struct scan *j, struct icm_buf *ret)
{
	if (peek(j) != '"')
		return fail(j);
	return scan_string(j, ret) && (scan_try(j, ':') || fail(j));
}

/* ---- numbers and the rest ---- */

bool scan_uint(struct scan *j, uint64_t *ret)
{
	uint64_t v = 0;

	if (peek(j) < '0' || *j->p > '9')
		return fail(j);
	for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*j->p - '0'), &v))
			return fail(j);
	if (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))
		return fail(j);
	*ret = v;
	return true;
}

static bool skip_number(struct scan *j)
{
	const char *start = j->p;

	while (j->p < j->end && *j->p && strchr("+-.0123456789eE", *j->p))
		j->p++;
	return j->p > start || fail(j);
}

static bool skip_string(struct scan *j)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	return scan_string(j, &b);
}

static bool skip(struct scan *j, unsigned depth);

static bool skip_items(struct scan *j, char bracket, unsigned depth)
{
	bool first = true;

	if (depth == 0)
		return fail(j);
	if (!scan_open(j, bracket))
		return false;
	while (scan_more(j, bracket, &first)) {
		if (bracket == '{' && !(skip_string(j) && (scan_try(j, ':') || fail(j))))
			return false;
		if (!skip(j, depth - 1))
			return false;
	}
	return !j->failed;
}

static bool skip(struct scan *j, unsigned depth)
{
	int c = peek(j);

	if (c == '{' || c == '[')
		return skip_items(j, (char)c, depth);
	if (c == '"')
		return skip_string(j);
	if (word(j, "true") || word(j, "false") || scan_try_null(j))
		return true;
	return skip_number(j);
}

bool scan_skip(struct scan *j)
{
	return skip(j, MAX_DEPTH);
}

bool scan_end(struct scan *j)
{
	return !j->failed && peek(j) < 0;
}

void scan_add_string(struct icm_buf *b, const char *s)
{
	icm_buf_addc(b, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			icm_buf_addc(b, '\\');
		icm_buf_addc(b, *s);
	}
	icm_buf_addc(b, '"');
}
