/* SPDX-License-Identifier: MIT */
#include "cli/opt.h"

#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/out.h"
#include "config.h"

#define HELP_COLUMN 26

static void print_option(const char *name, char letter, const char *arg, const char *help)
{
	char left[128];
	int n = 0;

	if (letter)
		n = snprintf(left, sizeof(left), "  -%c%s", letter, name ? "," : "");
	else
		n = snprintf(left, sizeof(left), "     ");
	if (name)
		n += snprintf(left + n, sizeof(left) - (size_t)n, " --%s", name);
	if (arg)
		snprintf(left + n, sizeof(left) - (size_t)n, " %s", arg);
	printf("%-*s %s\n", HELP_COLUMN, left, help);
}

static int print_help(const struct icm_opt_usage *u)
{
	printf("usage: %s [OPTION...] %s\n\n%s\n\noptions:\n", u->command, u->operands, u->summary);
	for (size_t i = 0; i < u->n_opts; i++)
		if (u->opts[i].help)
			print_option(u->opts[i].name, u->opts[i].letter, u->opts[i].arg,
				     u->opts[i].help);
	print_option("help", 'h', NULL, "print this and exit");
	print_option("version", 0, NULL, "print the version and exit");
	if (u->details)
		printf("\n%s", u->details);
	if (u->more)
		u->more();
	return icm_out_finish() == 0 ? ICM_OPT_DONE : ICM_OPT_BROKEN;
}

int icm_opt_print_version(void)
{
	printf("icmfs %s\n", ICMFS_VERSION);
	return icm_out_finish();
}

static ICM_PRINTF(2, 3) int bad(const struct icm_opt_usage *u, const char *fmt, ...)
{
	ICM_AUTOFREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	icm_cli_error("%s (see %s --help)", text ? text : "bad arguments", u->command);
	return ICM_OPT_BAD;
}

static const struct icm_opt *find_name(const struct icm_opt_usage *u, const char *name, size_t len)
{
	for (size_t i = 0; i < u->n_opts; i++) {
		const char *n = u->opts[i].name;

		if (n && strlen(n) == len && !strncmp(n, name, len))
			return &u->opts[i];
	}
	return NULL;
}

static const struct icm_opt *find_letter(const struct icm_opt_usage *u, char letter)
{
	for (size_t i = 0; i < u->n_opts; i++)
		if (u->opts[i].letter == letter)
			return &u->opts[i];
	return NULL;
}

static void store(const struct icm_opt *opt, const char *value)
{
	if (opt->flag) {
		*opt->flag = true;
	} else if (opt->value) {
		*opt->value = value;
	} else {
		if (opt->list->len)
			icm_buf_addc(opt->list, ',');
		icm_buf_addstr(opt->list, value);
	}
}

/* One "--name" or "--name=value" at argv[*i]. */
static int parse_long(const struct icm_opt_usage *u, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2;
	const char *equals = strchr(name, '=');
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	const struct icm_opt *opt = find_name(u, name, len);

	if (len == 4 && !strncmp(name, "help", len) && !equals)
		return print_help(u);
	if (len == 7 && !strncmp(name, "version", len) && !equals)
		return icm_opt_print_version() == 0 ? ICM_OPT_DONE : ICM_OPT_BROKEN;
	if (!opt)
		return bad(u, "unknown option '--%.*s'", (int)len, name);
	if (!opt->arg)
		return equals ? bad(u, "option '--%s' takes no value", opt->name)
			      : (store(opt, NULL), 0);
	if (!equals && *i + 1 >= argc)
		return bad(u, "option '--%s' needs a value", opt->name);
	store(opt, equals ? equals + 1 : argv[++*i]);
	return 0;
}

/* Joined letters at argv[*i]. */
static int parse_letters(const struct icm_opt_usage *u, int argc, char **argv, int *i)
{
	for (const char *p = argv[*i] + 1; *p; p++) {
		const struct icm_opt *opt = find_letter(u, *p);

		if (!opt && *p == 'h')
			return print_help(u);
		if (!opt)
			return bad(u, "unknown option '-%c'", *p);
		if (!opt->arg) {
			store(opt, NULL);
			continue;
		}
		if (!p[1] && *i + 1 >= argc)
			return bad(u, "option '-%c' needs a value", *p);
		store(opt, p[1] ? p + 1 : argv[++*i]);
		return 0;
	}
	return 0;
}

int icm_opt_parse(const struct icm_opt_usage *u, int argc, char **argv)
{
	bool ended = false;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		int r;

		if (ended || argv[i][0] != '-' || !argv[i][1]) {
			argv[++n] = argv[i];
			continue;
		}
		if (!strcmp(argv[i], "--")) {
			ended = true;
			continue;
		}
		r = argv[i][1] == '-' ? parse_long(u, argc, argv, &i)
				      : parse_letters(u, argc, argv, &i);
		if (r < 0)
			return r;
	}
	if (n < u->min_args)
		return bad(u, "too few arguments, need: %s", u->operands);
	if (n > u->max_args)
		return bad(u, "one argument too many: '%s'", argv[u->max_args + 1]);
	return n;
}

int icm_opt_status(int result)
{
	switch (result) {
	case ICM_OPT_DONE:
		return ICM_EXIT_OK;
	case ICM_OPT_BROKEN:
		return ICM_EXIT_FAILURE;
	default:
		return ICM_EXIT_USAGE;
	}
}
