// Launching a QEMU of our own. It ends with us, however we end: destroyed by its owner; killed when this process exits;
// and, by the kernel, when this process is killed (the parent-death signal, where setpriv is installed).

import { spawn, type ChildProcess } from 'node:child_process';
import type { Duplex, Readable, Writable } from 'node:stream';
import { codeOf } from '../../../errors.js';
import { badConfiguration, unsupported } from '../../port.js';
import { findDisks } from '../disks/find.js';
import { checkNetwork, checkRamBlocks } from '../monitor/check.js';
import {
  checkConfig,
  commandLine,
  Fd,
  RAM_ID,
  STATE_PATH,
  type QemuConfig,
  type QemuRole,
} from '../config.js';
import { replicatedDisks } from '../disks/drives.js';
import { DeviceStateFile } from '../state/device-state.js';
import type { DirtyTracking } from '../memory/dirty.js';
import { findExecutable } from './executable.js';
import { onProcessExit } from './exit-hooks.js';
import { takeInventory } from '../monitor/inventory.js';
import type { QemuMachine } from '../machine.js';
import { checkTaps } from '../network/network.js';
import { QmpClient, type QmpStreams } from '../monitor/qmp.js';
import { openAnonymousFile } from '../memory/ram-file.js';
import { checkSaveable } from '../monitor/saveable.js';
import { adviceOn, withAdvice } from './start-errors.js';
import { StateImage } from '../state/state-image.js';
import { openTracking, type ChosenTracking } from '../memory/tracking.js';

/** Octets of QEMU's standard error that are kept for the error. */
const STDERR_BYTES_MAX = 4096;
const START_TIMEOUT_MS = 30_000;

