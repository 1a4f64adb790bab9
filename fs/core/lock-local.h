/* SPDX-License-Identifier: MIT
 * Between the files of the locks on shared files (lock-call.c, lock-turn.c,
 * lock-wait.c). The table of a file is the key lock/<ino>; a *turn* is one change
 * of it: look, decide, write on condition of its index, again if another mount was
 * faster. Turns of one file in one mount never overlap (volume->lock_calls). */
#ifndef ICM_CORE_LOCK_LOCAL_H
#define ICM_CORE_LOCK_LOCAL_H

#include "core/lock-value.h"
#include "core/shared.h"

/* A request that waits, or the place of one that was interrupted. */
struct icm_shared_wait {
	struct icm_shared_wait *next; /* of its file's, or of what is due to be told */
	struct icm_lock_entry entry;  /* its mount's number means nothing */
	struct icm_file *file;	      /* its view is referenced */
	struct icm_lock_state *state; /* NULL when it is in no file's list any more */
	enum {
		ICM_WAIT_FRESH,	 /* its call is still under way */
		ICM_WAIT_PARKED, /* the caller knows the token */
		ICM_WAIT_PLACE,	 /* interrupted; nobody waits */
	} how;
	int64_t until_ns; /* of a place */
	uint64_t token;
	uint64_t epoch; /* of the lease under which it waits */
	uint64_t head;	/* when granted: index of the change to be seen before */
	icm_lock_done_fn done;
	void *userdata;
	int result;
	bool converts; /* its owner had a lock in the range */
};

/* What a mount knows of the locks of one file. Changed with volume->lock held and,
 * but for icm_locks_lost, the inode's lock of volume->lock_calls. */
struct icm_lock_state {
	struct icm_volume *vol;
	struct icm_inode *inode; /* that it is part of */
	struct icm_lock_state *prev, *next;
	struct icm_lock_value value; /* this mount's entries exactly, others' as last seen */
	uint64_t index;		     /* of the key; 0 = absent */
	char *lease;		     /* owned; that of this mount's entries */
	size_t n_held;		     /* locks of this mount */
	bool foreign;		     /* others have entries */
	bool stale;		     /* to be read before anything is concluded */
	bool debt;	/* there may be entries of this mount in the store that it doesn't want */
	bool pinned;	/* the inode is referenced for the debt */
	int64_t due_ns; /* the worker is to look at it then; 0 = never */
	struct icm_shared_wait *waits; /* in order of arrival */
};

/* The threads (lock-wait.c), and all states. Under volume->lock, except the mutex. */
struct icm_shared_locks {
	struct icm_lock_state *states;
	struct icm_shared_wait *granted; /* to be told, in order */
	struct icm_shared_wait **last_granted;
	uint64_t last_token;
	pthread_cond_t work;  /* for the worker */
	pthread_cond_t watch; /* for the watcher */
	pthread_t worker, watcher;
	bool started;
	atomic_bool stopping;
	pthread_mutex_t deadlock; /* one search for a circle and its end at a time; store calls */
};

/* ---- lock-turn.c ---- */

/* What a change may answer besides the result for the caller. */
enum {
	ICM_LOCK_READ = 1, /* the table has to be read first */
	ICM_LOCK_ASK,	   /* … and which mounts are alive */
	ICM_LOCK_LOST,	   /* of a turn: the lease was lost meanwhile, and all locks with it */
};

struct icm_lock_turn {
	struct icm_volume *vol;
	struct icm_lock_state *st;
	char *lease; /* owned; under which it is done */
	uint64_t epoch;
	struct icm_lock_value known; /* as in the store at `index` */
	uint64_t index;
	char *text;		    /* owned; the value in the store; "" = absent */
	struct icm_lock_value work; /* what it is to become */
	int me;			    /* this mount in `work` */
	bool fresh;		    /* was read in this turn */
	bool asked;
	uint64_t head; /* index of `head` as seen with it */
	char **dead;   /* owned; leases in it that are over */
	size_t n_dead;
};

/* Changes turn->work; called with volume->lock held, perhaps several times, each
 * time on a new copy. Returns the result or one of the above. */
