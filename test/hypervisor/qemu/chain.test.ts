// One guest over three generations: each standby is taken over to, and protected by the next one. At each checkpoint it is
// the guest, in RAM and in devices; it goes on without a gap, on its console and for its clients; and of those before it
// nothing stays.

import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Domain } from '../../../src/hypervisor/port.js';
import {
  openQemuSource,
  openQemuTarget,
  type DirtyWay,
  type QemuConfig,
  type QemuPrimary,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { splitState } from '../../../src/hypervisor/qemu/state/memory-section.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { ensureGuest, GUEST_TIMEOUT_MS, guestMachine } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { Protection } from '../protection.js';
import { Console, MIB, firstEvent, successiveTicksOf } from '../support.js';
import { CounterClient } from './guest/machine.js';
import { qemus } from './pair.js';
import { TEST_NAME, canTrack, needQemu, ramOf, tickGuest } from './support.js';

const GENERATIONS = 3;
const CHECKPOINTS = 4;
const LIMIT_MS = 180_000;
/** What a guest has between two checkpoints to answer a client. */
const GUEST_MS = 20;

/** What this process holds, and what there is in its name on this host. */
function held(): object {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    mounts: mounts.filter((line) => line.includes('romulus')),
    files: readdirSync(tmpdir()),
    processes: processesWith(TEST_NAME),
  };
}

/** Device states as the saver took them, compared with what the standby has when they are loaded. */
class DeviceStates {
  #context: Uint8Array = new Uint8Array(0);

