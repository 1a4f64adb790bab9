/* SPDX-License-Identifier: MIT
 * Verification of a store: every key, record, chunk and hash, and that they
 * agree with each other. Reads through the driver only, changes nothing, and
 * may run beside mounts: what it finds while others write is looked at again. */
#ifndef ICM_CORE_CHECK_H
#define ICM_CORE_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "backends/backend.h"

enum icm_severity {
	ICM_SEVERITY_NOTE,    /* nothing is wrong: orphans, locks of dead mounts, foreign files */
	ICM_SEVERITY_WARNING, /* something that isn't shown or shouldn't be there */
	ICM_SEVERITY_ERROR,   /* contents, a name or an attribute is wrong or lost */
};

struct icm_problem {
	char *key;  /* owned; as in the store */
	char *what; /* owned; one line */
	enum icm_severity severity;
};

struct icm_check_report {
	uint64_t index; /* of the store that was looked at */
	uint64_t files; /* names that aren't directories */
	uint64_t dirs;
	uint64_t blobs;
	uint64_t bytes;		      /* of all values that were read */
	struct icm_problem *problems; /* owned; in order of keys */
	size_t n_problems;
	size_t n_bad; /* of them errors and warnings */
};

void icm_check_report_clear(struct icm_check_report *r);
/* "note", "warning", "error" */
const char *icm_severity_name(enum icm_severity severity);

/* Looks at all of a started store. 0 even when problems were found; -ENOENT:
 * no deployment there; -EPROTO: newer format, or the store itself can't be
 * read; else the driver's errors. *ret_error (on failure): a fresh line. */
int icm_check_store(struct icm_backend *be, struct icm_check_report *ret,
		    char **ret_error) ICM_MUST_CHECK;

#endif
