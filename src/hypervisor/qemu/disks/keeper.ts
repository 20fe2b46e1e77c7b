// The keeper of connections to QEMU's NBD server: a small process that outlives us. A QEMU (7.2 as Debian has it) whose
// disks have iothreads aborts, and its guest with it, as soon as a client of its server goes, or is killed; unless the
// export was removed before. So none of our clients ever goes: what they are connected to is the keeper, and its own
// connections end when QEMU ends them.
//
//   reader ──▶ keeper ──▶ QEMU's server      the reader's end is not passed on; that of QEMU is
//      we ──pipe──▶ keeper:   Q  we are done with it, and have removed our exports
//                             the end of the pipe = we are gone ──▶ it removes them, by QEMU's monitor

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { failed } from '../../port.js';
import { heedNoSignals } from '../process/exit-hooks.js';
import { withMonitor } from '../process/guard.js';
import { removeExports } from './exports-left.js';

export interface Keeper {
  /** Of the socket that readers connect to. */
  readonly path: string;
  /** Resolves when it has ended. */
  end(): Promise<void>;
}

const FILE = fileURLToPath(import.meta.url);
/** For its monitor: QEMU takes the next client when it has noticed that we are gone. */
const REMOVAL_MS = 10_000;

/**
 * Resolves when readers may connect. `server`: the path of QEMU's; `monitor`: that of its monitor's, null if QEMU ends
 * with us.
 * @throws HypervisorError FAILED
 */
export async function startKeeper(server: string, monitor: string | null): Promise<Keeper> {
  const path = `${server}-kept`;
  const child = spawn(process.execPath, [FILE, path, server, monitor ?? ''], {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true, // what is sent to us by a terminal is not for it
  });
  const closed = once(child, 'close');
  closed.catch(() => undefined); // an 'error' is told below
  try {
    const ended = closed.then(() => Promise.reject(new Error('it has ended')));
    await Promise.race([once(child.stdout, 'data'), ended]);
  } catch (error) {
    throw failed('the keeper of connections to QEMU does not start', {}, error);
  }
  child.stdin.on('error', () => undefined); // it has ended already
  return {
    path,
    end: async () => {
      child.stdin.end('Q');
      await closed.catch(() => undefined);
    },
  };
}

async function keep(path: string, server: string, monitor: string): Promise<void> {
  heedNoSignals();
  const kept = new Set<Socket>();
  const listener = createServer((reader) => {
    const qemu = connect(server);
    kept.add(qemu);
    for (const socket of [reader, qemu]) socket.on('error', () => undefined); // 'close' follows
    reader.pipe(qemu, { end: false });
    qemu.pipe(reader);
    reader.on('close', () => qemu.resume()); // what it says then nobody hears, and it need not wait
    qemu.on('close', () => {
      kept.delete(qemu);
      reader.destroy();
    });
  });
  listener.listen(path);
  await once(listener, 'listening');
  process.stdout.write('ready\n');
  for await (const chunk of process.stdin) if (String(chunk).includes('Q')) process.exit(0);
  if (monitor !== '') await withMonitor(monitor, REMOVAL_MS, removeExports);
  listener.close();
  for (const socket of kept) await once(socket, 'close');
}

const [, script, path, server, monitor] = process.argv;
if (script === FILE && path !== undefined && server !== undefined && monitor !== undefined) {
  await keep(path, server, monitor);
}
