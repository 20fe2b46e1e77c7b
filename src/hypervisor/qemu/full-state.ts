// Taking the full state of a stopped guest: `migrate` into a socket of ours, with guest RAM left out because it is
// shared. It takes some milliseconds, so it is taken only when there may be something new in it: for the first
// checkpoint of a stream, and when firmware has had the ACPI tables made anew, which the device state tells.
//
//   stop ─▶ device state ─ the same tables as in the last full state? ─ yes ─▶ it will do
//                                                                     └ no ──▶ migrate ─▶ full state
//
// Afterwards QEMU calls itself "postmigrate", and goes on with `cont` as ever.

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { asError } from '../../errors.js';
import { HypervisorError } from '../port.js';
import { DEVICE_STATE_BYTES_MAX } from './device-state.js';
import { packFullState } from './memory-section.js';
import { isObject } from './qmp-parser.js';
import type { QmpClient, QmpCommand } from './qmp.js';

const TIMEOUT_MS = 5000;
/** The section that says whether the firmware has asked for the ACPI tables since the last reset. */
const ACPI_SECTION = Buffer.from('\x0aacpi_build', 'latin1');
const ACPI_BYTES = ACPI_SECTION.length + 16;

/** Whether a device state needs a full one beside it. */
export class FullStateWatch {
  /** The ACPI section in the last full state. */
  #tables: string | null = null;

  /** A new stream: whoever reads it has nothing yet. */
  restart(): void {
    this.#tables = null;
  }

  covers(state: Uint8Array): boolean {
    return this.#tables === tablesOf(state);
  }

  took(state: Uint8Array): void {
    this.#tables = tablesOf(state);
  }
}

function tablesOf(state: Uint8Array): string {
  const octets = Buffer.from(state.buffer, state.byteOffset, state.length);
  const at = octets.indexOf(ACPI_SECTION);
  return at < 0 ? '' : octets.toString('latin1', at, at + ACPI_BYTES);
}

/**
 * The guest is stopped. `ram`: the name of guest RAM's block. Fails with QmpError, FAILED, BAD_CONTEXT or DOMAIN_GONE;
 * the guest can go on then.
 */
export async function takeFullState(qmp: QmpClient, ram: string): Promise<Uint8Array> {
  const directory = await mkdtemp(join(tmpdir(), 'romulus-qemu-'));
  const server = createServer();
  try {
    const path = join(directory, 'state');
    server.listen(path);
    await once(server, 'listening');
    const received = receive(server);
    received.catch(() => undefined); // looked at below, where QEMU takes the command
    const commands: QmpCommand[] = [ignoreShared(true), ['migrate', { uri: `unix:${path}` }]];
    await Promise.all(qmp.executeAll(commands));
    const state = await received;
    await completed(qmp);
    return packFullState(state, ram);
  } finally {
    server.close();
    // It was off, and whoever migrates the guest on purpose wants it so.
    await qmp.execute(...ignoreShared(false)).catch(() => undefined); // gone: told by whatever is asked next
    await rm(directory, { recursive: true, force: true });
  }
}

export function ignoreShared(state: boolean): QmpCommand {
  return ['migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state }] }];
}

async function receive(server: Server): Promise<Uint8Array> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  let socket: Socket | null = null;
  try {
    const [connection] = (await once(server, 'connection', { signal })) as [Socket];
    socket = connection;
    const chunks: Buffer[] = [];
    let length = 0;
    socket.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > DEVICE_STATE_BYTES_MAX) connection.destroy(new Error('it is too large'));
      else chunks.push(chunk);
    });
    await once(socket, 'end', { signal });
    return Buffer.concat(chunks);
  } catch (error) {
    throw new HypervisorError('FAILED', 'QEMU does not hand its state over.', {}, { cause: asError(error) });
  } finally {
    socket?.destroy();
  }
}

async function completed(qmp: QmpClient): Promise<void> {
  for (const limit = performance.now() + TIMEOUT_MS; performance.now() < limit; await sleep(1)) {
    const answer = await qmp.execute('query-migrate');
    const status = isObject(answer) ? String(answer['status']) : '';
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') {
      const reason = isObject(answer) ? String(answer['error-desc'] ?? status) : status;
      throw new HypervisorError('FAILED', `QEMU does not hand its state over: ${reason}`, { status });
    }
  }
  throw new HypervisorError('FAILED', 'QEMU does not come to an end with its state.', {
    timeoutMs: TIMEOUT_MS,
  });
}
