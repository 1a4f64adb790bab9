/* SPDX-License-Identifier: MIT */
#include "core/history.h"

#include <string.h>

#include "core/key.h"
#include "util/log.h"

int icm_history_load(struct icm_volume *vol, const char *path, uint64_t index, struct icm_hist *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_hist(path, index);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r;
	if (icm_hist_decode(e.value, e.len, ret) == 0)
		return 0;
	icm_log_err("'%s' is damaged: that version can't be read", key);
	return -EIO;
}

static int plain_contents(struct icm_volume *vol, const struct icm_hist *hist,
			  struct icm_data **ret)
{
	ICM_AUTOFREE void *bytes = NULL;
	size_t len;
	int r = icm_load_blob(vol, &hist->attr.hash, ICM_PLAIN_MAX, &bytes, &len);

	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	*ret = icm_data_from_bytes(vol->work_dir, bytes, len);
	return 0;
}

int icm_history_contents(struct icm_volume *vol, struct icm_hist *hist, struct icm_data **ret)
{
	if (hist->plain)
		return plain_contents(vol, hist, ret);
	if (hist->record.form != ICM_RECORD_CHUNKS)
		return 0; /* a fifo or a device: nothing to read */
	return icm_load_chunks(vol, &hist->record, ret);
}

static bool has_contents(const struct icm_hist *h, const struct icm_sha256 *hash, uint64_t size)
{
	return S_ISREG(h->attr.mode) && h->attr.has_hash && h->attr.size == size &&
	       memcmp(&h->attr.hash, hash, sizeof(*hash)) == 0 &&
	       (h->plain || h->record.form == ICM_RECORD_CHUNKS);
}

int icm_history_find(struct icm_volume *vol, const char *path, const struct icm_sha256 *hash,
		     uint64_t size, struct icm_data **ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *encoded = icm_key_encoded(path);
	ICM_AUTOFREE char *prefix = icm_asprintf("hist/%s%%v", encoded);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(vol->be, &ctx, prefix, false, &list, &index);

	if (r < 0)
		return r;
	r = -ESTALE;
	for (size_t i = 0; i < list.n && r == -ESTALE; i++) {
		ICM_CLEANUP(icm_hist_clear) struct icm_hist h = { 0 };

		if (icm_hist_decode(list.v[i].value, list.v[i].len, &h) == 0 &&
		    has_contents(&h, hash, size))
			r = icm_history_contents(vol, &h, ret);
	}
	return r;
}
