// QEMU's own live migration of the test guest over loopback, between two plain QEMUs that know nothing of us: the reference
// for our first synchronisation.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Duplex } from 'node:stream';
import { QmpClient } from '../../src/hypervisor/qemu/monitor/qmp.js';
import { isObject } from '../../src/hypervisor/qemu/monitor/qmp-parser.js';
import { QEMU } from '../support/qemu.js';
import { Ticks } from './qemu-pair.js';

export interface Migration {
  readonly totalMs: number;
  readonly downtimeMs: number;
}

class PlainQemu {
  readonly ticks = new Ticks();
  private constructor(
    private readonly child: ChildProcess,
    readonly qmp: QmpClient,
  ) {}

  static async start(guest: readonly string[], incoming: readonly string[] = []): Promise<PlainQemu> {
    const child = spawn(
      QEMU,
      [
        ...['-nodefaults', '-no-user-config', '-display', 'none'],
        ...['-accel', 'tcg', '-machine', 'q35', '-cpu', 'max'],
        ...['-m', '128M', '-chardev', 'socket,id=monitor,fd=3', '-mon', 'chardev=monitor,mode=control'],
        ...['-chardev', 'socket,id=serial,fd=4', '-serial', 'chardev:serial'],
        ...['-netdev', 'user,id=net,restrict=on', '-device', 'virtio-net-pci,netdev=net'],
        ...guest,
        ...incoming,
      ],
      { stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'] },
    );
    try {
      const [, , , monitor, serial] = child.stdio;
      const plain = new PlainQemu(child, await QmpClient.open(monitor as Duplex)); // Node's pipes are sockets
      serial?.on('error', () => undefined); // it ends with QEMU
      serial?.on('data', (bytes: Buffer) => plain.ticks.push(bytes));
      return plain;
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  async end(): Promise<void> {
    const closed = once(this.child, 'close');
    this.child.kill('SIGKILL');
    await closed;
    this.qmp.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** One migration of a guest that is at work. */
export async function liveMigration(guest: readonly string[]): Promise<Migration> {
  const source = await PlainQemu.start(guest);
  let target: PlainQemu | null = null;
  try {
    await source.ticks.until(5);
    const uri = `tcp:127.0.0.1:${await freePort()}`;
    target = await PlainQemu.start(guest, ['-incoming', uri]);
    // As fast as the link allows: QEMU's default is 128 MiB a second.
    await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
    await source.qmp.execute('migrate', { uri });
    for (;;) {
      const info = await source.qmp.execute('query-migrate');
      if (!isObject(info)) throw new Error('QEMU does not tell of its migration');
      if (info['status'] === 'completed') {
        await target.ticks.until(1);
        return { totalMs: Number(info['total-time']), downtimeMs: Number(info['downtime']) };
      }
      if (info['status'] === 'failed') throw new Error(`the migration failed: ${String(info['error-desc'])}`);
      await sleep(5);
    }
  } finally {
    await source.end();
    await target?.end();
  }
}
