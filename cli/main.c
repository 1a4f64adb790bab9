/* SPDX-License-Identifier: MIT
 * icmfs and mount.icmfs. */
#include "cli/cmd.h"

int main(int argc, char **argv)
{
	return icm_cli_main(argc, argv);
}
