/* SPDX-License-Identifier: MIT */
#include "settings.h"

#include <stddef.h>
#include <string.h>

enum kind {
	KIND_FLAG,    /* sets a bool */
	KIND_SECONDS, /* uint32_t milliseconds from seconds with a fraction or not */
	KIND_MIB,     /* uint32_t */
	KIND_TEXT,
	KIND_PATH,   /* made absolute: the daemon changes its directory */
	KIND_ID,     /* uid_t or gid_t */
	KIND_KERNEL, /* handed to the kernel */
	KIND_IGNORED,
};

struct option {
	const char *name;
	enum kind kind;
	const char *arg;   /* what stands behind '=' in the help; NULL: no value */
	const char *help;  /* NULL: not shown */
	size_t at;	   /* offset in struct icm_settings */
	uint32_t min, max; /* seconds, MiB */
	bool root;	   /* for root only */
};

#define AT(member) .at = offsetof(struct icm_settings, member)

static const struct option options[] = {
	{ "ro", KIND_FLAG, NULL, "read-only mount", AT(read_only) },
	{ "rw", KIND_FLAG, NULL, "read-write mount (default)", AT(read_only) },
	{ "cached", KIND_FLAG, NULL,
	  "don't ask the store at each open whether a file has changed; changes still come with "
	  "the store's notices",
	  AT(cached) },
	{ "timeout", KIND_SECONDS, "SECONDS",
	  "how long a call waits for a store that is away (default 30, 1 to 3600)", AT(timeout_ms),
	  1, 3600 },
	{ "ttl", KIND_SECONDS, "SECONDS",
	  "how long locks outlive a mount that has died (default 10, 1 to 3600)", AT(ttl_ms), 1,
	  3600 },
	{ "unsaved", KIND_MIB, "MIB",
	  "how much of what can't be committed is kept on local disk for icmfs recover "
	  "(default 1024, 1 to 1048576)",
	  AT(unsaved_mib), 1, 1048576 },
	{ "offline", KIND_FLAG, NULL,
	  "keep a copy of the tree on local disk, and show it, read-only, when the store doesn't "
	  "answer at the mount",
	  AT(offline) },
	{ "offline_copy", KIND_MIB, "MIB",
	  "how much contents that copy has, the smallest files first (default 64, 1 to 1048576)",
	  AT(copy_mib), 1, 1048576 },
	{ "scratch", KIND_PATH, "FILE",
	  "patterns of names that stay on local disk, in gitignore syntax, in place of the "
	  "built-in ones",
	  AT(scratch_patterns) },
	{ "noscratch", KIND_FLAG, NULL, "everything goes into the store", AT(no_scratch) },
	{ "noevents", KIND_FLAG, NULL, "no inotify events for changes made on other hosts",
	  AT(no_events) },
	{ "allow_other", KIND_FLAG, NULL,
	  "other users may use the mount, as modes allow (default: its user only)",
	  AT(allow_other) },
	{ "uid", KIND_ID, "NUMBER", "owner of files that have none in the store", AT(uid) },
	{ "gid", KIND_ID, "NUMBER", "group of files that have none in the store", AT(gid) },
	{ "statedir", KIND_PATH, "DIR",
	  "local directory for scratch files and working copies (default /var/lib/icmfs, for users "
	  "$XDG_STATE_HOME/icmfs)",
	  AT(state_dir) },
	{ "log", KIND_PATH, "FILE",
	  "where the daemon writes warnings and errors besides syslog (default /var/log/icmfs.log, "
	  "for users $XDG_STATE_HOME/icmfs/icmfs.log)",
	  AT(log_file) },
	{ "debug", KIND_FLAG, NULL, "log in detail", AT(debug) },
	{ "fsname", KIND_TEXT, "NAME", "source shown in /proc/mounts (default: the store)",
	  AT(fsname) },
	{ "suid", KIND_FLAG, NULL, "honour set-id bits (root only; default: nosuid)", AT(suid),
	  .root = true },
	{ "dev", KIND_FLAG, NULL, "honour device files (root only; default: nodev)", AT(dev),
	  .root = true },
	{ "nosuid", KIND_FLAG, NULL, NULL, AT(suid) },
	{ "nodev", KIND_FLAG, NULL, NULL, AT(dev) },
	{ "noexec", KIND_KERNEL, NULL, "no programs can be started from the mount" },
	{ "exec", KIND_KERNEL },
	{ "noatime", KIND_KERNEL, NULL, "don't keep times of access" },
	{ "atime", KIND_KERNEL },
	{ "sync", KIND_KERNEL },
	{ "async", KIND_KERNEL },
	{ "dirsync", KIND_KERNEL },
	{ "remount", KIND_FLAG, NULL,
	  "change the flags of an existing mount (ro, rw, noatime, ...)", AT(remount) },
	/* FUSE has no relative times of access; the rest is for mount(8), systemd and fstab. */
	{ "default_permissions", KIND_IGNORED, NULL, "always on" },
	{ "relatime", KIND_IGNORED },
	/* mount -o remount takes them from /proc/mounts; the kernel's own */
	{ "user_id", KIND_IGNORED },
	{ "group_id", KIND_IGNORED },
	{ "max_read", KIND_IGNORED },
	{ "blksize", KIND_IGNORED },
	{ "norelatime", KIND_IGNORED },
	{ "strictatime", KIND_IGNORED },
	{ "nostrictatime", KIND_IGNORED },
	{ "lazytime", KIND_IGNORED },
	{ "nolazytime", KIND_IGNORED },
	{ "diratime", KIND_IGNORED },
	{ "nodiratime", KIND_IGNORED },
	{ "defaults", KIND_IGNORED },
	{ "auto", KIND_IGNORED },
	{ "noauto", KIND_IGNORED },
	{ "nofail", KIND_IGNORED },
	{ "_netdev", KIND_IGNORED },
	{ "user", KIND_IGNORED },
	{ "nouser", KIND_IGNORED },
	{ "users", KIND_IGNORED },
	{ "owner", KIND_IGNORED },
	{ "group", KIND_IGNORED },
	{ "silent", KIND_IGNORED },
	{ "loud", KIND_IGNORED },
	{ "subtype", KIND_IGNORED },
	{ "comment", KIND_IGNORED },
};

