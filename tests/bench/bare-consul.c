/* SPDX-License-Identifier: MIT
 * The bare Consul: requests over connections that are kept, by plain sockets.
 *
 *   bare-consul HOST PORT PREFIX     reads lines from standard input, writes the
 *                                    nanoseconds of each request into FILE, and
 *                                    answers each line with another:
 *     put COUNT FILE                 1 KiB into one of 64 keys
 *     get COUNT FILE                 a key of 1 KiB
 *     txn ROWS COUNT FILE            the keys and sizes of a file in one transaction;
 *                                    those marked `new` under a new name each time
 *     parallel CONNECTIONS COUNT FILE   puts of 1 KiB, each into keys of its own:
 *                                    the time of all, divided by their number
 *     big CONNECTIONS FILE           10 MiB of new bytes in values of 512 KiB
 *     list PREFIX FILE               everything below, with values
 *     quit
 *
 * Consul's answers are read whole and only their status is looked at: what a
 * file system makes of them is what it is compared for. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 16
#define MAX_ROWS	64
#define SMALL		1024
#define BIG		(10 << 20)
#define VALUE_MAX	(512 << 10) /* Consul's own limit */

static struct sockaddr_in server;
static const char *prefix;

struct connection {
	int fd;
	char *buf; /* owned; of the answer, ends with NUL */
	size_t len, cap;
};

static struct connection connections[MAX_CONNECTIONS];

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "bare-consul: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static unsigned long long random64(void)
{
	static _Thread_local unsigned long long x;

	if (!x)
		x = (unsigned long long)now_ns() | 1;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void random_bytes(char *buf, size_t size)
{
	for (size_t i = 0; i + sizeof(long long) <= size; i += sizeof(long long))
		memcpy(buf + i, &(unsigned long long){ random64() }, sizeof(long long));
}

/* ---- one request ---- */

static void dial(struct connection *c)
{
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    connect(c->fd, (struct sockaddr *)&server, sizeof(server)))
		fail("connect");
}

static void receive(struct connection *c)
{
	ssize_t n;

	if (c->cap - c->len < 65536) {
		c->cap = 2 * c->cap + 131072;
		c->buf = realloc(c->buf, c->cap);
		if (!c->buf)
			fail("memory");
	}
	n = recv(c->fd, c->buf + c->len, c->cap - c->len - 1, 0);
	if (n <= 0)
		fail("the connection ends");
	c->len += (size_t)n;
	c->buf[c->len] = '\0';
}

/* Where the line at `at` ends; its end is received first. */
static size_t end_of_line(struct connection *c, size_t at)
{
	char *end;

	while (!(end = strstr(c->buf + at, "\r\n")))
		receive(c);
	return (size_t)(end - c->buf);
}

static void receive_up_to(struct connection *c, size_t end)
{
	while (c->len < end)
		receive(c);
}

static void receive_chunks(struct connection *c, size_t at)
{
	size_t n;

	do {
		size_t line = end_of_line(c, at);

		n = strtoul(c->buf + at, NULL, 16);
		at = line + 2 + n + 2;
		receive_up_to(c, at);
	} while (n);
}

/* The whole answer; its status has to be 200. */
static void answer(struct connection *c, const char *what)
{
	size_t at, length = 0;
	bool chunked = false;

	c->len = 0;
	receive(c);
	for (at = end_of_line(c, 0) + 2;; at = end_of_line(c, at) + 2) {
		end_of_line(c, at);
		if (!strncasecmp(c->buf + at, "Content-Length:", 15))
			length = strtoul(c->buf + at + 15, NULL, 10);
		else if (!strncasecmp(c->buf + at, "Transfer-Encoding: chunked", 26))
			chunked = true;
		else if (c->buf[at] == '\r')
			break;
	}
	if (chunked)
		receive_chunks(c, at + 2);
	else
		receive_up_to(c, at + 2 + length);
	if (strncmp(c->buf, "HTTP/1.1 200", 12) != 0) {
		fprintf(stderr, "bare-consul: %s: %.200s\n", what, c->buf);
		exit(1);
	}
}

static void request(struct connection *c, const char *method, const char *path, const void *body,
		    size_t len)
{
	char head[1024];
	int n = snprintf(head, sizeof(head),
			 "%s %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %zu\r\n\r\n", method,
			 path, len);
	struct iovec parts[] = { { head, (size_t)n }, { (void *)body, len } };
	size_t at = 0;

	if (c->fd < 0)
		dial(c);
	while (at < 2) {
		struct msghdr m = { .msg_iov = parts + at, .msg_iovlen = 2 - at };
		ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);

		if (sent < 0)
			fail(path);
		for (; at < 2 && (size_t)sent >= parts[at].iov_len; at++)
			sent -= (ssize_t)parts[at].iov_len;
		if (at < 2) {
			parts[at].iov_base = (char *)parts[at].iov_base + sent;
			parts[at].iov_len -= (size_t)sent;
		}
	}
	answer(c, path);
}

/* ---- puts and gets ---- */

/* The thread of this number has keys of its own. */
static void put_small(unsigned number, unsigned i)
{
	char path[512], value[SMALL];

	random_bytes(value, sizeof(value));
	snprintf(path, sizeof(path), "/v1/kv/%s/small/%u-%u", prefix, number, i % 64);
	request(&connections[number], "PUT", path, value, sizeof(value));
}

