/* SPDX-License-Identifier: MIT */
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "backends/url.h"
#include "core/volume.h"
#include "events.h"
#include "executor.h"
#include "front.h"
#include "fuse-notify.h"
#include "fuse-ops.h"
#include "mount-pid.h"
#include "mountinfo.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/log.h"

#define WORKER_THREADS 64
#define LOG_MAX_BYTES  (1 << 20)
/* Programs that have files open when the daemon is told to end. */
#define GRACE_NS    (5 * ICM_NS_PER_S)
#define MAX_STACKED 100

struct mount {
	const struct icm_settings *settings;
	char *path;	 /* owned; mount point */
	char *state_dir; /* owned; of this store on this mount point */
	struct icm_volume *vol;
	struct icm_front *front;
	struct fuse_session *session;
	int ready_fd; /* to the process that waits; -1: none */
	int log_fd;   /* becomes stderr; -1: foreground */
	dev_t dev;
	pthread_t main_thread, signal_thread;
	atomic_bool loop_ended;
};

/* ---- the mount point ---- */

/* Only statvfs tells for sure: attributes of a dead mount can be cached. Aborted
 * means that the mount is dying at this moment. */
static bool is_dead(const char *path)
{
	struct statvfs st;

	return statvfs(path, &st) && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* Removes dead mounts, which stack, until none is left. */
static int heal(const char *path, char **ret_error)
{
	for (int i = 0; is_dead(path) && i < MAX_STACKED; i++) {
		struct icm_mountinfo m = { 0 };
		int err = icm_mountinfo_at(path, &m);
		bool ours = !err && icm_mountinfo_is_ours(&m);

		icm_mountinfo_clear(&m);
		if (!ours) {
			*ret_error = icm_asprintf("'%s' is a dead mount of another file system; "
						  "unmount it first",
						  path);
			return -EBUSY;
		}
		err = icm_umount_detach(path);
		if (err) {
			*ret_error = icm_asprintf("cannot remove the dead mount at '%s': %s", path,
						  strerror(-err));
			return err;
		}
	}
	return 0;
}

static int refuse_mounted(const char *path, char **ret_error)
{
	struct icm_mountinfo m = { 0 };
	bool ours = !icm_mountinfo_at(path, &m) && icm_mountinfo_is_ours(&m);

	if (ours)
		*ret_error = icm_asprintf("'%s' is mounted on '%s' already", m.source, path);
	icm_mountinfo_clear(&m);
	return ours ? -EBUSY : 0;
}

static int check_mountpoint(const char *given, char **ret_path, char **ret_error)
{
	ICM_AUTOFREE char *path = icm_mountpoint_path(given);
	struct stat st;
	int err;

	if (!path) {
		err = -errno;
		*ret_error = icm_asprintf("mount point '%s': %s", given, strerror(errno));
		return err;
	}
	err = heal(path, ret_error);
	if (!err)
		err = refuse_mounted(path, ret_error);
	if (err)
		return err;
	if (stat(path, &st)) {
		err = -errno;
		*ret_error = errno == ENOENT
				     ? icm_asprintf("mount point '%s' does not exist", path)
				     : icm_asprintf("mount point '%s': %s", path, strerror(errno));
		return err;
	}
	if (!S_ISDIR(st.st_mode)) {
		*ret_error = icm_asprintf("mount point '%s' is not a directory", path);
		return -ENOTDIR;
	}
	if (access("/dev/fuse", F_OK)) {
		*ret_error = icm_xstrdup("there is no /dev/fuse: the kernel's FUSE module is not "
					 "loaded, or this container is not given it");
		return -ENODEV;
	}
	*ret_path = ICM_STEAL(&path);
	return 0;
}

/* ---- the volume ---- */

/* A directory of this store on this mount point, made where missing: what is
 * scratch in one mount is never another one's. */
static int make_state_dir(struct mount *m, const char *url, char **ret_error)
{
	ICM_AUTOFREE char *base = icm_settings_state_dir(m->settings);
	ICM_AUTOFREE char *key = icm_asprintf("%s\n%s", url, m->path);
	struct icm_sha256 sum = icm_sha256(key, strlen(key));
	char hex[ICM_SHA256_HEX + 1];
	int err;

	icm_sha256_to_hex(&sum, hex);
	m->state_dir = icm_asprintf("%s/%.16s", base, hex);
	err = icm_make_dirs(m->state_dir);
	if (err)
		*ret_error = icm_asprintf("cannot make the state directory '%s': %s", m->state_dir,
					  strerror(-err));
	return err;
}

static int make_sub_dir(struct mount *m, const char *name, char **ret_path, char **ret_error)
{
	int err;

	*ret_path = icm_asprintf("%s/%s", m->state_dir, name);
	err = icm_make_dirs(*ret_path);
	if (err)
		*ret_error = icm_asprintf("cannot make '%s': %s", *ret_path, strerror(-err));
	return err;
}

static int open_in(struct mount *m, const char *scratch, const char *work, const char *unsaved,
		   const char *copy, char **ret_error)
{
	const struct icm_settings *s = m->settings;
	const struct icm_volume_config config = {
		.url = s->store,
		.read_only = s->read_only,
		.cached = s->cached,
		.create = true,
		.timeout_ms = s->timeout_ms,
		.ttl_ms = s->ttl_ms,
		.scratch_dir = s->no_scratch ? NULL : scratch,
		.scratch_patterns = s->scratch_patterns,
		.work_dir = work,
		.unsaved_dir = unsaved,
		.unsaved_max = (uint64_t)s->unsaved_mib << 20,
		.copy_dir = copy,
		.copy_max = (uint64_t)s->copy_mib << 20,
		.mountpoint = m->path,
		.uid = s->uid,
		.gid = s->gid,
	};

	return icm_volume_open(&config, &m->vol, ret_error);
}

static int open_volume(struct mount *m, char **ret_error)
{
	ICM_AUTOFREE char *scratch = NULL;
	ICM_AUTOFREE char *work = NULL;
	ICM_AUTOFREE char *unsaved = NULL;
	ICM_AUTOFREE char *copy = NULL;
	struct icm_url url = { 0 };
	int err = icm_url_parse(m->settings->store, &url, ret_error);

	if (!err)
		err = make_state_dir(m, url.text, ret_error);
	icm_url_clear(&url);
	if (!err)
		err = make_sub_dir(m, "scratch", &scratch, ret_error);
	if (!err)
		err = make_sub_dir(m, "work", &work, ret_error);
	if (!err)
		err = make_sub_dir(m, "unsaved", &unsaved, ret_error);
	if (!err && m->settings->offline)
		err = make_sub_dir(m, "copy", &copy, ret_error);
	if (!err)
		err = open_in(m, scratch, work, unsaved, copy, ret_error);
	return err;
}

/* ---- the log ---- */

static int open_log(const struct icm_settings *s, char **ret_error)
{
	ICM_AUTOFREE char *path = icm_settings_log_file(s);
	ICM_AUTOFREE char *dir = icm_xstrndup(path, (size_t)(strrchr(path, '/') - path) + 1);
	ICM_AUTOFREE char *old = icm_asprintf("%s.1", path);
	struct stat st;
	int fd;

	(void)!icm_make_dirs(dir); /* open says what is wrong */
	if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_size > LOG_MAX_BYTES)
		rename(path, old);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd >= 0)
		return fd;
	if (s->log_file) {
		*ret_error = icm_asprintf("cannot open the log '%s': %s", path, strerror(errno));
		return -errno;
	}
	return open("/dev/null", O_WRONLY | O_CLOEXEC);
}

