/* SPDX-License-Identifier: MIT
 * Counts what a mount and a store say to each other over TCP:
 *
 *   meter HOST PORT      prints the port that it listens on, passes everything on
 *                        as it comes, and answers each line of standard input with
 *                        "UP DOWN REQUESTS": bytes to the server, bytes from it, and
 *                        HTTP requests. Ends with its input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in server;
static atomic_ullong up, down, requests;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "meter: %s: %s\n", what, strerror(errno));
	exit(1);
}

struct pipe {
	int from, to;
	bool is_up;
};

/* The request line's end, which may come in two pieces; *matched: how much of it
 * has come. Values that are sent are JSON or base64, so that it is in no other
 * place but in a chunk of a file that has the words. */
static unsigned count_requests(const char *buf, size_t n, size_t *matched)
{
	static const char mark[] = " HTTP/1.1\r\n";
	unsigned count = 0;

	for (size_t i = 0; i < n; i++) {
		*matched = buf[i] == mark[*matched] ? *matched + 1 : buf[i] == mark[0];
		if (!mark[*matched]) {
			count++;
			*matched = 0;
		}
	}
	return count;
}

static void *carry(void *arg)
{
	struct pipe *p = arg;
	char buf[65536];
	size_t matched = 0;
	ssize_t n;

	while ((n = recv(p->from, buf, sizeof(buf), 0)) > 0) {
		if (p->is_up)
			requests += count_requests(buf, (size_t)n, &matched);
		*(p->is_up ? &up : &down) += (unsigned long long)n;
		for (ssize_t at = 0, sent; at < n; at += sent) {
			sent = send(p->to, buf + at, (size_t)(n - at), MSG_NOSIGNAL);
			if (sent < 0)
				break;
		}
	}
	shutdown(p->to, SHUT_WR);
	return NULL;
}

/* Both directions of one connection. */
static void *connection(void *arg)
{
	int client = (int)(intptr_t)arg, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    one = 1;
	struct pipe there = { client, fd, true }, back = { fd, client, false };
	pthread_t thread;

	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0 &&
	    pthread_create(&thread, NULL, carry, &there) == 0) {
		carry(&back);
		pthread_join(thread, NULL);
	}
	close(fd);
	close(client);
	return NULL;
}

static void *listen_thread(void *arg)
{
	pthread_attr_t detached;
	pthread_t thread;
	int fd;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	while ((fd = accept((int)(intptr_t)arg, NULL, NULL)) >= 0)
		if (pthread_create(&thread, &detached, connection, (void *)(intptr_t)fd))
			fail("pthread_create");
	fail("accept");
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(here);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_t thread;
	char line[64];

	signal(SIGPIPE, SIG_IGN);
	if (argc != 3) {
		fputs("usage: meter HOST PORT\n", stderr);
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		fail(argv[1]);
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 128) ||
	    getsockname(listener, (struct sockaddr *)&here, &len))
		fail("listen");
	if (pthread_create(&thread, NULL, listen_thread, (void *)(intptr_t)listener))
		fail("pthread_create");
	printf("%d\n", ntohs(here.sin_port));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		printf("%llu %llu %llu\n", up, down, requests);
		fflush(stdout);
	}
	return 0;
}
