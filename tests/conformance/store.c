/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <criterion/hooks.h>
#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>

#include "backends/memory/memory.h"
#include "consul-server.h"
#include "settled.h"
#include "util/digest.h"

struct icm_backend *be;
char *store_url;
char *store_dir;

/* Criterion 2.4.1 loses 48 bytes of its own at each skipped test. The leak
 * sanitizer asks for this by name. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libcriterion";
}

static const char *test_store(void)
{
	const char *store = getenv("ICMFS_TEST_STORE");

	return store && *store ? store : NULL;
}

/* ---- Consul: one server for all tests of a run ---- */

static struct consul_server server;
static pid_t proxy; /* in front of it; 0: none */

/* Above what the tests with many threads need, of which some run at once; a
 * mount is far below Consul's usual 200. */
#define SERVER_SETTINGS "\"limits\":{\"http_max_conns_per_client\":2000}"

/* Before Criterion takes the standard error away. */
__attribute__((constructor)) static void say_seed(void)
{
	ICM_AUTOFREE char *seed = icm_asprintf("%u", (unsigned)icm_random_u64());

	if (!getenv("ICMFS_TEST_PROXY"))
		return;
	setenv("ICMFS_TEST_SEED", seed, 0);
	fprintf(stderr, "the network has ICMFS_TEST_SEED=%s\n", getenv("ICMFS_TEST_SEED"));
}

/* With ICMFS_TEST_PROXY, the program, all goes through it. */
static void start_proxy(void)
{
	const char *program = getenv("ICMFS_TEST_PROXY"), *percent = getenv("ICMFS_TEST_PERCENT");
	const char *seed = getenv("ICMFS_TEST_SEED");
	char number[16];
	unsigned port;

	if (!program)
		return;
	proxy = consul_server_proxy(&server, program, percent ? (unsigned)atoi(percent) : 10, seed,
				    &port);
	snprintf(number, sizeof(number), "%u", port);
	setenv("ICMFS_TEST_PROXY_PORT", number, 1);
}

ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
	ICM_AUTOFREE char *program = NULL, *url = NULL;
	const char *store = test_store();

	if (!store || strcmp(store, "consul") != 0 || !(program = consul_server_program()))
		return;
	consul_server_start(&server, SERVER_SETTINGS, false);
	url = icm_asprintf("consul://127.0.0.1:%u/icm", server.http);
	/* the tests' processes inherit it */
	setenv("ICMFS_TEST_STORE", url, 1);
	start_proxy();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	if (proxy) {
		kill(proxy, SIGKILL);
		waitpid(proxy, NULL, 0);
	}
	consul_server_stop(&server);
}

/* ---- a test's store ---- */

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	store_dir = icm_asprintf("%s/icmfs-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	must(mkdtemp(store_dir));
}

void store_setup_closed(void)
{
	const char *store = test_store();
	char id[ICM_ID_HEX + 1];

	if (!store)
		cr_skip_test("ICMFS_TEST_STORE names no store");
	if (!strcmp(store, "consul"))
		cr_skip_test("no Consul (scripts/consul.sh installs it)");
	/* a child that dies must not take the test with it */
	signal(SIGPIPE, SIG_IGN);
	make_dir();
	icm_random_id(id);
	if (!strcmp(store, "memory"))
		store_url = icm_asprintf("memory:%s", id);
	else if (!strcmp(store, "sqlite"))
		store_url = icm_asprintf("sqlite:%s/store.icmfs", store_dir);
	else
		store_url = icm_asprintf("%s/%s", store, id);
}

void store_setup(void)
{
	store_setup_closed();
	be = store_open();
}

void store_skip(const char *why)
{
	/* Criterion leaves out the clean-up of what is skipped. */
	store_teardown();
	cr_skip_test("%s", why);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

void store_teardown(void)
{
	be = icm_backend_close(be);
	free(store_url);
	if (store_dir)
		nftw(store_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(store_dir);
	store_url = store_dir = NULL;
}

static struct icm_backend *open_url(const char *url, const struct icm_open_options *options,
				    bool lossy)
{
	const char *limits = getenv("ICMFS_TEST_LIMITS");
	struct icm_backend *b = NULL;
	char *error = NULL;
	int r;

	/* over a network that loses requests, some say "try again" */
	while ((r = icm_backend_open(url, options, &b, &error)) != 0) {
		if (!lossy || (r != -EHOSTUNREACH && r != -ETIMEDOUT)) {
			fprintf(stderr, "%s\n", error);
			abort();
		}
		free(ICM_STEAL(&error));
	}
	if (limits && !strcmp(limits, "consul"))
		icm_memory_set_consul_limits(b);
	must_be(icm_backend_start(b), 0);
	return b;
}

struct icm_backend *store_open_with(const struct icm_open_options *options)
{
	const char *port = getenv("ICMFS_TEST_PROXY_PORT");
	ICM_AUTOFREE char *through = NULL;

	if (!port)
		return open_url(store_url, options, false);
	through = icm_asprintf("consul://127.0.0.1:%s%s", port,
			       strchr(store_url + strlen("consul://"), '/'));
	return settled(open_url(through, options, true), open_url(store_url, options, false),
		       (unsigned)atoi(port));
}

struct icm_backend *store_open(void)
{
	return store_open_with(&(struct icm_open_options){ .create = true });
}

bool store_is(const char *scheme)
{
	return store_url && !strncmp(store_url, scheme, strlen(scheme));
}

bool store_shared(void)
{
	return !store_is("memory");
}

/* ---- short ways ---- */

uint64_t put(struct icm_backend *b, const char *key, const char *value)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	must_be(TXN(b, &result, OP_SET(key, value)), 0);
	return result.index;
}

bool entry_is(const struct icm_entry *e, const char *key, const char *value)
{
	return !strcmp(e->key, key) && e->value && e->len == strlen(value) &&
	       !memcmp(e->value, value, e->len);
}

bool has(struct icm_backend *b, const char *key, const char *value)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(b, NULL, key, &e);

	if (r == -ENOENT)
		return !value;
	must_be(r, 0);
	return value && entry_is(&e, key, value);
}

uint64_t modified(struct icm_backend *b, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(b, NULL, key, &e);

	must(r == 0 || r == -ENOENT);
	return r ? 0 : e.modify_index;
}

uint64_t store_index(struct icm_backend *b)
{
	uint64_t index = 0;

	must_be(icm_backend_index(b, NULL, "", &index), 0);
	must(index > 0);
	return index;
}

struct icm_ctx within_ms(int64_t ms)
{
	return (struct icm_ctx){ .deadline_ns = icm_now_ns() + ms * ICM_NS_PER_MS };
}

/* ---- processes ---- */

pid_t child_start(void (*fn)(void *userdata), void *userdata)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (pid)
		return pid;
	fn(userdata);
	_exit(0);
}

void child_join(pid_t pid)
{
	int status;

	must_be(waitpid(pid, &status, 0), pid);
	must_be(status, 0);
}

void child_kill(pid_t pid)
{
	must_be(kill(pid, SIGKILL), 0);
	must_be(waitpid(pid, NULL, 0), pid);
}

void send_number(int fd, uint64_t n)
{
	must_be(write(fd, &n, sizeof(n)), sizeof(n));
}

bool receive_number(int fd, uint64_t *ret)
{
	ssize_t n = read(fd, ret, sizeof(*ret));

	must(n == 0 || n == sizeof(*ret));
	return n > 0;
}
