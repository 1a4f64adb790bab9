/* SPDX-License-Identifier: MIT
 * Stands between an HTTP client and a server and does what networks do:
 *
 *   proxy HOST PORT PERCENT [SEED]     prints the port it listens on; runs until killed
 *
 * Of PERCENT in a hundred requests, in equal parts: the connection ends before
 * the request was passed on; or after it was carried out, without an answer; or
 * in the middle of the answer; the request is carried out twice; it is carried
 * out seconds after the connection has ended; its answer is late. One in a hundred
 * of these is not answered at all while its client waits. Blocking queries are
 * passed on as they are, or cut. One request a connection.
 *
 * It is told what to do by requests of its own, which are answered when it is done:
 *
 *   PUT /proxy/settle   waits until all writes that came before are over: carried
 *                       out, or lost
 *   PUT /proxy/catch    the next transaction that writes is caught: its connection
 *                       ends, and the link is cut, so that every connection ends
 *   PUT /proxy/mute     likewise, but connections stay, and nothing is answered
 *   PUT /proxy/caught   waits until one has been caught
 *   PUT /proxy/release  what was caught is carried out; the link stays cut
 *   PUT /proxy/heal     the link is whole again */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum fault { PASS, BEFORE, AFTER, MIDDLE, TWICE, LATE, SLOW, N_FAULTS, SILENT };

/* One in so many faults is SILENT, which costs its client seconds. */
#define SILENT_ONE_IN 100

struct bytes {
	char *data; /* owned */
	size_t len, cap;
};

/* A connection, among those whose request may still be a write. */
struct client {
	int fd;
	unsigned long serial; /* in the order of arrival */
	bool listed;
	struct client *next, **link;
};

enum link_state { WHOLE, CATCHING, CUT };

/* What the requests to the proxy itself are about. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct client *list; /* newest first */
	unsigned long last_serial;
	enum link_state state;
	bool mute;
	unsigned caught; /* requests that wait for a release */
} control = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static struct sockaddr_in server;
static unsigned percent;
static pthread_mutex_t random_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned seed;

