// A QEMU that the tests start, not Romulus: with a guest, and with a network card whose frames are seen from outside.
//
//   guest ─ card ─ netdev "lan", a UDP socket ─▶ World: counts the frames

import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { QmpClient } from '../../../src/hypervisor/qemu/qmp.js';
import { TICK_ELF } from './support.js';

/** How long a frame that must not come is waited for. */
const QUIET_MS = 40;
const ARRIVAL_MS = 5000;

/** Makes QEMU send a frame as if the guest had. */
export const ANNOUNCEMENT = { initial: 1, max: 1, rounds: 1, step: 1 };

/** What is on the other end of a netdev. */
export class World {
  frames = 0;
  readonly #socket: Socket = createSocket('udp4');

  static async open(): Promise<World> {
    const world = new World();
    world.#socket.on('message', () => world.frames++);
    world.#socket.bind(0, '127.0.0.1');
    await once(world.#socket, 'listening');
    return world;
  }

  /** Options as for -netdev socket. */
  get netdev(): string {
    return `udp=127.0.0.1:${this.#socket.address().port},localaddr=127.0.0.1:0`;
  }

  /** Says something; then as many frames more than before have arrived, and no more. */
  async hears(count: number, say: () => Promise<unknown>): Promise<void> {
    const expected = this.frames + count;
    await say();
    const limit = performance.now() + ARRIVAL_MS;
    while (this.frames < expected && performance.now() < limit) await sleep(1);
    await sleep(QUIET_MS);
    expect(this.frames).to.equal(expected);
  }

  async close(): Promise<void> {
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}

export class StrangeQemu {
  readonly monitor: string;
  readonly serial: string;
  readonly ram: string;
  readonly #folder: string;
  readonly #process: ChildProcess;

  private constructor(folder: string, options: readonly string[]) {
    this.#folder = folder;
    const file = (name: string) => join(folder, name);
    this.monitor = file('qmp');
    this.serial = file('serial');
    this.ram = file('ram');
    const socket = (path: string) => `unix:${path},server=on,wait=off`;
    this.#process = spawn(
      'qemu-system-x86_64',
      [
        ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-m', '16M'],
        ...['-object', `memory-backend-file,id=ram,size=16M,mem-path=${this.ram},share=on`],
        ...['-machine', 'q35,memory-backend=ram', '-qmp', socket(this.monitor)],
        ...[
          '-serial',
          socket(this.serial),
          '-kernel',
          TICK_ELF,
          '-append',
          'pages=1024 dirty=100 tick_ms=10',
        ],
        ...options,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
  }

  /** Its guest runs at once. `options` beside those for the sockets, the memory and the guest. */
  static async start(options: readonly string[]): Promise<StrangeQemu> {
    const qemu = new StrangeQemu(await mkdtemp(join(tmpdir(), 'romulus-strange-')), options);
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

  /** A monitor of one's own, when nobody else has it. */
  async ask<Answer>(question: (qmp: QmpClient) => Promise<Answer>): Promise<Answer> {
    const socket = connect(this.monitor);
    await once(socket, 'connect');
    const qmp = await QmpClient.open(socket);
    try {
      return await question(qmp);
    } finally {
      qmp.close();
    }
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
    await this.ask((qmp) => qmp.execute('announce-self', ANNOUNCEMENT));
  }

  async kill(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGKILL');
      await once(this.#process, 'close');
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}
