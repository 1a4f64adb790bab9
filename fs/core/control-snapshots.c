/* SPDX-License-Identifier: MIT
 * snapshots/: a directory made of the keys snap/<name>. */
#include "core/control-local.h"

#include <string.h>

#include "core/key.h"

int icm_control_snapshots_list(struct icm_control_handle *h)
{
	struct icm_volume *vol = h->h.view->vol;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	size_t from = h->n_entries;
	uint64_t index;
	int r = icm_backend_list(vol->be, &ctx, ICM_KEY_SNAPS, true, &list, &index);

	for (size_t i = 0; r == 0 && i < list.n; i++) {
		ICM_AUTOFREE char *name = NULL;

		/* another spelling, or a path: not a name that could be looked up */
		if (icm_key_decode(list.v[i].key + strlen(ICM_KEY_SNAPS), &name) < 0 ||
		    icm_name_check(name) < 0)
			continue;
		icm_control_add_entry(h, name, icm_snapshots_root_ino(), S_IFDIR);
	}
	icm_control_sort_entries(h, from);
	return r;
}
