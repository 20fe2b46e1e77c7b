// What a guest's network card is plugged into when a test wants to see what comes out: a UDP socket of the test.
//
//   guest ─ card ─ netdev, of kind socket ─▶ World: counts the frames

import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { NetworkDevice } from '../../../src/hypervisor/qemu/network/network.js';
import type { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';

/** How long a frame that must not come is waited for. */
export const QUIET_MS = 40;
const ARRIVAL_MS = 5000;

/** Makes QEMU send a frame, one, as if the guest had. */
export async function announce(qmp: QmpClient): Promise<void> {
  await qmp.execute('announce-self', { initial: 1, max: 1, rounds: 1, step: 1 });
}

/** A card whose frames nobody sees. */
export const UNHEARD = cardTo(9);

function cardTo(port: number): NetworkDevice {
  return { id: 'lan', backend: { kind: 'socket', options: netdevTo(port) } };
}

function netdevTo(port: number): string {
  return `udp=127.0.0.1:${port},localaddr=127.0.0.1:0`;
}

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
    return netdevTo(this.#socket.address().port);
  }

  get card(): NetworkDevice {
    return cardTo(this.#socket.address().port);
  }

  /** Says something; then as many frames more than before have arrived, and no more. */
  async hears(count: number, say: () => Promise<unknown>): Promise<void> {
    const expected = this.frames + count;
    await say();
    await this.heard(expected);
  }

  /** So many frames have arrived in all, and no more. */
  async heard(count: number): Promise<void> {
    const limit = performance.now() + ARRIVAL_MS;
    while (this.frames < count && performance.now() < limit) await sleep(1);
    await sleep(QUIET_MS);
    expect(this.frames).to.equal(count);
  }

  async close(): Promise<void> {
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}
