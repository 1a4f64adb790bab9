/* SPDX-License-Identifier: MIT
 * icmfs recover: what could not be committed, and stands on local disk. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "cli/restore.h"
#include "fs/settings.h"

#define NOT_KEPT "nothing is kept under the id '%s' (see icmfs recover)"

/* The items of one mount. */
struct place {
	char *dir;		      /* owned */
	struct icm_unsaved_list list; /* owned */
};

struct places {
	struct place *v; /* owned */
	size_t n;
	size_t items, bad;
};

static void places_clear(struct places *p)
{
	for (size_t i = 0; i < p->n; i++) {
		icm_unsaved_list_clear(&p->v[i].list);
		free(p->v[i].dir);
	}
	free(p->v);
}

/* Takes over `dir`. */
static int add_place(struct places *p, char *dir)
{
	struct icm_unsaved_list list;
	int r = icm_unsaved_read(dir, &list);

	if (r < 0) {
		icm_cli_error("%s: %s", dir, strerror(-r));
		free(dir);
		return r;
	}
	p->v = icm_xrealloc(p->v, (p->n + 1) * sizeof(*p->v));
	p->v[p->n++] = (struct place){ dir, list };
	p->items += list.n;
	p->bad += list.bad;
	return 0;
}

/* Every mount that has ever used the state directory has one below it. */
static int read_all(const char *state_dir, struct places *p)
{
	DIR *d = opendir(state_dir);
	struct dirent *e;
	int r = 0;

	if (!d && errno != ENOENT) {
		icm_cli_error("%s: %s", state_dir, strerror(errno));
		return -errno;
	}
	while (d && r == 0 && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = add_place(p, icm_asprintf("%s/%s/unsaved", state_dir, e->d_name));
	if (d)
		closedir(d);
	return r;
}

static int read_mounts_own(const char *dir, char **ret_root, struct places *p)
{
	json_auto_t *status = NULL;
	const char *kept;
	int r = icm_find_mount(dir, ret_root, &status);

	kept = r < 0 ? NULL
		     : json_string_value(
			       json_object_get(json_object_get(status, "kept"), "directory"));
	if (r < 0)
		icm_cli_error("%s: %s", dir,
			      r == -ENOENT ? "not in a mount of icmfs" : strerror(-r));
	return r < 0 ? r : kept ? add_place(p, icm_xstrdup(kept)) : 0;
}

static const struct icm_unsaved *find_item(const struct places *p, const char *id,
					   const char **ret_dir)
{
	for (size_t i = 0; i < p->n; i++)
		for (size_t j = 0; j < p->v[i].list.n; j++)
			if (!strcmp(p->v[i].list.v[j].id, id)) {
				*ret_dir = p->v[i].dir;
				return &p->v[i].list.v[j];
			}
	icm_cli_error(NOT_KEPT, id);
	return NULL;
}

/* ---- listing ---- */

static char *time_text(struct timespec t)
{
	char text[64];
	struct tm tm;

	localtime_r(&t.tv_sec, &tm);
	strftime(text, sizeof(text), "%F %T", &tm);
	return icm_xstrdup(text);
}

static void print_item(const struct icm_unsaved *u)
{
	ICM_AUTOFREE char *when = time_text(u->time);
	ICM_AUTOFREE char *size = icm_out_bytes(u->size);
	ICM_AUTOFREE char *path = icm_out_escape(u->path);
	ICM_AUTOFREE char *store = icm_out_escape(u->store);
	ICM_AUTOFREE char *mount = icm_out_escape(u->mountpoint);
	ICM_AUTOFREE char *reason = icm_out_escape(u->reason);

	printf("%s  %s  %s\n", u->id, when, path);
	printf("    %s, by %s, of %s on %s: %s\n", size, u->user, store, mount, reason);
}

static json_t *item_to_json(const struct icm_unsaved *u)
{
	ICM_AUTOFREE char *path = icm_out_utf8(u->path);
	ICM_AUTOFREE char *store = icm_out_utf8(u->store);
	ICM_AUTOFREE char *mount = icm_out_utf8(u->mountpoint);
	ICM_AUTOFREE char *reason = icm_out_utf8(u->reason);
	ICM_AUTOFREE char *user = icm_out_utf8(u->user);

	return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b}", "id", u->id, "time",
			 (json_int_t)u->time.tv_sec, "path", path, "store", store, "mountpoint",
			 mount, "reason", reason, "user", user, "size", (json_int_t)u->size, "new",
			 !u->has_base, "partial", u->n_gaps > 0);
}

