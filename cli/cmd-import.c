/* SPDX-License-Identifier: MIT
 * icmfs import: a plain directory into a store, or into a mount. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "backends/url.h"
#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "core/ignore.h"
#include "core/import.h"
#include "core/scratch.h"
#include "core/volume.h"
#include "util/clock.h"

#define PROGRESS_EVERY_NS (100 * ICM_NS_PER_MS)

struct run {
	bool merge, replace, dry_run, quiet;
	const char *src, *dst;
	struct icm_scratch *scratch;
	int64_t shown_ns; /* when the progress line was last drawn; 0 = never */
	struct icm_import_result result;
};

/* ---- what is shown ---- */

static void clear_line(struct run *run)
{
	if (run->shown_ns)
		fputs("\r\033[K", stderr);
	run->shown_ns = 0;
}

static void show_progress(void *userdata, const struct icm_import_result *so_far)
{
	struct run *run = userdata;
	int64_t now = icm_now_ns();
	ICM_AUTOFREE char *files = NULL;
	ICM_AUTOFREE char *bytes = NULL;

	if (run->shown_ns && now - run->shown_ns < PROGRESS_EVERY_NS)
		return;
	files = icm_out_count(so_far->files + so_far->unchanged, "file", "files");
	bytes = icm_out_bytes(so_far->bytes);
	fprintf(stderr, "\r\033[K%s, %s", files, bytes);
	run->shown_ns = now;
}

static void show_problem(void *userdata, const char *path, const char *what)
{
	clear_line(userdata);
	icm_cli_error("%s: %s", *path ? path : ".", what);
}

static void show_action(void *userdata, const char *path, const char *what)
{
	ICM_AUTOFREE char *name = icm_out_escape(*path ? path : ".");

	printf("%s %s\n", what, name);
}

static void show_result(const struct run *run)
{
	const struct icm_import_result *r = &run->result;
	ICM_AUTOFREE char *files = icm_out_count(r->files, "file", "files");
	ICM_AUTOFREE char *dirs = icm_out_count(r->dirs, "directory", "directories");
	ICM_AUTOFREE char *others = icm_out_count(r->others, "other", "others");
	ICM_AUTOFREE char *bytes = icm_out_bytes(r->bytes);

	printf("%s%s, %s, %s; %s", run->dry_run ? "would import " : "imported ", files, dirs,
	       others, bytes);
	if (r->unchanged)
		printf("; %llu unchanged", (unsigned long long)r->unchanged);
	if (r->removed)
		printf("; %llu removed", (unsigned long long)r->removed);
	if (r->skipped)
		printf("; %llu scratch left out", (unsigned long long)r->skipped);
	if (r->failed)
		printf("; %llu failed", (unsigned long long)r->failed);
	putchar('\n');
}

/* ---- where it goes ---- */

/* Names a store; a directory never does, whatever it is called. */
static bool is_store(const char *dst)
{
	struct icm_url url = { 0 };
	struct stat st;
	int r;

	if (stat(dst, &st) == 0 && S_ISDIR(st.st_mode))
		return false;
	r = icm_url_parse(dst, &url, NULL);
	icm_url_clear(&url);
	return r >= 0;
}

/* `path` (or the nearest directory above it that exists) is `dir` or below it. */
static bool is_inside(const char *path, const char *dir)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(path);
	ICM_AUTOFREE char *whole = NULL;
	ICM_AUTOFREE char *root = realpath(dir, NULL);
	size_t len = root ? strlen(root) : 0;

	while (!(whole = realpath(copy, NULL)) && strchr(copy, '/'))
		*strrchr(copy, '/') = '\0';
	if (!whole || !root)
		return false;
	return !strcmp(root, "/") ||
	       (!strncmp(whole, root, len) && (whole[len] == '\0' || whole[len] == '/'));
}

/* A store that lies in the source would be copied into itself. */
static bool overlaps(const struct run *run, bool to_store)
{
	struct icm_url url = { 0 };
	bool inside;

	if (!to_store) {
		inside = is_inside(run->dst, run->src) || is_inside(run->src, run->dst);
		if (inside)
			icm_cli_error("%s and %s overlap", run->src, run->dst);
		return inside;
	}
	inside = icm_url_parse(run->dst, &url, NULL) >= 0 && url.path[0] == '/' &&
		 !strcmp(url.scheme, "sqlite") && is_inside(url.path, run->src);
	icm_url_clear(&url);
	if (inside)
		icm_cli_error("%s: the store must not lie in the directory that is imported",
			      run->dst);
	return inside;
}

/* ---- doing it ---- */

static int copy(struct run *run, struct icm_port *dst,
		bool (*skip)(void *userdata, const char *path, bool is_dir))
{
	struct icm_import_options options = {
		.mode = run->replace ? ICM_IMPORT_REPLACE
			: run->merge ? ICM_IMPORT_MERGE
				     : ICM_IMPORT_NEW,
		.dry_run = run->dry_run,
		.problem = show_problem,
		.action = run->dry_run && !run->quiet ? show_action : NULL,
		.progress = run->quiet || !isatty(STDERR_FILENO) ? NULL : show_progress,
		.skip = skip,
		.userdata = run,
	};
	struct icm_port *src;
	int r = icm_port_open_dir(run->src, &src);

	if (r < 0) {
		icm_cli_error("%s: %s", run->src, strerror(-r));
		return r;
	}
	r = icm_import(src, dst, &options, &run->result);
	icm_port_free(src);
	clear_line(run);
	if (r == -ENOTEMPTY)
		icm_cli_error("%s is not empty (use --merge or --replace)", run->dst);
	else if (r < 0 && !run->result.failed)
		icm_cli_error("%s: %s", run->src, strerror(-r));
	else if (!run->quiet)
		show_result(run);
	return r;
}