static unsigned random_below(unsigned n)
{
	unsigned r;

	pthread_mutex_lock(&random_lock);
	r = (unsigned)rand_r(&seed) % n;
	pthread_mutex_unlock(&random_lock);
	return r;
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* One read more; false at the end or at an error. */
static bool receive(int fd, struct bytes *b)
{
	ssize_t n;

	if (b->cap - b->len < 65536) {
		b->cap = 2 * b->cap + 131072;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	n = recv(fd, b->data + b->len, b->cap - b->len - 1, 0);
	if (n <= 0)
		return false;
	b->len += (size_t)n;
	b->data[b->len] = '\0';
	return true;
}

static bool transmit(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

/* Bytes of the whole request, or 0 while its head isn't complete. */
static size_t request_length(const struct bytes *b)
{
	const char *end = b->data ? strstr(b->data, "\r\n\r\n") : NULL;
	size_t body = 0;

	if (!end)
		return 0;
	for (const char *line = b->data; line < end; line = strstr(line, "\r\n") + 2)
		if (!strncasecmp(line, "Content-Length:", 15))
			body = strtoul(line + 15, NULL, 10);
	return (size_t)(end + 4 - b->data) + body;
}

static bool receive_request(int fd, struct bytes *request)
{
	size_t want;

	do {
		if (!receive(fd, request))
			return false;
		want = request_length(request);
	} while (!want || request->len < want);
	return true;
}

/* Has the server carry the request out; its answer up to the end of the connection. */
static bool carry_out(const struct bytes *request, struct bytes *answer)
{
	static const char close_line[] = "Connection: close\r\n";
	size_t first = (size_t)(strstr(request->data, "\r\n") + 2 - request->data);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok;

	ok = fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0 &&
	     transmit(fd, request->data, first) &&
	     transmit(fd, close_line, sizeof(close_line) - 1) &&
	     transmit(fd, request->data + first, request->len - first);
	while (ok && receive(fd, answer))
		;
	if (fd >= 0)
		close(fd);
	return ok && answer->len;
}

static enum fault choose(const struct bytes *request)
{
	const char *end = strstr(request->data, "\r\n");
	const char *wait = strstr(request->data, "wait=");

	if (random_below(100) >= percent)
		return PASS;
	if (wait && wait < end)
		return random_below(2) ? BEFORE : MIDDLE;
	if (random_below(SILENT_ONE_IN) == 0)
		return SILENT;
	return (enum fault)(1 + random_below(N_FAULTS - 1));
}

/* Until the client has given up. */
static void wait_for_end(int fd)
{
	char ignored[256];

	while (recv(fd, ignored, sizeof(ignored), 0) > 0)
		;
}

static bool link_is_cut(void)
{
	bool cut;

	pthread_mutex_lock(&control.lock);
	cut = control.state == CUT;
	pthread_mutex_unlock(&control.lock);
	return cut;
}

static void serve(int fd, const struct bytes *request)
{
	struct bytes answer = { 0 }, second = { 0 };
	enum fault fault = choose(request);

	if (fault == SILENT) {
		wait_for_end(fd);
		fault = random_below(2) ? BEFORE : AFTER;
	}
	if (fault == SLOW)
		pause_ms(1 + random_below(200));
	if (fault == LATE) {
		shutdown(fd, SHUT_RDWR);
		pause_ms(random_below(5000));
	}
	if (fault != BEFORE && carry_out(request, &answer)) {
		if (fault == TWICE)
			carry_out(request, &second);
		if (fault == MIDDLE)
			answer.len /= 2;
		if (fault != AFTER && fault != LATE && !link_is_cut())
			transmit(fd, answer.data, answer.len);
	}
	free(answer.data);
	free(second.data);
}

/* ---- clients ---- */

static void client_list(struct client *c)
{
	pthread_mutex_lock(&control.lock);
	c->serial = ++control.last_serial;
	c->listed = true;
	c->next = control.list;
	c->link = &control.list;
	if (c->next)
		c->next->link = &c->next;
	control.list = c;
	pthread_mutex_unlock(&control.lock);
}

/* It has no write, or that is over. */
static void client_unlist(struct client *c)
{
	pthread_mutex_lock(&control.lock);
	if (c->listed) {
		*c->link = c->next;
		if (c->next)
			c->next->link = c->link;
		c->listed = false;
		pthread_cond_broadcast(&control.changed);
	}
	pthread_mutex_unlock(&control.lock);
}

/* ---- the link that is cut ---- */

static bool starts(const struct bytes *request, const char *with)
{
	return strncmp(request->data, with, strlen(with)) == 0;
}

/* A transaction of a mount: all of them write the head of the feed. */
static bool is_commit(const struct bytes *request)
{
	return starts(request, "PUT /v1/txn") && strstr(request->data, "/head\"");
}

static bool older_than(unsigned long serial)
{
	for (struct client *c = control.list; c; c = c->next)
		if (c->serial < serial)
			return true;
	return false;
}

/* Carries a request to the proxy itself out. */
static void obey(struct client *me, const char *what)
{
	static const char done[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

	client_unlist(me);
	pthread_mutex_lock(&control.lock);
	if (!strncmp(what, "settle ", 7)) {
		while (older_than(me->serial))
			pthread_cond_wait(&control.changed, &control.lock);
	} else if (!strncmp(what, "caught ", 7)) {
		while (!control.caught)
			pthread_cond_wait(&control.changed, &control.lock);
	} else if (!strncmp(what, "catch ", 6) || !strncmp(what, "mute ", 5)) {
		control.state = CATCHING;
		control.mute = what[0] == 'm';
	} else if (!strncmp(what, "release ", 8)) {
		control.caught = 0;
	} else if (!strncmp(what, "heal ", 5)) {
		control.state = WHOLE;
	}
	pthread_cond_broadcast(&control.changed);
	pthread_mutex_unlock(&control.lock);
	transmit(me->fd, done, sizeof(done) - 1);
}

/* Holds a commit back until it is released, after its client was left alone. */
static void hold(struct client *c, const struct bytes *request, bool mute)
{
	struct bytes answer = { 0 };

	if (!mute)
		shutdown(c->fd, SHUT_RDWR);
	pthread_mutex_lock(&control.lock);
	while (control.caught)
		pthread_cond_wait(&control.changed, &control.lock);
	pthread_mutex_unlock(&control.lock);
	carry_out(request, &answer);
	free(answer.data);
}

/* Whether the cut link took the request. */
static bool taken(struct client *c, const struct bytes *request)
{
	enum link_state state;
	bool mute, caught;

	pthread_mutex_lock(&control.lock);
	state = control.state;
	mute = control.mute;
	caught = state == CATCHING && is_commit(request);
	if (caught) {
		control.state = CUT;
		control.caught++;
		pthread_cond_broadcast(&control.changed);
	}
	pthread_mutex_unlock(&control.lock);
	if (caught)
		hold(c, request, mute);
	else if (state == CUT && mute)
		wait_for_end(c->fd);
	return caught || state == CUT;
}

static void *connection(void *arg)
{
	struct bytes request = { 0 };
	struct client *c = arg;

	if (receive_request(c->fd, &request)) {
		if (starts(&request, "GET "))
			client_unlist(c);
		if (starts(&request, "PUT /proxy/"))
			obey(c, request.data + strlen("PUT /proxy/"));
		else if (!taken(c, &request))
			serve(c->fd, &request);
	}
	client_unlist(c);
	close(c->fd);
	free(request.data);
	free(c);
	return NULL;
}

static void accept_one(int listener, const pthread_attr_t *detached)
{
	struct client *c = calloc(1, sizeof(*c));
	pthread_t thread;

	if (!c)
		abort();
	c->fd = accept(listener, NULL, NULL);
	if (c->fd < 0) {
		free(c);
		return;
	}
	client_list(c);
	if (pthread_create(&thread, detached, connection, c) == 0)
		return;
	client_unlist(c);
	close(c->fd);
	free(c);
}

static int listen_somewhere(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(here);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(fd, 128) < 0 ||
	    getsockname(fd, (struct sockaddr *)&here, &len) < 0) {
		perror("proxy");
		exit(1);
	}
	printf("%d\n", ntohs(here.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	pthread_attr_t detached;
	int listener;

	if (argc < 4 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
		fprintf(stderr, "usage: proxy HOST PORT PERCENT [SEED]\n");
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	percent = (unsigned)atoi(argv[3]);
	if (argc > 4)
		seed = (unsigned)strtoul(argv[4], NULL, 10);
	else if (getrandom(&seed, sizeof(seed), 0) < 0)
		return 1;
	fprintf(stderr, "seed %u\n", seed);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	listener = listen_somewhere();
	for (;;)
		accept_one(listener, &detached);
}