/* The last thing that libfuse said while mounting: the reason of a failure. */
static char fuse_line[200];
static atomic_bool fuse_started;

static ICM_PRINTF(2, 0) void fuse_logs(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[sizeof(fuse_line)];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strcspn(line, "\n");
	line[len] = '\0';
	if (!atomic_load(&fuse_started))
		memcpy(fuse_line, line, sizeof(line));
	else
		icm_log(level <= FUSE_LOG_WARNING ? LOG_WARNING : LOG_DEBUG, "%s", line);
}

static void start_log(const struct mount *m)
{
	int level = m->settings->debug ? LOG_DEBUG : LOG_WARNING;

	icm_log_init("icmfs", m->log_fd >= 0, level);
	/* to stderr as well, which is the terminal now and the log file later */
	if (m->log_fd >= 0)
		openlog("icmfs", LOG_PID | LOG_PERROR, LOG_DAEMON);
}

/* ---- the session ---- */

/* Called by libfuse when the kernel has accepted the mount. */
static void on_ready(void *userdata)
{
	struct mount *m = userdata;
	int null;

	atomic_store(&fuse_started, true);
	if (m->ready_fd < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	dup2(m->log_fd, STDERR_FILENO);
	(void)!write(m->ready_fd, "", 1);
	close(m->ready_fd);
	m->ready_fd = -1;
}

/* "a,b" becomes "a\,b" inside a list of options. */
static void add_escaped(struct icm_buf *b, const char *key, const char *value)
{
	icm_buf_addf(b, ",%s=", key);
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			icm_buf_addc(b, '\\');
		icm_buf_addc(b, *value);
	}
}

