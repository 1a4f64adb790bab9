/* SPDX-License-Identifier: MIT
 * The commands of icmfs: a table of name, function and summary. A command
 * takes its own arguments (argv[0] is its name) and returns an exit status. */
#ifndef ICM_CLI_CMD_H
#define ICM_CLI_CMD_H

/* Exit statuses that all commands share; a command's manual names further ones. */
enum icm_exit {
	ICM_EXIT_OK = 0,
	ICM_EXIT_FAILURE = 1,
	ICM_EXIT_USAGE = 2,
	ICM_EXIT_UNCHECKED = 3, /* check: could not look at the store */
};

struct icm_cmd {
	const char *name;
	int (*fn)(int argc, char **argv);
	const char *summary;
};

/* NULL-terminated, in the order of --help. */
extern const struct icm_cmd icm_cmds[];

int icm_cmd_mount(int argc, char **argv);
int icm_cmd_umount(int argc, char **argv);
int icm_cmd_status(int argc, char **argv);
int icm_cmd_init(int argc, char **argv);
int icm_cmd_import(int argc, char **argv);
int icm_cmd_check(int argc, char **argv);
int icm_cmd_recover(int argc, char **argv);
/* mount.icmfs and "icmfs STORE DIR -o …", as mount(8) calls its helpers. */
int icm_cmd_mount_helper(int argc, char **argv);

/* Runs what argv asks for: by the name of the program, else by its first argument. */
int icm_cli_main(int argc, char **argv);

#endif
