// Launching a QEMU of our own. It ends with us, however we end: destroyed by its owner; killed when this process exits;
// and, by the kernel, when this process is killed (the parent-death signal, where setpriv is installed).

import { spawn, type ChildProcess } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import type { Duplex, Readable, Writable } from 'node:stream';
import { asError } from '../../../errors.js';
import type { Inventory } from '../../inventory.js';
import { HypervisorError, badConfiguration } from '../../port.js';
import { checkDisks, checkNetwork, checkRamBlocks } from '../monitor/check.js';
import {
  checkConfig,
  commandLine,
  Fd,
  RAM_ID,
  STATE_PATH,
  type QemuConfig,
  type QemuRole,
} from '../config.js';
import { DeviceStateFile } from '../state/device-state.js';
import type { DirtyTracking } from '../memory/dirty.js';
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
  const binary = config.binary ?? 'qemu-system-x86_64';
  const executable = await findExecutable(binary);
  if (executable === null) {
    throw badConfiguration(`there is no ${binary}: install QEMU (qemu-system-x86)`, {
      key: 'binary',
      value: binary,
    });
  }
  const setpriv = await findExecutable('setpriv');
  if (setpriv === null && (config.sharedDisks ?? []).length > 0) {
    throw badConfiguration(
      'there is no setpriv: install it (util-linux); without it a QEMU outlives a killed agent, and writes to its shared disks beside the secondary’s',
      { key: 'sharedDisks', value: (config.sharedDisks ?? []).join(' ') },
    );
  }
  const owned: { close(): unknown }[] = [];
  try {
    const ram = memory ?? (await openTracking(config, { standby: false, signal }));
    if (!memory) owned.push(ram.tracking);
    const deviceState = new DeviceStateFile(await openAnonymousFile(0), STATE_PATH);
    owned.push(deviceState);
    const stateImage = role === 'standby' ? await StateImage.open() : null;
    if (stateImage) owned.push(stateImage);
    const qemuArguments = commandLine(config, role);
    const [command, ...rest] =
      setpriv === null
        ? [executable, ...qemuArguments]
        : [setpriv, '--pdeathsig', 'KILL', executable, ...qemuArguments];
    const { ramFd } = ram.tracking;
    const child = spawn(command, rest, {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', ramFd, deviceState.fd, ...(stateImage ? [stateImage.fd] : [])],
      detached: true, // a Ctrl-C is for us: a QEMU that ends over it has crashed, and is taken over
    });
    const machine = new LaunchedMachine(config, child, { ram, deviceState, stateImage, owned });
    try {
      await machine.connect();
      await checkSaveable(machine.qmp);
      await checkRamBlocks(machine.qmp, RAM_ID);
      await checkDisks(machine.qmp, config.sharedDisks ?? []);
      await checkNetwork(
        machine.qmp,
        (config.network ?? []).map(({ id }) => id),
      );
      machine.inventory = await takeInventory(machine.qmp, RAM_ID);
      machine.qmp.limit();
      return machine;
    } catch (error) {
      throw await machine.failed(asError(error));
    }
  } catch (error) {
    for (const part of owned.reverse()) await part.close();
    throw error;
  }
}

interface Parts {
  readonly ram: ChosenTracking;
  readonly deviceState: DeviceStateFile;
  readonly stateImage: StateImage | null;
  /** What the machine closes, in the order in which it was made; each may be closed twice. */
  readonly owned: readonly { close(): unknown }[];
}

class LaunchedMachine implements QemuMachine {
  readonly name: string;
  readonly memoryBytes: number;
  readonly tracking: DirtyTracking;
  readonly trackingReason: string;
  readonly deviceState: DeviceStateFile;
  readonly serial: Duplex;
  readonly ramBlock = RAM_ID;
  readonly directory = null;
  readonly stateImage: StateImage | null;
  readonly guard = null;
  inventory: Inventory = {};
  readonly gone: Promise<string>;
  readonly #child: ChildProcess;
  readonly #owned: Parts['owned'];
  readonly #monitor: QmpStreams;
  readonly #unhook: () => void;
  #qmp: QmpClient | null = null;
  #stderr = '';
  #closed: Promise<void> | null = null;

  constructor(config: QemuConfig, child: ChildProcess, { ram, deviceState, stateImage, owned }: Parts) {
    this.name = config.name;
    this.memoryBytes = config.memoryBytes;
    this.tracking = ram.tracking;
    this.trackingReason = ram.reason;
    this.deviceState = deviceState;
    this.stateImage = stateImage;
    this.#owned = owned;
    this.#child = child;
    const stderr = child.stdio[2] as Readable; // a pipe was asked for
    stderr.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-STDERR_BYTES_MAX);
    });
    this.gone = new Promise((resolve) => {
      child.on('error', (error) => resolve(error.message));
      // 'close', not 'exit': what it wrote to standard error is here, too.
      child.on('close', (code, signal) => {
        const how = signal === null ? `QEMU ended with code ${String(code)}` : `QEMU was killed by ${signal}`;
        const said = this.#stderr.trim();
        resolve(withAdvice(said === '' ? how : `${how}: ${said}`));
      });
    });
    // Pipes were asked for.
    this.#monitor = { readable: child.stdio[1] as Readable, writable: child.stdio[0] as Writable };
    this.serial = socketOf(child, Fd.SERIAL);
    this.#unhook = onProcessExit(() => child.kill('SIGKILL'));
  }

  get qmp(): QmpClient {
    if (!this.#qmp) throw new HypervisorError('WRONG_STATE', 'QEMU is not connected yet');
    return this.#qmp;
  }

  get said(): string {
    return this.#stderr;
  }

  async connect(): Promise<void> {
    this.#qmp = await QmpClient.open(this.#monitor, START_TIMEOUT_MS);
  }

  /** Ends it, and says why it could not be used: QEMU's own words if it ended by itself. */
  async failed(error: Error): Promise<Error> {
    const endedByItself = error instanceof HypervisorError && error.code === 'DOMAIN_GONE';
    const reason = endedByItself ? await this.gone : '';
    await this.close();
    if (!endedByItself) return error;
    const { key, value } = adviceOn(reason) ?? {};
    return badConfiguration(`QEMU does not start: ${reason}`, {
      name: this.name,
      ...(key !== undefined && { key, value }),
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#child.kill('SIGKILL');
    // Memory that is not ours outlives us.
    if (this.#owned.includes(this.tracking)) this.tracking.abandon();
    await this.gone;
    this.#unhook();
    this.#qmp?.close();
    this.#monitor.readable.destroy();
    this.#monitor.writable.destroy();
    this.serial.destroy();
    for (const part of this.#owned.toReversed()) await part.close();
  }
}

function socketOf(child: ChildProcess, fd: number): Duplex {
  const socket = child.stdio[fd] as Duplex; // a pipe of Node's is a socket pair
  // QEMU's end is reported by `gone`; what follows from it on its sockets is no news.
  socket.on('error', () => undefined);
  return socket;
}

async function findExecutable(command: string): Promise<string | null> {
  const candidates = command.includes('/')
    ? [command]
    : (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, command));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not this one.
    }
  }
  return null;
}