static char *session_options(const struct mount *m)
{
	const struct icm_settings *s = m->settings;
	struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_addstr(&b, "default_permissions,subtype=icmfs");
	add_escaped(&b, "fsname", s->fsname ? s->fsname : icm_volume_url(m->vol));
	if (s->read_only || icm_volume_is_read_only(m->vol))
		icm_buf_addstr(&b, ",ro");
	if (s->allow_other)
		icm_buf_addstr(&b, ",allow_other");
	/* libfuse says nosuid,nodev by itself */
	if (s->suid)
		icm_buf_addstr(&b, ",suid");
	if (s->dev)
		icm_buf_addstr(&b, ",dev");
	if (s->kernel.len > 0)
		icm_buf_addf(&b, ",%s", s->kernel.data);
	return icm_buf_steal(&b, NULL);
}

static int open_session(struct mount *m, char **ret_error)
{
	ICM_AUTOFREE char *options = session_options(m);
	char *argv[] = { (char *)"icmfs", (char *)"-o", options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	fuse_set_log_func(fuse_logs);
	m->session = fuse_session_new(&args, &icm_fuse_ops, sizeof(icm_fuse_ops), m->front);
	fuse_opt_free_args(&args);
	if (m->session && !fuse_session_mount(m->session, m->path))
		return 0;
	*ret_error = icm_asprintf("cannot mount on '%s'%s%s", m->path, *fuse_line ? ": " : "",
				  fuse_line);
	if (m->session)
		fuse_session_destroy(m->session);
	m->session = NULL;
	return -EIO;
}

static void go_live(struct mount *m)
{
	struct icm_mountinfo info = { 0 };

	pthread_rwlock_wrlock(&m->front->live_lock);
	m->front->session = m->session;
	m->front->live = true;
	pthread_rwlock_unlock(&m->front->live_lock);
	m->front->ready = on_ready;
	m->front->ready_userdata = m;
	if (icm_mountinfo_at(m->path, &info))
		return;
	m->dev = info.dev;
	icm_mountinfo_clear(&info);
	icm_mount_pid_write(m->dev, m->path);
	if (m->front->events && icm_events_start(m->front->events, m->front, m->dev))
		icm_log_warning("no thread for inotify events");
}

/* ---- signals ---- */

static void ended_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
}

/* True when the loop ended by itself within the time; any further signal to
 * end cuts it short. */
static bool wait_loop(struct mount *m, int64_t ns)
{
	const struct timespec step = { .tv_nsec = 20 * ICM_NS_PER_MS };
	int64_t end = icm_now_ns() + ns;
	sigset_t set;

	ended_set(&set);
	while (!atomic_load(&m->loop_ended) && icm_now_ns() < end) {
		int sig = sigtimedwait(&set, NULL, &step);

		if (sig > 0 && sig != SIGUSR1)
			break;
	}
	return atomic_load(&m->loop_ended);
}

