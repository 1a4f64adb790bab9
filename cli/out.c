/* SPDX-License-Identifier: MIT */
#include "cli/out.h"

#include <string.h>

#include "cli/cmd.h"

static void add_escaped(struct icm_buf *b, unsigned char c)
{
	switch (c) {
	case '\n':
		icm_buf_addstr(b, "\\n");
		break;
	case '\t':
		icm_buf_addstr(b, "\\t");
		break;
	default:
		icm_buf_addf(b, "\\x%02x", c);
	}
}

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

char *icm_out_escape(const char *text)
{
	struct icm_buf b = ICM_BUF_INIT(0);

	for (; *text; text++) {
		if (is_control((unsigned char)*text))
			add_escaped(&b, (unsigned char)*text);
		else
			icm_buf_addc(&b, *text);
	}
	return icm_buf_steal(&b, NULL);
}

/* Bytes of the UTF-8 character at p, 0 when there is none. jansson decides. */
static size_t utf8_length(const char *p)
{
	size_t max = strnlen(p, 4);

	for (size_t n = 1; n <= max; n++) {
		json_t *s = json_stringn(p, n);

		if (s) {
			json_decref(s);
			return n;
		}
	}
	return 0;
}

char *icm_out_utf8(const char *text)
{
	struct icm_buf b = ICM_BUF_INIT(0);

	while (*text) {
		size_t n = is_control((unsigned char)*text) ? 0 : utf8_length(text);

		if (n == 0)
			add_escaped(&b, (unsigned char)*text++);
		icm_buf_add(&b, text, n);
		text += n;
	}
	return icm_buf_steal(&b, NULL);
}

void icm_cli_error(const char *fmt, ...)
{
	ICM_AUTOFREE char *text = NULL;
	ICM_AUTOFREE char *line = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	line = icm_out_escape(text ? text : fmt);
	fprintf(stderr, "icmfs: %s\n", line);
}

char *icm_out_bytes(uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
	double n = (double)bytes / 1024;
	size_t i = 0;

	if (bytes < 1024)
		return icm_out_count(bytes, "byte", "bytes");
	while (n >= 1023.95 && i + 1 < ICM_COUNT(units)) {
		n /= 1024;
		i++;
	}
	return icm_asprintf("%.1f %s", n, units[i]);
}

char *icm_out_count(uint64_t n, const char *one, const char *many)
{
	return icm_asprintf("%llu %s", (unsigned long long)n, n == 1 ? one : many);
}

int icm_out_json(json_t *value)
{
	ICM_AUTOFREE char *text = json_dumps(value, JSON_INDENT(2));

	json_decref(value);
	if (!text) {
		icm_cli_error("could not write JSON");
		return ICM_EXIT_FAILURE;
	}
	puts(text);
	return icm_out_finish();
}

int icm_out_finish(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return ICM_EXIT_OK;
	icm_cli_error("cannot write to standard output: %s", strerror(errno));
	return ICM_EXIT_FAILURE;
}
