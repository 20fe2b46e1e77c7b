// Attaching to a QEMU that somebody else started, over its monitor socket. It must keep the guest's RAM in a shared
// file that we can open; what it lacks is named with the option that would add it. Letting go of it leaves the guest
// running; if we die while it is stopped for a checkpoint, a guard lets it run (its output stays held).

import { closeSync, fstatSync, openSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { asError } from '../../errors.js';
import { PAGE_SIZE } from '../../stream/format.js';
import type { Inventory } from '../inventory.js';
import { HypervisorError } from '../port.js';
import { checkDisks, checkNetwork, checkRamBlocks } from './check.js';
import { CompareTracking } from './compare.js';
import { DeviceStateFile } from './device-state.js';
import type { DirtyTracking } from './dirty.js';
import { startGuard, type Guard } from './guard.js';
import { takeInventory } from './inventory.js';
import type { QemuMachine } from './machine.js';
import { QmpClient } from './qmp.js';
import { runStatusOf, type RunStatus } from './run-state.js';
import { checkSaveable } from './saveable.js';

export interface AttachConfig {
  readonly name: string;
  /** The path of QEMU's monitor socket: -qmp unix:PATH,server=on,wait=off */
  readonly monitor: string;
  /** The path of the socket of the guest's serial port, if its output is to go through us. */
  readonly serial?: string;
  readonly sharedDisks?: readonly string[];
  /** The ids of the netdevs whose output is held: of all that a network card is plugged into. */
  readonly netdevs?: readonly string[];
}

const CONNECT_TIMEOUT_MS = 10_000;

/**
 * The machine, and what its guest does. Fails with BAD_CONFIGURATION (it lacks something, or has what cannot be
 * replicated) or FAILED; it is as it was then.
 */
export async function attachQemu(config: AttachConfig): Promise<{ machine: QemuMachine; status: RunStatus }> {
  const qmp = await QmpClient.open(await connectTo(config.monitor, 'monitor'));
  const ending: (() => unknown)[] = [() => qmp.close()];
  try {
    await checkSaveable(qmp);
    const ram = await findRam(qmp);
    await checkRamBlocks(qmp, ram.id);
    await checkDisks(qmp, config.sharedDisks ?? []);
    await checkNetwork(qmp, config.netdevs ?? []);
    const inventory = await takeInventory(qmp, ram.id);
    const tracking = new CompareTracking(openRam(ram), ram.bytes);
    ending.push(() => tracking.close());
    const deviceState = await openDeviceState();
    ending.push(() => deviceState.close());
    const serial = config.serial === undefined ? null : await connectTo(config.serial, 'serial');
    ending.push(() => serial?.destroy());
    const guard = await startGuard(config.monitor, dirname(deviceState.path));
    ending.push(() => guard.end());
    const status = runStatusOf(await qmp.execute('query-status'));
    const machine = new AttachedMachine(config.name, {
      ...{ ram, qmp, tracking, deviceState, serial, guard, inventory },
    });
    return { machine, status };
  } catch (error) {
    for (const end of ending.reverse()) await end();
    throw error;
  }
}

interface Parts {
  readonly ram: RamBackend;
  readonly qmp: QmpClient;
  readonly tracking: DirtyTracking;
  readonly deviceState: DeviceStateFile;
  readonly serial: Socket | null;
  readonly guard: Guard;
  readonly inventory: Inventory;
}

class AttachedMachine implements QemuMachine {
  readonly name: string;
  readonly memoryBytes: number;
  readonly qmp: QmpClient;
  readonly tracking: DirtyTracking;
  readonly trackingReason = 'the file of its RAM is not served by us';
  readonly deviceState: DeviceStateFile;
  readonly serial: Duplex | null;
  readonly incoming = null;
  readonly gone: Promise<string>;
  readonly guard: Guard;
  readonly inventory: Inventory;
  readonly ramBlock: string;
  #closed: Promise<void> | null = null;

  constructor(name: string, { ram, qmp, tracking, deviceState, serial, guard, inventory }: Parts) {
    this.name = name;
    this.memoryBytes = ram.bytes;
    this.qmp = qmp;
    this.tracking = tracking;
    this.deviceState = deviceState;
    this.serial = serial;
    this.guard = guard;
    this.inventory = inventory;
    this.ramBlock = ram.id;
    this.gone = new Promise((resolve) => {
      qmp.events$.subscribe({ complete: () => resolve('the connection to QEMU’s monitor is lost') });
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.qmp.close();
    this.serial?.destroy();
    this.deviceState.close();
    await this.tracking.close();
    await this.guard.end();
  }
}

interface RamBackend {
  readonly id: string;
  readonly bytes: number;
  readonly path: string;
}

async function findRam(qmp: QmpClient): Promise<RamBackend> {
  const lacks = (what: string, option: string): HypervisorError =>
    new HypervisorError('BAD_CONFIGURATION', `The QEMU ${what}: start it with ${option}`, { option });
  const backend = `-object memory-backend-file,id=ram,size=SIZE,mem-path=FILE,share=on -machine …,memory-backend=ram`;
  const id = String(
    await qmp.execute('qom-get', { path: '/machine', property: 'memory-backend' }).catch(() => ''),
  );
  const path = id.startsWith('/') ? id : `/objects/${id}`;
  const get = (property: string) => qmp.execute('qom-get', { path, property });
  if (id === '' || (await get('type').catch(() => '')) !== 'memory-backend-file') {
    throw lacks('does not keep guest RAM in a file', backend);
  }
  const [share, size, memPath] = await Promise.all([get('share'), get('size'), get('mem-path')]);
  if (share !== true) throw lacks('does not share the file of guest RAM', backend);
  const file = String(memPath);
  if (!isAbsolute(file) || file.startsWith('/proc/')) {
    throw lacks(`keeps guest RAM in ${file}, which we cannot open`, `mem-path=FILE, an absolute path`);
  }
  return { id: path.slice(path.lastIndexOf('/') + 1), bytes: Number(size), path: file };
}

function openRam({ path, bytes }: RamBackend): number {
  let fd: number | null = null;
  try {
    fd = openSync(path, 'r+');
    const stats = fstatSync(fd);
    if (!stats.isFile() || stats.size < bytes || bytes % PAGE_SIZE !== 0) {
      throw new Error('it is not a file of that size');
    }
    return fd;
  } catch (error) {
    if (fd !== null) closeSync(fd);
    const cause = asError(error);
    throw new HypervisorError(
      'BAD_CONFIGURATION',
      `The file of guest RAM, ${path}, cannot be used: ${cause.message}. Start QEMU with mem-path=FILE, a file that this process may open.`,
      { path, bytes },
      { cause },
    );
  }
}

/** QEMU opens it by its name. */
async function openDeviceState(): Promise<DeviceStateFile> {
  const directory = await mkdtemp(join(tmpdir(), 'romulus-qemu-'));
  try {
    const path = join(directory, 'state');
    const fd = openSync(path, 'wx+', 0o600);
    return new DeviceStateFile(fd, path, () =>
      rmSync(directory, { recursive: true, force: true, maxRetries: 5 }),
    );
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

function connectTo(path: string, key: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), CONNECT_TIMEOUT_MS);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refused);
      // What follows from the end of a connection is told by those who use it.
      socket.on('error', () => undefined);
      resolve(socket);
    });
    const refused = (error: Error): void => {
      clearTimeout(timer);
      reject(
        new HypervisorError(
          'BAD_CONFIGURATION',
          `There is no QEMU at ${path}: ${error.message}. Start it with -qmp unix:${path},server=on,wait=off`,
          { key, value: path },
          { cause: error },
        ),
      );
    };
    socket.once('error', refused);
  });
}
