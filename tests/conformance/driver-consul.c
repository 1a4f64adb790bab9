/* SPDX-License-Identifier: MIT
 * What only the Consul driver has: its settings, servers that go away, access
 * rules, limits of the agents. */
#include "store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consul-server.h"

static struct consul_server server; /* of the test's own, beside the run's */

static void setup(void)
{
	static const char *const variables[] = {
		"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN",  "CONSUL_HTTP_TOKEN_FILE",
		"CONSUL_HTTP_SSL",  "CONSUL_CACERT",	  "CONSUL_CAPATH",
		"CONSUL_NAMESPACE", "CONSUL_CLIENT_CERT", "CONSUL_TLS_SERVER_NAME",
	};

	for (size_t i = 0; i < ICM_COUNT(variables); i++)
		unsetenv(variables[i]);
	store_setup_closed();
}

static void teardown(void)
{
	be = icm_backend_close(be);
	consul_server_stop(&server);
	store_teardown();
}

TestSuite(consul, .init = setup, .fini = teardown, .timeout = 120);

/* "127.0.0.1:PORT" of the run's server, and the store's prefix. */
static char *address(void)
{
	const char *at = store_url + strlen("consul://");

	return icm_xstrndup(at, strcspn(at, "/"));
}

static const char *prefix(void)
{
	return strchr(store_url + strlen("consul://"), '/');
}

static struct icm_backend *open_at(const char *url)
{
	struct icm_backend *b = NULL;
	char *error = NULL;
	int r = icm_backend_open(url, NULL, &b, &error);

	if (r)
		fprintf(stderr, "%s\n", error);
	must_be(r, 0);
	must_be(icm_backend_start(b), 0);
	return b;
}

/* Opening fails with this code and a line that has `words`. */
static void refused(const char *url, int code, const char *words)
{
	ICM_AUTOFREE char *error = NULL;
	struct icm_backend *b = NULL;
	int r = icm_backend_open(url, NULL, &b, &error);

	cr_assert_eq(r, code, "%s: %d", url, r);
	cr_assert_null(b);
	cr_assert(strstr(error, words), "%s: %s", url, error);
	cr_assert_null(strchr(error, '\n'));
}

static char *own_url(void)
{
	return icm_asprintf("consul://127.0.0.1:%u/icm/x", server.http);
}

/* ---- settings ---- */

Test(consul, urls_that_name_no_store_are_refused)
{
	refused("consul:x", -EINVAL, "HOST:PORT/PREFIX");
	refused("consul://127.0.0.1:8500", -EINVAL, "no prefix");
	refused("consul://127.0.0.1:8500/", -EINVAL, "no prefix");
	refused("consul://127.0.0.1:99999/x", -EINVAL, "HOST:PORT");
	refused("consul://a b/x", -EINVAL, "HOST:PORT");
	refused("consul://127.0.0.1:8500/a/../b", -EINVAL, "\"..\"");
	refused("consul://127.0.0.1:8500/x?token=secret", -EINVAL, "CONSUL_HTTP_TOKEN");
	refused("consul+unix:///nowhere/sock/x", -ENOENT, "unix socket");
}

Test(consul, a_server_that_is_away_is_named)
{
	refused("consul://127.0.0.1:1/x", -EHOSTUNREACH, "127.0.0.1:1");
}

Test(consul, the_environment_says_where_the_local_agent_is)
{
	ICM_AUTOFREE char *at = address(), *url = icm_asprintf("consul://%s", prefix());
	ICM_AUTOFREE char *with_scheme = icm_asprintf("http://%s/", at);
	struct icm_backend *other = open_at(store_url);

	put(other, "k", "x");
	setenv("CONSUL_HTTP_ADDR", at, 1);
	be = open_at(url);
	cr_assert(has(be, "k", "x"));
	be = icm_backend_close(be);
	setenv("CONSUL_HTTP_ADDR", with_scheme, 1);
	be = open_at(url);
	cr_assert(has(be, "k", "x"));
	icm_backend_close(other);
}

