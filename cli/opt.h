/* SPDX-License-Identifier: MIT
 * Options as tables: parsing, usage lines and help come from one description.
 * Long names have two dashes, letters one; letters can be joined ("-nq"),
 * values stand behind '=' or as the next argument; options may stand behind
 * operands; "--" ends them. -h/--help and --version are understood everywhere. */
#ifndef ICM_CLI_OPT_H
#define ICM_CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>

#include "util/buf.h"

/* One option; exactly one of flag, value and list is set. */
struct icm_opt {
	const char *name;     /* without dashes; NULL = letter only */
	char letter;	      /* 0 = none */
	const char *arg;      /* what the value is called; NULL for a flag */
	const char *help;     /* one line; NULL = understood but not shown */
	bool *flag;	      /* set to true */
	const char **value;   /* set to the argument; the last one counts */
	struct icm_buf *list; /* arguments are appended, separated by commas */
};

struct icm_opt_usage {
	const char *command;  /* "icmfs mount" */
	const char *operands; /* "STORE DIR" */
	const char *summary;  /* one line */
	const char *details;  /* further lines behind the options, or NULL */
	void (*more)(void);   /* prints what stands behind the details, or NULL */
	const struct icm_opt *opts;
	size_t n_opts;
	int min_args;
	int max_args;
};

enum {
	ICM_OPT_DONE = -1,   /* help or version was printed */
	ICM_OPT_BAD = -2,    /* a line on stderr says what is wrong */
	ICM_OPT_BROKEN = -3, /* help could not be written */
};

/* Parses argv[1] …; the operands end up in argv[1] … argv[n], and n is
 * returned, or one of the above. */
int icm_opt_parse(const struct icm_opt_usage *usage, int argc, char **argv);
/* The exit status that belongs to a negative result. */
int icm_opt_status(int result);
/* "icmfs 0.1.0"; returns an exit status. */
int icm_opt_print_version(void);

#endif
