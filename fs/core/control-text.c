/* SPDX-License-Identifier: MIT
 * status and locks. */
#include "core/control-local.h"

#include <inttypes.h>
#include <pwd.h>
#include <string.h>

#include "config.h"
#include "core/key.h"
#include "core/scratch.h"
#include "core/unsaved.h"
#include "util/buf.h"

#define LAST_BYTE (UINT64_MAX >> 1)

/* ---- JSON ---- */

json_t *icm_control_json_time(struct timespec t)
{
	char day[32], text[64];
	struct tm tm;

	if (!gmtime_r(&t.tv_sec, &tm) || !strftime(day, sizeof(day), "%FT%T", &tm))
		return json_null();
	snprintf(text, sizeof(text), "%s.%06ldZ", day, t.tv_nsec / 1000);
	return json_string(text);
}

json_t *icm_control_json_path(const char *path)
{
	ICM_AUTOFREE char *encoded = NULL;
	json_t *value;

	if (!path)
		return json_null();
	value = json_string(path);
	if (value)
		return value;
	encoded = icm_key_encoded(path);
	return json_string(encoded);
}

static void set(json_t *object, const char *name, json_t *value)
{
	json_object_set_new(object, name, value);
}

static void set_number(json_t *object, const char *name, uint64_t n)
{
	set(object, name, json_integer((json_int_t)n));
}

/* Fresh text with a newline at the end; takes the value. */
static char *pretty(json_t *value)
{
	ICM_AUTOFREE char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);

	json_decref(value);
	return icm_asprintf("%s\n", text ? text : "null");
}

/* ---- locks ---- */

struct locks {
	json_t *array; /* NULL: only counted */
	size_t n;
	char host[256]; /* this one */
};

static void read_line(const char *path, char *buf, size_t size)
{
	ICM_AUTOFCLOSE FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (f && fgets(buf, (int)size, f))
		buf[strcspn(buf, "\n")] = '\0';
}

static json_t *command_of(pid_t pid)
{
	ICM_AUTOFREE char *path = icm_asprintf("/proc/%d/comm", (int)pid);
	char comm[64];

	read_line(path, comm, sizeof(comm));
	return icm_control_json_path(comm[0] ? comm : NULL);
}

static json_t *user_of(pid_t pid)
{
	ICM_AUTOFREE char *path = icm_asprintf("/proc/%d", (int)pid);
	ICM_AUTOFREE char *number = NULL;
	struct passwd pw, *found = NULL;
	char buf[4096];
	struct stat st;

	if (stat(path, &st) < 0)
		return json_null();
	if (getpwuid_r(st.st_uid, &pw, buf, sizeof(buf), &found) == 0 && found)
		return icm_control_json_path(pw.pw_name);
	number = icm_asprintf("%u", (unsigned)st.st_uid);
	return json_string(number);
}

static void add_lock(struct locks *l, const struct icm_volume_lock *lock, bool scratch)
{
	const struct icm_lock_info *info = &lock->info;
	bool known = !lock->host && info->pid > 0;
	json_t *o;

	l->n++;
	if (!l->array)
		return;
	o = json_object();
	set(o, "path", icm_control_json_path(lock->path));
	set_number(o, "inode", lock->ino);
	set(o, "kind", json_string(info->flock ? "flock" : "record"));
	set(o, "type", json_string(info->type == F_WRLCK ? "write" : "read"));
	set_number(o, "start", info->start);
	set(o, "end", info->end >= LAST_BYTE ? json_null() : json_integer((json_int_t)info->end));
	set(o, "waiting", json_boolean(info->waiting));
	set(o, "scratch", json_boolean(scratch));
	set(o, "host", icm_control_json_path(lock->host ? lock->host : l->host));
	set(o, "user",
	    lock->user ? icm_control_json_path(lock->user)
	    : known    ? user_of(info->pid)
		       : json_null());
	set(o, "pid", info->pid > 0 ? json_integer(info->pid) : json_null());
	set(o, "command",
	    lock->command && lock->command[0] ? icm_control_json_path(lock->command)
	    : known			      ? command_of(info->pid)
					      : json_null());
	set(o, "since", icm_control_json_time(info->since));
	json_array_append_new(l->array, o);
}