export interface LaunchOptions {
  readonly role: QemuRole;
  /** Guest RAM that is there already, and stays its owner's. Default: new, and the machine's. */
  readonly memory?: ChosenTracking;
  /** Gives up while memory is reserved, with FAILED. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Stopped before its first instruction.
 * @throws HypervisorError BAD_CONFIGURATION, OUT_OF_MEMORY or FAILED; then nothing is left
 */
export async function launchQemu(
  config: QemuConfig,
  { role, memory, signal }: LaunchOptions,
): Promise<QemuMachine> {
  checkConfig(config);
  await checkTaps(config.network ?? []);
  const command = await findCommand(config);
  // What the machine closes, in the order in which it was made.
  const owned: { close(): unknown }[] = [];
  const end = async (): Promise<void> => {
    for (const part of owned.reverse()) await part.close();
  };
  try {
    const { tracking, reason } = memory ?? (await openTracking(config, { standby: false, signal }));
    if (!memory) owned.push(tracking);
    const deviceState = new DeviceStateFile(await openAnonymousFile(0), STATE_PATH);
    owned.push(deviceState);
    const stateImage = role === 'standby' ? await StateImage.open() : null;
    if (stateImage) owned.push(stateImage);
    const fds = [tracking.ramFd, deviceState.fd, ...(stateImage ? [stateImage.fd] : [])];
    const qemu = new QemuProcess([...command, ...commandLine(config, role)], fds);
    owned.push({ close: () => qemu.end(memory ? null : tracking) });
    const { qmp, inventory, disks } = await inspect(qemu, config);
    let closed: Promise<void> | null = null;
    return {
      name: config.name,
      memoryBytes: config.memoryBytes,
      ramBlock: RAM_ID,
      inventory,
      disks,
      replication: { relaxed: relaxedDisks(config), ...config.replication },
      qmp,
      tracking,
      trackingReason: reason,
      deviceState,
      stateImage,
      serial: qemu.serial,
      directory: null,
      monitor: null,
      guard: null,
      gone: qemu.gone,
      get said() {
        return qemu.said;
      },
      close: () => (closed ??= end()),
    };
  } catch (error) {
    await end();
    throw error;
  }
}

/** @throws HypervisorError BAD_CONFIGURATION */
async function findCommand({
  binary = 'qemu-system-x86_64',
  sharedDisks = [],
  isolated = false,
}: QemuConfig): Promise<string[]> {
  const alone = isolated ? await isolation() : [];
  const executable = await findExecutable(binary);
  if (executable === null) {
    const facts = { key: 'binary', value: binary };
    throw badConfiguration(`there is no ${binary}: install QEMU (qemu-system-x86)`, facts);
  }
  const setpriv = await findExecutable('setpriv');
  if (setpriv !== null) return [...alone, setpriv, '--pdeathsig', 'KILL', executable];
  if (sharedDisks.length === 0) return [...alone, executable];
  throw badConfiguration(
    'there is no setpriv: install it (util-linux); without it a QEMU outlives a killed agent, and writes to its shared disks beside the secondary’s',
    { key: 'sharedDisks', value: sharedDisks.join(' ') },
  );
}

/**
 * What runs a command in a network namespace of its own. Before setpriv: who changes namespaces loses what that has set.
 * @throws HypervisorError UNSUPPORTED
 */
async function isolation(): Promise<string[]> {
  const unshare = await findExecutable('unshare');
  if (unshare === null) throw unsupported('there is no unshare: install it (util-linux)');
  // Who is not root may have a network where he is root of a user namespace.
  return [unshare, '--net', ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'])];
}

/** What it is, and that it can be replicated. @throws HypervisorError, in QEMU's own words if it ended by itself */
async function inspect(
  qemu: QemuProcess,
  { name, sharedDisks = [], network = [] }: QemuConfig,
): Promise<Pick<QemuMachine, 'qmp' | 'inventory' | 'disks'>> {
  try {
    const qmp = await qemu.connect();
    await checkSaveable(qmp);
    const disks = await findDisks(qmp, sharedDisks);
    await checkRamBlocks(qmp, RAM_ID);
    const netdevs = network.map(({ id }) => id);
    await checkNetwork(qmp, netdevs);
    const inventory = await takeInventory(qmp, RAM_ID, disks.disks);
    qmp.limit();
    return { qmp, inventory, disks };
  } catch (error) {
    if (codeOf(error) !== 'DOMAIN_GONE') throw error;
    const reason = await qemu.gone;
    const { key, value } = adviceOn(reason) ?? {};
    const facts = { name, ...(key !== undefined && { key, value }) };
    throw badConfiguration(`QEMU does not start: ${reason}`, facts);
  }
}

class QemuProcess {
  readonly serial: Duplex;
  readonly gone: Promise<string>;
  /** The last of its standard error. */
  said = '';
  readonly #child: ChildProcess;
  readonly #monitor: QmpStreams;
  readonly #unhook: () => void;
  #qmp: QmpClient | null = null;

  /** `fds`: what it inherits, from Fd.RAM on. */
  constructor([command = '', ...rest]: readonly string[], fds: readonly number[]) {
    const child = spawn(command, rest, {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', ...fds],
      detached: true, // a Ctrl-C is for us: a QEMU that ends over it has crashed, and is taken over
    });
    this.#child = child;
    // Pipes were asked for; one beyond the first three is a socket pair.
    this.#monitor = { readable: child.stdout as Readable, writable: child.stdin as Writable };
    this.serial = child.stdio[Fd.SERIAL] as Duplex;
    // QEMU's end is reported by `gone`; what follows from it on its sockets is no news.
    this.serial.on('error', () => undefined);
    child.stderr?.on('data', (chunk: Buffer) => {
      this.said = (this.said + chunk.toString()).slice(-STDERR_BYTES_MAX);
    });
    this.gone = new Promise((resolve) => {
      child.on('error', (error) => resolve(error.message));
      // 'close', not 'exit': what it wrote to standard error is here, too.
      child.on('close', (code, signal) => {
        const how = signal === null ? `QEMU ended with code ${String(code)}` : `QEMU was killed by ${signal}`;
        const said = this.said.trim();
        resolve(withAdvice(said === '' ? how : `${how}: ${said}`));
      });
    });
    this.#unhook = onProcessExit(() => child.kill('SIGKILL'));
  }

  /** @throws as QmpClient.open() */
  async connect(): Promise<QmpClient> {
    return (this.#qmp = await QmpClient.open(this.#monitor, START_TIMEOUT_MS));
  }

  /** `memory`: its RAM, if that is not to outlive it. */
  async end(memory: DirtyTracking | null): Promise<void> {
    this.#child.kill('SIGKILL');
    memory?.abandon();
    await this.gone;
    this.#unhook();
    this.#qmp?.close();
    for (const stream of [this.#monitor.readable, this.#monitor.writable, this.serial]) stream.destroy();
  }
}

/** The ids of those whose flushes need not reach this host's disk. */
function relaxedDisks(config: QemuConfig): string[] {
  return replicatedDisks(config).flatMap(({ id, options }) => (options.durability === 'relaxed' ? [id] : []));
}