static int print_list(const struct places *p, bool as_json)
{
	json_t *array = as_json ? json_array() : NULL;

	for (size_t i = 0; i < p->n; i++) {
		for (size_t j = 0; j < p->v[i].list.n; j++)
			if (as_json)
				json_array_append_new(array, item_to_json(&p->v[i].list.v[j]));
			else
				print_item(&p->v[i].list.v[j]);
		if (p->v[i].list.bad)
			icm_cli_error("%s: %zu not understood", p->v[i].dir, p->v[i].list.bad);
	}
	if (as_json)
		return icm_out_json(array);
	if (!p->items && !p->bad)
		printf("nothing is kept: everything is in its store\n");
	return icm_out_finish();
}

/* ---- one item ---- */

static int open_item(const char *dir, const struct icm_unsaved *u)
{
	int fd = icm_unsaved_open(dir, u);

	if (fd < 0)
		icm_cli_error("the bytes of '%s' can't be read: %s", u->path,
			      fd == -EPROTO ? "they aren't what the description says"
					    : strerror(-fd));
	return fd;
}

static int show(const char *dir, const struct icm_unsaved *u)
{
	ICM_AUTOCLOSE int fd = open_item(dir, u);
	char buf[65536];
	ssize_t n;

	if (fd < 0)
		return ICM_EXIT_FAILURE;
	if (u->n_gaps)
		icm_cli_error("parts of '%s' that were not changed are shown as zeroes", u->path);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
			break;
	if (n < 0) {
		icm_cli_error("'%s': %s", u->path, strerror(errno));
		return ICM_EXIT_FAILURE;
	}
	return icm_out_finish();
}

/* The root of a mount of the item's store: the one given, or where it was. */
static int find_root(const struct icm_unsaved *u, const char *given, char **ret_root)
{
	json_auto_t *status = NULL;
	const char *at = given ? given : u->mountpoint, *store;
	int r = icm_find_mount(at, ret_root, &status);

	store = r < 0 ? NULL : json_string_value(json_object_get(status, "store"));
	if (store && !strcmp(store, u->store))
		return 0;
	icm_cli_error("'%s' belongs to %s, which isn't mounted at '%s': mount it, and name the "
		      "mount",
		      u->path, u->store, at);
	return -ENOENT;
}

static int restore(const char *dir, const struct icm_unsaved *u, const char *root, const char *to)
{
	ICM_AUTOCLOSE int fd = open_item(dir, u);
	ICM_AUTOFREE char *where = NULL;
	ICM_AUTOFREE char *error = NULL;
	ICM_AUTOFREE char *found = NULL;
	ICM_AUTOFREE char *safe = NULL;
	int r;

	if (fd < 0 || (!to && find_root(u, root, &found) < 0))
		return ICM_EXIT_FAILURE;
	r = icm_restore(u, fd, found, to, &where, &error);
	if (r < 0) {
		icm_cli_error("%s", error);
		return ICM_EXIT_FAILURE;
	}
	r = icm_unsaved_drop(dir, u->id);
	if (r < 0)
		icm_cli_error("'%s' is restored, and stays in the list: %s", u->path, strerror(-r));
	safe = icm_out_escape(where);
	printf("restored to %s\n", safe);
	return r < 0 ? ICM_EXIT_FAILURE : ICM_EXIT_OK;
}

static int restore_all(const struct places *p, const char *root)
{
	int status = p->bad ? ICM_EXIT_FAILURE : ICM_EXIT_OK;

	for (size_t i = 0; i < p->n; i++)
		for (size_t j = 0; j < p->v[i].list.n; j++)
			if (restore(p->v[i].dir, &p->v[i].list.v[j], root, NULL) != ICM_EXIT_OK)
				status = ICM_EXIT_FAILURE;
	return status;
}

