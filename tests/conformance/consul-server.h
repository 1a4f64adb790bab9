/* SPDX-License-Identifier: MIT
 * Real Consul servers for tests: one agent in a temporary directory, on disk
 * (never -dev, which answers in another spelling), on ports that nobody uses.
 * It ends with the thread that started it, however that ends. */
#ifndef ICM_TESTS_CONFORMANCE_CONSUL_SERVER_H
#define ICM_TESTS_CONFORMANCE_CONSUL_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

/* The token that may do everything, where a server has access rules. */
#define CONSUL_SERVER_TOKEN "11111111-2222-3333-4444-555555555555"

struct consul_server {
	char *dir;  /* owned; removed by stop */
	char *more; /* owned; further settings, or NULL */
	unsigned rpc, serf, http, https;
	bool acl;
	bool tls;  /* its settings have a certificate */
	pid_t pid; /* 0: not running */
};

/* The program: ICMFS_TEST_CONSUL, what scripts/consul.sh installed, or the one
 * in PATH. A fresh path, or NULL. */
char *consul_server_program(void);

/* Starts one and waits until it can be written to; ends the process otherwise.
 * `more` (may be NULL): members of its settings, as in "\"limits\":{}". */
void consul_server_start(struct consul_server *s, const char *more, bool acl);
/* kill -9, and the same data on the same ports again. */
void consul_server_kill(struct consul_server *s);
void consul_server_restart(struct consul_server *s);
/* Starts tests/lib/proxy.c (`program`) in front of it. Its process, to be killed and
 * waited for, and its port. */
pid_t consul_server_proxy(const struct consul_server *s, const char *program, unsigned percent,
			  const char *seed, unsigned *ret_port);
/* Ends it and removes its data. */
void consul_server_stop(struct consul_server *s);

/* One HTTP request with the token above, to a server on that port: its status
 * (0: no answer). *ret_body (may be NULL): fresh. */
long consul_server_ask(unsigned http, const char *method, const char *path, const char *body,
		       char **ret_body);

#endif
