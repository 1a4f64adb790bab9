/* SPDX-License-Identifier: MIT
 * Copies one tree into another and makes sure of it: modes, owners (as root),
 * times to the nanosecond, symbolic and hard links, fifos and other special
 * files, user.* attributes, holes. Each file is compared with its source after
 * it was published. What can't be copied is reported; the rest goes on. */
#ifndef ICM_CORE_IMPORT_H
#define ICM_CORE_IMPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/port.h"

enum icm_import_mode {
	ICM_IMPORT_NEW,	    /* refuse a destination that isn't empty */
	ICM_IMPORT_MERGE,   /* replace files of the same name, keep the others */
	ICM_IMPORT_REPLACE, /* afterwards the destination has what the source has */
};

struct icm_import_result {
	uint64_t files;	    /* regular files written or linked */
	uint64_t dirs;	    /* made */
	uint64_t others;    /* symbolic links and special files made */
	uint64_t unchanged; /* names that were there already, equal */
	uint64_t removed;
	uint64_t skipped; /* left out by `skip` */
	uint64_t failed;  /* reported by `problem` */
	uint64_t bytes;	  /* of contents written */
};

struct icm_import_options {
	enum icm_import_mode mode;
	bool dry_run; /* says what would be done, changes nothing */
	/* All may be NULL. Paths are relative to the root. */
	void (*problem)(void *userdata, const char *path, const char *what);
	void (*action)(void *userdata, const char *path, const char *what);
	void (*progress)(void *userdata, const struct icm_import_result *so_far);
	bool (*skip)(void *userdata, const char *path, bool is_dir);
	void *userdata;
};

/* 0 when everything was copied; -EIO when `problem` was called; -ENOTEMPTY
 * (ICM_IMPORT_NEW); else what made the source's or destination's root
 * unreadable. `dst` may be NULL in a dry run: then it is empty. */
int icm_import(struct icm_port *src, struct icm_port *dst, const struct icm_import_options *options,
	       struct icm_import_result *ret) ICM_MUST_CHECK;

#endif
