/* SPDX-License-Identifier: MIT
 * One HTTP request over one of the pooled connections. Each has a multi handle
 * of its own, because that is what can be waited for up to a time of ours and be
 * woken from another thread. */
#include "backends/consul/consul.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "util/log.h"

#define CONNECT_NS (2 * ICM_NS_PER_S)
/* Without one byte in either direction. Longer than any answer of a store that
 * is well, shorter than the 16 s and more that an agent waits for a server that
 * no longer answers, where a fresh request succeeds. */
#define SILENCE_NS (4 * ICM_NS_PER_S)

#define MAX_IDLE 32

struct connection {
	CURLM *multi; /* owned; keeps the TCP connection */
	CURL *easy;   /* owned */
	unsigned generation;
	struct connection *next, **link; /* among the idle or the used */

	/* of the request under way */
	const struct request *rq;
	struct answer *answer;
	size_t sent; /* bytes of the body that libcurl took */
	bool head;   /* the answer's is there to its end */
	bool too_large;
	char why[CURL_ERROR_SIZE];
};

/* ---- the pool ---- */

static void connection_free(struct connection *k)
{
	curl_easy_cleanup(k->easy);
	curl_multi_cleanup(k->multi);
	free(k);
}

static void link_locked(struct connection **list, struct connection *k)
{
	k->next = *list;
	k->link = list;
	if (k->next)
		k->next->link = &k->next;
	*list = k;
}

static void unlink_locked(struct connection *k)
{
	*k->link = k->next;
	if (k->next)
		k->next->link = k->link;
}

static struct connection *connection_new(void)
{
	struct connection *k = icm_xcalloc(1, sizeof(*k));

	k->multi = curl_multi_init();
	k->easy = curl_easy_init();
	/* out of memory, as in icm_xmalloc() */
	if (!k->multi || !k->easy)
		abort();
	return k;
}

static struct connection *connection_take(struct icm_consul *c)
{
	struct connection *k;

	ICM_LOCK_SCOPE(&c->lock);
	k = c->idle;
	if (k) {
		unlink_locked(k);
		c->n_idle--;
	} else {
		k = connection_new();
		k->generation = c->generation;
	}
	link_locked(&c->used, k);
	return k;
}

/* Takes it back; what failed is not used again. */
static void connection_give(struct icm_consul *c, struct connection *k, bool sound)
{
	{
		ICM_LOCK_SCOPE(&c->lock);
		unlink_locked(k);
		if (sound && k->generation == c->generation && c->n_idle < MAX_IDLE) {
			link_locked(&c->idle, k);
			c->n_idle++;
			return;
		}
	}
	connection_free(k);
}

void http_forget(struct icm_consul *c)
{
	struct connection *list, *k;

	pthread_mutex_lock(&c->lock);
	list = c->idle;
	c->idle = NULL;
	c->n_idle = 0;
	c->generation++;
	pthread_mutex_unlock(&c->lock);
	while ((k = list)) {
		list = k->next;
		connection_free(k);
	}
}

void http_wake(struct icm_consul *c)
{
	ICM_LOCK_SCOPE(&c->lock);
	for (struct connection *k = c->used; k; k = k->next)
		curl_multi_wakeup(k->multi);
	pthread_cond_broadcast(&c->woken);
}

/* ---- what libcurl calls ---- */

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct connection *k = userdata;

	if (icm_buf_add(&k->answer->body, data, size * n) == 0)
		return size * n;
	k->too_large = true;
	return 0;
}

/* The value of the header of this name (with its colon); NULL: it is another. */
static const char *header_value(const char *line, const char *end, const char *name)
{
	size_t n = strlen(name);

	if ((size_t)(end - line) < n || strncasecmp(line, name, n) != 0)
		return NULL;
	for (line += n; line < end && *line == ' ';)
		line++;
	return line;
}

static uint64_t number(const char *p, const char *end)
{
	uint64_t v = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return 0;
	return v;
}

