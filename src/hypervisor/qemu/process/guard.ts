// The guard of an attached guest: a small process that outlives us. When we are gone without having said so, it removes
// our directory, and sees to the guest. In most cases it lets it run, in case it stood still for a checkpoint that nobody
// will finish (its output stays held: nobody is there to release it). A guest whose disks are shared it stops, if a
// secondary may take it over: both would write.
//
//   we ──pipe──▶ guard:   S the guest is stopped   R it runs   E a secondary may take it over   N none may
//                         Q we are done with it
//                         the end of the pipe = we are gone: if E ──▶ "stop", else if S ──▶ "cont"; and what mirrors its
//                                               disks is removed, in a pause

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { codeOf } from '../../../errors.js';
import { monotonicMs } from '../../../flow/clock.js';
import { failed } from '../../port.js';
import { removeMirrors } from '../disks/leftovers.js';
import { heedNoSignals } from './exit-hooks.js';
import { hasMark } from './fence.js';
import { QmpClient, QmpError } from '../monitor/qmp.js';
import { runStatusOf } from '../monitor/run-state.js';

export interface Guard {
  stopping(): void;
  running(): void;
  /** Of a guest whose disks are shared: a secondary may take it over, or no more. */
  exposed(on: boolean): void;
  /**
   * Resolves when the guard has ended. `lost`: the monitor is lost, but its QEMU may live, or something of ours is left in
   * it: the guard does its work, as if we were gone.
   */
  end(lost?: boolean): Promise<void>;
}

const FILE = fileURLToPath(import.meta.url);
/** How long it tries to let a guest run: QEMU takes the next client when it has noticed that we are gone. */
const GO_ON_TIMEOUT_MS = 10_000;
const RETRY_MS = 20;

/**
 * Resolves when it is on guard: over the guest of a monitor socket, and our directory.
 * @throws HypervisorError FAILED
 */
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
    throw failed('the guest’s guard does not start', {}, error);
  }
  child.stdin.on('error', () => undefined); // it has ended already
  return {
    stopping: () => child.stdin.write('S'),
    running: () => child.stdin.write('R'),
    exposed: (on) => child.stdin.write(on ? 'E' : 'N'),
    end: async (lost = false) => {
      child.stdin.end(lost ? '' : 'Q');
      await closed.catch(() => undefined);
    },
  };
}

/** Nobody listens on its socket any more. */
const QEMU_GONE: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOENT']);

async function stand(monitor: string, directory: string): Promise<void> {
  // A supervisor that ends us all means well, but the guest is not ours to leave like that.
  heedNoSignals();
  process.stdout.write('ready\n');
  let stopped = false;
  let exposed = false;
  for await (const chunk of process.stdin) {
    for (const letter of String(chunk)) {
      if (letter === 'Q') return;
      if (letter === 'S' || letter === 'R') stopped = letter === 'S';
      else exposed = letter === 'E';
    }
  }
  // QEMU may be writing there.
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  // There is no limit to the stop: as long as QEMU is there and the guest may run, it is needed.
  if (exposed) await withMonitor(monitor, Infinity, stopExposed);
  let goesOn = stopped && !exposed;
  const go = async (qmp: QmpClient): Promise<void> => {
    if (goesOn) await qmp.execute('cont');
    goesOn = false; // whoever stops it from here on is not us
  };
  await withMonitor(monitor, GO_ON_TIMEOUT_MS, async (qmp) => {
    try {
      await unlessRefused(
        removeMirrors(qmp, async (work) => {
          const [before] = await Promise.all(qmp.executeAll([['query-status'], ['stop']]));
          goesOn ||= runStatusOf(before).running;
          return work();
        }),
      );
    } finally {
      await go(qmp);
    }
  });
  // A stop of ours that took longer.
  if (goesOn) await withMonitor(monitor, Infinity, (qmp) => unlessRefused(go(qmp)));
}

/** What QEMU says no to it would refuse again: whoever insisted would keep its monitor from all others. */
async function unlessRefused(done: Promise<void>): Promise<void> {
  try {
    await done;
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
  }
}

/** Unless somebody was faster than we are, and has said since that nobody else can run it. */
async function stopExposed(qmp: QmpClient): Promise<void> {
  if ((await hasMark(qmp, 'exposed')) || (await hasMark(qmp, 'fenced'))) await qmp.execute('stop');
}

/** Until it is done, or QEMU is gone, or the time is over. */
export async function withMonitor(
  monitor: string,
  limitMs: number,
  work: (qmp: QmpClient) => Promise<unknown>,
): Promise<void> {
  const limit = monotonicMs() + limitMs;
  while (monotonicMs() < limit) {
    const socket = connect(monitor);
    try {
      await once(socket, 'connect');
      const qmp = await QmpClient.open(socket, GO_ON_TIMEOUT_MS);
      await work(qmp);
      qmp.close();
      return;
    } catch (error) {
      socket.destroy();
      if (QEMU_GONE.has(codeOf(error))) return;
      // It does not answer yet: once more, until the time is over.
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

const [, script, monitor, directory] = process.argv;
if (script === FILE && monitor !== undefined && directory !== undefined) await stand(monitor, directory);