  constructor(private readonly target: QemuTarget) {
    const checkpoint = target.checkpoint.bind(target);
    target.checkpoint = (given) => checkpoint((this.#context = given.slice()));
  }

  async expectEqual(where: string): Promise<void> {
    const { deviceState, qmp } = this.target.machine;
    deviceState.clear();
    await qmp.execute('xen-save-devices-state', { filename: deviceState.path, live: false });
    const loaded = splitState(deviceState.read()).devices;
    expect(Buffer.compare(loaded, splitState(this.#context).devices), `devices at ${where}`).to.equal(0);
  }
}

describe('qemu: generations of a guest', function () {
  this.timeout(GUEST_TIMEOUT_MS + LIMIT_MS);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const keep = <T extends Domain>(domain: T): T => {
    cleanup.add(() => domain.destroy());
    return domain;
  };

  /** Runs a self-checking guest through all generations; returns what it said. */
  async function chain(config: QemuConfig): Promise<string> {
    let source: QemuPrimary = keep(await openQemuSource(config));
    let screen = new Console(source);
    await source.start();
    let said = '';
    for (let generation = 0; generation < GENERATIONS; generation++) {
      await screen.until(() => screen.ticks().length >= 3);
      const target = keep(await openQemuTarget(config));
      const [now, devices] = [source, new DeviceStates(target)];
      for (const gate of now.gates) await gate.hold();
      const protection = await Protection.begin(now, target);
      let saidThen = '';
      for (let epoch = 0; epoch < CHECKPOINTS; epoch++) {
        await sleep(Math.random() * 20); // any moment will do: mid-check, mid-rewrite, mid-line
        let ram: Uint8Array = new Uint8Array(0);
        await protection.checkpoint(() => {
          saidThen = screen.text;
          ram = ramOf(now);
        });
        const where = `checkpoint ${generation}.${epoch}`;
        expect(ramOf(target).equals(ram), `RAM at ${where}`).to.equal(true);
        await devices.expectEqual(where);
      }
      expect(protection.dirtyPages.some((pages) => pages >= 100)).to.equal(true);
      await source.destroy();
      await protection.breakOff();
      said += saidThen;
      screen = new Console(target);
      await target.start();
      source = target.source();
      expect(qemus('standby')).to.have.length(1);
    }
    await screen.until(() => screen.ticks().length >= 3);
    await source.destroy();
    return said + screen.text;
  }

  for (const dirty of ['compare', 'fuse'] satisfies DirtyWay[]) {
    it(`goes on at the next tick, ${GENERATIONS} times, and leaves nothing (${dirty})`, async function () {
      if (!(await canTrack(dirty))) return this.skip();
      const temporary = process.env['TMPDIR'];
      process.env['TMPDIR'] = await cleanup.directory();
      cleanup.add(() => {
        if (temporary === undefined) delete process.env['TMPDIR'];
        else process.env['TMPDIR'] = temporary;
      });
      const config = tickGuest({
        ...{ dirty, trialLoads: 'each' as const },
        network: [{ id: 'net0', backend: { kind: 'user', options: 'restrict=on' } }],
        arguments: ['-rtc', 'clock=vm'], // the host's goes on between the two savings
      });
      await chain(config); // what Node makes once and keeps
      const before = held();
      expect(successiveTicksOf(await chain(config))[0]).to.equal(1);
      await until('nothing more is held than before', () => {
        return JSON.stringify(held()) === JSON.stringify(before);
      }).catch(() => expect(held()).to.deep.equal(before));
    });
  }

  it(`counts on for its clients, ${GENERATIONS} times, whenever its host dies`, async function () {
    const files = await ensureGuest();
    if (!files) return this.skip();
    const {
      machine,
      cpu,
      accelerator,
      arguments: boot,
    } = guestMachine(files, {
      ...{ workingSetPages: 1024, dirtyPages: 200, tickMs: 20, address: '10.0.2.15/24' },
    });
    const config: QemuConfig = {
      ...{ name: TEST_NAME, memoryBytes: 128 * MIB, machine, cpu, accelerator, arguments: boot },
      network: [{ id: 'lan', backend: { kind: 'user', options: 'restrict=on,hostfwd=tcp:127.0.0.1:0-:7' } }],
    };
    let source: QemuPrimary = keep(await openQemuSource(config));
    let screen = new Console(source);
    await source.start();
    let counted = 0;
    for (let generation = 0; generation < GENERATIONS; generation++) {
      await screen.until(() => screen.ticks().length >= 3);
      const [pid = NaN, ...others] = [...qemus('primary'), ...qemus('standby')];
      expect(others).to.deep.equal([]);
      const target = keep(await openQemuTarget(config));
      for (const gate of source.gates) await gate.hold();
      const protection = await Protection.begin(source, target);
      const client = await clientOf(source);
      for (let request = 0; request < 10; request++) {
        const answer = client.increment();
        await coveredBy(protection, answer);
        expect(await answer, `generation ${generation}`).to.equal(String(++counted));
      }
      const now = source;
      let ram: Uint8Array = new Uint8Array(0);
      await protection.checkpoint(() => (ram = ramOf(now)));
      expect(ramOf(target).equals(ram), `RAM in generation ${generation}`).to.equal(true);
      screen = new Console(target);
      const died = firstEvent(source);
      process.kill(pid, 'SIGKILL');
      expect(await died).to.have.property('kind', 'crashed');
      await source.destroy();
      await client.close();
      await protection.breakOff();
      await target.start();
      source = target.source();
    }
    const client = await clientOf(source);
    expect(await client.increment()).to.equal(String(counted + 1)); // its gates pass
    await client.close();
    await screen.until(() => screen.ticks().length >= 3);
    expect(screen.text).to.not.include('BAD');
    successiveTicksOf(screen.text.slice(screen.text.indexOf('\n') + 1));
  });
});

async function clientOf({ machine }: QemuPrimary): Promise<CounterClient> {
  const answer = await machine.qmp.human('info usernet');
  const port = Number(/TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(answer)?.[1]);
  const socket = net.connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  return new CounterClient(socket);
}

/** Takes checkpoints until what is waited for is here, or it is given up. */
async function coveredBy(protection: Protection, waited: Promise<unknown>): Promise<void> {
  let here = false;
  const settled = waited.catch(() => undefined).then(() => (here = true)); // looked at by the caller
  while (!here) {
    await protection.checkpoint();
    // For the guest to run, and for what it said to come here.
    await Promise.race([settled, sleep(GUEST_MS)]);
  }
}
