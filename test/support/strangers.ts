// Strangers that stall: what a test gives a process to write to.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { codeOf } from '../../src/errors.js';
import type { Cleanup } from './cleanup.js';

const PIECE = Buffer.alloc(4096, 'x');

/** A pipe with a name that both ends of are held open here: whoever writes to it finds a reader, which may not read. */
export class Fifo {
  /** For the standard streams of a child, too. */
  readonly fd: number;
  /** What fill() has put in. */
  filled = 0;

  private constructor(readonly path: string) {
    this.fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  }

  static make(path: string): void {
    const { status } = spawnSync('mkfifo', [path]);
    if (status !== 0) throw new Error(`no FIFO at ${path}`);
  }

  static async open(cleanup: Cleanup): Promise<Fifo> {
    const path = `${await cleanup.directory()}/fifo`;
    Fifo.make(path);
    const fifo = new Fifo(path);
    cleanup.add(() => closeSync(fifo.fd));
    return fifo;
  }

  /** A descriptor that blocks, as the standard streams of a process do. */
  blocking(cleanup: Cleanup): number {
    const fd = openSync(this.path, constants.O_WRONLY);
    cleanup.add(() => closeSync(fd));
    return fd;
  }

  /** Takes nothing more afterwards. */
  fill(): this {
    try {
      for (;;) this.filled += writeSync(this.fd, PIECE);
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error;
    }
    return this;
  }

  /** All that is in it, but for what fill() put in. */
  drain(): string {
    const parts: Buffer[] = [];
    const buffer = Buffer.alloc(65_536);
    try {
      for (;;) parts.push(Buffer.from(buffer.subarray(0, readSync(this.fd, buffer))));
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error;
    }
    const all = Buffer.concat(parts);
    const own = Math.min(this.filled, all.length);
    this.filled -= own;
    return all.subarray(own).toString('latin1');
  }
}

/** Only root may mount. */
export const MAY_MOUNT = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0;

/** A small disk of its own, in a mount namespace of its own that ends with the test. The path of its directory. */
export function smallDisk(cleanup: Cleanup, size: string): Promise<string> {
  return mounted(cleanup, `-t tmpfs -o size=${size} small`, []);
}

/** A file system whose server never answers: whatever touches a file of it hangs. The path of one. */
export async function hungFile(cleanup: Cleanup): Promise<string> {
  const device = openSync('/dev/fuse', 'r+');
  // The end of the device is the end of every request that waits for it.
  cleanup.add(() => closeSync(device));
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
  return `${await mounted(cleanup, `-i -t fuse -o ${options} hung`, [device])}/file`;
}

async function mounted(cleanup: Cleanup, what: string, fds: readonly number[]): Promise<string> {
  const directory = await cleanup.directory();
  const script = `mount ${what} ${directory} && exec 3<&- && echo mounted && read -r _`;
  const holder: ChildProcess = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'inherit', ...fds],
  });
  cleanup.add(async () => {
    const closed = once(holder, 'close');
    holder.stdin?.end();
    await closed;
  });
  if (holder.stdout) await once(holder.stdout, 'data');
  return `/proc/${holder.pid ?? 0}/root${directory}`;
}
