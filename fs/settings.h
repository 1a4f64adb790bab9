/* SPDX-License-Identifier: MIT
 * What a mount can be told: the table of its options (-o KEY[=VALUE]), from
 * which parsing, --help and the manual's check come. */
#ifndef ICM_SETTINGS_H
#define ICM_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "util/attrs.h"
#include "util/buf.h"

struct icm_settings {
	/* Not options. */
	char *store;	  /* owned; URL as given */
	char *mountpoint; /* owned; as given */
	bool foreground;  /* no daemon, log to stderr */

	bool read_only;
	bool cached;
	bool no_scratch;
	bool no_events;
	bool allow_other;
	bool remount;
	bool debug;
	bool offline;
	bool suid, dev;
	uint32_t timeout_ms;	/* 0 = the core's default */
	uint32_t ttl_ms;	/* the same */
	uint32_t unsaved_mib;	/* the same */
	uint32_t copy_mib;	/* the same; with `offline` */
	char *scratch_patterns; /* owned; file; NULL = built in */
	char *state_dir;	/* owned; NULL = default, see below */
	char *log_file;		/* owned; the same */
	char *fsname;		/* owned; source in /proc/mounts; NULL = the store's URL */
	uid_t uid;		/* of what has no owner yet; default: the mounter's */
	gid_t gid;
	struct icm_buf kernel; /* "noatime,noexec": options for the kernel */
};

void icm_settings_init(struct icm_settings *s);
/* Takes a list as behind -o; a later option overrides an earlier one. A comma
 * in a value is written "\,". -EINVAL with a fresh line in *ret_error: unknown
 * option, value missing, out of range, not allowed for this user. */
int icm_settings_parse(struct icm_settings *s, const char *options,
		       char **ret_error) ICM_MUST_CHECK;
void icm_settings_clear(struct icm_settings *s);

/* Where a mount keeps scratch files, working copies of large files, what could not be
 * committed (in DIR/unsaved for each mount) and its local copy (DIR/copy): fresh
 * absolute path. -o statedir=, else /var/lib/icmfs for root, else
 * $XDG_STATE_HOME/icmfs, which is ~/.local/state/icmfs. */
char *icm_settings_state_dir(const struct icm_settings *s);
/* Where a daemon writes its warnings and errors besides syslog: fresh absolute
 * path. -o log=, else /var/log/icmfs.log for root, else icmfs.log in the
 * user's default state directory. */
char *icm_settings_log_file(const struct icm_settings *s);

/* A line or more for each option. */
void icm_settings_help(FILE *out);
/* The n-th option's name as in the table ("timeout"), or NULL at the
 * end: for the check of the manual. */
const char *icm_settings_option(size_t n);

#endif