void icm_settings_init(struct icm_settings *s)
{
	*s = (struct icm_settings){
		.uid = getuid(),
		.gid = getgid(),
		.kernel = ICM_BUF_INIT(4096),
	};
}

void icm_settings_clear(struct icm_settings *s)
{
	free(s->store);
	free(s->mountpoint);
	free(s->scratch_patterns);
	free(s->state_dir);
	free(s->log_file);
	free(s->fsname);
	icm_buf_free(&s->kernel);
	*s = (struct icm_settings){ 0 };
}

/* ---- parsing ---- */

static int fail(char **ret_error, char *line)
{
	*ret_error = line;
	return -EINVAL;
}

static int set_seconds(uint32_t *ms, const struct option *o, const char *value, char **ret_error)
{
	char *end;
	double seconds = strtod(value, &end);

	/* written so that NaN fails */
	if (end == value || *end || !(seconds >= o->min && seconds <= o->max))
		return fail(ret_error, icm_asprintf("option '%s' takes seconds from %u to %u, "
						    "not '%s'",
						    o->name, o->min, o->max, value));
	*ms = (uint32_t)(seconds * 1000);
	return 0;
}

static int set_mib(uint32_t *mib, const struct option *o, const char *value, char **ret_error)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n < o->min || n > o->max)
		return fail(ret_error, icm_asprintf("option '%s' takes MiB from %u to %u, not '%s'",
						    o->name, o->min, o->max, value));
	*mib = (uint32_t)n;
	return 0;
}

static int set_id(uint32_t *id, const struct option *o, const char *value, char **ret_error)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(value, &end, 10);
	/* the largest number means "no change" to chown(2) */
	if (*value < '0' || *value > '9' || *end || errno || n >= UINT32_MAX)
		return fail(ret_error,
			    icm_asprintf("option '%s' takes a number, not '%s'", o->name, value));
	*id = (uint32_t)n;
	return 0;
}

static int set_path(char **path, const struct option *o, const char *value, char **ret_error)
{
	ICM_AUTOFREE char *cwd = NULL;

	if (*value != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return fail(ret_error, icm_asprintf("option '%s': no current directory: %s",
							    o->name, strerror(errno)));
	}
	free(*path);
	*path = cwd ? icm_asprintf("%s/%s", cwd, value) : icm_xstrdup(value);
	return 0;
}

static int set_flag(bool *flag, const struct option *o)
{
	/* rw, nosuid, nodev turn off what their opposites turn on */
	*flag = strcmp(o->name, "rw") && strcmp(o->name, "nosuid") && strcmp(o->name, "nodev");
	return 0;
}

static int set_kernel(struct icm_settings *s, const struct option *o, char **ret_error)
{
	if ((s->kernel.len > 0 && icm_buf_addc(&s->kernel, ',')) ||
	    icm_buf_addstr(&s->kernel, o->name))
		return fail(ret_error, icm_xstrdup("too many options"));
	return 0;
}

