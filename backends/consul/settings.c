/* SPDX-License-Identifier: MIT
 * Where the store is and how it is spoken to: the URL, and Consul's usual
 * environment variables for what a URL must not or need not say. */
#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "backends/consul/consul.h"
#include "backends/url.h"
#include "util/log.h"

#define TOKEN_NAME "X-Consul-Token: "
#define TOKEN_PAGE 4096 /* of the header; a token is a UUID */

#define refuse(ret_error, code, ...)                                                               \
	({                                                                                         \
		*(ret_error) = icm_asprintf(__VA_ARGS__);                                          \
		(code);                                                                            \
	})

static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

static char *env_copy(const char *name)
{
	const char *v = env(name);

	return v ? icm_xstrdup(v) : NULL;
}

/* As Go's strconv.ParseBool, which Consul's own programs use. */
static bool env_true(const char *name)
{
	const char *v = env(name);

	return v && (!strcmp(v, "1") || !strcasecmp(v, "t") || !strcasecmp(v, "true"));
}

/* ---- the token ---- */

/* In a page that no core dump has. */
static char *token_page(void)
{
	char *page =
		mmap(NULL, TOKEN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		abort();
	madvise(page, TOKEN_PAGE, MADV_DONTDUMP);
	return page;
}

static void token_free(char *page)
{
	if (!page)
		return;
	explicit_bzero(page, TOKEN_PAGE);
	munmap(page, TOKEN_PAGE);
}

/* Takes `len` bytes at `at`, in the page, without the blanks at their end. */
static int token_check(char *at, size_t len, const char *where, char **ret_error)
{
	while (len && isspace((unsigned char)at[len - 1]))
		len--;
	at[len] = '\0';
	if (!len)
		return refuse(ret_error, -EINVAL, "%s has no token", where);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)at[i] <= 0x20 || (unsigned char)at[i] >= 0x7f)
			return refuse(ret_error, -EINVAL, "%s has more than a token", where);
	return 0;
}