static void add_shared_lock(void *userdata, const struct icm_volume_lock *lock)
{
	add_lock(userdata, lock, false);
}

static void add_scratch_lock(void *userdata, const char *path, uint64_t ino,
			     const struct icm_lock_info *info)
{
	const struct icm_volume_lock lock = { .path = path, .ino = ino, .info = *info };

	add_lock(userdata, &lock, true);
}

static void walk_locks(struct icm_volume *vol, struct locks *l)
{
	struct icm_scratch *scratch = icm_volume_scratch(vol);

	icm_volume_list_locks(vol, l->array != NULL, add_shared_lock, l);
	if (scratch)
		icm_scratch_list_locks(scratch, add_scratch_lock, l);
}

char *icm_control_locks(struct icm_volume *vol)
{
	struct locks l = { .array = json_array() };

	if (gethostname(l.host, sizeof(l.host) - 1) < 0)
		l.host[0] = '\0';
	walk_locks(vol, &l);
	return pretty(l.array);
}

/* ---- status ---- */

void icm_volume_status_clear(struct icm_volume_status *s)
{
	for (size_t i = 0; i < s->n_errors; i++) {
		free(s->errors[i].path);
		free(s->errors[i].text);
	}
	free(s->errors);
	free(s->lease_key);
	*s = (struct icm_volume_status){ 0 };
}

static json_t *lease_object(const struct icm_volume_status *s)
{
	json_t *o;

	if (!s->lease_key)
		return json_null();
	o = json_object();
	set(o, "key", json_string(s->lease_key));
	set(o, "age_ms", json_integer(s->lease_age_ms));
	set_number(o, "ttl_ms", s->lease_ttl_ms);
	return o;
}

static json_t *unsaved_object(const struct icm_volume_status *s)
{
	json_t *o = json_object();

	set_number(o, "files", s->unsaved_files);
	set_number(o, "bytes", s->unsaved_bytes);
	return o;
}

/* What could not be committed and waits for icmfs recover. */
static json_t *kept_object(const struct icm_volume_status *s)
{
	ICM_CLEANUP(icm_unsaved_list_clear) struct icm_unsaved_list list = { 0 };
	json_t *o = json_object();

	if (s->unsaved_dir && icm_unsaved_read(s->unsaved_dir, &list) < 0)
		list.bad = 1;
	set_number(o, "files", list.n + list.bad);
	set_number(o, "bytes", list.bytes);
	set(o, "directory", icm_control_json_path(s->unsaved_dir));
	return o;
}

static json_t *offline_object(const struct icm_volume_status *s)
{
	json_t *o;

	if (!s->offline)
		return json_null();
	o = json_object();
	set(o, "time", icm_control_json_time(s->copy_time));
	set_number(o, "left_out", s->copy_left_out);
	return o;
}

static json_t *errors_array(const struct icm_volume_status *s)
{
	json_t *array = json_array();

	for (size_t i = 0; i < s->n_errors; i++) {
		json_t *o = json_object();

		set(o, "time", icm_control_json_time(s->errors[i].time));
		set(o, "path", icm_control_json_path(s->errors[i].path));
		set(o, "text", icm_control_json_path(s->errors[i].text));
		json_array_append_new(array, o);
	}
	return array;
}

char *icm_control_status(struct icm_volume *vol)
{
	struct icm_volume_status s;
	struct locks locks = { 0 };
	json_t *o = json_object();

	icm_volume_get_status(vol, &s);
	walk_locks(vol, &locks);
	set(o, "version", json_string(ICMFS_VERSION));
	set(o, "store", icm_control_json_path(s.url));
	set(o, "mountpoint", icm_control_json_path(s.mountpoint));
	set_number(o, "pid", (uint64_t)getpid());
	set(o, "reachable", json_boolean(s.reachable));
	set(o, "stale", json_boolean(s.stale));
	set(o, "read_only", json_boolean(s.read_only));
	set(o, "offline", offline_object(&s));
	set_number(o, "index", s.index);
	set_number(o, "files", s.files);
	set(o, "unsaved", unsaved_object(&s));
	set(o, "kept", kept_object(&s));
	set_number(o, "locks", locks.n);
	set(o, "lease", lease_object(&s));
	set(o, "errors", errors_array(&s));
	icm_volume_status_clear(&s);
	return pretty(o);
}