static void write_token(const char *path, const char *token, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0);
	must_be(write(fd, token, strlen(token)), strlen(token));
	must_be(fchmod(fd, mode), 0);
	close(fd);
}

Test(consul, a_token_file_is_for_its_owner_alone)
{
	ICM_AUTOFREE char *file = icm_asprintf("%s/token", store_dir);

	setenv("CONSUL_HTTP_TOKEN_FILE", file, 1);
	refused(store_url, -ENOENT, "token file");
	write_token(file, "abc\n", 0640);
	refused(store_url, -EACCES, "0600");
	write_token(file, "abc\n", 0604);
	refused(store_url, -EACCES, "0600");
	write_token(file, "\n", 0600);
	refused(store_url, -EINVAL, "no token");
	write_token(file, "abc def\n", 0600);
	refused(store_url, -EINVAL, "more than a token");
	/* without access rules any token will do */
	write_token(file, "abc\n", 0400);
	be = open_at(store_url);
}

Test(consul, a_unix_socket)
{
	ICM_AUTOFREE char *more = icm_asprintf(
		"\"addresses\":{\"http\":\"127.0.0.1 unix://%s/http.sock\"}", store_dir);
	ICM_AUTOFREE char *url = icm_asprintf("consul+unix://%s/http.sock/icm/x", store_dir);

	consul_server_start(&server, more, false);
	be = open_at(url);
	put(be, "k", "x");
	cr_assert(has(be, "k", "x"));
}

/* Runs `consul tls …` in a directory of its own. */
static void tls(const char *dir, const char *arguments)
{
	ICM_AUTOFREE char *program = consul_server_program();
	ICM_AUTOFREE char *command =
		icm_asprintf("cd %s && %s tls %s >/dev/null", dir, program, arguments);

	must_be(system(command), 0);
}

Test(consul, tls_trusts_the_named_authority_only)
{
	ICM_AUTOFREE char *ca = icm_asprintf("%s/consul-agent-ca.pem", store_dir);
	ICM_AUTOFREE char *more = icm_asprintf("\"ca_file\":\"%s\",\"cert_file\":\"%s/dc1-server-"
					       "consul-0.pem\",\"key_file\":\"%s/"
					       "dc1-server-consul-0-key.pem\"",
					       ca, store_dir, store_dir);
	ICM_AUTOFREE char *url = NULL;

	tls(store_dir, "ca create");
	tls(store_dir, "cert create -server -dc dc1");
	consul_server_start(&server, more, false);
	url = icm_asprintf("consul+https://127.0.0.1:%u/icm/x", server.https);
	refused(url, -EHOSTUNREACH, "certificate");
	setenv("CONSUL_CACERT", ca, 1);
	be = open_at(url);
	put(be, "k", "x");
	be = icm_backend_close(be);
	/* the certificate's names: 127.0.0.1 and server.dc1.consul */
	setenv("CONSUL_TLS_SERVER_NAME", "server.dc1.consul", 1);
	be = open_at(url);
	cr_assert(has(be, "k", "x"));
	be = icm_backend_close(be);
	setenv("CONSUL_TLS_SERVER_NAME", "other.example", 1);
	refused(url, -EHOSTUNREACH, "certificate");
}

/* ---- limits ---- */