/* What a mount would keep on local disk doesn't go into the store: by the same
 * rules, those of the tree's own .icmfsignore included. */
static bool is_scratch(void *userdata, const char *path, bool is_dir)
{
	const struct run *run = userdata;

	return icm_scratch_match(run->scratch, path, is_dir);
}

static void read_ignore(struct run *run)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s/.icmfsignore", run->src);
	ICM_AUTOFREE char *text = icm_xmalloc(ICM_IGNORE_MAX_BYTES);
	ICM_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? 0 : read(fd, text, ICM_IGNORE_MAX_BYTES);

	if (n > 0)
		icm_scratch_set_ignore(run->scratch, text, (size_t)n);
}

/* The rules come with a directory, of which an import has no use. */
static int open_scratch(struct run *run)
{
	const char *tmp = getenv("TMPDIR");
	ICM_AUTOFREE char *dir = icm_asprintf("%s/icmfs-import.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	ICM_AUTOFREE char *error = NULL;
	int r;

	if (!mkdtemp(dir)) {
		r = -errno;
		icm_cli_error("%s: %s", dir, strerror(errno));
		return r;
	}
	r = icm_scratch_open(NULL, dir, NULL, &run->scratch, &error);
	if (r < 0)
		icm_cli_error("%s", error);
	else
		read_ignore(run);
	rmdir(dir);
	return r;
}

static int volume_failed(struct run *run, const char *error, int r)
{
	if (error)
		icm_cli_error("%s", error);
	else
		icm_cli_error("%s: %s", run->dst, strerror(-r));
	return r;
}

static int copy_to_volume(struct run *run, struct icm_volume *vol)
{
	ICM_AUTOFREE char *error = NULL;
	struct icm_port *dst;
	int r = icm_volume_start(vol, NULL, NULL, &error);

	if (r == -ENOENT && run->dry_run)
		return copy(run, NULL, is_scratch);
	if (r < 0)
		return volume_failed(run, error, r);
	dst = icm_port_of_volume(vol);
	r = copy(run, dst, is_scratch);
	icm_port_free(dst);
	icm_volume_stop(vol);
	return r;
}

static int import_to_volume(struct run *run)
{
	const struct icm_volume_config config = {
		.url = run->dst,
		.create = !run->dry_run,
		.read_only = run->dry_run,
		.uid = geteuid(),
		.gid = getegid(),
	};
	ICM_AUTOFREE char *error = NULL;
	struct icm_volume *vol;
	int r = icm_volume_open(&config, &vol, &error);

	if (r == -ENOENT && run->dry_run)
		return copy(run, NULL, is_scratch);
	if (r < 0)
		return volume_failed(run, error, r);
	r = copy_to_volume(run, vol);
	icm_volume_free(vol);
	return r;
}

static int import_to_store(struct run *run)
{
	int r = open_scratch(run);

	if (r < 0)
		return r;
	r = import_to_volume(run);
	icm_scratch_close(run->scratch);
	return r;
}

static int import_to_mount(struct run *run)
{
	ICM_AUTOFREE char *root = NULL;
	json_auto_t *status = NULL;
	struct icm_port *dst;
	int r = icm_find_mount(run->dst, &root, &status);

	if (r == -ENOENT) {
		icm_cli_error("%s is neither a store nor a directory in a mount of icmfs",
			      run->dst);
		return r;
	}
	if (r >= 0)
		r = icm_port_open_dir(run->dst, &dst);
	if (r < 0) {
		icm_cli_error("%s: %s", run->dst, strerror(-r));
		return r;
	}
	r = copy(run, dst, NULL);
	icm_port_free(dst);
	return r;
}

static int import(struct run *run)
{
	bool to_store = is_store(run->dst);
	struct stat st;
	int r = stat(run->src, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;

	if (r < 0) {
		icm_cli_error("%s: %s", run->src, strerror(-r));
		return r;
	}
	if (overlaps(run, to_store))
		return -EINVAL;
	return to_store ? import_to_store(run) : import_to_mount(run);
}

int icm_cmd_import(int argc, char **argv)
{
	struct run run = { 0 };
	const struct icm_opt opts[] = {
		{ .name = "merge",
		  .help = "replace files of the same name, keep the others",
		  .flag = &run.merge },
		{ .name = "replace", .help = "remove what DIR doesn't have", .flag = &run.replace },
		{ .name = "dry-run",
		  .letter = 'n',
		  .help = "say what would be done",
		  .flag = &run.dry_run },
		{ .name = "quiet",
		  .letter = 'q',
		  .help = "print failures only",
		  .flag = &run.quiet },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs import",
		.operands = "DIR STORE|PATH",
		.summary = "Copies the plain directory DIR into a store, or into a directory of a "
			   "mount.",
		.details =
			"exit status: 0 everything was copied and is equal, 1 not, 2 wrong usage\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 2,
		.max_args = 2,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	if (run.merge && run.replace) {
		icm_cli_error("--merge and --replace exclude each other (see icmfs import --help)");
		return ICM_EXIT_USAGE;
	}
	run.src = argv[1];
	run.dst = argv[2];
	r = import(&run);
	if (icm_out_finish() != 0)
		return ICM_EXIT_FAILURE;
	return r < 0 ? ICM_EXIT_FAILURE : ICM_EXIT_OK;
}