static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	const char *end = line + size * n, *v;
	struct connection *k = userdata;

	if (end - line <= 2) /* the empty line */
		k->head = true;
	v = header_value(line, end, "X-Consul-Index:");
	if (v)
		k->answer->index = number(v, end);
	v = header_value(line, end, "X-Consul-Results-Filtered-By-ACLs:");
	if (v)
		k->answer->filtered = end - v >= 4 && !strncasecmp(v, "true", 4);
	return size * n;
}

static size_t on_read(char *to, size_t size, size_t n, void *userdata)
{
	struct connection *k = userdata;
	size_t left = k->rq->len - k->sent;

	n *= size;
	if (n > left)
		n = left;
	memcpy(to, (const char *)k->rq->body + k->sent, n);
	k->sent += n;
	return n;
}

/* libcurl sends a request anew when a connection that was used before ends
 * without an answer. For that it has to go back in the body: a write, which the
 * server may have carried out before it ended, isn't sent twice. */
static int on_seek(void *userdata, curl_off_t offset, int origin)
{
	struct connection *k = userdata;

	if (k->rq->writes || origin != SEEK_SET || offset < 0 || (uint64_t)offset > k->rq->len)
		return CURL_SEEKFUNC_FAIL;
	k->sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* ---- setting a request up ---- */

static void set_tls(CURL *easy, const struct consul_settings *s)
{
	if (s->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca_file);
	if (s->ca_path)
		curl_easy_setopt(easy, CURLOPT_CAPATH, s->ca_path);
	if (s->client_cert)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, s->client_cert);
	if (s->client_key)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, s->client_key);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
}

static void set_body(CURL *easy, struct connection *k)
{
	const struct request *rq = k->rq;

	if (!strcmp(rq->method, "GET")) {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		return;
	}
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, rq->method);
	if (!rq->writes) {
		/* goes out with its head in one piece; libcurl may send it anew */
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
		return;
	}
	curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)rq->len);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(easy, CURLOPT_READDATA, k);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, k);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
}

/* Where the certificate has another name than the address, the URL has the
 * certificate's and the connection goes to the address. */
static char *url_of(const struct consul_settings *s, size_t address, const char *path,
		    struct curl_slist **ret_connect_to)
{
	const char *base = s->addresses[address], *host = strstr(base, "//") + 2;
	const char *port = strrchr(host, ':');

	if (!s->server_name || strncmp(base, "https:", 6) != 0)
		return icm_asprintf("%s%s", base, path);
	if (!s->socket) {
		ICM_AUTOFREE char *to = icm_asprintf("::%s", host);

		*ret_connect_to = curl_slist_append(NULL, to);
	}
	return icm_asprintf("https://%s%s%s", s->server_name, port ? port : "", path);
}

static void set_up(struct icm_consul *c, struct connection *k, const char *url,
		   struct curl_slist *connect_to)
{
	const struct consul_settings *s = &c->settings;
	CURL *easy = k->easy;

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect_to);
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, s->socket);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
	/* for the store, and nobody between */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	/* Consul redirects what it takes for a sloppy path, to another key */
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 128L * 1024);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, k);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, k);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, k->why);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(CONNECT_NS / ICM_NS_PER_MS));
	set_body(easy, k);
	set_tls(easy, s);
}

/* ---- running it ---- */

static bool was_sent(struct connection *k)
{
	long bytes = 0;

	curl_easy_getinfo(k->easy, CURLINFO_REQUEST_SIZE, &bytes);
	return bytes > 0;
}

/* Whether the other side refused our certificate. With TLS 1.3 it says so after the
 * request was sent, of which it reads nothing then. libcurl tells in words only. */
static bool certificate_refused(const struct connection *k)
{
	return strstr(k->why, "alert") &&
	       (strstr(k->why, "certificate") || strstr(k->why, "unknown ca"));
}