Test(consul, limits_are_those_of_the_agents)
{
	ICM_AUTOFREE char *at = address(), *url = NULL, *both = NULL;
	ICM_AUTOFREE char *value = icm_xcalloc(1, 5 << 20);
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = value, .len = 5 << 20 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	consul_server_start(&server,
			    "\"limits\":{\"kv_max_value_size\":8388608,"
			    "\"txn_max_req_len\":1000000}",
			    false);
	url = own_url();
	be = open_at(url);
	cr_assert_eq(be->facts.max_value_bytes, 8388608);
	cr_assert_eq(be->facts.max_txn_bytes, 999999);
	cr_assert_eq(DO(be, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
	cr_assert_eq(e.len, 5 << 20);
	be = icm_backend_close(be);
	/* the smallest of all that may be asked */
	both = icm_asprintf("consul://127.0.0.1:%u,%s/icm/x", server.http, at);
	be = open_at(both);
	cr_assert_eq(be->facts.max_value_bytes, 524288);
	cr_assert_eq(be->facts.max_txn_bytes, 524287);
}

Test(consul, smaller_limits_count_too)
{
	ICM_AUTOFREE char *url = NULL, *value = icm_xcalloc(1, 100001);
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = value, .len = 100001 };

	consul_server_start(&server,
			    "\"limits\":{\"kv_max_value_size\":100000,"
			    "\"txn_max_req_len\":100000}",
			    false);
	url = own_url();
	be = open_at(url);
	cr_assert_eq(be->facts.max_value_bytes, 100000);
	cr_assert_eq(DO(be, op), -EFBIG);
	op.len = 100000;
	cr_assert_eq(DO(be, op), 0);
}

/* ---- servers that go away ---- */

Test(consul, addresses_are_tried_in_turn)
{
	ICM_AUTOFREE char *at = address();
	ICM_AUTOFREE char *url =
		icm_asprintf("consul://127.0.0.1:1,127.0.0.1:2,%s%s", at, prefix());

	be = open_at(url);
	put(be, "k", "x");
	cr_assert(has(be, "k", "x"));
}

Test(consul, another_address_takes_over)
{
	ICM_AUTOFREE char *at = address(), *url = NULL;

	/* Two servers of different data: seen is only which one answers. */
	consul_server_start(&server, NULL, false);
	url = icm_asprintf("consul://127.0.0.1:%u,%s%s", server.http, at, prefix());
	be = open_at(url);
	put(be, "k", "first");
	consul_server_kill(&server);
	cr_assert(has(be, "k", NULL));
	put(be, "k", "second");
	cr_assert(has(be, "k", "second"));
}

struct watching {
	uint64_t since;
	atomic_bool stop;
	unsigned failures;
};

static void *watch_on(void *userdata)
{
	struct watching *w = userdata;
	struct icm_ctx ctx = { .cancel = &w->stop };

	for (;;) {
		int r = icm_backend_watch(be, &ctx, "", w->since, &w->since);

		if (r == -ECANCELED)
			return NULL;
		must(r == 0 || r == -EHOSTUNREACH);
		w->failures += r != 0;
	}
}

static bool comes_back(void)
{
	for (int i = 0; i < 100; i++) {
		struct icm_ctx ctx = within_ms(1000);
		ICM_AUTOENTRY struct icm_entry e = { 0 };
		int r = icm_backend_get(be, &ctx, "k", &e);

		if (r == 0)
			return true;
		must(r == -EHOSTUNREACH || r == -ETIMEDOUT);
	}
	return false;
}

Test(consul, a_server_that_was_killed_comes_back)
{
	struct icm_ctx soon;
	struct watching w = { 0 };
	struct icm_lease lease = { 0 };
	ICM_AUTOFREE char *url = NULL;
	pthread_t thread;
	uint64_t index;
	int r;

	consul_server_start(&server, NULL, false);
	url = own_url();
	be = open_at(url);
	index = put(be, "k", "x");
	cr_assert_eq(icm_backend_lease_open(be, NULL, 10000, "who", 3, &lease), 0);
	w.since = store_index(be);
	must_be(pthread_create(&thread, NULL, watch_on, &w), 0);

	consul_server_kill(&server);
	soon = within_ms(500);
	r = icm_backend_get(be, &soon, "k", &(struct icm_entry){ 0 });
	cr_assert(r == -EHOSTUNREACH || r == -ETIMEDOUT, "%d", r);
	/* nobody is there to take it: certainly not done, and at once */
	r = DO(be, OP_SET("k", "y"));
	cr_assert(r == -EHOSTUNREACH || r == -ETIMEDOUT, "%d", r);
	cr_assert_eq(DO(be, OP_SET("k", "y")), -EHOSTUNREACH);
	r = icm_backend_lease_renew(be, NULL, &lease);
	cr_assert_eq(r, -EHOSTUNREACH, "%d", r);
	sleep(2);

	consul_server_restart(&server);
	cr_assert(comes_back());
	cr_assert_eq(modified(be, "k"), index, "the data are those from before");
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
	cr_assert(has(be, lease.key, "who"));
	index = put(be, "k", "z");
	for (int i = 0; i < 100 && w.since < index; i++)
		usleep(100 * 1000);
	atomic_store(&w.stop, true);
	icm_backend_wake(be);
	pthread_join(thread, NULL);
	cr_assert_geq(w.since, index);
	cr_assert_leq(w.failures, 60, "it spins: %u", w.failures);
	icm_lease_clear(&lease);
}

struct getting {
	atomic_bool cancel;
	int r;
};

static void *get_on(void *userdata)
{
	struct getting *g = userdata;
	struct icm_ctx ctx = { .cancel = &g->cancel };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	g->r = icm_backend_get(be, &ctx, "k", &e);
	return NULL;
}

Test(consul, wake_ends_the_pause_of_a_call_that_tries_again)
{
	ICM_AUTOFREE char *url = NULL;
	struct getting g = { 0 };
	pthread_t thread;
	int64_t start;

	consul_server_start(&server, NULL, false);
	url = own_url();
	be = open_at(url);
	consul_server_kill(&server);
	must_be(pthread_create(&thread, NULL, get_on, &g), 0);
	sleep(3); /* its pauses have grown to a second */
	start = icm_now_ns();
	atomic_store(&g.cancel, true);
	icm_backend_wake(be);
	pthread_join(thread, NULL);
	cr_assert_eq(g.r, -ECANCELED);
	cr_assert_lt(icm_now_ns() - start, ICM_NS_PER_S / 3);
}

/* The node that stands for the store, as Consul lists it. */
static char *node_of_store(void)
{
	ICM_AUTOFREE char *nodes = NULL;
	char *at;

	must_be(consul_server_ask(server.http, "GET", "/v1/catalog/nodes", NULL, &nodes), 200);
	at = strstr(nodes, "icmfs-");
	must(at);
	return icm_xstrndup(at, strcspn(at, "\""));
}

Test(consul, a_node_that_was_removed_is_registered_again)
{
	ICM_AUTOFREE char *url = NULL, *node = NULL, *body = NULL;
	struct icm_lease lease = { 0 };

	consul_server_start(&server, NULL, false);
	url = own_url();
	be = open_at(url);
	node = node_of_store();
	body = icm_asprintf("{\"Node\":\"%s\"}", node);
	must_be(consul_server_ask(server.http, "PUT", "/v1/catalog/deregister", body, NULL), 200);
	cr_assert_eq(icm_backend_lease_open(be, NULL, 10000, "who", 3, &lease), 0);
	cr_assert(has(be, lease.key, "who"));
	/* its end ends the leases */
	must_be(consul_server_ask(server.http, "PUT", "/v1/catalog/deregister", body, NULL), 200);
	cr_assert(has(be, lease.key, NULL));
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), -ENOENT);
	icm_lease_clear(&lease);
}

