/* SPDX-License-Identifier: MIT
 * The control directory of a volume over the memory store. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/control.h"
#include "core/introspect.h"
#include "core/record.h"
#include "core/volume.h"
#include "util/buf.h"
#include "util/cleanup.h"

static struct icm_volume *vol;
static struct icm_view *root, *control;
static const struct icm_call call = { .pid = 1 };

static void setup(void)
{
	const struct icm_volume_config config = { .url = "memory:control",
						  .create = true,
						  .mountpoint = "/mnt/x" };
	char *error = NULL;

	cr_assert_eq(icm_volume_open(&config, &vol, &error), 0, "%s", error);
	cr_assert_eq(icm_volume_start(vol, NULL, NULL, &error), 0, "%s", error);
	root = icm_fs_root(vol);
	control = icm_control_root(vol);
}

static void teardown(void)
{
	icm_control_close(control);
	icm_volume_stop(vol);
	icm_volume_free(vol);
}

TestSuite(control, .init = setup, .fini = teardown);

static struct icm_view *find(struct icm_view *dir, const char *name)
{
	struct icm_view *view;
	struct stat st;

	if (icm_fs_lookup(dir, &call, name, &view, &st) < 0)
		return NULL;
	cr_assert_eq(st.st_ino, icm_view_ino(view));
	return view;
}

static char *read_view(struct icm_view *view)
{
	struct icm_buf text = ICM_BUF_INIT(0);
	struct icm_open_result open;
	char part[100];
	ssize_t n;

	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &open), 0);
	while ((n = icm_fs_read(open.handle, &call, part, sizeof(part), (off_t)text.len)) > 0)
		icm_buf_add(&text, part, (size_t)n);
	cr_assert_eq(n, 0);
	icm_fs_release(open.handle);
	return icm_buf_steal(&text, NULL);
}

static char *read_control(const char *name)
{
	struct icm_view *view = find(control, name);
	char *text = read_view(view);

	icm_fs_forget(view, 1);
	return text;
}

/* Replaces the contents of a file, as `echo text > name` does. */
static void write_text(struct icm_view *dir, const char *name, const char *text)
{
	struct icm_view *view = find(dir, name);
	struct icm_open_result open;
	struct stat st;

	if (view)
		cr_assert_eq(icm_fs_open(view, &call, O_WRONLY | O_TRUNC, &open), 0);
	else
		cr_assert_eq(icm_fs_create(dir, &call, name, 0644, O_WRONLY, &view, &st, &open), 0);
	cr_assert_eq(icm_fs_write(open.handle, &call, text, strlen(text), 0, false),
		     (ssize_t)strlen(text));
	cr_assert_eq(icm_fs_flush(open.handle, &call, 1), 0);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
}

static int add_name(void *userdata, const struct icm_dirent *e)
{
	struct icm_buf *b = userdata;

	icm_buf_addf(b, "%s%s ", e->name, S_ISDIR(e->type) ? "/" : "");
	return 0;
}

static char *list(struct icm_view *dir)
{
	struct icm_buf b = ICM_BUF_INIT(0);
	struct icm_handle *h;

	cr_assert_eq(icm_fs_opendir(dir, &call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &call, 0, add_name, &b), 0);
	icm_fs_releasedir(h);
	return icm_buf_steal(&b, NULL);
}

Test(control, its_names)
{
	ICM_AUTOFREE char *names = list(control);
	struct stat st;

	cr_assert_str_eq(names, "./ ../ lock status locks log history/ snapshots/ ");
	cr_assert_null(find(control, "nothing"));
	cr_assert_eq(icm_view_ino(control), ICM_INO_CONTROL);
	cr_assert_eq(icm_fs_getattr(control, &call, NULL, &st), 0);
	cr_assert(S_ISDIR(st.st_mode));
	cr_assert_eq(icm_fs_mkdir(control, &call, "x", 0755, &(struct icm_view *){ NULL }, &st),
		     -EPERM);
	cr_assert_eq(icm_fs_unlink(control, &call, "status"), -EPERM);
}

Test(control, status_is_json_with_stable_names)
{
	static const char *const names[] = { "version",	  "store", "mountpoint", "pid",
					     "reachable", "stale", "read_only",	 "offline",
					     "index",	  "files", "unsaved",	 "kept",
					     "locks",	  "lease", "errors" };
	ICM_AUTOFREE char *text = read_control("status");
	json_auto_t *status = json_loads(text, 0, NULL);

	cr_assert(json_is_object(status), "%s", text);
	cr_assert_eq(json_object_size(status), ICM_COUNT(names));
	for (size_t i = 0; i < ICM_COUNT(names); i++)
		cr_expect(json_object_get(status, names[i]), "%s", names[i]);
	cr_assert_str_eq(json_string_value(json_object_get(status, "mountpoint")), "/mnt/x");
	cr_assert_eq(json_integer_value(json_object_get(status, "pid")), getpid());
	cr_assert(json_object_get(json_object_get(status, "lease"), "key"));
	cr_assert_eq(text[strlen(text) - 1], '\n');
}

Test(control, generated_files_are_read_only_and_not_cached)
{
	struct icm_view *view = find(control, "status");
	struct icm_open_result open;
	struct stat st = { 0 };

	cr_assert_eq(icm_fs_open(view, &call, O_WRONLY, &open), -EPERM);
	cr_assert_eq(icm_fs_setattr(view, &call, NULL, ICM_SET_SIZE, &st, &st), -EPERM);
	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &open), 0);
	cr_assert(open.direct && !open.keep_cache);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
}