/* Only while requests are still served: a notification may wait for one. */
static void break_loop(struct mount *m)
{
	icm_notifier_stop(m->front->notifier);
	fuse_session_exit(m->session);
	/* the main thread may be about to wait when the signal comes */
	do
		pthread_kill(m->main_thread, SIGUSR2);
	while (!wait_loop(m, 50 * ICM_NS_PER_MS));
}

static void end_mount(struct mount *m)
{
	struct icm_mountinfo info = { 0 };

	if (m->front->events)
		icm_events_stop(m->front->events);
	/* in another process: a thread must not wait for its own mount */
	if (!icm_mountinfo_at(m->path, &info) && info.dev == m->dev) {
		const char *const umount[] = { "umount", "-i", "-l", "--", m->path, NULL };
		const char *const fusermount[] = { "fusermount3", "-u",	   "-q", "-z",
						   "--",	  m->path, NULL };

		icm_run_program(geteuid() == 0 ? umount : fusermount);
	}
	icm_mountinfo_clear(&info);
	if (!wait_loop(m, GRACE_NS))
		break_loop(m);
}

static void *signal_thread(void *arg)
{
	struct mount *m = arg;
	sigset_t set;

	pthread_setname_np(pthread_self(), "icmfs-signals");
	ended_set(&set);
	while (!atomic_load(&m->loop_ended)) {
		int sig;

		if (sigwait(&set, &sig) || atomic_load(&m->loop_ended))
			continue;
		if (sig != SIGUSR1)
			end_mount(m);
		else if (m->front->events)
			icm_events_pause(m->front->events);
	}
	return NULL;
}

static void on_break(int sig)
{
}

/* Before any thread: all of them leave these to the one that waits for them. */
static void block_signals(void)
{
	const struct sigaction breaks = { .sa_handler = on_break };
	sigset_t set;

	ended_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR2, &breaks, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- the daemon ---- */

static void loop(struct mount *m)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	/* all that were started stay: a thread for each request would cost ten times as much */
	fuse_loop_cfg_set_max_threads(config, WORKER_THREADS);
	fuse_loop_cfg_set_idle_threads(config, WORKER_THREADS);
	fuse_loop_cfg_set_clone_fd(config, 0);
	fuse_session_loop_mt(m->session, config);
	fuse_loop_cfg_destroy(config);
}

static void serve(struct mount *m)
{
	m->main_thread = pthread_self();
	if (icm_thread_start(&m->signal_thread, signal_thread, m)) {
		icm_log_err("no thread for signals");
		return;
	}
	loop(m);
	atomic_store(&m->loop_ended, true);
	pthread_kill(m->signal_thread, SIGUSR1);
	pthread_join(m->signal_thread, NULL);
}

static void limit_memory(void)
{
	/* freed memory goes back; buffers of requests don't cost a system call each */
	mallopt(M_ARENA_MAX, 4);
	mallopt(M_TRIM_THRESHOLD, 2 << 20);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	/* read by libfuse; address space only */
	setenv("FUSE_THREAD_STACK", "1048576", 0);
}

static int start(struct mount *m, char **ret_error)
{
	const struct icm_settings *s = m->settings;
	struct icm_events *events = NULL;
	int err;

	/* the helper first: before there are threads, and before the device is open */
	if (!s->no_events && !s->read_only && !icm_volume_is_read_only(m->vol) &&
	    icm_events_new(m->path, &events))
		icm_log_warning("no helper for inotify events: %s", strerror(errno));
	prctl(PR_SET_DUMPABLE, 0);
	block_signals();
	m->front = icm_front_new(m->vol);
	m->front->events = events;
	err = icm_front_start(m->front);
	if (err) {
		*ret_error = icm_asprintf("cannot start threads: %s", strerror(-err));
		return err;
	}
	err = icm_volume_start(m->vol, &icm_front_notify, m->front, ret_error);
	if (!err)
		m->front->root = icm_fs_root(m->vol); /* there is none before */
	return err;
}