static int set(struct icm_settings *s, const struct option *o, const char *value, char **ret_error)
{
	void *at = (char *)s + o->at;

	switch (o->kind) {
	case KIND_FLAG:
		return set_flag(at, o);
	case KIND_SECONDS:
		return set_seconds(at, o, value, ret_error);
	case KIND_MIB:
		return set_mib(at, o, value, ret_error);
	case KIND_ID:
		return set_id(at, o, value, ret_error);
	case KIND_PATH:
		return set_path(at, o, value, ret_error);
	case KIND_TEXT:
		free(*(char **)at);
		*(char **)at = icm_xstrdup(value);
		return 0;
	case KIND_KERNEL:
		return set_kernel(s, o, ret_error);
	case KIND_IGNORED:
		break;
	}
	return 0;
}

static const struct option *find(const char *name)
{
	for (size_t i = 0; i < ICM_COUNT(options); i++)
		if (!strcmp(options[i].name, name))
			return &options[i];
	return NULL;
}

static int parse_one(struct icm_settings *s, char *text, char **ret_error)
{
	char *value = strchr(text, '=');
	const struct option *o;

	if (!*text || !strncmp(text, "x-", 2) || !strncmp(text, "X-", 2))
		return 0;
	if (value)
		*value++ = '\0';
	o = find(text);
	if (!o)
		return fail(ret_error, icm_asprintf("unknown mount option '%s'", text));
	if (o->kind == KIND_IGNORED)
		return 0;
	if (o->arg && (!value || !*value))
		return fail(ret_error, icm_asprintf("option '%s' needs a value: %s=%s", o->name,
						    o->name, o->arg));
	if (!o->arg && value)
		return fail(ret_error, icm_asprintf("option '%s' takes no value", o->name));
	if (o->root && geteuid() != 0)
		return fail(ret_error, icm_asprintf("option '%s' is for root only", o->name));
	return set(s, o, value, ret_error);
}

/* Cuts one option off at the next comma that isn't escaped, and unescapes it. */
static char *next_option(char **rest)
{
	char *start = *rest, *out = start, *in = start;

	if (!start)
		return NULL;
	while (*in && *in != ',') {
		if (*in == '\\' && (in[1] == ',' || in[1] == '\\'))
			in++;
		*out++ = *in++;
	}
	*rest = *in ? in + 1 : NULL;
	*out = '\0';
	return start;
}

int icm_settings_parse(struct icm_settings *s, const char *text, char **ret_error)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(text);
	char *rest = copy, *one;
	int err;

	while ((one = next_option(&rest))) {
		err = parse_one(s, one, ret_error);
		if (err)
			return err;
	}
	return 0;
}

/* ---- places ---- */

static char *user_state_dir(void)
{
	const char *xdg = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");

	/* the specification: a relative path is to be ignored */
	if (xdg && *xdg == '/')
		return icm_asprintf("%s/icmfs", xdg);
	if (home && *home == '/')
		return icm_asprintf("%s/.local/state/icmfs", home);
	return icm_asprintf("/var/tmp/icmfs-%u", (unsigned)getuid());
}

char *icm_settings_state_dir(const struct icm_settings *s)
{
	if (s->state_dir)
		return icm_xstrdup(s->state_dir);
	return geteuid() == 0 ? icm_xstrdup("/var/lib/icmfs") : user_state_dir();
}

char *icm_settings_log_file(const struct icm_settings *s)
{
	ICM_AUTOFREE char *dir = NULL;

	if (s->log_file)
		return icm_xstrdup(s->log_file);
	if (geteuid() == 0)
		return icm_xstrdup("/var/log/icmfs.log");
	dir = user_state_dir();
	return icm_asprintf("%s/icmfs.log", dir);
}

/* ---- help ---- */

#define HELP_COLUMN 24
#define HELP_WIDTH  79

/* Words of `text` in lines from HELP_COLUMN to HELP_WIDTH; the first line has
 * `used` characters already. */
static void print_wrapped(FILE *out, const char *text, int used)
{
	int column = used;

	if (column >= HELP_COLUMN) {
		fputc('\n', out);
		column = 0;
	}
	column += fprintf(out, "%*s", HELP_COLUMN - column, "");
	while (*text) {
		int n = (int)strcspn(text, " ");

		if (column + n > HELP_WIDTH)
			column = fprintf(out, "\n%*s", HELP_COLUMN, "") - 1;
		column += fprintf(out, "%.*s ", n, text);
		text += n + strspn(text + n, " ");
	}
	fputc('\n', out);
}

void icm_settings_help(FILE *out)
{
	for (size_t i = 0; i < ICM_COUNT(options); i++) {
		const struct option *o = &options[i];
		int n;

		if (!o->help)
			continue;
		n = fprintf(out, "  %s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
		print_wrapped(out, o->help, n);
	}
}

const char *icm_settings_option(size_t n)
{
	return n < ICM_COUNT(options) ? options[n].name : NULL;
}
