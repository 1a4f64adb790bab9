/* SPDX-License-Identifier: MIT
 * The tree at one position of the feed. */
#include "core/copy-local.h"
#include "util/clock.h"

void icm_copy_state_clear(struct icm_copy_state *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->v[i].path);
		icm_attr_clear(&s->v[i].attr);
	}
	free(s->v);
	*s = (struct icm_copy_state){ 0 };
}

static void add(struct icm_copy_state *s, const char *path, const struct icm_inode *inode)
{
	struct icm_copy_name *name;

	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 256;
		s->v = icm_xrealloc(s->v, s->cap * sizeof(*s->v));
	}
	name = &s->v[s->n++];
	name->path = icm_xstrdup(path);
	icm_attr_copy(&name->attr, &inode->attr);
}

/* The newest index that a name's facts are of. */
static uint64_t newest(const struct icm_name *name)
{
	uint64_t index = name->attr_index;

	return index > name->inode->index ? index : name->inode->index;
}

/* A directory and what is below it. False: something is newer than the position.
 * volume->lock held. */
static bool take(const struct icm_name *name, const char *path, struct icm_copy_state *s)
{
	if (newest(name) > s->index)
		return false;
	add(s, path, name->inode);
	for (const struct icm_name *n = name->inode->first; n; n = n->next) {
		ICM_AUTOFREE char *below = NULL;

		if (!n->inode->published)
			continue; /* this mount's alone */
		below = *path ? icm_asprintf("%s/%s", path, n->text) : icm_xstrdup(n->text);
		if (!take(n, below, s))
			return false;
	}
	return true;
}

/* A removal that is newer than the position; volume->lock held. */
static bool has_new_grave(const struct icm_volume *vol)
{
	for (size_t i = 0; i < ICM_GRAVES; i++)
		if (vol->graves[i].path && vol->graves[i].index > vol->position)
			return true;
	return false;
}

int icm_copy_state_take(struct icm_volume *vol, struct icm_copy_state *ret)
{
	struct icm_copy_state s = { .time = icm_wall_time() };
	bool whole;

	pthread_mutex_lock(&vol->lock);
	s.index = vol->position;
	whole = s.index && !icm_volume_wants_resync(vol) && !has_new_grave(vol) &&
		take(vol->tree.root->names, "", &s);
	if (whole) {
		pthread_mutex_lock(&vol->copy->lock);
		vol->copy->taken = s.index;
		vol->copy->torn = false;
		pthread_mutex_unlock(&vol->copy->lock);
	}
	pthread_mutex_unlock(&vol->lock);
	if (!whole) {
		icm_copy_state_clear(&s);
		return -EAGAIN;
	}
	*ret = s;
	return 0;
}