static void put(unsigned count, FILE *out)
{
	for (unsigned i = 0; i < count; i++) {
		long long from = now_ns();

		put_small(0, i);
		fprintf(out, "%lld\n", now_ns() - from);
	}
}

static void get(unsigned count, FILE *out)
{
	char path[512];

	put_small(0, 0);
	snprintf(path, sizeof(path), "/v1/kv/%s/small/0-0", prefix);
	for (unsigned i = 0; i < count; i++) {
		long long from = now_ns();

		request(&connections[0], "GET", path, NULL, 0);
		fprintf(out, "%lld\n", now_ns() - from);
	}
}

static void list(const char *what, FILE *out)
{
	char path[1024];
	long long from = now_ns();

	snprintf(path, sizeof(path), "/v1/kv/%s?recurse", what);
	request(&connections[0], "GET", path, NULL, 0);
	fprintf(out, "%lld\n", now_ns() - from);
}

/* ---- transactions ---- */

static struct row {
	char key[400], mark[16];
	size_t size;
} rows[MAX_ROWS];
static size_t n_rows;

static void read_rows(const char *path)
{
	FILE *f = fopen(path, "r");

	if (!f)
		fail(path);
	for (n_rows = 0; n_rows < MAX_ROWS; n_rows++) {
		struct row *r = &rows[n_rows];

		if (fscanf(f, "%399[^\t]\t%15[^\t]\t%zu\n", r->key, r->mark, &r->size) != 3)
			break;
	}
	fclose(f);
	if (!n_rows)
		fail("no rows");
}

/* Random bytes of so many, as base64. */
static void add_base64(FILE *f, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < (size + 2) / 3 * 4; i++)
		putc(digits[random64() % 64], f);
}

static void txn(const char *file, unsigned count, FILE *out)
{
	read_rows(file);
	for (unsigned i = 0; i < count; i++) {
		char *body;
		size_t len;
		long long from;
		FILE *f = open_memstream(&body, &len);

		for (size_t r = 0; r < n_rows; r++) {
			fprintf(f, "%s{\"KV\":{\"Verb\":\"set\",\"Key\":\"%s/%s", r ? "," : "[",
				prefix, rows[r].key);
			if (!strcmp(rows[r].mark, "new"))
				fprintf(f, "%016llx", random64());
			fputs("\",\"Value\":\"", f);
			add_base64(f, rows[r].size);
			fputs("\"}}", f);
		}
		putc(']', f);
		fclose(f);
		from = now_ns();
		request(&connections[0], "PUT", "/v1/txn", body, len);
		fprintf(out, "%lld\n", now_ns() - from);
		free(body);
	}
}

/* ---- several connections ---- */

struct worker {
	pthread_t thread;
	unsigned number, step, count;
	const char *big; /* NULL: small values */
};

static void *work(void *arg)
{
	const struct worker *w = arg;
	char path[512];

	for (unsigned i = w->number; i < w->count; i += w->step) {
		if (!w->big) {
			put_small(w->number, i);
			continue;
		}
		snprintf(path, sizeof(path), "/v1/kv/%s/big/%u", prefix, i);
		request(&connections[w->number], "PUT", path, w->big + (size_t)i * VALUE_MAX,
			VALUE_MAX);
	}
	return NULL;
}

/* Nanoseconds of `count` puts by `n` connections. */
static long long in_parallel(unsigned n, unsigned count, const char *big)
{
	struct worker workers[MAX_CONNECTIONS];
	long long from = now_ns();

	if (!n || n > MAX_CONNECTIONS)
		fail("number of connections");
	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct worker){ .number = i, .step = n, .count = count, .big = big };
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			fail("pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	return now_ns() - from;
}

static void put_big(unsigned n, FILE *out)
{
	char *big = malloc(BIG);

	if (!big)
		fail("memory");
	random_bytes(big, BIG);
	fprintf(out, "%lld\n", in_parallel(n, BIG / VALUE_MAX, big));
	free(big);
}

/* ---- */

static FILE *open_out(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		fail(path);
	return f;
}

static bool obey(const char *line)
{
	char file[1024], what[512];
	unsigned n, count;
	FILE *out = NULL;

	if (sscanf(line, "put %u %1023s", &count, file) == 2)
		put(count, out = open_out(file));
	else if (sscanf(line, "get %u %1023s", &count, file) == 2)
		get(count, out = open_out(file));
	else if (sscanf(line, "txn %511s %u %1023s", what, &count, file) == 3)
		txn(what, count, out = open_out(file));
	else if (sscanf(line, "list %511s %1023s", what, file) == 2)
		list(what, out = open_out(file));
	else if (sscanf(line, "big %u %1023s", &n, file) == 2)
		put_big(n, out = open_out(file));
	else if (sscanf(line, "parallel %u %u %1023s", &n, &count, file) == 3 && count)
		fprintf(out = open_out(file), "%lld\n", in_parallel(n, count, NULL) / count);
	return out && !fclose(out);
}

int main(int argc, char **argv)
{
	char line[4096];

	if (argc != 4) {
		fputs("usage: bare-consul HOST PORT PREFIX\n", stderr);
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		fail(argv[1]);
	prefix = argv[3];
	for (size_t i = 0; i < MAX_CONNECTIONS; i++)
		connections[i].fd = -1;
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n")) {
		if (!obey(line))
			fail(line);
		puts("done");
		fflush(stdout);
	}
	return 0;
}