Test(control, lock_is_an_empty_file_that_nobody_writes)
{
	struct icm_lock_request req = { .flock = true, .type = F_WRLCK, .pid = getpid() };
	struct icm_view *view = find(control, "lock");
	struct icm_open_result a, b;
	ICM_AUTOFREE char *text = NULL;
	json_auto_t *locks = NULL;
	json_t *lock;
	struct stat st = { 0 }, got;

	cr_assert_eq(icm_view_ino(view), ICM_INO_LOCK_FILE);
	cr_assert_eq(icm_fs_open(view, &call, O_RDWR | O_TRUNC, &a), 0);
	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &b), 0);
	cr_assert_eq(icm_fs_write(a.handle, &call, "x", 1, 0, false), -EPERM);
	cr_assert_eq(icm_fs_read(a.handle, &call, &st, 1, 0), 0);
	cr_assert_eq(icm_fs_setattr(view, &call, NULL, ICM_SET_SIZE | ICM_SET_MTIME, &st, &got), 0);
	cr_assert_eq(got.st_size, 0);
	st.st_size = 1;
	cr_assert_eq(icm_fs_setattr(view, &call, NULL, ICM_SET_SIZE, &st, &got), -EPERM);
	cr_assert(icm_fs_flush_waits(a.handle));
	cr_assert_eq(icm_fs_lock(a.handle, &call, &req, NULL, NULL, NULL), 0);
	cr_assert_eq(icm_fs_lock(b.handle, &call, &req, NULL, NULL, NULL), -EAGAIN);
	text = read_control("locks");
	locks = json_loads(text, 0, NULL);
	cr_assert_eq(json_array_size(locks), 1, "%s", text);
	lock = json_array_get(locks, 0);
	cr_assert_str_eq(json_string_value(json_object_get(lock, "path")), ".icmfs/lock");
	cr_assert_str_eq(json_string_value(json_object_get(lock, "kind")), "flock");
	cr_assert_str_eq(json_string_value(json_object_get(lock, "type")), "write");
	cr_assert(json_is_null(json_object_get(lock, "end")));
	cr_assert_eq(json_integer_value(json_object_get(lock, "pid")), getpid());
	icm_fs_release(a.handle);
	cr_assert_eq(icm_fs_lock(b.handle, &call, &req, NULL, NULL, NULL), 0);
	icm_fs_release(b.handle);
	icm_fs_forget(view, 1);
}

Test(control, log_tells_the_newest_change_first)
{
	ICM_AUTOFREE char *text = NULL;
	uint64_t last = UINT64_MAX;
	size_t n_lines = 0;
	char *save;

	for (int i = 0; i < 300; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("f%d\xff", i);

		write_text(root, name, "text\n");
	}
	text = read_control("log");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_auto_t *o = json_loads(line, 0, NULL);
		uint64_t index = (uint64_t)json_integer_value(json_object_get(o, "index"));
		const char *path = json_string_value(
			json_object_get(json_array_get(json_object_get(o, "changes"), 0), "path"));

		cr_assert(json_is_object(o), "%s", line);
		cr_assert_lt(index, last);
		last = index;
		if (n_lines++ == 0)
			cr_assert_str_eq(path, "f299%FF");
	}
	cr_assert_geq(n_lines, 300);
}

Test(control, history_shows_earlier_versions)
{
	struct icm_view *history = find(control, "history"), *dir, *file, *version, *sub;
	ICM_AUTOFREE char *names = NULL;
	ICM_AUTOFREE char *versions = NULL;
	ICM_AUTOFREE char *inside = NULL;
	ICM_AUTOFREE char *text = NULL;
	struct icm_open_result open;
	struct stat st, of_dir;
	char *end;

	cr_assert_eq(icm_fs_mkdir(root, &call, "d", 0700, &dir, &st), 0);
	write_text(dir, "a", "one\n");
	write_text(dir, "a", "two, longer\n");
	write_text(dir, "a", "three\n");
	write_text(dir, "never changed", "x");
	names = list(history);
	cr_assert_str_eq(names, "./ ../ d/ ");
	cr_assert_null(find(history, "never"));
	sub = find(history, "d");
	cr_assert_eq(icm_fs_getattr(sub, &call, NULL, &of_dir), 0);
	cr_assert_eq(of_dir.st_mode, S_IFDIR | 0500);
	inside = list(sub);
	cr_assert_str_eq(inside, "./ ../ a/ ");
	file = find(sub, "a");
	versions = list(file);
	cr_assert_eq(strncmp(versions, "./ ../ ", 7), 0);
	end = strchr(versions + 7, ' ');
	cr_assert(end && end[1], "%s", versions);
	*end = '\0';
	version = find(file, versions + 7);
	cr_assert_not_null(version);
	text = read_view(version);
	cr_assert_str_eq(text, "one\n");
	cr_assert_eq(icm_fs_getattr(version, &call, NULL, &st), 0);
	cr_assert_eq(st.st_mode, S_IFREG | 0444);
	cr_assert_eq(st.st_size, 4);
	cr_assert_eq(icm_fs_open(version, &call, O_RDONLY, &open), 0);
	cr_assert(open.keep_cache && !open.direct);
	icm_fs_release(open.handle);
	cr_assert_null(find(file, "1234567"));
	cr_assert_null(find(file, "007"));
	for (size_t i = 0; i < 5; i++)
		icm_fs_forget((struct icm_view *[]){ version, file, sub, dir, history }[i], 1);
}
