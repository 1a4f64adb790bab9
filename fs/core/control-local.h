/* SPDX-License-Identifier: MIT
 * Inside control*.c. */
#ifndef ICM_CORE_CONTROL_LOCAL_H
#define ICM_CORE_CONTROL_LOCAL_H

#include <jansson.h>
#include <pthread.h>

#include "core/control.h"
#include "core/data.h"
#include "core/introspect.h"
#include "core/record.h"
#include "core/snapshot-view.h"
#include "util/map.h"

enum icm_control_kind {
	ICM_CONTROL_ROOT,
	ICM_CONTROL_LOCK,
	ICM_CONTROL_STATUS,
	ICM_CONTROL_LOCKS,
	ICM_CONTROL_LOG,
	ICM_CONTROL_HISTORY, /* a directory in history/, itself included */
	ICM_CONTROL_SNAPSHOTS,
	ICM_CONTROL_VERSION, /* a file in history/ */
};

struct icm_control {
	struct icm_volume *vol;
	struct timespec since;
	pthread_mutex_t lock; /* protects the rest */
	struct icm_map nodes;
	struct icm_control_node *all;
	struct icm_snapshots *snapshots; /* owned; constant */
};

struct icm_control_node {
	struct icm_view view;
	struct icm_control *c;
	struct icm_control_node *prev, *next; /* in c->all */
	struct icm_map_node node;
	struct icm_control_node *root; /* referenced; NULL: this is it */
	enum icm_control_kind kind;    /* constant, as the rest */
	char *path;		       /* owned; history: of the directory or of the file */
	uint64_t index;		       /* version */
	struct stat st;		       /* history: owner and mode; version: everything */
};

struct icm_control_entry {
	char *name; /* owned */
	uint64_t ino;
	mode_t type;
};

struct icm_control_handle {
	struct icm_handle h;
	pthread_mutex_t lock; /* protects the rest */
	struct icm_buf text;  /* generated files: what there is so far */
	char **segments;      /* log: keys to read yet, oldest first; owned */
	size_t n_segments;
	uint64_t below;			   /* log: index of the last record shown */
	struct icm_data *data;		   /* version */
	struct icm_control_entry *entries; /* directory; owned; as of its start */
	size_t n_entries;
};

static inline struct icm_control_node *icm_control_node_of(struct icm_view *view)
{
	return ICM_CONTAINER(view, struct icm_control_node, view);
}

static inline struct icm_control_handle *icm_control_handle_of(struct icm_handle *h)
{
	return ICM_CONTAINER(h, struct icm_control_handle, h);
}

/* ---- control.c ---- */

/* The node of a kind, path and version with a reference for the caller, made
 * from these where there is none. */
struct icm_control_node *icm_control_node_get(struct icm_control_node *root,
					      enum icm_control_kind kind, const char *path,
					      uint64_t index, const struct stat *st);
uint64_t icm_control_ino(enum icm_control_kind kind, const char *path, uint64_t index);
void icm_control_add_entry(struct icm_control_handle *h, const char *name, uint64_t ino,
			   mode_t type);

/* ---- control-text.c ---- */

json_t *icm_control_json_time(struct timespec t);
/* A string that may not be UTF-8; NULL gives null. */
json_t *icm_control_json_path(const char *path);
char *icm_control_locks(struct icm_volume *vol);

/* ---- control-log.c ---- */

/* Begins with what is in the feed. */
int icm_control_log_open(struct icm_control_handle *h) ICM_MUST_CHECK;
/* Brings more, until h->text has `want` bytes or there is no more. */
int icm_control_log_more(struct icm_control_handle *h, size_t want) ICM_MUST_CHECK;

/* ---- control-history.c ---- */

int icm_control_history_lookup(struct icm_control_node *dir, const char *name,
			       struct icm_control_node **ret) ICM_MUST_CHECK;
/* Sorts the entries from number `from` on by name, and leaves one of each. */
void icm_control_sort_entries(struct icm_control_handle *h, size_t from);
int icm_control_history_list(struct icm_control_handle *h, const char *path) ICM_MUST_CHECK;
int icm_control_version_open(struct icm_control_handle *h) ICM_MUST_CHECK;
int icm_control_version_readlink(struct icm_control_node *n, char **ret_target) ICM_MUST_CHECK;

/* ---- control-snapshots.c ---- */

int icm_control_snapshots_list(struct icm_control_handle *h) ICM_MUST_CHECK;

#endif
