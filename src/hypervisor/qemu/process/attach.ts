// Attaching to a QEMU that somebody else started, over its monitor socket. It must keep the guest's RAM in a shared
// file that we can open; what it lacks is named with the option that would add it. Letting go of it leaves the guest
// running; if we die while it is stopped for a checkpoint, a guard lets it run (its output stays held), or stops it, if its
// disks are shared and a secondary may take it over.

import { closeSync, fstatSync, openSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { asError, codeOf } from '../../../errors.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { badConfiguration, type HypervisorError } from '../../port.js';
import type { DiskOptions } from '../disks/drives.js';
import { findDisks, type FoundDisks } from '../disks/find.js';
import { removeLeftovers } from '../disks/leftovers.js';
import { checkNetwork, checkRamBlocks } from '../monitor/check.js';
import { CompareTracking } from '../memory/compare.js';
import { DeviceStateFile } from '../state/device-state.js';
import { hasMark } from './fence.js';
import { startGuard } from './guard.js';
import { takeInventory } from '../monitor/inventory.js';
import type { QemuMachine, ReplicationOptions } from '../machine.js';
import { requireImageMemory } from '../memory/image.js';
import { QmpClient } from '../monitor/qmp.js';
import { requireBacking } from '../memory/reserve.js';
import { RunState, runStatusOf, type RunStatus } from '../monitor/run-state.js';
import { checkSaveable } from '../monitor/saveable.js';
import { whileStopped } from '../stops.js';

export interface AttachConfig {
  readonly name: string;
  /** The path of QEMU's monitor socket: -qmp unix:PATH,server=on,wait=off */
  readonly monitor: string;
  /** The path of the socket of the guest's serial port, if its output is to go through us. */
  readonly serial?: string;
  readonly sharedDisks?: readonly string[];
  /** Of its other writable disks, which are replicated, by the ids of their drives or the names of their nodes. */
  readonly disks?: Readonly<Record<string, Pick<DiskOptions, 'durability'>>>;
  readonly replication?: Omit<ReplicationOptions, 'relaxed'>;
  /** The ids of the netdevs whose output is held: of all that a network card is plugged into. */
  readonly netdevs?: readonly string[];
}

const CONNECT_TIMEOUT_MS = 10_000;
/** A monitor greets at once, whatever its guest does. */
const GREETING_TIMEOUT_MS = 5000;

/**
 * The machine, and what its guest does.
 * @throws HypervisorError BAD_CONFIGURATION (it lacks something, or has what cannot be replicated), OUT_OF_MEMORY or
 * FAILED; it is as it was then
 */
export async function attachQemu(config: AttachConfig): Promise<{ machine: QemuMachine; status: RunStatus }> {
  const qmp = await openMonitor(config.monitor);
  const ending: (() => unknown)[] = [() => qmp.close()];
  try {
    await checkSaveable(qmp);
    const shared = await stopIfExposed(qmp, config);
    const ram = await findRam(qmp);
    await checkRamBlocks(qmp, ram.id);
    await checkNetwork(qmp, config.netdevs ?? []);
    const tracking = new CompareTracking(openRam(ram), ram.bytes);
    ending.push(() => tracking.close());
    await requireBacking(tracking.ramFd, ram.bytes, ram.path);
    requireImageMemory(ram.bytes);
    const deviceState = await openDeviceState();
    ending.push(() => deviceState.close());
    const serial = config.serial === undefined ? null : await connectTo(config.serial, 'serial');
    ending.push(() => serial?.destroy());
    const guard = await startGuard(config.monitor, dirname(deviceState.path));
    ending.push(() => guard.end());
    await removeLeftovers(qmp, (work) => whileStopped({ qmp, guard }, new RunState(null), work));
    const disks = await findDisks(qmp, config.sharedDisks ?? []);
    const relaxed = relaxedOf(config, disks);
    const inventory = await takeInventory(qmp, ram.id, disks.disks);
    const status = runStatusOf(await qmp.execute('query-status'));
    let lost = false;
    const gone = new Promise<string>((resolve) => {
      const complete = (): void => {
        lost = true;
        resolve('the connection to QEMU’s monitor is lost');
      };
      qmp.events$.subscribe({ complete });
    });
    const close = async (isClean = true): Promise<void> => {
      const wasLost = lost;
      qmp.close();
      serial?.destroy();
      deviceState.close();
      await tracking.close();
      await guard.end(wasLost || !isClean);
    };
    let closed: Promise<void> | null = null;
    const machine: QemuMachine = {
      name: config.name,
      memoryBytes: ram.bytes,
      ramBlock: ram.id,
      inventory,
      disks,
      replication: { ...config.replication, relaxed },
      qmp,
      tracking,
      trackingReason: 'the file of its RAM is not served by us',
      deviceState,
      stateImage: null,
      serial,
      directory: dirname(deviceState.path),
      monitor: config.monitor,
      guard,
      shared,
      gone,
      said: '',
      close: (isClean) => (closed ??= close(isClean)),
    };
    return { machine, status };
  } catch (error) {
    for (const end of ending.reverse()) await end();
    throw error;
  }
}

/** The ids of those whose flushes need not reach this host's disk. @throws HypervisorError BAD_CONFIGURATION */
function relaxedOf({ disks = {} }: AttachConfig, { disks: found }: FoundDisks): string[] {
  return Object.entries(disks).flatMap(([name, { durability }]) => {
    const disk = found.find(({ id, drive, node }) => [id, drive, node].includes(name));
    if (disk !== undefined) return durability === 'relaxed' ? [disk.id] : [];
    const message = `there is no disk ${name} that is replicated: no drive of the QEMU has this id, and no node this name`;
    throw badConfiguration(message, { key: 'disks', value: name });
  });
}

/** Before anything else: a secondary may run it by now. What else is wrong here then leaves it stopped. */
async function stopIfExposed(
  qmp: QmpClient,
  { sharedDisks = [] }: AttachConfig,
): Promise<QemuMachine['shared']> {
  if (sharedDisks.length === 0) return undefined;
  const exposed = await hasMark(qmp, 'exposed');
  if (exposed) await qmp.execute('stop');
  return { exposed };
}

interface RamBackend {
  readonly id: string;
  readonly bytes: number;
  readonly path: string;
}

async function findRam(qmp: QmpClient): Promise<RamBackend> {
  const lacks = (what: string, option: string): HypervisorError =>
    badConfiguration(`the QEMU ${what}: start it with ${option}`, { option });
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
    throw badConfiguration(
      `the file of guest RAM, ${path}, cannot be used: ${cause.message}; start QEMU with mem-path=FILE, a file that this process may open`,
      { path, bytes },
      cause,
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

/** @throws HypervisorError BAD_CONFIGURATION where nobody greets, or what answers is none; else as QmpClient.open() */
async function openMonitor(path: string): Promise<QmpClient> {
  const socket = await connectTo(path, 'monitor');
  const heard = { nothing: false };
  const timer = setTimeout(() => {
    if (socket.bytesRead > 0) return;
    heard.nothing = true;
    socket.destroy();
  }, GREETING_TIMEOUT_MS);
  try {
    return await QmpClient.open(socket);
  } catch (thrown) {
    const cause = asError(thrown);
    if (heard.nothing) throw taken(path, cause);
    if (socket.bytesRead === 0 || codeOf(cause) === 'DOMAIN_GONE') throw cause;
    const message = `what answers at ${path} is no QMP monitor: ${cause.message}; start QEMU with ${monitorOption(path)}`;
    throw badConfiguration(message, { key: 'monitor', value: path }, cause);
  } finally {
    clearTimeout(timer);
  }
}

function monitorOption(path: string): string {
  return `-qmp unix:${path},server=on,wait=off`;
}

/** A monitor has one client at a time; others are connected and wait. Libvirt never lets go of its own. */
function taken(path: string, cause: Error): HypervisorError {
  const libvirt = /\/libvirt\/(.*\/)?monitor\.sock$/.test(path);
  const own = '/run/romulus-NAME.qmp';
  const message = libvirt
    ? `${path} is libvirt's own monitor, and libvirt does not share it; give the domain a second one, with virsh edit: ` +
      `<domain … xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> and, as its last element, <qemu:commandline>` +
      `<qemu:arg value='-qmp'/><qemu:arg value='unix:${own},server=on,wait=off'/></qemu:commandline>; start the domain ` +
      `anew, and write "qmp: ${own}"`
    : `the monitor at ${path} does not greet: another program has it (a monitor has one client at a time), or QEMU ` +
      `hangs; give Romulus one of its own, beside the other: ${monitorOption(own)}`;
  return badConfiguration(message, { key: 'monitor', value: path }, cause);
}

/** What the system says of a socket that cannot be connected to. */
function unreachable(path: string, key: string, cause: Error): HypervisorError {
  const code = codeOf(cause);
  // More wait for its only client to go than it lets wait.
  if (code === 'EAGAIN') return taken(path, cause);
  const message =
    code === 'EACCES' || code === 'EPERM'
      ? `this process may not connect to ${path}: run as root or as the user that QEMU runs as`
      : `there is no QEMU at ${path}: ${cause.message}; start it with ${monitorOption(path)}`;
  return badConfiguration(message, { key, value: path }, cause);
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
      reject(unreachable(path, key, error));
    };
    socket.once('error', refused);
  });
}
