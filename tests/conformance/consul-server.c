/* SPDX-License-Identifier: MIT */
#include "consul-server.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store.h"
#include "util/digest.h"

/* Of a server that was just started, on a machine that is busy. */
#define READY_NS (60 * ICM_NS_PER_S)

/* ---- the program ---- */

static char *in_path(const char *name)
{
	const char *path = getenv("PATH");
	size_t n;

	for (; path && *path; path += n + (path[n] == ':')) {
		char *file;

		n = strcspn(path, ":");
		file = icm_asprintf("%.*s/%s", (int)n, path, name);
		if (n && access(file, X_OK) == 0)
			return file;
		free(file);
	}
	return NULL;
}

char *consul_server_program(void)
{
	static const char *const names[] = { "ICMFS_TEST_CONSUL", "ICMFS_TEST_CONSUL_INSTALLED" };

	for (size_t i = 0; i < ICM_COUNT(names); i++) {
		const char *file = getenv(names[i]);

		if (file && access(file, X_OK) == 0)
			return icm_xstrdup(file);
	}
	return in_path("consul");
}

/* ---- asking it ---- */

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	return icm_buf_add(userdata, data, size * n) ? 0 : size * n;
}

long consul_server_ask(unsigned http, const char *method, const char *path, const char *body,
		       char **ret_body)
{
	ICM_AUTOFREE char *url = icm_asprintf("http://127.0.0.1:%u%s", http, path);
	struct curl_slist *headers =
		curl_slist_append(NULL, "X-Consul-Token: " CONSUL_SERVER_TOKEN);
	ICM_AUTOBUF struct icm_buf answer = ICM_BUF_INIT(0);
	CURL *easy = curl_easy_init();
	long status = 0;

	must(easy && headers);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, 5L);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
	if (body)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	if (curl_easy_perform(easy) == CURLE_OK)
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(easy);
	curl_slist_free_all(headers);
	if (ret_body)
		*ret_body = icm_buf_steal(&answer, NULL);
	return status;
}

/* ---- starting ---- */

static void write_settings(const struct consul_server *s)
{
	ICM_AUTOFREE char *name = icm_asprintf("%s/consul.json", s->dir);
	FILE *f = fopen(name, "we");

	must(f);
	fprintf(f,
		"{\"server\":true,\"bootstrap_expect\":1,\"node_name\":\"test\",\"data_dir\":"
		"\"%s/data\",\"bind_addr\":\"127.0.0.1\",\"client_addr\":\"127.0.0.1\","
		"\"log_level\":\"warn\",\"disable_update_check\":true,"
		"\"performance\":{\"raft_multiplier\":1},"
		"\"ports\":{\"dns\":-1,\"grpc\":-1,\"https\":%d,\"serf_wan\":-1,\"server\":%u,"
		"\"serf_lan\":%u,\"http\":%u}",
		s->dir, s->tls ? (int)s->https : -1, s->rpc, s->serf, s->http);
	if (s->acl)
		fprintf(f, ",\"acl\":{\"enabled\":true,\"default_policy\":\"deny\",\"tokens\":"
			   "{\"master\":\"" CONSUL_SERVER_TOKEN
			   "\",\"agent\":\"" CONSUL_SERVER_TOKEN "\"}}");
	if (s->more)
		fprintf(f, ",%s", s->more);
	fputs("}\n", f);
	must_be(fclose(f), 0);
}

static void run(const struct consul_server *s, const char *program)
{
	ICM_AUTOFREE char *settings = icm_asprintf("-config-file=%s/consul.json", s->dir);
	ICM_AUTOFREE char *log = icm_asprintf("%s/log", s->dir);
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* what its parent was asked for is not for it */
	unsetenv("CONSUL_HTTP_ADDR");
	unsetenv("CONSUL_HTTP_TOKEN");
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execl(program, program, "agent", settings, (char *)NULL);
	_exit(127);
}

static bool ended(struct consul_server *s)
{
	if (s->pid && waitpid(s->pid, NULL, WNOHANG) != s->pid)
		return false;
	s->pid = 0;
	return true;
}

static bool ready(struct consul_server *s)
{
	int64_t until = icm_now_ns() + READY_NS;

	for (; icm_now_ns() < until && !ended(s); usleep(20 * 1000))
		/* 404: it has a leader, and the token counts */
		if (consul_server_ask(s->http, "GET", "/v1/kv/none?consistent", NULL, NULL) == 404)
			return true;
	return false;
}

static bool start(struct consul_server *s)
{
	ICM_AUTOFREE char *program = consul_server_program();

	must(program);
	write_settings(s);
	s->pid = fork();
	must(s->pid >= 0);
	if (!s->pid)
		run(s, program);
	return ready(s);
}

static void show_log(const struct consul_server *s)
{
	ICM_AUTOFREE char *name = icm_asprintf("%s/log", s->dir);
	FILE *f = fopen(name, "re");

	for (int c; f && (c = getc(f)) != EOF;)
		putc(c, stderr);
	if (f)
		fclose(f);
}

/* Below those that the kernel gives to clients. */
static unsigned any_port(void)
{
	return 20000 + (unsigned)(icm_random_u64() % 12000);
}

void consul_server_start(struct consul_server *s, const char *more, bool acl)
{
	const char *tmp = getenv("TMPDIR");

	*s = (struct consul_server){ .more = more ? icm_xstrdup(more) : NULL,
				     .acl = acl,
				     .tls = more && strstr(more, "cert_file") };
	s->dir = icm_asprintf("%s/icmfs-consul-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	must(mkdtemp(s->dir));
	/* a port that somebody else has ends the server at once */
	for (int i = 0; i < 5; i++) {
		s->rpc = any_port();
		s->serf = s->rpc + 1;
		s->http = s->rpc + 2;
		s->https = s->rpc + 3;
		if (start(s))
			return;
		if (s->pid)
			break;
	}
	show_log(s);
	consul_server_stop(s);
	must(!"Consul starts");
}

pid_t consul_server_proxy(const struct consul_server *s, const char *program, unsigned percent,
			  const char *seed, unsigned *ret_port)
{
	ICM_AUTOFREE char *port = icm_asprintf("%u", s->http), *of = icm_asprintf("%u", percent);
	int fds[2];
	FILE *said;
	pid_t pid;

	must_be(pipe(fds), 0);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(program, program, "127.0.0.1", port, of, seed, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	said = fdopen(fds[0], "re");
	must(said);
	must_be(fscanf(said, "%u", ret_port), 1);
	fclose(said);
	return pid;
}

void consul_server_restart(struct consul_server *s)
{
	must(!s->pid);
	if (start(s))
		return;
	show_log(s);
	must(!"Consul starts again");
}

void consul_server_kill(struct consul_server *s)
{
	if (!s->pid)
		return;
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

void consul_server_stop(struct consul_server *s)
{
	consul_server_kill(s);
	if (s->dir)
		nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(s->dir);
	free(s->more);
	*s = (struct consul_server){ 0 };
}
