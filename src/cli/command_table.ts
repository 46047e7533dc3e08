/**
 * All commands, by their words. A command is loaded when it is called: all of them would make the start of
 * the program a sixth longer.
 *
 * @module
 */

import type { Command } from "./command.ts";

/** In the order of the help: the way of a release from a directory to the edge. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  "init": async () => (await import("./commands/init_command.ts")).initCommand,
  "import": async () => (await import("./commands/import_command.ts")).importCommand,
  "export": async () => (await import("./commands/export_command.ts")).exportCommand,
  "publish": async () => (await import("./commands/publish_command.ts")).publishCommand,
  "ls": async () => (await import("./commands/ls_command.ts")).lsCommand,
  "cat": async () => (await import("./commands/cat_command.ts")).catCommand,
  "stat": async () => (await import("./commands/stat_command.ts")).statCommand,
  "snapshot create": async () =>
    (await import("./commands/snapshot_create_command.ts")).snapshotCreateCommand,
  "snapshot list": async () =>
    (await import("./commands/snapshot_list_command.ts")).snapshotListCommand,
  "snapshot shadow": async () =>
    (await import("./commands/snapshot_shadow_command.ts")).snapshotShadowCommand,
  "snapshot delete": async () =>
    (await import("./commands/snapshot_delete_command.ts")).snapshotDeleteCommand,
  "pointer set": async () => (await import("./commands/pointer_set_command.ts")).pointerSetCommand,
  "pointer list": async () =>
    (await import("./commands/pointer_list_command.ts")).pointerListCommand,
  "diff": async () => (await import("./commands/diff_command.ts")).diffCommand,
  "plan": async () => (await import("./commands/plan_command.ts")).planCommand,
  "image": async () => (await import("./commands/image_command.ts")).imageCommand,
  "apply": async () => (await import("./commands/apply_command.ts")).applyCommand,
  "copy": async () => (await import("./commands/copy_command.ts")).copyCommand,
  "tape write": async () => (await import("./commands/tape_write_command.ts")).tapeWriteCommand,
  "tape read": async () => (await import("./commands/tape_read_command.ts")).tapeReadCommand,
  "tape list": async () => (await import("./commands/tape_list_command.ts")).tapeListCommand,
  "tape extract": async () =>
    (await import("./commands/tape_extract_command.ts")).tapeExtractCommand,
  "serve": async () => (await import("./commands/serve_command.ts")).serveCommand,
  "pull": async () => (await import("./commands/pull_command.ts")).pullCommand,
  "promote": async () => (await import("./commands/promote_command.ts")).promoteCommand,
  "resync": async () => (await import("./commands/resync_command.ts")).resyncCommand,
  "mirror": async () => (await import("./commands/mirror_command.ts")).mirrorCommand,
  "reintegrate": async () => (await import("./commands/reintegrate_command.ts")).reintegrateCommand,
  "token create": async () =>
    (await import("./commands/token_create_command.ts")).tokenCreateCommand,
  "token list": async () => (await import("./commands/token_list_command.ts")).tokenListCommand,
  "token revoke": async () =>
    (await import("./commands/token_revoke_command.ts")).tokenRevokeCommand,
  "keygen": async () => (await import("./commands/keygen_command.ts")).keygenCommand,
  "seal": async () => (await import("./commands/seal_command.ts")).sealCommand,
  "verify": async () => (await import("./commands/verify_command.ts")).verifyCommand,
  "status": async () => (await import("./commands/status_command.ts")).statusCommand,
  "fsck": async () => (await import("./commands/fsck_command.ts")).fsckCommand,
  "repair": async () => (await import("./commands/repair_command.ts")).repairCommand,
  "info": async () => (await import("./commands/info_command.ts")).infoCommand,
  "demo": async () => (await import("./commands/demo_command.ts")).demoCommand,
  "version": async () => (await import("./commands/version_command.ts")).versionCommand,
};

/** The words of all commands. */
export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS);

/** All commands. */
export function allCommands(): Promise<readonly Command[]> {
  return Promise.all(Object.values(COMMANDS).map((load) => load()));
}

/** The command that a command line begins with, if there is one. */
export async function commandIn(words: readonly string[]): Promise<Command | undefined> {
  const name = COMMAND_NAMES.find((name) => name.split(" ").every((word, i) => words[i] === word));
  return name === undefined ? undefined : await COMMANDS[name]();
}