static void stop(struct mount *m)
{
	icm_front_stop(m->front);
	if (m->session) {
		fuse_session_unmount(m->session);
		icm_mount_pid_remove(m->dev);
	}
}

/* From here on in the process that serves. */
static int run(struct mount *m, char **ret_error)
{
	int err;

	limit_memory();
	start_log(m);
	err = start(m, ret_error);
	if (!err)
		err = open_session(m, ret_error);
	if (!err) {
		go_live(m);
		/* unprivileged, the mount is ended by fusermount3, which is setuid */
		if (geteuid() == 0)
			prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		serve(m);
	}
	stop(m);
	icm_volume_stop(m->vol);
	if (m->session)
		fuse_session_destroy(m->session);
	m->vol = icm_volume_free(m->vol);
	m->front = icm_front_free(m->front);
	return err;
}

static void report(int fd, const char *line)
{
	if (fd >= 0 && line)
		(void)!write(fd, line, strlen(line));
}

static ICM_NORETURN void daemon_main(struct mount *m, int ready_fd)
{
	ICM_AUTOFREE char *error = NULL;
	int err;

	m->ready_fd = ready_fd;
	setsid();
	umask(0);
	if (chdir("/"))
		_exit(1);
	err = run(m, &error);
	report(m->ready_fd, error);
	exit(err ? 1 : 0);
}

/* One NUL byte: ready. Text: what went wrong. */
static int wait_ready(int fd, char **ret_error)
{
	struct icm_buf line = ICM_BUF_INIT(4096);
	char part[512];
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) > 0) {
		if (part[0] == '\0') {
			icm_buf_free(&line);
			return 0;
		}
		icm_buf_add(&line, part, (size_t)n);
	}
	if (line.len == 0)
		icm_buf_addstr(&line, "the process that was to serve the mount has ended");
	*ret_error = icm_buf_steal(&line, NULL);
	return -EIO;
}

static int daemonise(struct mount *m, char **ret_error)
{
	int fds[2], err;
	pid_t pid;

	m->log_fd = open_log(m->settings, ret_error);
	if (m->log_fd < 0)
		return m->log_fd;
	if (pipe2(fds, O_CLOEXEC)) {
		*ret_error = icm_asprintf("cannot make a pipe: %s", strerror(errno));
		return -errno;
	}
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		daemon_main(m, fds[1]);
	}
	err = -errno;
	close(fds[1]);
	if (pid < 0)
		*ret_error = icm_asprintf("cannot fork: %s", strerror(-err));
	else
		err = wait_ready(fds[0], ret_error);
	close(fds[0]);
	close(m->log_fd);
	return err;
}

static int foreground(struct mount *m, char **ret_error)
{
	umask(0);
	return run(m, ret_error);
}

/* The kernel changes the flags of a mount by itself. */
static int remount(const struct icm_settings *s)
{
	ICM_AUTOFREE char *options =
		icm_asprintf("remount,%s%s%s", s->read_only ? "ro" : "rw", s->kernel.len ? "," : "",
			     s->kernel.len ? s->kernel.data : "");
	const char *const argv[] = { "mount", "-i", "-o", options, "--", s->mountpoint, NULL };

	return icm_run_program(argv) ? 1 : 0;
}

int icm_mount_run(const struct icm_settings *s)
{
	struct mount m = { .settings = s, .ready_fd = -1, .log_fd = -1 };
	ICM_AUTOFREE char *error = NULL;
	int err;

	if (s->remount)
		return remount(s);
	/* a daemon would keep a caller's pipe open, or hold the caller's lock, for its life */
	if (!s->foreground)
		close_range(3, ~0U, 0);
	err = check_mountpoint(s->mountpoint, &m.path, &error);
	if (!err)
		err = open_volume(&m, &error);
	if (!err)
		err = s->foreground ? foreground(&m, &error) : daemonise(&m, &error);
	if (err)
		icm_log_err("%s", error ? error : strerror(-err));
	icm_volume_free(m.vol); /* a daemon has its own copy */
	free(m.path);
	free(m.state_dir);
	return err ? 1 : 0;
}
