// A file system in memory of a given size, for tests of what is too small: mounted by a helper in a mount namespace of its
// own, and reached through the helper. It is gone with the helper, which ends with us, however we end.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf } from '../../src/errors.js';

const SCRIPT = 'mount -t tmpfs -o size="$1" tmpfs /tmp && cd /tmp && eval "$2" && echo mounted && read -r _';
/** Of a disk that has less room than it says: it answers with errors, later than it was written to. */
const THIN =
  'truncate -s 16M backing && mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 backing && ' +
  'mkdir disk && mount -o loop backing disk';

export class Tmpfs {
  private constructor(
    readonly directory: string,
    readonly close: () => Promise<void>,
  ) {}

  /** Null, and a loud line, where this process may not mount. */
  static open(size: string): Promise<Tmpfs | null> {
    return Tmpfs.#open(size, 'true');
  }

  /** In it, in the directory `disk`, there is a file system of 16 MiB on a disk that has the room of this one. */
  static openThin(size: string): Promise<Tmpfs | null> {
    return Tmpfs.#open(size, THIN);
  }

  static async #open(size: string, more: string): Promise<Tmpfs | null> {
    const script = ['sh', '-c', SCRIPT, 'sh', size, more];
    const helper = spawn('unshare', ['--mount', '--propagation', 'private', ...script], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const closed = once(helper, 'close');
    let said = '';
    helper.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const mounted = await Promise.race([
      once(helper.stdout, 'data').then(() => true),
      closed.then(() => false),
    ]);
    if (!mounted) {
      console.log(`\n    SKIPPED: no file system can be mounted: ${said.trim()}\n`);
      return null;
    }
    return new Tmpfs(join(`/proc/${helper.pid ?? 0}/root/tmp`), async () => {
      helper.stdin.end();
      await closed;
    });
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.directory);
    return bavail * bsize;
  }

  /** Somebody else takes all that is left. Returns how to give it back, once or more. */
  fill(): () => void {
    const path = join(this.directory, 'others');
    const fd = openSync(path, 'w');
    try {
      const piece = Buffer.alloc(4096);
      for (;;) writeSync(fd, piece);
    } catch (error) {
      if (codeOf(error) !== 'ENOSPC') throw error;
    } finally {
      closeSync(fd);
    }
    return () => rmSync(path, { force: true });
  }
}
