// A file system in memory of a given size, for tests of what is too small: mounted by a helper in a mount namespace of its
// own, and reached through the helper. It is gone with the helper, which ends with us, however we end.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf } from '../../src/errors.js';

const SCRIPT = 'mount -t tmpfs -o size="$1" tmpfs /tmp && echo mounted && read -r _';

export class Tmpfs {
  private constructor(
    readonly directory: string,
    readonly close: () => Promise<void>,
  ) {}

  /** Null, and a loud line, where this process may not mount. */
  static async open(size: string): Promise<Tmpfs | null> {
    const helper = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', SCRIPT, 'sh', size], {
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
