/* SPDX-License-Identifier: MIT */
#include "util/buf.h"

#include <string.h>

static ICM_NORETURN void out_of_memory(void)
{
	static const char msg[] = "icmfs: out of memory\n";

	(void)!write(STDERR_FILENO, msg, sizeof(msg) - 1);
	abort();
}

void *icm_xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *icm_xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *icm_xrealloc(void *p, size_t n)
{
	p = realloc(p, n ? n : 1);
	if (!p)
		out_of_memory();
	return p;
}

char *icm_xstrndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *p = icm_xmalloc(len + 1);

	memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

char *icm_xstrdup(const char *s)
{
	return icm_xstrndup(s, strlen(s));
}

void *icm_xmemdup(const void *p, size_t n)
{
	void *copy = icm_xmalloc(n);

	if (n)
		memcpy(copy, p, n);
	return copy;
}

char *icm_asprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return s;
}

int icm_buf_reserve(struct icm_buf *b, size_t more)
{
	size_t need;
	size_t cap = b->cap ? b->cap : 64;

	if (__builtin_add_overflow(b->len, more, &need) || need == SIZE_MAX)
		return -EFBIG;
	if (b->max && need > b->max)
		return -EFBIG;
	if (need < b->cap)
		return 0;
	while (cap <= need)
		cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
	b->data = icm_xrealloc(b->data, cap);
	b->cap = cap;
	return 0;
}

int icm_buf_add(struct icm_buf *b, const void *data, size_t len)
{
	int r = icm_buf_reserve(b, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int icm_buf_addstr(struct icm_buf *b, const char *s)
{
	return icm_buf_add(b, s, strlen(s));
}

int icm_buf_addc(struct icm_buf *b, char c)
{
	return icm_buf_add(b, &c, 1);
}

int icm_buf_addf(struct icm_buf *b, const char *fmt, ...)
{
	ICM_AUTOFREE char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return icm_buf_add(b, s, (size_t)n);
}

void icm_buf_reset(struct icm_buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

void icm_buf_free(struct icm_buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}

char *icm_buf_steal(struct icm_buf *b, size_t *ret_len)
{
	char *data = b->data ? b->data : icm_xcalloc(1, 1);

	if (ret_len)
		*ret_len = b->len;
	b->data = NULL;
	b->len = b->cap = 0;
	return data;
}