/* ---- what answers isn't Consul ---- */

static const char *fake_answer;

/* Answers each connection's first request with fake_answer, and hangs up. */
static void *fake_main(void *userdata)
{
	int listener = *(int *)userdata, fd;
	char request[4096];

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		must(read(fd, request, sizeof(request)) >= 0);
		must(write(fd, fake_answer, strlen(fake_answer)) >= 0);
		shutdown(fd, SHUT_WR);
		must(read(fd, request, sizeof(request)) >= 0);
		close(fd);
	}
	return NULL;
}

static int fake_listen(unsigned port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	must_be(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	must_be(listen(fd, 16), 0);
	return fd;
}

#define PAGE(status, text) "HTTP/1.1 " status "\r\nConnection: close\r\n\r\n" text

static const struct {
	const char *answer;
	int get, list, tree, set, renew;
} fakes[] = {
	{ PAGE("404 Not Found", "Not Found"), -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, -ETIMEDOUT },
	{ PAGE("200 OK", "<html>"), -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, 0 },
	{ PAGE("200 OK", ""), -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, 0 },
	{ PAGE("302 Found", ""), -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, -ETIMEDOUT },
	{ PAGE("409 Conflict", "<html>"), -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, -ETIMEDOUT },
	{ PAGE("409 Conflict", "{\"Errors\":[{\"OpIndex\":0,\"What\":\"new words\"}]}"), -EPROTO,
	  -EPROTO, -EIO, -EIO, -ETIMEDOUT },
	{ PAGE("403 Forbidden", "no"), -EACCES, -EACCES, -EACCES, -EACCES, -EACCES },
	{ PAGE("400 Bad Request", "no"), -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO },
	{ PAGE("500 Error", "No cluster leader"), -EHOSTUNREACH, -EHOSTUNREACH, -EHOSTUNREACH,
	  -EHOSTUNREACH, -EHOSTUNREACH },
	{ PAGE("500 Error", "rpc error making call: EOF"), -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT,
	  -ETIMEDOUT, -ETIMEDOUT },
	{ "", -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT },
	/* cut in the middle of its head */
	{ "HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Le", -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT,
	  -ETIMEDOUT, -ETIMEDOUT },
	/* as Consul 1.11 and later say that a listing isn't whole */
	{ "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Consul-Index: 5\r\n"
	  "X-Consul-Results-Filtered-By-ACLs: true\r\n\r\n[]",
	  -EPROTO, -EACCES, -EPROTO, -ETIMEDOUT, 0 },
	{ "nonsense\r\n\r\n", -EPROTO, -EPROTO, -EPROTO, -ETIMEDOUT, -ETIMEDOUT },
};

/* A write of which nobody knows is never called refused, and nothing is believed
 * to be absent because some server says so. */
Test(consul, what_is_not_consul_is_not_believed)
{
	ICM_AUTOFREE char *url = NULL;
	struct icm_lease lease = { 0 };
	pthread_t thread;
	unsigned port;
	int listener;

	consul_server_start(&server, NULL, false);
	url = own_url();
	be = open_at(url);
	cr_assert_eq(icm_backend_lease_open(be, NULL, 10000, "who", 3, &lease), 0);
	port = server.http;
	consul_server_kill(&server);
	/* its connections are gone */
	(void)DO(be, OP_SET("k", "x"));
	listener = fake_listen(port);
	fake_answer = fakes[0].answer;
	must_be(pthread_create(&thread, NULL, fake_main, &listener), 0);

	for (size_t i = 0; i < ICM_COUNT(fakes); i++) {
		struct icm_op tree = OP_TREE("k/"), set = OP_SET("k", "y");
		ICM_AUTORESULT struct icm_txn_result none = { 0 }, done = { 0 };
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		struct icm_entry e = { 0 };
		struct icm_ctx ctx;

		fake_answer = fakes[i].answer;
		ctx = within_ms(300);
		cr_expect_eq(icm_backend_get(be, &ctx, "k", &e), fakes[i].get, "get %zu", i);
		ctx = within_ms(300);
		cr_expect_eq(icm_backend_list(be, &ctx, "k/", false, &list, NULL), fakes[i].list,
			     "list %zu", i);
		ctx = within_ms(300);
		cr_expect_eq(icm_backend_txn(be, &ctx, &tree, 1, &none), fakes[i].tree, "tree %zu",
			     i);
		cr_expect_eq(icm_backend_txn(be, NULL, &set, 1, &done), fakes[i].set, "set %zu", i);
		cr_expect_eq(icm_backend_lease_renew(be, NULL, &lease), fakes[i].renew, "renew %zu",
			     i);
	}
	shutdown(listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(listener);
	icm_lease_clear(&lease);
}

/* ---- access rules ---- */

#define WRITE_ALL "key_prefix \\\"icm/x/\\\" { policy = \\\"write\\\" }"
#define READ_ALL  "key_prefix \\\"icm/x/\\\" { policy = \\\"read\\\" }"
#define NO_ATTR	  "key_prefix \\\"icm/x/attr/\\\" { policy = \\\"deny\\\" }"
#define NO_LEASE  "key_prefix \\\"icm/x/lease/\\\" { policy = \\\"read\\\" }"
#define LEASES                                                                                     \
	"session_prefix \\\"icmfs-\\\" { policy = \\\"write\\\" } node_prefix \\\"icmfs-\\\" { "   \
	"policy = \\\"write\\\" }"

static char *policy_id;

static void set_policy(const char *rules)
{
	ICM_AUTOFREE char *path = icm_asprintf("/v1/acl/policy%s%s", policy_id ? "/" : "",
					       policy_id ? policy_id : "");
	ICM_AUTOFREE char *body = icm_asprintf("{\"Name\":\"p\",\"Rules\":\"%s\"}", rules);
	ICM_AUTOFREE char *answer = NULL;
	char *id;

	must_be(consul_server_ask(server.http, "PUT", path, body, &answer), 200);
	if (policy_id)
		return;
	id = strstr(answer, "\"ID\":\"");
	must(id);
	policy_id = icm_xstrndup(id + 6, 36);
}

/* A server with access rules; the environment has a token with these. */
static void start_with_rules(const char *more, const char *rules)
{
	ICM_AUTOFREE char *answer = NULL, *token = NULL;
	char *id;

	consul_server_start(&server, more, true);
	set_policy(rules);
	must_be(consul_server_ask(server.http, "PUT", "/v1/acl/token",
				  "{\"Policies\":[{\"Name\":\"p\"}]}", &answer),
		200);
	id = strstr(answer, "\"SecretID\":\"");
	must(id);
	token = icm_xstrndup(id + 12, 36);
	setenv("CONSUL_HTTP_TOKEN", token, 1);
}

/* As the token that may do everything. */
static void put_as_operator(const char *key, const char *value)
{
	ICM_AUTOFREE char *path = icm_asprintf("/v1/kv/icm/x/%s", key);

	must_be(consul_server_ask(server.http, "PUT", path, value, NULL), 200);
}

static int list_of(const char *of, size_t *ret_n)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	int r = icm_backend_list(be, NULL, of, false, &list, NULL);

	*ret_n = list.n;
	return r;
}

Test(consul, a_writers_least_rights)
{
	ICM_AUTOFREE char *url = NULL;
	struct icm_lease lease = { 0 };

	start_with_rules(NULL, WRITE_ALL " " LEASES);
	url = own_url();
	be = open_at(url);
	cr_assert(!be->facts.read_only);
	cr_assert_null(be->facts.note);
	put(be, "tree/a", "x");
	cr_assert_eq(icm_backend_lease_open(be, NULL, 10000, "who", 3, &lease), 0);
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	icm_lease_clear(&lease);
}

Test(consul, larger_limits_are_seen_by_who_may_read_the_agent)
{
	ICM_AUTOFREE char *url = NULL;

	start_with_rules("\"limits\":{\"kv_max_value_size\":8388608}", WRITE_ALL);
	url = own_url();
	be = open_at(url);
	cr_assert_eq(be->facts.max_value_bytes, 524288);
	be = icm_backend_close(be);
	set_policy(WRITE_ALL " agent_prefix \\\"\\\" { policy = \\\"read\\\" }");
	be = open_at(url);
	cr_assert_eq(be->facts.max_value_bytes, 8388608);
}

Test(consul, denied_is_never_empty_for_a_writer)
{
	ICM_AUTOFREE char *url = NULL;
	size_t n;

	start_with_rules(NULL, WRITE_ALL " " LEASES);
	url = own_url();
	be = open_at(url);
	cr_assert_eq(DO(be, OP_SET("tree/a", "x"), OP_SET("attr/a", "y")), 0);
	cr_assert_eq(DO(be, OP_TREE("inode/")), 0);

	set_policy(WRITE_ALL " " NO_ATTR " " LEASES);
	cr_assert_eq(list_of("tree/", &n), 0);
	cr_assert_eq(n, 1);
	cr_assert_eq(list_of("attr/", &n), -EACCES);
	cr_assert_eq(list_of("", &n), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("attr/")), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("attr/"), OP_TREE("inode/")), -EACCES);
	cr_assert_eq(DO(be, OP_GET("tree/a"), OP_TREE("attr/")), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("tree/"), OP_TREE("attr/")), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("attr/"), OP_SET("tree/b", "x")), -EACCES);
	cr_assert(has(be, "tree/b", NULL));
	cr_assert_eq(DO(be, OP_TREE("")), -EACCES);
	cr_assert_eq(DO(be, OP_GET("attr/a")), -EACCES);
	cr_assert_eq(DO(be, OP_SET("attr/a", "z")), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("tree/"), OP_TREE("inode/")), 0);

	/* only the right to write is gone: what can be read is read */
	set_policy(READ_ALL);
	cr_assert_eq(DO(be, OP_GET("tree/a"), OP_TREE("attr/"), OP_TREE("inode/")), 0);
	set_policy("");
	cr_assert_eq(list_of("tree/", &n), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("tree/")), -EACCES);
}

