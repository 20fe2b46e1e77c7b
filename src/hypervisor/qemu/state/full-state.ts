// Taking the full state of a stopped guest: `migrate` into a socket of ours, with guest RAM left out because it is
// shared. It takes some milliseconds, so it is taken only when there may be something new in it: for the first
// checkpoint of a stream, and when firmware has had the ACPI tables made anew, which the device state tells. (Where the
// guest may write to its firmware, always.)
//
//   stop ─▶ device state ─ the same tables as in the last full state? ─ yes ─▶ it will do
//                                                                     └ no ──▶ migrate ─▶ full state
//
// Afterwards QEMU calls itself "postmigrate", and goes on with `cont` as ever. Until then it hands over nothing: of a guest
// that somebody else has stopped the last full state is the present one.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAwake } from '../../../flow/awake.js';
import { failed } from '../../port.js';
import { DEVICE_STATE_BYTES_MAX } from './device-state.js';
import { packFullState, splitState } from './memory-section.js';
import type { QemuMachine } from '../machine.js';
import { isObject } from '../monitor/qmp-parser.js';
import type { QmpClient, QmpCommand } from '../monitor/qmp.js';

const TIMEOUT_MS = 5000;
/** The section that says whether the firmware has asked for the ACPI tables since the last reset. */
const ACPI_SECTION = Buffer.from('\x0aacpi_build', 'latin1');
const ACPI_BYTES = ACPI_SECTION.length + 16;

/** What is shipped of a full state, beside the device states of a stream. */
export class FullStates {
  readonly #machine: QemuMachine;
  /** The guest may write to memory beside its RAM. */
  #writable: boolean | null = null;
  /** The ACPI section when the last full state was taken. */
  #tables: string | null = null;
  /** What the stream has had last. */
  #memory: Uint8Array | null = null;
  /** Of the last full state, whatever the stream has had; undefined: none was taken. */
  #taken: Uint8Array | null | undefined = undefined;

  constructor(machine: QemuMachine) {
    this.#machine = machine;
  }

  /** A new stream. @throws as QmpClient.human() */
  async restart(): Promise<void> {
    this.forget();
    const { qmp, ramBlock } = this.#machine;
    this.#writable ??= writableBlocksIn(await qmp.human('info mtree -f'), ramBlock).length > 0;
  }

  /** Whoever reads the stream has nothing of this yet. */
  forget(): void {
    this.#tables = this.#memory = null;
  }

  /**
   * The guest is stopped, and `state` its device state: the section of memory that is to be shipped with it; null: what
   * was shipped before still holds. `handedOver`: it has not run since its last full state was taken.
   * @throws as takeFullState()
   */
  async memoryBeside(state: Uint8Array, handedOver: boolean): Promise<Uint8Array | null> {
    const tables = tablesOf(state);
    if (this.#tables === tables && this.#writable === false) return null;
    if (!handedOver || this.#taken === undefined) {
      this.#taken = undefined; // should it fail, there is none of this moment
      this.#taken = splitState(await takeFullState(this.#machine)).memory;
    }
    const memory = this.#taken;
    this.#tables = tables;
    const known = memory === null || (this.#memory !== null && Buffer.compare(memory, this.#memory) === 0);
    this.#memory = memory;
    return known ? null : memory;
  }
}

/**
 * The blocks in "info mtree" beside guest RAM (`ram`) that a guest may write: the firmware of a microvm or an isapc,
 * which other machine types protect.
 *
 *   0000000000100000-0000000003ffffff (prio 0, ram): pc.ram @0000000000100000      guest RAM
 *   00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios                       not the guest's to write
 *   00000000ffff0000-00000000ffffffff (prio 0, ram): pc.bios                       written, maybe
 */
export function writableBlocksIn(mtree: string, ram: string): string[] {
  const blocks = mtree.matchAll(/^\s+[0-9a-f]+-[0-9a-f]+ \(prio -?\d+, ram\): (\S+)/gm);
  const names = new Set([...blocks].map(([, name = '']) => name));
  return [...names].filter((name) => name !== ram);
}

function tablesOf(state: Uint8Array): string {
  const octets = Buffer.from(state.buffer, state.byteOffset, state.length);
  const at = octets.indexOf(ACPI_SECTION);
  return at < 0 ? '' : octets.toString('latin1', at, at + ACPI_BYTES);
}

/**
 * The guest is stopped.
 * @throws QmpError, HypervisorError FAILED, BAD_CONTEXT or DOMAIN_GONE; the guest can go on then
 */
async function takeFullState({ qmp, ramBlock, directory }: QemuMachine): Promise<Uint8Array> {
  // Nobody else may connect to it: a socket is its maker's to write to.
  const path = join(directory ?? tmpdir(), `romulus-state-${randomUUID()}`);
  const bury = () => rm(path, { force: true });
  const server = createServer();
  try {
    server.listen(path);
    await once(server, 'listening');
    // Who is connected needs no name: should we be killed now, there is none left.
    const received = receive(server, bury);
    received.catch(() => undefined); // looked at below, where QEMU takes the command
    const commands: QmpCommand[] = [ignoreShared(true), ['migrate', { uri: `unix:${path}` }]];
    await Promise.all(qmp.executeAll(commands));
    const state = await received;
    await completed(qmp);
    return packFullState(state, ramBlock);
  } catch (error) {
    // Else the guest could not go on.
    await qmp.execute('migrate_cancel').catch(() => undefined);
    throw error;
  } finally {
    server.close();
    // It was off, and whoever migrates the guest on purpose wants it so.
    await qmp.execute(...ignoreShared(false)).catch(() => undefined); // gone: told by whatever is asked next
    await bury();
  }
}

export function ignoreShared(state: boolean): QmpCommand {
  return ['migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state }] }];
}

async function receive(server: Server, connected: () => Promise<void>): Promise<Uint8Array> {
  const giveUp = new AbortController();
  const { signal } = giveUp;
  const cancel = afterAwake(TIMEOUT_MS, () => giveUp.abort());
  let socket: Socket | null = null;
  try {
    const [connection] = (await once(server, 'connection', { signal })) as [Socket];
    socket = connection;
    await connected();
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
    throw failed('QEMU does not hand its state over', {}, error);
  } finally {
    cancel();
    socket?.destroy();
  }
}

async function completed(qmp: QmpClient): Promise<void> {
  for (let left = TIMEOUT_MS; left > 0; left--) {
    const answer = await qmp.execute('query-migrate');
    const status = isObject(answer) ? String(answer['status']) : '';
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') {
      const description = isObject(answer) ? answer['error-desc'] : undefined;
      const reason = typeof description === 'string' ? description : status;
      throw failed(`QEMU does not hand its state over: ${reason}`, { status });
    }
    await sleep(1);
  }
  throw failed('QEMU does not come to an end with its state', { timeoutMs: TIMEOUT_MS });
}