/* Broken items as well. */
static int drop(const struct places *p, const char *id)
{
	int r = -ENOENT;

	if (strlen(id) == ICM_ID_HEX && strspn(id, "0123456789abcdef") == ICM_ID_HEX)
		for (size_t i = 0; i < p->n && r == -ENOENT; i++)
			r = icm_unsaved_drop(p->v[i].dir, id);
	if (r == -ENOENT)
		icm_cli_error(NOT_KEPT, id);
	else if (r < 0)
		icm_cli_error("'%s': %s", id, strerror(-r));
	return r < 0 ? ICM_EXIT_FAILURE : ICM_EXIT_OK;
}

/* ---- the command ---- */

struct wish {
	const char *show, *restore, *drop, *to, *state_dir;
	bool all, json;
};

static int carry_out(const struct wish *w, const char *root, const struct places *p)
{
	const char *id = w->show ? w->show : w->restore, *dir = NULL;
	const struct icm_unsaved *u = id ? find_item(p, id, &dir) : NULL;

	if (id && !u)
		return ICM_EXIT_FAILURE;
	if (w->show)
		return show(dir, u);
	if (w->restore)
		return restore(dir, u, root, w->to);
	if (w->drop)
		return drop(p, w->drop);
	return w->all ? restore_all(p, root) : print_list(p, w->json);
}

static bool is_consistent(const struct wish *w)
{
	if (!!w->show + !!w->restore + !!w->drop + w->all > 1)
		icm_cli_error("--show, --restore, --drop and --all exclude each other (see icmfs "
			      "recover --help)");
	else if (w->to && !w->restore)
		icm_cli_error("--to goes with --restore (see icmfs recover --help)");
	else if (w->json && (w->show || w->restore || w->drop || w->all))
		icm_cli_error("--json goes with the list (see icmfs recover --help)");
	else
		return true;
	return false;
}

static int run(const struct wish *w, const char *dir)
{
	__attribute__((cleanup(places_clear))) struct places places = { 0 };
	ICM_AUTOFREE char *root = NULL;
	ICM_AUTOFREE char *state = NULL;
	struct icm_settings s;
	int r;

	if (dir) {
		r = read_mounts_own(dir, &root, &places);
	} else {
		icm_settings_init(&s);
		state = w->state_dir ? icm_xstrdup(w->state_dir) : icm_settings_state_dir(&s);
		icm_settings_clear(&s);
		r = read_all(state, &places);
	}
	return r < 0 ? ICM_EXIT_FAILURE : carry_out(w, root, &places);
}

int icm_cmd_recover(int argc, char **argv)
{
	struct wish w = { 0 };
	const struct icm_opt opts[] = {
		{ .name = "show",
		  .arg = "ID",
		  .help = "write the bytes to standard output",
		  .value = &w.show },
		{ .name = "restore",
		  .arg = "ID",
		  .help = "put them into the mounted tree",
		  .value = &w.restore },
		{ .name = "to",
		  .arg = "PATH",
		  .help = "with --restore: make this file instead",
		  .value = &w.to },
		{ .name = "all", .help = "restore everything", .flag = &w.all },
		{ .name = "drop", .arg = "ID", .help = "forget them", .value = &w.drop },
		{ .name = "json", .help = "print the list as JSON", .flag = &w.json },
		{ .name = "statedir",
		  .arg = "DIR",
		  .help = "where the mounts had -o statedir=DIR",
		  .value = &w.state_dir },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs recover",
		.operands = "[DIR]",
		.summary = "Lists what could not be committed and is kept on local disk: of the "
			   "mount that\nDIR is in, or of every mount of this user's on this host.",
		.details = "exit status: 0 done, 1 not (or some not understood), 2 wrong usage\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.max_args = 1,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	if (!is_consistent(&w))
		return ICM_EXIT_USAGE;
	return run(&w, r > 0 ? argv[1] : NULL);
}
