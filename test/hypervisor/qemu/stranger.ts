// A QEMU that the tests start, not Romulus: with a guest, and with a network card whose frames are seen from outside.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';
import { processesWith } from '../../support/processes.js';
import { QEMU } from '../../support/qemu.js';
import { announce, type World } from './outside.js';
import { TICK_ARGUMENTS } from './support.js';
import { temporaryDirectory } from '../../support/temporary.js';

/** Of the guest: in a file, shared or not, or in none. */
type Memory = 'shared' | 'not shared' | 'of its own';

function memoryArguments(memory: Memory, file: string): string[] {
  if (memory === 'of its own') return ['-machine', 'q35'];
  const share = memory === 'shared' ? 'on' : 'off';
  const backend = `memory-backend-file,id=ram,size=16M,mem-path=${file},share=${share}`;
  return ['-object', backend, '-machine', 'q35,memory-backend=ram'];
}

export class StrangeQemu {
  readonly monitor: string;
  readonly serial: string;
  readonly ram: string;
  readonly #folder: string;
  readonly #process: ChildProcess;

  private constructor(folder: string, options: readonly string[], memory: Memory, ramFolder: string) {
    this.#folder = folder;
    const file = (name: string) => join(folder, name);
    this.monitor = file('qmp');
    this.serial = file('serial');
    this.ram = join(ramFolder, 'ram');
    const socket = (path: string) => `unix:${path},server=on,wait=off`;
    this.#process = spawn(
      QEMU,
      [
        ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-m', '16M'],
        ...memoryArguments(memory, this.ram),
        ...['-qmp', socket(this.monitor), '-serial', socket(this.serial), ...TICK_ARGUMENTS, ...options],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
  }

  /**
   * Its guest runs at once. `options` beside those for the sockets, the memory and the guest; its RAM lies in `ramFolder`,
   * or with the rest.
   */
  static async start(
    options: readonly string[] = [],
    memory: Memory = 'shared',
    ramFolder?: string,
  ): Promise<StrangeQemu> {
    const folder = await temporaryDirectory('romulus-strange-');
    const qemu = new StrangeQemu(folder, options, memory, ramFolder ?? folder);
    const isThere = (path: string) =>
      access(path).then(
        () => true,
        () => false,
      );
    while (!((await isThere(qemu.monitor)) && (await isThere(qemu.serial)))) await sleep(5);
    return qemu;
  }

  /** The card has another name than in a QEMU of ours. */
  static network({ netdev }: World): string[] {
    return ['-netdev', `socket,id=lan,${netdev}`, '-device', 'virtio-net-pci,netdev=lan,id=door'];
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** A monitor that one of `options` made. */
  static async monitorAt(path: string): Promise<QmpClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    return QmpClient.open(socket);
  }

  lives(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** A monitor of one's own, when nobody else has it. */
  async ask<Answer>(question: (qmp: QmpClient) => Promise<Answer>): Promise<Answer> {
    const qmp = await StrangeQemu.monitorAt(this.monitor);
    try {
      return await question(qmp);
    } finally {
      qmp.close();
    }
  }

  /** Somebody is attached to it, or has been killed and is not cleaned up after. */
  isGuarded(): boolean {
    return this.guards().length > 0;
  }

  /** The guards' processes. */
  guards(): number[] {
    const ours = processesWith(this.monitor);
    return processesWith('guard.js').filter((pid) => ours.includes(pid));
  }

  async isRunning(): Promise<boolean> {
    const status = await this.ask((qmp) => qmp.execute('query-status'));
    return (status as { running: boolean }).running;
  }

  /** The names of the filters that Romulus has there. */
  async filters(): Promise<string[]> {
    const objects = await this.ask((qmp) => qmp.execute('qom-list', { path: '/objects' }));
    return (objects as { name: string }[])
      .map(({ name }) => name)
      .filter((name) => name.startsWith('romulus-'));
  }

  async speak(): Promise<void> {
    await this.ask(announce);
  }

  async kill(): Promise<void> {
    if (this.lives()) {
      this.#process.kill('SIGKILL');
      await once(this.#process, 'close');
    }
    await rm(this.ram, { force: true });
    await rm(this.#folder, { recursive: true, force: true });
  }
}
