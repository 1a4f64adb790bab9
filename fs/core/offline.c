/* SPDX-License-Identifier: MIT */
#include "core/offline.h"

#include <inttypes.h>
#include <string.h>

#include "util/log.h"

static void say_more(char **ret_error, const char *more)
{
	ICM_AUTOFREE char *before = *ret_error;

	*ret_error = icm_asprintf("%s; %s", before ? before : "the store does not answer", more);
}

static void announce(const struct icm_volume *vol, const char *why)
{
	char time[64] = "";
	struct tm tm;

	if (gmtime_r(&vol->copy_head.time.tv_sec, &tm))
		strftime(time, sizeof(time), "%F %T UTC", &tm);
	icm_log_warning("store '%s' does not answer (%s): showing the local copy as of %s (index "
			"%" PRIu64 "), read-only",
			vol->url, why ? why : "no answer", time, vol->copy_head.index);
	if (vol->copy_head.left_out)
		icm_log_warning("the local copy is without the contents of %" PRIu64 " files",
				vol->copy_head.left_out);
}

/* *ret_error says why it is needed, and is freed. */
static int show_copy(struct icm_volume *vol, int error, char **ret_error)
{
	ICM_AUTOFREE char *wrong = NULL;
	struct icm_backend *be = NULL;
	int r = icm_copy_open(vol->copy, &be, &vol->copy_head, &wrong);

	if (r == -ENOENT) {
		say_more(ret_error, "there is no local copy of it yet");
		return error;
	}
	if (r < 0) {
		say_more(ret_error, wrong ? wrong : strerror(-r));
		return error;
	}
	vol->be = be;
	vol->offline = true;
	vol->read_only = true;
	announce(vol, *ret_error);
	free(ICM_STEAL(ret_error));
	return 0;
}

/* Something is there that an empty store would replace. */
static bool has_copy(struct icm_volume *vol)
{
	ICM_CLEANUP(icm_copy_head_clear) struct icm_copy_head head = { 0 };
	ICM_AUTOFREE char *wrong = NULL;

	return vol->copy && icm_copy_look(vol->copy, &head, &wrong) != -ENOENT;
}

int icm_offline_open(struct icm_volume *vol, const struct icm_volume_config *config,
		     char **ret_error)
{
	/* where something was before, a store that has nothing is no new one */
	const struct icm_open_options options = { .read_only = config->read_only,
						  .create = config->create && !has_copy(vol) };
	ICM_AUTOFREE char *why = NULL;
	int r = icm_backend_open(config->url, &options, &vol->be, &why);

	vol->create = options.create;
	/* a file on a disk that isn't there */
	if (vol->copy && (icm_error_is_away(r) || r == -ENOENT || r == -EIO))
		r = show_copy(vol, r, &why);
	if (ret_error)
		*ret_error = ICM_STEAL(&why);
	return r;
}

int icm_offline_fall_back(struct icm_volume *vol, int error, char **ret_error)
{
	ICM_AUTOFREE char *why = ret_error ? ICM_STEAL(ret_error) : NULL;
	struct icm_backend *be = vol->be;
	int r;

	if (!vol->copy || vol->offline || !icm_error_is_away(error)) {
		r = error;
	} else {
		r = show_copy(vol, error, &why);
		if (r == 0) {
			icm_backend_close(be);
			icm_tree_free(&vol->tree);
			icm_tree_init(&vol->tree);
			vol->position = 0;
			vol->resyncs_done = vol->resyncs_asked;
		}
	}
	if (ret_error)
		*ret_error = ICM_STEAL(&why);
	return r;
}
