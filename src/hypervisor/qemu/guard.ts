// The guard of an attached guest: a small process that outlives us. When we are gone without having said so, it lets
// the guest run, in case it stood still for a checkpoint that nobody will finish (its output stays held: nobody is there
// to release it), and removes our directory.
//
//   we ──pipe──▶ guard:   S the guest is stopped   R it runs   Q we are done with it
//                         the end of the pipe = we are gone; if the last was S ──▶ "cont"

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { asError, codeOf } from '../../errors.js';
import { HypervisorError } from '../port.js';
import { QmpClient } from './qmp.js';

export interface Guard {
  stopping(): void;
  running(): void;
  /** Resolves when the guard has ended. */
  end(): Promise<void>;
}

const FILE = fileURLToPath(import.meta.url);
/** How long it tries: QEMU takes the next client when it has noticed that we are gone. */
const LIMIT_MS = 10_000;

/** Resolves when it is on guard: over the guest of a monitor socket, and our directory. Fails with FAILED. */
export async function startGuard(monitor: string, directory: string): Promise<Guard> {
  const child = spawn(process.execPath, [FILE, monitor, directory], {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true, // what is sent to us by a terminal is not for it
  });
  const closed = once(child, 'close');
  closed.catch(() => undefined); // an 'error' is told below
  try {
    await Promise.race([
      once(child.stdout, 'data'),
      closed.then(() => Promise.reject(new Error('it has ended'))),
    ]);
  } catch (error) {
    throw new HypervisorError('FAILED', 'The guest’s guard does not start.', {}, { cause: asError(error) });
  }
  child.stdin.on('error', () => undefined); // it has ended already
  return {
    stopping: () => child.stdin.write('S'),
    running: () => child.stdin.write('R'),
    end: async () => {
      child.stdin.end('Q');
      await closed.catch(() => undefined);
    },
  };
}

/** Nobody listens on its socket any more. */
const QEMU_GONE: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOENT']);

async function stand(monitor: string, directory: string): Promise<void> {
  process.stdout.write('ready\n');
  let last = 'R';
  for await (const chunk of process.stdin) last = String(chunk).slice(-1);
  if (last === 'Q') return;
  // QEMU may be writing there.
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  if (last !== 'S') return;
  const limit = performance.now() + LIMIT_MS;
  while (performance.now() < limit) {
    try {
      const socket = connect(monitor);
      await once(socket, 'connect');
      const qmp = await QmpClient.open(socket, { timeoutMs: LIMIT_MS });
      await qmp.execute('cont');
      qmp.close();
      return;
    } catch (error) {
      if (QEMU_GONE.has(codeOf(error))) return;
      // It does not answer yet: once more, until the time is over.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const [, script, monitor, directory] = process.argv;
if (script === FILE && monitor !== undefined && directory !== undefined) await stand(monitor, directory);