/* The code for a transfer that libcurl ended. */
static int outcome(struct connection *k, CURLcode code)
{
	if (code == CURLE_OK && k->head)
		return 0;
	/* For libcurl a connection that ends in the middle of the head is an answer
	 * without contents. */
	if (code == CURLE_OK)
		code = CURLE_PARTIAL_FILE;
	if (!k->why[0])
		snprintf(k->why, sizeof(k->why), "%s", curl_easy_strerror(code));
	if (certificate_refused(k))
		return -EINVAL;
	switch (code) {
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ISSUER_ERROR:
		return -EINVAL;
	case CURLE_WRITE_ERROR:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_HTTP2:
		return was_sent(k) ? -EPROTO : -EHOSTUNREACH;
	default:
		return was_sent(k) ? -ETIMEDOUT : -EHOSTUNREACH;
	}
}

static uint64_t progress(struct connection *k)
{
	curl_off_t up = 0, down = 0;
	long head = 0, sent = 0;

	curl_easy_getinfo(k->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	curl_easy_getinfo(k->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
	curl_easy_getinfo(k->easy, CURLINFO_HEADER_SIZE, &head);
	curl_easy_getinfo(k->easy, CURLINFO_REQUEST_SIZE, &sent);
	return (uint64_t)up + (uint64_t)down + (uint64_t)head + (uint64_t)sent;
}

static bool finished(struct connection *k, CURLcode *ret)
{
	int left;

	for (CURLMsg *m; (m = curl_multi_info_read(k->multi, &left));)
		if (m->msg == CURLMSG_DONE) {
			*ret = m->data.result;
			return true;
		}
	return false;
}

/* Until libcurl is done, or nothing moves for too long. */
static int drive(struct connection *k, const struct icm_ctx *ctx, int64_t deadline_ns)
{
	const struct request *rq = k->rq;
	int64_t quiet_since = icm_now_ns(), until, now;
	uint64_t before = 0, bytes;
	CURLcode code;
	int running;

	for (;;) {
		if (curl_multi_perform(k->multi, &running) != CURLM_OK)
			return -EIO;
		if (finished(k, &code))
			return outcome(k, code);
		now = icm_now_ns();
		bytes = progress(k);
		if (bytes != before)
			quiet_since = now;
		before = bytes;
		if (!rq->writes && ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		until = quiet_since + SILENCE_NS + rq->wait_ns;
		if (deadline_ns && deadline_ns < until)
			until = deadline_ns;
		if (now >= until) {
			snprintf(k->why, sizeof(k->why), "no answer in time");
			return was_sent(k) ? -ETIMEDOUT : -EHOSTUNREACH;
		}
		curl_multi_poll(k->multi, NULL, 0, (int)((until - now) / ICM_NS_PER_MS + 1), NULL);
	}
}

static int run(struct connection *k, const struct icm_ctx *ctx, int64_t deadline_ns)
{
	int r;

	if (curl_multi_add_handle(k->multi, k->easy) != CURLM_OK)
		return -EIO;
	r = drive(k, ctx, deadline_ns);
	if (k->too_large)
		r = -EPROTO;
	if (!r)
		curl_easy_getinfo(k->easy, CURLINFO_RESPONSE_CODE, &k->answer->status);
	curl_multi_remove_handle(k->multi, k->easy);
	return r;
}

int http_send(struct icm_consul *c, size_t address, const struct icm_ctx *ctx, int64_t deadline_ns,
	      const struct request *rq, struct answer *ret, char **ret_why)
{
	struct connection *k = connection_take(c);
	struct curl_slist *connect_to = NULL;
	ICM_AUTOFREE char *url = url_of(&c->settings, address, rq->path, &connect_to);
	int r;

	icm_buf_reset(&ret->body);
	ret->body.max = rq->max_answer;
	ret->status = 0;
	ret->index = 0;
	ret->filtered = false;
	k->rq = rq;
	k->answer = ret;
	k->sent = 0;
	k->head = false;
	k->too_large = false;
	k->why[0] = '\0';
	set_up(c, k, url, connect_to);
	r = run(k, ctx, deadline_ns);
	if (r) {
		icm_log_debug("consul: %s %s: %s", rq->method, rq->path, k->why);
		if (ret_why) {
			free(*ret_why);
			*ret_why = icm_xstrdup(k->why);
		}
	}
	curl_easy_reset(k->easy);
	connection_give(c, k, r == 0);
	curl_slist_free_all(connect_to);
	return r;
}