Test(consul, denied_is_never_empty_for_a_reader)
{
	ICM_AUTOFREE char *url = NULL;
	size_t n;

	start_with_rules(NULL, READ_ALL);
	url = own_url();
	put_as_operator("tree/a", "x");
	put_as_operator("attr/a", "y");
	be = open_at(url);
	cr_assert(be->facts.read_only);
	cr_assert_eq(list_of("", &n), 0);
	cr_assert_eq(n, 2);
	cr_assert_eq(list_of("inode/", &n), 0);
	cr_assert_eq(n, 0);
	cr_assert_eq(DO(be, OP_GET("tree/a"), OP_TREE("attr/"), OP_TREE("inode/")), 0);
	cr_assert_eq(DO(be, OP_SET("tree/a", "z")), -EROFS);

	set_policy(READ_ALL " " NO_ATTR);
	cr_assert_eq(list_of("attr/", &n), -EACCES);
	cr_assert_eq(list_of("", &n), -EACCES);
	cr_assert_eq(DO(be, OP_GET("tree/a"), OP_TREE("attr/")), -EACCES);
	cr_assert_eq(DO(be, OP_TREE("attr/"), OP_TREE("inode/")), -EACCES);
	be = icm_backend_close(be);
	refused(url, -EACCES, "icm/x/attr/");
}

Test(consul, who_may_not_write_all_of_it_writes_nothing)
{
	ICM_AUTOFREE char *url = NULL;

	start_with_rules(NULL, WRITE_ALL " " NO_LEASE " " LEASES);
	url = own_url();
	be = open_at(url);
	cr_assert(be->facts.read_only);
	be = icm_backend_close(be);
	set_policy(WRITE_ALL " session_prefix \\\"\\\" { policy = \\\"write\\\" }");
	be = open_at(url);
	cr_assert(!be->facts.read_only);
	cr_assert(strstr(be->facts.note, "register"));
}

Test(consul, a_token_that_is_unknown_or_has_no_rights_is_refused)
{
	ICM_AUTOFREE char *url = NULL;

	start_with_rules(NULL, "");
	url = own_url();
	refused(url, -EACCES, "icm/x/");
	setenv("CONSUL_HTTP_TOKEN", "99999999-0000-0000-0000-000000000000", 1);
	refused(url, -EACCES, "ACL not found");
	unsetenv("CONSUL_HTTP_TOKEN");
	refused(url, -EACCES, "icm/x/");
}
