/* SPDX-License-Identifier: MIT
 * Stands between an HTTP client and a server and does what networks do:
 *
 *   proxy HOST PORT PERCENT [SEED]     prints the port it listens on; runs until killed
 *
 * Of PERCENT in a hundred requests, in equal parts: the connection ends before
 * the request was passed on; or after it was carried out, without an answer; or
 * in the middle of the answer; the request is carried out twice; it is carried
 * out seconds after the connection has ended; its answer is late. Blocking
 * queries are passed on as they are, or cut. One request a connection. */
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

enum fault { PASS, BEFORE, AFTER, MIDDLE, TWICE, LATE, SLOW, N_FAULTS };

struct bytes {
	char *data; /* owned */
	size_t len, cap;
};

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
	return (enum fault)(1 + random_below(N_FAULTS - 1));
}

static void serve(int fd, const struct bytes *request)
{
	struct bytes answer = { 0 }, second = { 0 };
	enum fault fault = choose(request);

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
		if (fault != AFTER && fault != LATE)
			transmit(fd, answer.data, answer.len);
	}
	free(answer.data);
	free(second.data);
}

static void *connection(void *arg)
{
	struct bytes request = { 0 };
	int fd = (int)(intptr_t)arg;

	if (receive_request(fd, &request))
		serve(fd, &request);
	close(fd);
	free(request.data);
	return NULL;
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
	pthread_t thread;
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
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd >= 0 && pthread_create(&thread, &detached, connection, (void *)(intptr_t)fd))
			close(fd);
	}
}