typedef int (*icm_lock_change_fn)(struct icm_lock_turn *turn, void *userdata);

/* One turn; the inode's lock of lock_calls is held. Returns what `change` said,
 * ICM_LOCK_LOST, or a negative errno of the store (then the state is as before).
 * *ret_epoch, *ret_head (may be NULL): under which lease, and up to which index
 * the feed has to be read. */
int icm_lock_turn(struct icm_lock_state *st, icm_lock_change_fn change, void *userdata,
		  uint64_t *ret_epoch, uint64_t *ret_head);
/* For a change: grants what can be granted in turn->work. */
void icm_lock_turn_serve(struct icm_lock_turn *turn);

/* Reads the table: -ENOLCK if it is damaged; nothing there is an empty value and
 * index 0. The text (may be NULL) is the caller's. */
int icm_lock_read(struct icm_volume *vol, uint64_t ino, struct icm_lock_value *ret, char **ret_text,
		  uint64_t *ret_index, uint64_t *ret_head) ICM_MUST_CHECK;
/* Leases of the value's mounts that are over, as an array of borrowed names. */
int icm_lock_find_dead(struct icm_volume *vol, const struct icm_lock_value *v, const char *own,
		       const char ***ret_dead, size_t *ret_n) ICM_MUST_CHECK;

pthread_mutex_t *icm_lock_calls(struct icm_volume *vol, const struct icm_inode *inode);
/* The state of an inode, made when missing. */
struct icm_lock_state *icm_lock_state_get(struct icm_volume *vol, struct icm_inode *inode);
/* This mount's number in st->value, or -1; volume->lock held. */
int icm_lock_state_me(const struct icm_lock_state *st);
/* st->n_held and st->foreign from st->value; volume->lock held. */
void icm_lock_state_count(struct icm_lock_state *st);
/* What the store wasn't told of stays to be told by the worker; volume->lock held. */
void icm_lock_state_owes(struct icm_lock_state *st);

/* ---- lock-wait.c ---- */

/* A wait in its file's list, not yet parked: a new one, or the place of an equal
 * request that was interrupted a moment ago. */
struct icm_shared_wait *icm_shared_wait_new(struct icm_lock_state *st, struct icm_file *f,
					    const struct icm_lock_entry *e, icm_lock_done_fn done,
					    void *userdata);
/* From now on its end is told by `done`; false if the lease was lost meanwhile. */
bool icm_shared_wait_park(struct icm_shared_wait *w, uint64_t *ret_token);
/* Takes it out of its list if it is in one, and frees it. volume->lock not held. */
void icm_shared_wait_drop(struct icm_shared_wait *w);
/* The waits through a handle fail with `error` (NULL: all of the file). */
void icm_shared_waits_fail(struct icm_lock_state *st, const uint64_t *handle, int error);
/* After a turn: who isn't in the queue any more has the lock. volume->lock held. */
void icm_shared_waits_granted(struct icm_lock_state *st, uint64_t head);
/* When the worker has to look at the state next; volume->lock held. */
void icm_shared_locks_plan(struct icm_lock_state *st);
/* Let the worker look now; volume->lock held. */
void icm_shared_locks_kick(struct icm_lock_state *st);
/* Whether w, fresh in the queue, would wait for itself. If so it leaves the queue:
 * -EDEADLK; 0 = it was granted meanwhile; -EINPROGRESS = it waits. */
int icm_shared_wait_deadlock(struct icm_shared_wait *w, uint64_t *ret_head);

/* ---- lock-call.c ---- */

/* Everything that earlier holders have committed is seen through the file. */
int icm_lock_see_all(struct icm_volume *vol, struct icm_file *f, uint64_t head) ICM_MUST_CHECK;
/* The inode whose locks are those of the view. */
struct icm_inode *icm_lock_inode(struct icm_volume *vol, struct icm_file *f);
/* Ends what e's owner has in e's range; the store hears of it now or later. */
void icm_lock_undo(struct icm_lock_state *st, const struct icm_lock_entry *e);

#endif
