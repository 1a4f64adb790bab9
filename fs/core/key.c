/* SPDX-License-Identifier: MIT
 * Store keys and paths; the spelling is described in key.h. */
#include "core/key.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/record.h"

#define TREE	    "tree/"
#define ATTR	    "attr/"
#define HIST	    "hist/"
#define HIST_MARK   "%v"
#define HIST_DIGITS 20

/* Bytes that stand for themselves. '/' only separates: it is copied when
 * encoding, and a decoder never gets one out of %2F. */
static const bool plain_byte[256] = {
	['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['-'] = true,
	['_'] = true,	      ['.'] = true,	    ['~'] = true,	  ['+'] = true,
	[','] = true,	      ['='] = true,	    ['@'] = true,	  [' '] = true,
	['('] = true,	      [')'] = true,	    ['['] = true,	  [']'] = true,
	['{'] = true,	      ['}'] = true,	    ['!'] = true,	  ['$'] = true,
	['&'] = true,	      ['\''] = true,	    [';'] = true,	  ['/'] = true,
};

static size_t encoded_len(const char *text)
{
	size_t n = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		n += plain_byte[*p] ? 1 : 3;
	return n;
}

void icm_key_encode(struct icm_buf *b, const char *path)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t n = encoded_len(path);
	char *out;

	if (icm_buf_reserve(b, n) < 0)
		return; /* the caller's ceiling, by the rule of icm_buf_add: nothing is added */
	out = b->data + b->len;
	for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
		if (plain_byte[*p]) {
			*out++ = (char)*p;
			continue;
		}
		*out++ = '%';
		*out++ = digits[*p >> 4];
		*out++ = digits[*p & 15];
	}
	*out = '\0';
	b->len += n;
}

static char *key_of(const char *prefix, const char *path, const char *suffix)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_addstr(&b, prefix);
	icm_key_encode(&b, path);
	icm_buf_addstr(&b, suffix);
	return icm_buf_steal(&b, NULL);
}

char *icm_key_encoded(const char *path)
{
	return key_of("", path, "");
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The byte spelled %XX at p, or -EINVAL when it isn't the canonical spelling. */
static int escaped_byte(const char *p)
{
	int high = hex_digit(p[1]);
	int low = high < 0 ? -1 : hex_digit(p[2]);
	int byte;

	if (high < 0 || low < 0)
		return -EINVAL;
	byte = high << 4 | low;
	if (byte == 0 || plain_byte[byte])
		return -EINVAL;
	return byte;
}

int icm_key_unescape(const char *encoded, size_t max, char **ret_text)
{
	ICM_AUTOFREE char *text = NULL;
	size_t len = strlen(encoded);
	size_t n = 0;

	if (len / 3 > max)
		return -EINVAL;
	text = icm_xmalloc(len + 1);
	for (const char *p = encoded; *p;) {
		int byte = (unsigned char)*p;

		if (plain_byte[byte]) {
			p++;
		} else {
			byte = byte == '%' ? escaped_byte(p) : -EINVAL;
			if (byte < 0)
				return byte;
			p += 3;
		}
		text[n++] = (char)byte;
	}
	if (n > max)
		return -EINVAL;
	text[n] = '\0';
	*ret_text = ICM_STEAL(&text);
	return 0;
}

static bool is_dots(const char *name, size_t len)
{
	return (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

static bool path_ok(const char *path)
{
	if (!*path)
		return true;
	for (;;) {
		size_t len = strcspn(path, "/");

		if (len == 0 || len > ICM_NAME_MAX || is_dots(path, len))
			return false;
		if (!path[len])
			return true;
		path += len + 1;
	}
}

int icm_key_decode(const char *encoded, char **ret_path)
{
	ICM_AUTOFREE char *path = NULL;
	int r = icm_key_unescape(encoded, ICM_PATH_MAX, &path);

	if (r < 0)
		return r;
	if (!path_ok(path))
		return -EINVAL;
	*ret_path = ICM_STEAL(&path);
	return 0;
}

char *icm_key_tree(const char *path)
{
	return key_of(TREE, path, "");
}

char *icm_key_tree_dir(const char *path)
{
	return key_of(TREE, path, *path ? "/" : "");
}

char *icm_key_attr(const char *path)
{
	return key_of(ATTR, path, "");
}

char *icm_key_inode(uint64_t ino)
{
	return icm_asprintf("inode/%" PRIu64, ino);
}

char *icm_key_blob(const struct icm_sha256 *sum)
{
	char hex[ICM_SHA256_HEX + 1];

	icm_sha256_to_hex(sum, hex);
	return icm_asprintf("blob/%s", hex);
}

char *icm_key_hist(const char *path, uint64_t index)
{
	char suffix[sizeof(HIST_MARK) + HIST_DIGITS];

	snprintf(suffix, sizeof(suffix), "%s%0*" PRIu64, HIST_MARK, HIST_DIGITS, index);
	return key_of(HIST, path, suffix);
}

char *icm_key_feed(const char *id)
{
	return icm_asprintf("feed/%s", id);
}

char *icm_key_lock(uint64_t ino)
{
	return icm_asprintf("lock/%" PRIu64, ino);
}

char *icm_key_snap(const char *name)
{
	return key_of(ICM_KEY_SNAPS, name, "");
}

char *icm_key_change(const char *id)
{
	return icm_asprintf("change/%s", id);
}

/* All of `text` as decimal digits; leading zeros are the caller's affair. */
static int parse_digits(const char *text, uint64_t *ret_n)
{
	uint64_t n = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(n, UINT64_C(10), &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return -EINVAL;
	}
	*ret_n = n;
	return 0;
}

int icm_key_parse_ino(const char *key, const char *prefix, uint64_t *ret_ino)
{
	size_t skip = strlen(prefix);
	uint64_t ino;
	int r;

	if (strncmp(key, prefix, skip) != 0 || key[skip] == '0')
		return -EINVAL;
	r = parse_digits(key + skip, &ino);
	if (r < 0)
		return r;
	if (ino >= ICM_INO_MAX)
		return -EINVAL;
	*ret_ino = ino;
	return 0;
}

int icm_key_parse_hist(const char *key, char **ret_path, uint64_t *ret_index)
{
	ICM_AUTOFREE char *encoded = NULL;
	ICM_AUTOFREE char *path = NULL;
	const char *mark;
	uint64_t index;
	int r;

	if (strncmp(key, HIST, strlen(HIST)) != 0)
		return -EINVAL;
	key += strlen(HIST);
	mark = strstr(key, HIST_MARK);
	if (!mark || mark == key || strlen(mark) != strlen(HIST_MARK) + HIST_DIGITS)
		return -EINVAL;
	r = parse_digits(mark + strlen(HIST_MARK), &index);
	if (r < 0)
		return r;
	encoded = icm_xstrndup(key, (size_t)(mark - key));
	r = icm_key_decode(encoded, &path);
	if (r < 0)
		return r;
	*ret_path = ICM_STEAL(&path);
	*ret_index = index;
	return 0;
}

int icm_name_check(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || is_dots(name, len) || strchr(name, '/'))
		return -EINVAL;
	return len > ICM_NAME_MAX ? -ENAMETOOLONG : 0;
}

char *icm_path_join(const char *dir, const char *name)
{
	return *dir ? icm_asprintf("%s/%s", dir, name) : icm_xstrdup(name);
}