static int token_from_file(const char *path, char *page, char **ret_error)
{
	ICM_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char *at = page + strlen(TOKEN_NAME);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return refuse(ret_error, errno == ENOENT ? -ENOENT : -EACCES,
			      "cannot read the token file \"%s\": %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
		return refuse(ret_error, -EACCES,
			      "the token file \"%s\" must be a file with mode 0600 or less", path);
	n = read(fd, at, TOKEN_PAGE - strlen(TOKEN_NAME) - 1);
	if (n < 0)
		return refuse(ret_error, -EIO, "cannot read the token file \"%s\": %s", path,
			      strerror(errno));
	return token_check(at, (size_t)n, "the token file", ret_error);
}

/* The file counts more than the variable, as in Consul's programs. */
static int token_read(struct consul_settings *s, char **ret_error)
{
	const char *file = env("CONSUL_HTTP_TOKEN_FILE"), *token = env("CONSUL_HTTP_TOKEN");
	char *page;
	size_t n;

	if (!file && !token)
		return 0;
	s->token_header = page = token_page();
	memcpy(page, TOKEN_NAME, strlen(TOKEN_NAME));
	if (file)
		return token_from_file(file, page, ret_error);
	n = strlen(token);
	if (n >= TOKEN_PAGE - strlen(TOKEN_NAME))
		return refuse(ret_error, -EINVAL, "CONSUL_HTTP_TOKEN is too long for a token");
	memcpy(page + strlen(TOKEN_NAME), token, n);
	return token_check(page + strlen(TOKEN_NAME), n, "CONSUL_HTTP_TOKEN", ret_error);
}

/* ---- addresses ---- */

/* "host", "host:port", "[v6]:port". */
static bool address_valid(const char *a, const char **ret_port)
{
	const char *colon;

	if (*a == '[') {
		const char *end = strchr(a, ']');

		if (!end || strspn(a + 1, "0123456789abcdefABCDEF:.") != (size_t)(end - a - 1))
			return false;
		colon = end[1] ? end + 1 : NULL;
	} else {
		size_t n = strcspn(a, ":");

		for (size_t i = 0; i < n; i++)
			if (!isalnum((unsigned char)a[i]) && !strchr(".-_", a[i]))
				return false;
		if (!n)
			return false;
		colon = a[n] ? a + n : NULL;
	}
	*ret_port = colon ? colon + 1 : NULL;
	if (!colon)
		return true;
	return *colon == ':' && colon[1] && strlen(colon + 1) <= 5 &&
	       strspn(colon + 1, "0123456789") == strlen(colon + 1) && atoi(colon + 1) <= 65535;
}

static int add_address(struct consul_settings *s, const char *text, bool tls, char **ret_error)
{
	const char *port;

	if (s->n_addresses == CONSUL_MAX_ADDRESSES)
		return refuse(ret_error, -EINVAL, "a store URL takes at most %d addresses",
			      CONSUL_MAX_ADDRESSES);
	if (!address_valid(text, &port))
		return refuse(ret_error, -EINVAL, "\"%s\" is no HOST:PORT of Consul", text);
	s->addresses[s->n_addresses++] = icm_asprintf("%s://%s%s", tls ? "https" : "http", text,
						      port ? "" : (tls ? ":8501" : ":8500"));
	return 0;
}

static int add_addresses(struct consul_settings *s, const char *list, size_t len, bool tls,
			 char **ret_error)
{
	size_t n;
	int r = 0;

	for (size_t at = 0; at <= len && !r; at += n + 1) {
		const char *comma = memchr(list + at, ',', len - at);
		ICM_AUTOFREE char *one = NULL;

		n = comma ? (size_t)(comma - list) - at : len - at;
		one = icm_xstrndup(list + at, n);
		r = add_address(s, one, tls, ret_error);
	}
	return r;
}

static void set_socket(struct consul_settings *s, const char *path, size_t len)
{
	s->socket = icm_xstrndup(path, len);
	s->addresses[s->n_addresses++] = icm_xstrdup("http://localhost");
}

/* The local agent, wherever the environment says that it is. */
static int add_local(struct consul_settings *s, bool tls, char **ret_error)
{
	const char *a = env("CONSUL_HTTP_ADDR");
	size_t n;

	if (!a)
		a = "127.0.0.1";
	if (!strncmp(a, "unix://", 7)) {
		set_socket(s, a + 7, strlen(a + 7));
		return 0;
	}
	if (!strncmp(a, "https://", 8)) {
		tls = true;
		a += 8;
	} else if (!strncmp(a, "http://", 7)) {
		a += 7;
	}
	n = strlen(a);
	while (n && a[n - 1] == '/')
		n--;
	return add_addresses(s, a, n, tls, ret_error);
}

/* "/run/consul.sock/icm/x": the socket ends where there is one. */
static int add_socket(struct consul_settings *s, const char *path, const char **ret_prefix,
		      char **ret_error)
{
	for (const char *end = path; *end;) {
		ICM_AUTOFREE char *part = NULL;
		struct stat st;

		end += strspn(end, "/");
		end += strcspn(end, "/");
		part = icm_xstrndup(path, (size_t)(end - path));
		if (stat(part, &st) == 0 && S_ISSOCK(st.st_mode)) {
			set_socket(s, path, (size_t)(end - path));
			*ret_prefix = end;
			return 0;
		}
	}
	return refuse(ret_error, -ENOENT, "no part of \"%s\" is a unix socket", path);
}

/* ---- the prefix ---- */

/* Plain, because it stands in paths: no empty part, no dots, no encoding. */
static int prefix_read(struct consul_settings *s, const char *text, char **ret_error)
{
	struct icm_buf b = ICM_BUF_INIT(0);
	const char *bad;
	size_t n;

	for (; *text; text += n) {
		text += strspn(text, "/");
		n = strcspn(text, "/");
		if (!n)
			break;
		if ((n == 1 && text[0] == '.') || (n == 2 && !strncmp(text, "..", 2))) {
			icm_buf_free(&b);
			return refuse(ret_error, -EINVAL,
				      "a store's prefix has no \".\" and \"..\"");
		}
		icm_buf_add(&b, text, n);
		icm_buf_addc(&b, '/');
	}
	s->prefix = icm_buf_steal(&b, NULL);
	if (!*s->prefix)
		return refuse(ret_error, -EINVAL,
			      "the store URL names no prefix (consul://HOST:PORT/PREFIX)");
	bad = s->prefix + strspn(s->prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					    "0123456789-._~+=,:@/");
	/* not repeated: it may be a token */
	if (*bad == '?')
		return refuse(ret_error, -EINVAL,
			      "a store URL takes no options behind \"?\" (give a token in"
			      " CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE)");
	if (*bad)
		return refuse(ret_error, -EINVAL,
			      "a store's prefix takes letters, digits and -._~+=,:@/ only");
	return 0;
}

/* ---- all of it ---- */

static int where(const struct icm_url *url, struct consul_settings *s, char **ret_error)
{
	bool tls = !strcmp(url->scheme, "consul+https") || env_true("CONSUL_HTTP_SSL");
	const char *rest = url->path, *prefix;
	int r;

	if (strncmp(rest, "//", 2) != 0)
		return refuse(ret_error, -EINVAL,
			      "a Consul store is named %s://HOST:PORT/PREFIX, or %s:///PREFIX"
			      " for the local agent",
			      url->scheme, url->scheme);
	rest += 2;
	prefix = rest + strcspn(rest, "/?#");
	if (!strcmp(url->scheme, "consul+unix"))
		r = *rest == '/' ? add_socket(s, rest, &prefix, ret_error)
				 : refuse(ret_error, -EINVAL,
					  "a unix socket is named consul+unix:///SOCKET/PREFIX");
	else if (prefix == rest)
		r = add_local(s, tls, ret_error);
	else
		r = add_addresses(s, rest, (size_t)(prefix - rest), tls, ret_error);
	return r ? r : prefix_read(s, prefix, ret_error);
}

int settings_read(const struct icm_url *url, struct consul_settings *ret, char **ret_error)
{
	struct consul_settings s = { 0 };
	int r = where(url, &s, ret_error);

	if (!r)
		r = token_read(&s, ret_error);
	if (r) {
		settings_clear(&s);
		return r;
	}
	if (env("CONSUL_NAMESPACE"))
		s.namespace_header =
			icm_asprintf("X-Consul-Namespace: %s", env("CONSUL_NAMESPACE"));
	s.ca_file = env_copy("CONSUL_CACERT");
	s.ca_path = env_copy("CONSUL_CAPATH");
	s.client_cert = env_copy("CONSUL_CLIENT_CERT");
	s.client_key = env_copy("CONSUL_CLIENT_KEY");
	s.server_name = env_copy("CONSUL_TLS_SERVER_NAME");
	if (env("CONSUL_HTTP_SSL_VERIFY") && !env_true("CONSUL_HTTP_SSL_VERIFY"))
		icm_log_warning("CONSUL_HTTP_SSL_VERIFY is ignored: certificates are verified");
	*ret = s;
	return 0;
}

void settings_clear(struct consul_settings *s)
{
	for (size_t i = 0; i < s->n_addresses; i++)
		free(s->addresses[i]);
	free(s->socket);
	free(s->prefix);
	free(s->namespace_header);
	token_free(s->token_header);
	free(s->ca_file);
	free(s->ca_path);
	free(s->client_cert);
	free(s->client_key);
	free(s->server_name);
	*s = (struct consul_settings){ 0 };
}
